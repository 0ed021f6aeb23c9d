from __future__ import annotations

import json
import logging

import pytest
from fastapi.testclient import TestClient

from recsys.config.serving import ServiceSettings
from serving import errors
from serving.http.app import create_app
from serving.http.error_table import ERROR_TABLE, row_for
from serving.request.cursor import decode_cursor
from serving.request.service import RecommendationService

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
    found = response.json()
    assert decode_cursor(found.pop("cursor")).generation == "g1"
    assert found == {
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
        "arms": {},
        "policy": "ranker",
        "stages": None,
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
        ({"k": "10"}, "k: Input should be a valid integer"),
        ({"user_id": ""}, "user_id: Input should be an id: 1 to 1024 characters"),
        ({"user_id": "secret" * 999}, "user_id: Input should be an id: 1 to 1024 characters"),
        ({"user_id": "two\nlines"}, "user_id: Input should be an id: 1 to 1024 characters"),
        ({"user_id": True}, "user_id: Input should be an id: 1 to 1024 characters"),
        ({"secret\n" * 40: 1}, "secret?secret?secret?secret?secret?s"),
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
    long = "List should have" in message
    assert error["code"] == ("too_many_items" if long else "invalid_request")
    assert message in error["message"]
    assert len(error["message"]) < 200


def test_queries_are_checked_like_bodies(web):
    for params in (
        {},
        {"item_id": "i1", "k": "many"},
        {"item_id": "a\0"},
        {"item_id": "x" * 1_025},
    ):
        assert error_of(web.get("/v1/similar", params=params), 422)["code"] == "invalid_request"


def test_wrong_paths_and_methods(web):
    assert error_of(web.get("/v2/recommend"), 404)["code"] == "not_found"
    assert error_of(web.post("/v1/recommend/", json={}), 404)["code"] == "not_found"
    for method, path, allowed in (
        ("GET", "/v1/recommend", "POST"),
        ("DELETE", "/v1/similar", "GET, HEAD, POST"),
        ("OPTIONS", "/health/live", "GET, HEAD"),
        ("TRACE", "/v1/events", "POST"),
    ):
        response = web.request(method, path)
        assert error_of(response, 405)["code"] == "method_not_allowed"
        assert response.headers["allow"] == allowed


def test_head_is_get_without_the_body(web):
    for path in ("/health/live", "/health/ready", "/v1/generations", "/metrics"):
        response = web.head(path)
        assert (response.status_code, response.content) == (200, b"")
        assert int(response.headers["content-length"]) > 0
    response = web.head("/v1/recommend")
    assert (response.status_code, response.content) == (405, b"")


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
        (errors.ServingError("x", stage="slate"), 500, "serving_error"),
        (errors.PublishRefused("x"), 409, "publish_refused"),
        (errors.CursorExpired("x"), 410, "cursor_expired"),
        (errors.CursorMismatch("x"), 400, "cursor_mismatch"),
        (errors.NotSupported("x"), 409, "not_supported"),
        (ValueError("numpy says"), 500, "internal"),
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
    with caplog.at_level(logging.INFO, logger="serving.access"):
        web.post("/v1/recommend", json={"user_id": "ann", "k": 3}, headers={"X-Request-Id": "r9"})
    (record,) = [one for one in caplog.records if one.name == "serving.access"]
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
        "policy": "ranker",
        "k": 3,
        "num_items": 3,
        "num_filtered": 0,
    }


def test_bad_limits_are_refused(service):
    with pytest.raises(ValueError, match="max_in_flight and max_body_bytes must be >= 1"):
        create_app(service, max_in_flight=0)
    with pytest.raises(ValueError, match="max_waiting >= 0, got 32, 262144 and -1"):
        create_app(service, max_waiting=-1)


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
