from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from serving.impressions.row_log import RowLogStats
from serving.models.holder import ModelsStatus
from serving.telemetry.collectors import ServingState
from serving.telemetry.metrics import Telemetry
from serving.telemetry.sharing import WorkerMetrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ROOT = str(Path(__file__).resolve().parents[3])


def samples(text: bytes):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(text: bytes, name: str, **labels: str) -> float:
    return samples(text)[name, tuple(sorted(labels.items()))].value


def test_a_slow_request_is_the_exemplar_of_its_bucket():
    telemetry = Telemetry(slow_s=0.2)
    for seconds, request_id in ((0.0025, "fast"), (0.25, "slow"), (0.4, None)):
        telemetry.request_started()
        telemetry.request_done("/v1/recommend", 200, "cache", seconds, request_id)
    text, content_type = telemetry.scrape(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    exemplars = {
        key[1][0][1]: sample.exemplar
        for key, sample in samples(text).items()
        if key[0] == "recsys_request_seconds_bucket" and sample.exemplar
    }
    assert list(exemplars) == ["0.3"]
    assert exemplars["0.3"].labels == {"request_id": "slow"}
    assert exemplars["0.3"].value == 0.25
    assert value(text, "recsys_requests_in_flight") == 0


def test_a_plain_scraper_gets_plain_text():
    telemetry = Telemetry(slow_s=0.0)
    telemetry.request_done("/v1/recommend", 200, "cache", 0.25, "r1")
    text, content_type = telemetry.scrape("text/html, */*; version=none")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"r1" not in text
    assert text.splitlines()[0] == telemetry.exposition().splitlines()[0]


def test_stages_and_arms_are_told_apart_up_to_a_limit():
    telemetry = Telemetry()
    telemetry.stage_done("head", 0.0004)
    for number in range(100):
        telemetry.stage_done(f"stage{number}", 0.001)
    telemetry.arms_answered({"slate": "control", "ranker": "new"})
    text, _ = telemetry.scrape(OPENMETRICS)
    assert value(text, "recsys_stage_seconds_bucket", stage="head", le="0.0005") == 1
    assert value(text, "recsys_stage_seconds_bucket", stage="head", le="0.00025") == 0
    assert value(text, "recsys_stage_seconds_count", stage="other") == 37
    assert value(text, "recsys_arm_answers_total", experiment="slate", arm="control") == 1


def test_what_is_served_is_read_at_the_scrape():
    telemetry = Telemetry()
    state = ServingState("g1", 3, 0.5, 1000.0, 3600.0, "closed", None)
    telemetry.watch_serving(lambda: state)
    text, _ = telemetry.scrape(OPENMETRICS)
    assert value(text, "recsys_generation_info", generation="g1") == 1
    assert value(text, "recsys_generation_expires_seconds") == 3600
    assert value(text, "recsys_store_breaker", recsys_store_breaker="open") == 0
    assert value(text, "recsys_stale") == 0
    state = ServingState(None, None, None, None, None, "open", "store_unavailable")
    text, _ = telemetry.scrape(OPENMETRICS)
    assert value(text, "recsys_store_breaker", recsys_store_breaker="open") == 1
    assert value(text, "recsys_stale") == 1
    assert b"recsys_generation" not in text
    assert b"recsys_head_age" not in text


def test_models_logs_and_the_rest_are_shown():
    telemetry = Telemetry()
    telemetry.watch_models(
        lambda: ModelsStatus("g2", "g1", ("g1",), "g2", "g2 is damaged", 1, 4, 2.5)
    )
    telemetry.watch_row_log("impressions", lambda: RowLogStats(9, 7, 2, 3, 1, 4, 5, 600, 1))
    telemetry.watch_waiting(lambda: 5)
    telemetry.request_shed()
    telemetry.client_dropped("slow_reader")
    telemetry.watch_ready(lambda: True)
    telemetry.warmed_up(120, 1.5)
    text, _ = telemetry.scrape(OPENMETRICS)
    for name, expected, labels in (
        ("recsys_live_model_info", 1, {"generation": "g1"}),
        ("recsys_live_models_loaded", 1, {}),
        ("recsys_live_models_loading", 1, {}),
        ("recsys_live_models_problem", 1, {}),
        ("recsys_live_models_load_seconds", 2.5, {}),
        ("recsys_live_model_loads_total", 1, {}),
        ("recsys_live_model_load_failures_total", 4, {}),
        ("recsys_log_rows_accepted_total", 9, {"log": "impressions"}),
        ("recsys_log_rows_written_total", 7, {"log": "impressions"}),
        ("recsys_log_rows_dropped_total", 2, {"log": "impressions"}),
        ("recsys_log_rows_refused_total", 3, {"log": "impressions"}),
        ("recsys_log_rows_lost_total", 1, {"log": "impressions"}),
        ("recsys_log_rows_pending", 4, {"log": "impressions"}),
        ("recsys_log_write_errors_total", 5, {"log": "impressions"}),
        ("recsys_requests_waiting", 5, {}),
        ("recsys_requests_shed_total", 1, {}),
        ("recsys_clients_dropped_total", 1, {"reason": "slow_reader"}),
        ("recsys_ready", 1, {}),
        ("recsys_warm_up_questions", 120, {}),
        ("recsys_warm_up_seconds", 1.5, {}),
    ):
        assert value(text, name, **labels) == expected, name
    proportional = value(text, "recsys_process_proportional_memory_bytes")
    assert 1e6 < proportional <= 1.1 * value(text, "process_resident_memory_bytes")
    telemetry.watch_ready(lambda: False)
    assert value(telemetry.scrape(OPENMETRICS)[0], "recsys_ready") == 0


OTHER = """
import sys, pathlib, time
from serving.telemetry.sharing import WorkerMetrics
from serving.telemetry.metrics import Telemetry
telemetry = Telemetry(slow_s=0.1)
telemetry.fallback("popular", "unknown_user")
telemetry.request_done("/v1/recommend", 200, "cache", 0.5, "theirs")
shared = WorkerMetrics(pathlib.Path(sys.argv[1]), "1", telemetry.registry)
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_worker(tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as name:
        child = subprocess.Popen(
            [sys.executable, "-c", OTHER, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        with child:
            assert child.stdout.readline() == "up\n"
            yield Path(name), child
            child.kill()


def test_one_scrape_shows_every_process(other_worker):
    directory, child = other_worker
    telemetry = Telemetry()
    for _ in range(2):
        telemetry.fallback("popular", "unknown_user")
    shared = telemetry.shared = WorkerMetrics(directory, "0", telemetry.registry, timeout_s=5)
    text, _ = telemetry.scrape(OPENMETRICS)
    name = "recsys_fallbacks_total"
    labels = {"source": "popular", "reason": "unknown_user"}
    assert value(text, name, worker="0", **labels) == 2
    assert value(text, name, worker="1", **labels) == 1
    assert value(text, "recsys_worker_up", worker="1") == 1
    assert b'# {request_id="theirs"} 0.5' in text
    assert text.count(b"# TYPE recsys_fallbacks counter") == 1

    # A process that hangs is missing from the scrape, and the scrape says so.
    shared._timeout_s = 0.05
    child.send_signal(signal.SIGSTOP)
    text, _ = telemetry.scrape(OPENMETRICS)
    assert value(text, "recsys_worker_up", worker="1") == 0
    assert value(text, name, worker="0", **labels) == 2
    assert (name, tuple(sorted({**labels, "worker": "1"}.items()))) not in samples(text)
    child.send_signal(signal.SIGCONT)
    child.kill()
    child.wait()
    assert value(telemetry.scrape(OPENMETRICS)[0], "recsys_worker_up", worker="1") == 0
    shared.close()
    assert not (directory / "0.metrics").exists()
