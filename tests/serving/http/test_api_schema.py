"""Requests made up from the OpenAPI document, those that keep it and those that do not.

Nothing is answered with 500, nothing in another shape than the document says, and what breaks a
rule of the document is refused.
"""

from __future__ import annotations

import collections
import contextlib
import re
import time
import uuid

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from recsys.config.serving import ServiceSettings
from serving.connection import connect
from serving.events.event_stream import EventStream
from serving.events.sessions import Sessions
from serving.http.api_keys import ApiKeys, new_key
from serving.http.app import create_app
from serving.request.service import RecommendationService
from serving.store import GenerationStore
from tests.serving.stores import publish

schemathesis = pytest.importorskip("schemathesis")

POSITIVE = schemathesis.GenerationMode.POSITIVE
SECRET, KEY = new_key("all", ["read", "feedback", "admin"])
OPERATIONS = [
    "POST /v1/recommend",
    "POST /v1/recommend/batch",
    "POST /v1/similar",
    "GET /v1/similar",
    "POST /v1/rank",
    "POST /v1/explain",
    "POST /v1/events",
    "POST /v1/items/hide",
    "POST /v1/items/restore",
    "POST /v1/items",
    "POST /v1/admin/flip",
    "POST /v1/admin/rollback",
    "GET /v1/generations",
    "GET /v1/experiments",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
]
UNTOLD = re.compile("one is there twice|seconds since 1970|cursor")
"""Rules that a JSON schema cannot tell, in the words of the answer."""
NEVER_DONE = {
    "POST /v1/explain": 409,  # no model is loaded
    "POST /v1/items": 409,  # made-up items are new
    "POST /v1/admin/flip": 404,  # made-up generations are unknown
}


@pytest.fixture(scope="module")
def schema(embedded_directory):
    client = connect("embedded", directory=embedded_directory)
    store = GenerationStore(client, namespace=f"t{uuid.uuid4().hex[:10]}")
    publish(store, "g0", {"ann": [5, 6, 7]}, ttl_s=86_400)
    publish(store, "g1", {"ann": [5, 6, 7, 8], "7": [9]}, ttl_s=86_400)
    sessions = Sessions(store.client, store.keys)
    service = RecommendationService(
        store,
        sessions=sessions,
        stream=EventStream(store.client, store.keys, sessions=sessions),
        settings=ServiceSettings(deadline_s=30.0),
    )
    app = create_app(service, keys=ApiKeys([KEY]), admin=True)
    config = {"generation": {"with-security-parameters": False}}
    yield schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=schemathesis.Config.from_dict(config)
    )
    service.close()
    client.close()


def test_the_list_of_operations_is_whole(schema):
    assert [one.ok().label for one in schema.get_all_operations()] == OPERATIONS


def plausible(value):
    """``value`` with whole numbers as they are read, and moments that are not years ago.

    JSON schema takes 5.0 for an integer, and what makes the numbers up rounds their bounds.
    """
    if isinstance(value, list):
        return [plausible(one) for one in value]
    if isinstance(value, dict):
        now = {"timestamp": time.time()} if "timestamp" in value else {}
        return {name: plausible(one) for name, one in value.items()} | now
    if type(value) in (int, float) and value == value // 1:
        return max(-(2**53), min(2**53, int(value)))
    return value


def ask_around(schema, label, mode, *, max_examples):
    """How often each status was answered to requests that keep the document, or do not."""
    operation = next(
        found for one in schema.get_all_operations() if (found := one.ok()).label == label
    )
    checks = schemathesis.checks
    excluded = [checks.positive_data_acceptance]
    if label.endswith("/batch"):
        excluded.append(checks.negative_data_rejection)  # its questions are refused one by one
    seen = collections.Counter()

    @settings(
        max_examples=max_examples,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case):
        if mode is POSITIVE:
            case.body = plausible(case.body)
        response = case.call(headers={"Authorization": f"Bearer {SECRET}"})
        seen[response.status_code] += 1
        case.validate_response(response, excluded_checks=excluded)
        if mode is POSITIVE and response.status_code in (400, 422):
            assert UNTOLD.search(response.json()["error"]["message"]), (
                response.text,
                ascii(case.body),
            )

    with contextlib.suppress(Unsatisfiable):  # nothing can be broken
        ask()
    return seen


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_keep_the_document(schema, label, mode):
    seen = ask_around(schema, label, mode, max_examples=10)
    assert mode is not POSITIVE or seen[NEVER_DONE.get(label, 200)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_keep_the_document_often(schema, label, mode):
    ask_around(schema, label, mode, max_examples=100)
