from __future__ import annotations

import json
import logging

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient

from serving import errors
from serving.api import create_app
from serving.http_errors import ERROR_TABLE, row_for
from serving.messages import RecommendRequest
from serving.service import RecommendationService
from serving.settings import ServiceSettings

USERS = {"ann": [5, 6, 7, 8], "7": [9]}


@pytest.fixture
def service(store, make):
    make.publish(store, "g1", USERS, neighbours=[make.user_batch({"i1": [2, 3]})])
    return RecommendationService(store, settings=ServiceSettings(deadline_s=30.0))


@pytest.fixture
def web(service):
    with TestClient(create_app(service, max_body_bytes=20_000)) as web:
        yield web


def error_of(response, status):
    assert response.status_code == status
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message", "request_id"]
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return body["error"]


def test_recommend(web):
    response = web.post(
        "/v1/recommend",
        json={"user_id": "ann", "k": 2, "exclude": ["i5"], "context": {"recent_items": ["i8"]}},
        headers={"X-Request-Id": "abc-1"},
    )
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "abc-1"
    assert response.json() == {
        "items": [
            {"item_id": "i6", "score": 0.875, "source": "candidates", "propensity": 1.0},
            {"item_id": "i7", "score": 0.75, "source": "candidates", "propensity": 1.0},
        ],
        "source": "cache",
        "generation": "g1",
        "request_id": "abc-1",
        "degraded": False,
        "reason": None,
        "filtered": {
            "excluded": 2,
            "not_in_only": 0,
            "hidden": 0,
            "unknown_exclude": 0,
            "unknown_only": 0,
        },
    }


def test_ids_may_be_numbers_and_users_unknown(web):
    found = web.post("/v1/recommend", json={"user_id": 7, "k": 1}).json()
    assert found["items"][0]["item_id"] == "i9"
    found = web.post("/v1/recommend", json={"user_id": "nobody", "only": ["i2"]}).json()
    assert (found["items"][0]["item_id"], found["source"]) == ("i2", "popular")
    assert web.post("/v1/recommend", json={}).json()["reason"] == "no_user"


def test_similar_by_post_and_get(web):
    posted = web.post("/v1/similar", json={"item_id": "i1", "k": 2}).json()
    got = web.get("/v1/similar", params={"item_id": "i1", "k": 2}).json()
    assert [item["item_id"] for item in posted["items"]] == ["i2", "i3"]
    assert got["items"] == posted["items"]
    assert got["source"] == "similar"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"k": 0}, "k: Input should be greater than or equal to 1"),
        ({"k": 501}, "k: Input should be less than or equal to 500"),
        ({"user": "ann"}, "user: Extra inputs are not permitted"),
        ({"user_id": ""}, "user_id: String should have at least 1 character"),
        ({"user_id": "secret" * 99}, "user_id: String should have at most 256 characters"),
        ({"exclude": ["x"] * 5001}, "exclude: List should have at most 5000 items"),
        ({"context": {"recent_items": ["x"] * 501}}, "context.recent_items: List should have"),
        ({"context": {"mood": "good"}}, "context.mood: Extra inputs"),
        ({"diversity": 2}, "diversity: Input should be less than or equal to 1"),
        (["ann"], "body: Input should be"),
    ],
)
def test_invalid_bodies(service, body, message):
    with TestClient(create_app(service)) as web:
        error = error_of(web.post("/v1/recommend", json=body), 422)
    assert error["code"] == "invalid_request"
    assert message in error["message"]
    assert "secret" not in error["message"]


def test_what_is_no_json_or_no_text(web):
    headers = {"content-type": "application/json"}
    error = error_of(web.post("/v1/recommend", content=b"{", headers=headers), 422)
    assert "JSON" in error["message"]
    error_of(web.post("/v1/recommend", content=b'{"user_id": "\\ud800"}', headers=headers), 422)
    error_of(web.get("/v1/similar"), 422)
    error_of(web.get("/v1/similar", params={"item_id": "i1", "k": "many"}), 422)


def test_wrong_paths_and_methods(web):
    assert error_of(web.get("/v2/recommend"), 404)["code"] == "not_found"
    assert error_of(web.get("/v1/recommend"), 405)["code"] == "method_not_allowed"


def test_large_bodies(web):
    body = json.dumps({"exclude": ["x" * 200] * 200}).encode()
    headers = {"content-type": "application/json"}
    error = error_of(web.post("/v1/recommend", content=body, headers=headers), 413)
    assert error["code"] == "body_too_large"
    assert "at most 20000 bytes" in error["message"]
    chunks = (body[start : start + 5000] for start in range(0, len(body), 5000))
    error_of(web.post("/v1/recommend", content=chunks, headers=headers), 413)


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "{}", "über"])
def test_harmful_request_ids_are_replaced(web, given):
    response = web.get("/health/live", headers={"X-Request-Id": given.encode()})
    assert len(response.headers["x-request-id"]) == 32


class Failing:
    """A service that raises what it is told to."""

    def __init__(self, service, error):
        self._service = service
        self._error = error

    def __getattr__(self, name):
        return getattr(self._service, name)

    def recommend(self, request, **options):
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NoGeneration("x"), 503, "no_generation"),
        (errors.StageUnavailable("x", stage="store"), 503, "unavailable"),
        (errors.DeadlineExceeded("x", stage="live"), 504, "deadline_exceeded"),
        (errors.CorruptValue("x"), 500, "corrupt_value"),
        (errors.PublishRefused("x"), 500, "serving_error"),
        (ZeroDivisionError("the user's secret"), 500, "internal"),
    ],
)
def test_the_error_table(service, error, status, code):
    with TestClient(create_app(Failing(service, error))) as web:
        response = web.post("/v1/recommend", json={"user_id": "ann"})
    found = error_of(response, status)
    assert found["code"] == code == row_for(error).code
    assert "secret" not in found["message"]
    assert ("retry-after" in response.headers) == (status == 503)


