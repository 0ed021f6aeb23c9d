"""What each operation asks of the service and answers, and what happens when too much is asked."""

from __future__ import annotations

import json
import threading
import time

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient

from recsys.config.experiment_design import Arm, Experiment
from serving import errors
from serving.http.api_keys import ApiKeys, new_key
from serving.http.app import create_app
from serving.http.error_table import ERRORS
from serving.request.experiments import Experiments
from tests.serving.http.http_fake import FakeService


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def web(service):
    with TestClient(create_app(service)) as web:
        yield web


def code_of(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]["code"]


def event(**changed):
    return {"user_id": "ann", "item_id": "i1", "timestamp": time.time(), **changed}


def test_every_field_of_a_question_reaches_the_service(web, service):
    question = {
        "user_id": "ann",
        "k": 3,
        "exclude": ["i1"],
        "only": ["i2", 3],
        "context": {"recent_items": ["i4"]},
        "diversity": 0.5,
        "threshold": True,
        "segment": "DE",
        "cursor": "abc",
        "debug": True,
    }
    answer = web.post("/v1/recommend", json=question).json()
    (asked,) = service.asked
    context = question.pop("context")
    assert asked.request_id == answer["request_id"]
    assert asked.recent_items == context["recent_items"]
    assert {name: getattr(asked, name) for name in question} == {**question, "only": ["i2", "3"]}
    assert answer["cursor"] == "next"
    assert answer["arms"] == {"slate": "diverse"}
    assert answer["policy"] == "ranker"
    assert answer["stages"] == [
        {"stage": "cache", "ms": 0.5, "outcome": "answered", "detail": None}
    ]


def test_a_batch_answers_each_question(web, service):
    questions = [{"user_id": "ann", "k": 2}, {"k": 0}, {"user_id": "bob", "k": 1}, "what", 7]
    response = web.post(
        "/v1/recommend/batch", json={"questions": questions}, headers={"X-Request-Id": "r"}
    )
    answers = response.json()["answers"]
    assert [one["status"] for one in answers] == [200, 422, 200, 422, 422]
    assert [len(one["answer"]["items"]) for one in answers if one["answer"]] == [2, 1]
    assert [one["answer"]["request_id"] for one in answers if one["answer"]] == ["r.0", "r.2"]
    assert answers[1]["error"] == {
        "code": "invalid_request",
        "message": "k: Input should be greater than or equal to 1",
        "request_id": "r.1",
    }
    assert [one["error"] is None for one in answers] == [True, False, True, False, False]
    assert [one.user_id for one in service.asked] == ["ann", "bob"]


def test_a_question_that_fails_takes_no_other_with_it(web, service):
    answer = service.recommend

    def recommend(asked, **options):
        if asked.cursor == "old":
            raise errors.CursorExpired("generation g0 is gone")
        return answer(asked, **options)

    service.recommend = recommend
    questions = [{"user_id": "ann", "cursor": one} for one in ("new", "old", "new")]
    answers = web.post("/v1/recommend/batch", json={"questions": questions}).json()["answers"]
    assert [one["status"] for one in answers] == [200, 410, 200]
    assert answers[1]["error"]["code"] == "cursor_expired"


def test_a_batch_has_1_to_100_questions(web):
    assert code_of(web.post("/v1/recommend/batch", json={"questions": []}), 422)
    many = {"questions": [{}] * 101}
    assert code_of(web.post("/v1/recommend/batch", json=many), 422) == "too_many_items"


def test_rank(web, service):
    body = {"user_id": "ann", "item_ids": ["a", "b", 3], "context": {"recent_items": ["z"]}}
    answer = web.post("/v1/rank", json=body).json()
    assert [one["item_id"] for one in answer["items"]] == ["3", "b", "a"]
    assert answer["source"] == "rank"
    assert service.asked[0].recent_items == ["z"]


@pytest.mark.parametrize(("path", "most"), [("/v1/rank", 1000), ("/v1/explain", 20)])
def test_given_lists_hold_some_different_items(web, path, most):
    def ask(item_ids):
        return web.post(path, json={"item_ids": item_ids})

    assert ask([str(number) for number in range(most)]).status_code == 200
    assert code_of(ask([str(number) for number in range(most + 1)]), 422) == "too_many_items"
    assert code_of(ask([]), 422) == "invalid_request"
    twice = ask(["a", "a"])
    assert code_of(twice, 422) == "invalid_request"
    assert "one is there twice" in twice.json()["error"]["message"]


def test_explain(web):
    answer = web.post("/v1/explain", json={"user_id": "ann", "item_ids": ["i1"]}).json()
    assert answer.pop("request_id")
    assert answer == {
        "items": [
            {
                "item_id": "i1",
                "place": 1,
                "score": 0.5,
                "held_back": None,
                "retrieval": {"popular": {"score": 0.5, "rank": 3}},
                "features": {"age": None},
                "contributions": {"age": 1.0},
                "base": 0.0,
            }
        ],
        "generation": "g1",
        "source": "cache",
        "reason": None,
    }


