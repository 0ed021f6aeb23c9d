from __future__ import annotations

import io
import json
import logging

import pytest

from serving.telemetry.metrics import log_request
from serving.telemetry.text_log import configure_logging, log_event

log = logging.getLogger("serving.something")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)
    root = logging.getLogger()
    names = ["", "serving", "recsys", "features", "serving.access", "asyncio"]
    names += ["uvicorn.error", "uvicorn.access"]
    before = [(name, logging.getLogger(name).level) for name in names]
    handlers = list(root.handlers)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    for name, level in before:
        logging.getLogger(name).setLevel(level)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_holds_the_facts_by_name():
    stream = io.StringIO()
    configure_logging("json", worker="2", stream=stream)
    log_event(log, "ready", questions=40, last_ms=1.25)
    log.warning("the store is away: %s", "refused")
    ready, away = lines(stream)
    assert ready.pop("at").endswith("+00:00")
    assert ready == {
        "level": "info",
        "logger": "serving.something",
        "event": "ready",
        "questions": 40,
        "last_ms": 1.25,
        "worker": "2",
    }
    assert (away["level"], away["event"]) == ("warning", "the store is away: refused")


def test_an_exception_tells_where_and_not_whose():
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    try:
        {}["user-17"]
    except KeyError:
        log.exception("request %s failed", "r1")
    assert "user-17" not in stream.getvalue()
    (line,) = lines(stream)
    assert line["error"]["type"] == "KeyError"
    assert line["error"]["at"][0].startswith("test_logs.py:")
    assert line["error"]["at"][0].endswith(" test_an_exception_tells_where_and_not_whose")


def test_debugging_shows_the_rest(monkeypatch):
    monkeypatch.setenv("RECSYS_DEBUG", "1")
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    try:
        {}["user-17"]
    except KeyError:
        log.exception("failed")
    log.debug("detail")
    log_request(route="/v1/recommend")
    failed, detail, request = lines(stream)
    assert failed["error"]["message"] == "'user-17'"
    assert detail["event"] == "detail"
    assert request["route"] == "/v1/recommend"


def test_text_is_for_people():
    stream = io.StringIO()
    configure_logging("text", worker="0", stream=stream)
    log_event(log, "ready", questions=40)
    log_event(log, "detail", level=logging.DEBUG)
    logging.getLogger("somebody.else").info("chatter")
    (line,) = stream.getvalue().splitlines()
    assert line.split(" ", 1)[1] == "INFO [0] ready questions=40"


def test_only_slow_requests_are_logged():
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    log_request(route="/v1/recommend", request_id="r1", latency_ms=2.0)
    log_request(slow=True, route="/v1/recommend", request_id="r2", latency_ms=300.0)
    (line,) = lines(stream)
    assert (line["event"], line["request_id"], line["latency_ms"]) == ("slow request", "r2", 300.0)


def test_warnings_go_to_the_log():
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    logging.getLogger("py.warnings").warning("%s", "old")
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"


def test_a_slow_answer_is_logged_with_its_stages(store, make, caplog):
    from serving.messages import RecommendRequest
    from serving.request.service import RecommendationService
    from serving.telemetry.metrics import Telemetry

    make.publish(store, "g1", {"ann": [1, 2]})
    service = RecommendationService(store, telemetry=Telemetry(slow_s=0.0))
    service.recommend(RecommendRequest("ann", 2, request_id="r1"))
    service.close()
    (record,) = [one for one in caplog.records if one.getMessage() == "slow answer"]
    assert record.fields["request_id"] == "r1"
    assert record.fields["stages"]["cache"][1] == "answered"
    assert "ann" not in str(record.fields)