def test_every_domain_error_has_a_row():
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert any(parent in ERROR_TABLE for parent in kind.__mro__[:-3]), name


def test_health_and_generations(web, store, make):
    assert web.get("/health/live").json()["status"] == "ok"
    ready = web.get("/health/ready")
    assert (ready.status_code, ready.json()["generation"]) == (200, "g1")
    make.publish(store, "g2", USERS)
    found = web.get("/v1/generations").json()["generations"]
    assert [(one["generation"], one["current"]) for one in found] == [("g2", True), ("g1", False)]
    assert found[0]["num_users"] == 2


def test_not_ready_without_a_generation(store):
    with TestClient(create_app(RecommendationService(store))) as web:
        response = web.get("/health/ready")
        assert response.status_code == 503
        assert response.json() == {
            "status": "not_ready",
            "reason": "no_generation",
            "generation": None,
        }
        error = error_of(web.post("/v1/recommend", json={}), 503)
        assert "recsys publish" in error["message"]


def test_metrics(web):
    web.post("/v1/recommend", json={"user_id": "ann"})
    web.post("/v1/recommend", json={"user_id": "nobody"})
    web.get("/nowhere/at/all")
    response = web.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    recommend = 'recsys_requests_total{route="/v1/recommend",source="%s",status="200"} 1.0'
    assert recommend % "cache" in lines
    assert recommend % "popular" in lines
    assert 'recsys_requests_total{route="unmatched",source="",status="404"} 1.0' in lines
    assert 'recsys_fallbacks_total{reason="unknown_user",source="popular"} 1.0' in lines
    assert 'recsys_request_seconds_count{route="/v1/recommend"} 2.0' in lines
    assert "recsys_requests_in_flight 1.0" in lines  # this one
    assert "nobody" not in response.text


def test_the_log_line_has_no_user_content(web, caplog):
    with caplog.at_level(logging.INFO, logger="serving.request"):
        web.post("/v1/recommend", json={"user_id": "ann", "k": 3}, headers={"X-Request-Id": "r9"})
    (record,) = [one for one in caplog.records if one.name == "serving.request"]
    line = dict(record.fields)
    assert line.pop("latency_ms") > 0
    assert line == {
        "request_id": "r9",
        "route": "/v1/recommend",
        "status": 200,
        "source": "cache",
        "generation": "g1",
        "degraded": False,
        "reason": None,
        "k": 3,
        "num_items": 3,
        "num_filtered": 0,
    }


def test_more_requests_than_threads(service):
    """Beyond the waiting limit answers come from memory, flagged; nobody gets an error."""

    class Slow(Failing):
        def recommend(self, request, **options):
            if not options.get("local_only"):
                anyio.from_thread.run(self._error.wait)
            return self._service.recommend(request, **options)

    async def ask_all() -> list[httpx.Response]:
        gate = anyio.Event()
        app = create_app(Slow(service, gate), max_in_flight=1, max_waiting=2)
        answers: list[httpx.Response] = []
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as web:

            async def ask() -> None:
                answers.append(await web.post("/v1/recommend", json={"user_id": "ann"}))

            async with anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(ask)
                for _ in range(1000):
                    if len(answers) == 3:
                        break
                    await anyio.sleep(0.002)
                gate.set()
        return answers

    service.recommend(RecommendRequest("ann"))
    answers = anyio.run(ask_all)
    assert [one.status_code for one in answers] == [200] * 6
    reasons = [one.json()["reason"] for one in answers]
    assert reasons.count("overloaded") == 3
    assert reasons.count(None) == 3


def test_bad_limits_are_refused(service):
    with pytest.raises(ValueError, match="max_in_flight and max_body_bytes must be >= 1"):
        create_app(service, max_in_flight=0)
    with pytest.raises(ValueError, match="max_waiting >= 0, got 32, 262144 and -1"):
        create_app(service, max_waiting=-1)


def test_openapi_describes_the_bodies(web):
    document = web.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/recommend",
        "/v1/similar",
        "/v1/generations",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    body = document["components"]["schemas"]["RecommendBody"]
    assert set(body["properties"]) == {
        "user_id",
        "k",
        "exclude",
        "only",
        "context",
        "diversity",
        "threshold",
    }


def test_the_threshold_reaches_the_service(service):
    asked = []

    class Noting(Failing):
        def recommend(self, request, **options):
            asked.append(request.threshold)
            return self._service.recommend(request, **options)

    with TestClient(create_app(Noting(service, None))) as web:
        web.post("/v1/recommend", json={"user_id": "ann", "threshold": True})
        web.post("/v1/recommend", json={"user_id": "ann"})
    assert asked == [True, False]


def test_settings_reach_the_slate(store, make):
    make.publish(store, "g1", USERS)

    def last_first(item_index, score, k, *, vectors=None, diversity=0.0):
        assert vectors is None
        assert diversity == 0.25
        return (item_index.argsort()[::-1])[:k]

    service = RecommendationService(
        store, settings=ServiceSettings(diversity=0.25), build_slate=last_first
    )
    with TestClient(create_app(service)) as web:
        found = web.post("/v1/recommend", json={"user_id": "ann", "k": 2}).json()
    assert [item["item_id"] for item in found["items"]] == ["i8", "i7"]