def test_a_process_without_a_model_says_so(web, service):
    service.fail = errors.NotSupported("no model is loaded")
    assert code_of(web.post("/v1/rank", json={"item_ids": ["a"]}), 409) == "not_supported"


def test_events_are_counted_once(web):
    body = {"events": [event(event_id="e1"), event(event_id="e2", event="buy", weight=2)]}
    first, again = (web.post("/v1/events", json=body).json() for _ in range(2))
    assert first == {"accepted": 2, "duplicates": 0, "unknown_items": 0}
    assert again == {"accepted": 0, "duplicates": 2, "unknown_items": 0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"timestamp": -1}, "events.0.timestamp: Input should be greater than or equal to 0"),
        ({"timestamp": time.time() * 1000}, "timestamp must be seconds since 1970 in UTC, at most"),
        ({"timestamp": time.time() + 3600}, "timestamp must be seconds since 1970 in UTC, at most"),
        ({"timestamp": 0}, "timestamp must be seconds since 1970 in UTC, at most"),
        ({"timestamp": "2026-01-01"}, "events.0.timestamp: Input should be a valid number"),
        ({"timestamp": None}, "events.0.timestamp: Input should be a valid number"),
        ({"weight": -1}, "events.0.weight: Input should be greater than or equal to 0"),
        ({"event": "buy it"}, "events.0.event: String should match pattern"),
        ({"event_id": ""}, "events.0.event_id: String should have at least 1 character"),
        ({"item_id": None}, "events.0.item_id: Input should be an id"),
        ({"price": 3}, "events.0.price: Extra inputs are not permitted"),
    ],
)
def test_events_that_break_a_rule(web, service, changed, message):
    response = web.post("/v1/events", json={"events": [event(**changed), event()]})
    assert code_of(response, 422) == "invalid_request"
    assert message in response.json()["error"]["message"]
    assert not service.recorded


def test_a_post_has_1_to_1000_events(web):
    assert code_of(web.post("/v1/events", json={"events": []}), 422) == "invalid_request"
    many = [event(event_id=str(number)) for number in range(1001)]
    assert code_of(web.post("/v1/events", json={"events": many}), 422) == "too_many_items"
    found = web.post("/v1/events", json={"events": many[1:]})
    assert found.json()["accepted"] == 1000


@pytest.fixture
def boss(service):
    secret, key = new_key("boss", ["admin"])
    with TestClient(create_app(service, keys=ApiKeys([key]), admin=True)) as web:
        web.headers["X-Api-Key"] = secret
        yield web


def test_items_are_hidden_and_shown_again(boss, service):
    hidden = boss.post("/v1/items/hide", json={"item_ids": ["i1", "i2", "new"]})
    assert hidden.json() == {"changed": 2, "unknown": ["new"]}
    assert service.hidden == {"i1", "i2"}
    shown = boss.post("/v1/items/restore", json={"item_ids": ["i1"]})
    assert shown.json() == {"changed": 1, "unknown": []}
    shown = boss.post("/v1/items", json={"items": [{"item_id": "i2"}]})
    assert shown.json() == {"changed": 1, "unknown": []}
    assert service.hidden == set()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"item_id": "i1"}, {"item_id": "new"}], "1 of 2 items are new to the served generation"),
        ([{"item_id": "i1", "attributes": {"price": 3.5}}], "attributes come with the data of"),
    ],
)
def test_new_items_wait_for_the_next_training_run(boss, service, items, message):
    service.hidden.add("i1")
    response = boss.post("/v1/items", json={"items": items})
    assert code_of(response, 409) == "not_supported"
    assert message in response.json()["error"]["message"]
    assert service.hidden == set()


def test_the_head_is_moved(boss):
    flipped = boss.post("/v1/admin/flip", json={"generation": "g1", "expected_epoch": 1})
    assert flipped.json() == {
        "generation": "g1",
        "previous": "g0",
        "epoch": 2,
        "flipped_at": 1e9,
    }
    assert boss.post("/v1/admin/rollback").json()["generation"] == "g0"
    for name in ("", "../g1", "g 1", "x" * 129):
        response = boss.post("/v1/admin/flip", json={"generation": name})
        assert code_of(response, 422) == "invalid_request"


def test_experiments_and_the_arms_of_a_user(web, service):
    assert web.get("/v1/experiments").json() == {"experiments": [], "arms": {}}
    declared = Experiment(
        name="slate", traffic=0.5, arms=[Arm(name="plain"), Arm(name="diverse", weight=3)]
    )
    service.experiments = Experiments([declared])
    (one,) = web.get("/v1/experiments").json()["experiments"]
    assert one == {
        "name": "slate",
        "state": "running",
        "layer": None,
        "traffic": 0.5,
        "arms": {"plain": 0.25, "diverse": 0.75},
        "start": None,
        "end": None,
    }
    for number in range(20):
        found = web.get("/v1/experiments", params={"user_id": f"u{number}"}).json()
        assert found["arms"] == service.experiments.assign(f"u{number}", time.time()).arms
    assert code_of(web.get("/v1/experiments?user_id=%00"), 422) == "invalid_request"


def test_readiness_can_be_held_back(service):
    with TestClient(create_app(service, held=lambda: "draining")) as web:
        response = web.get("/health/ready")
    assert response.status_code == 503
    assert response.json() == {"status": "not_ready", "reason": "draining", "generation": "g1"}


def test_metrics_can_be_left_out(service):
    with TestClient(create_app(service, with_metrics=False)) as web:
        assert code_of(web.get("/metrics"), 404) == "not_found"


SLATES = [
    ("/v1/recommend", {"user_id": "ann"}),
    ("/v1/similar", {"item_id": "i1"}),
]
OTHERS = [
    ("/v1/recommend/batch", {"questions": [{}]}),
    ("/v1/rank", {"item_ids": ["a"]}),
    ("/v1/explain", {"item_ids": ["a"]}),
    ("/v1/events", {"events": [event()]}),
]


class Held(FakeService):
    """Works on nothing before it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def _note(self, asked):
        super()._note(asked)
        if threading.current_thread().name.startswith("recsys-http"):
            self.go.wait(30)


def test_too_many_requests():
    """Slates come from memory, flagged; all else is refused, and nothing is lost silently."""
    service = Held()

    async def ask_all():
        app = create_app(service, max_in_flight=1, max_waiting=2)
        transport = httpx.ASGITransport(app=app)
        found, held = [], []
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://t", timeout=60) as web,
            anyio.create_task_group() as group,
        ):

            async def ask(into, path, body):
                into.append(await web.post(path, json=body))

            for _ in range(3):
                group.start_soon(ask, held, *SLATES[0])
            while not service.asked:
                await anyio.sleep(0.001)
            for path, body in SLATES + OTHERS:
                await ask(found, path, body)
            ready = await web.get("/health/ready")
            metrics = (await web.get("/metrics")).text
            service.go.set()
        return found, held, ready, metrics

    found, held, ready, metrics = anyio.run(ask_all)
    assert [one.status_code for one in held] == [200] * 3
    assert [one.json()["reason"] for one in held] == [None] * 3
    slates, others = found[:2], found[2:]
    assert [one.status_code for one in slates] == [200] * 2
    assert slates[0].json()["reason"] == "overloaded"
    assert [code_of(one, 503) for one in others] == ["overloaded"] * 4
    assert {one.headers["retry-after"] for one in others} == {"1"}
    assert ready.status_code == 200
    assert "recsys_requests_shed_total 2.0" in metrics
    assert "recsys_requests_waiting 2.0" in metrics
    assert not service.recorded


def test_an_answer_that_breaks_its_rules_is_not_the_clients_doing(web, service):
    service.not_ready = lambda: 5  # no reason is a number
    response = web.get("/health/ready")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")


def test_the_application_ends_when_the_work_under_way_has():
    """Whoever made the service may close it then, and is the only one who does."""
    ends = []

    class Slow(FakeService):
        def recommend(self, asked, **options):
            time.sleep(0.05)
            ends.append("answered")
            return super().recommend(asked, **options)

        def close(self):
            ends.append("closed")

    service = Slow()
    with TestClient(create_app(service)) as web:
        asking = threading.Thread(target=web.post, args=("/v1/recommend",), kwargs={"json": {}})
        asking.start()
        asking.join()
    assert ends == ["answered"]


def test_the_document_describes_every_operation(web):
    document = web.get("/openapi.json").json()
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) >= {
        ("POST", "/v1/recommend"),
        ("POST", "/v1/recommend/batch"),
        ("POST", "/v1/rank"),
        ("POST", "/v1/similar"),
        ("GET", "/v1/similar"),
        ("POST", "/v1/explain"),
        ("POST", "/v1/events"),
        ("POST", "/v1/items"),
        ("POST", "/v1/items/hide"),
        ("POST", "/v1/items/restore"),
        ("GET", "/v1/generations"),
        ("GET", "/v1/experiments"),
        ("POST", "/v1/admin/flip"),
        ("POST", "/v1/admin/rollback"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
    }
    told = json.dumps(document["paths"])
    for code in sorted(set(ERRORS) - {"bad_request", "not_found", "method_not_allowed"}):
        assert f"`{code}`" in told, code
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
    for (method, path), operation in operations.items():
        is_open = path.startswith("/health/")
        assert ("security" in operation) != is_open, (method, path)
        assert ("401" in operation["responses"]) != is_open
        assert operation["description"]
