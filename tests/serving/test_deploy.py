"""The files that deploy and watch the service name what there is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from recsys.config.serving import ServingConfig
from serving.cli import app
from serving.impressions.row_log import RowLogStats
from serving.models.holder import ModelsStatus
from serving.process.supervisor import Supervisor, restart_registry
from serving.telemetry.collectors import ServingState
from serving.telemetry.metrics import Telemetry
from serving.telemetry.sharing import WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy/grafana/recsys.json").read_text())
NAME = re.compile(r"\b(?:recsys|process)_[a-z_]+\b")
LABELS = re.compile(r"\b([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"|by \(([a-z_, ]+)\)")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """Name of each sample that a service with everything switched on shows -> its labels."""
    import tempfile

    telemetry = Telemetry()
    telemetry.request_started()
    telemetry.request_done("/v1/recommend", 200, "cache", 0.01, "r")
    telemetry.stage_done("cache", 0.001)
    telemetry.fallback("popular", "unknown_user")
    telemetry.stage_error("store", "store_unavailable")
    telemetry.arms_answered({"slate": "control"})
    telemetry.client_dropped("slow_reader")
    telemetry.watch_serving(lambda: ServingState("g1", 1, 0.1, 1.0, 9.0, "closed", None))
    telemetry.watch_models(lambda: ModelsStatus("g1", "g1", ("g1",), None, None, 1, 0, 2.0))
    telemetry.watch_row_log("impressions", lambda: RowLogStats(1, 1, 0, 0, 0, 0, 0, 9, 1))
    near = SimpleNamespace(hits=1, misses=1, evicted=0, rows=1, bytes=1)
    telemetry.watch_near_cache(lambda: near)
    supervisor = Supervisor([SimpleNamespace(name="0", restarts=0)], on_ready=lambda: None)
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as name:
        shared = telemetry.shared = WorkerMetrics(Path(name), "0", telemetry.registry)
        other = WorkerMetrics(Path(name), "supervisor", restart_registry(supervisor))
        text, _ = telemetry.scrape("application/openmetrics-text")
        shared.close()
        other.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for rule in ALERTS["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_every_expression_asks_for_metrics_that_exist(exposed, title, expression):
    names = set(NAME.findall(expression))
    assert names, expression
    assert names <= exposed.keys()
    known = set().union(*(exposed[name] for name in names)) | {"job"}
    asked = {
        one.strip() for pair in LABELS.findall(expression) for one in ",".join(pair).split(",")
    }
    assert asked - {""} <= known, expression
    assert expression.count("(") == expression.count(")")


def test_every_metric_of_ours_is_on_the_dashboard(exposed):
    """What nobody looks at need not be counted; a few are for people who dig."""
    text = " ".join(expression for _, expression in expressions())
    dug_for = {
        "recsys_warm_up",
        "recsys_head_epoch",
        "recsys_near_cache",
        "recsys_live_models_loaded",
    }
    left_out = {
        name
        for name in exposed
        if name.startswith("recsys_")
        and not name.endswith(("_created", "_sum", "_count"))
        and name not in text
        and not name.startswith(tuple(dug_for))
    }
    assert left_out == set()


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & seen, panel["title"]
        assert place["x"] + place["w"] <= 24
        seen |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def verb_and_options(arguments: list[str]) -> None:
    """Fail unless ``recsys`` takes ``arguments``."""
    group = typer.main.get_command(app)
    verb = group.commands[arguments[0]]
    verb.make_context(arguments[0], list(arguments[1:]))


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_the_image_copies_what_there_is_and_nothing_else():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = set()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert copied == allowed
    for path in copied:
        assert (ROOT / path).exists(), path


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is():
    found = dict(instructions())
    assert found["USER"] == "10001"
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(found["ENTRYPOINT"]) == ["recsys"]
    command = json.loads(found["CMD"])
    verb_and_options(command)
    assert command[command.index("--port") + 1] == found["EXPOSE"]
    check = json.loads(found["HEALTHCHECK"].split("CMD", 1)[1])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "healthcheck", "exec")
    assert f"127.0.0.1:{found['EXPOSE']}/health/ready" in check[2]
    assert not re.search(r"(?i)password|secret|token|api_key", DOCKERFILE)


def test_compose_names_commands_files_and_no_secrets():
    services = COMPOSE["services"]
    for name in ("serve", "jobs"):
        assert services[name]["build"] == "."
        assert services[name]["read_only"]
    verb_and_options(services["serve"]["command"])
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable or "KEY" in variable:
                assert value.startswith("${"), f"{variable} is written down"
    for line in (ROOT / "compose.yaml").read_text().splitlines():
        found = re.search(r"docker compose run --rm jobs (.*)", line)
        if found:
            verb_and_options(shlex.split(found[1]))


def test_the_store_throws_nothing_away():
    command = COMPOSE["services"]["store"]["command"][-1]
    assert "--maxmemory-policy noeviction" in command
    assert "--maxmemory 2gb" in command


def test_containers_are_given_the_time_they_need_to_end():
    serving = ServingConfig()
    seconds = int(COMPOSE["services"]["serve"]["stop_grace_period"].removesuffix("s"))
    assert seconds > serving.drain_s + 2 * serving.client_timeout_s


def test_prometheus_scrapes_the_service():
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["serve:8080"]}]
    mounted = [one.split(":")[1] for one in COMPOSE["services"]["prometheus"]["volumes"]]
    assert f"/etc/prometheus/{PROMETHEUS['rule_files'][0]}" in mounted
    provider = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/recsys.yaml").read_text()
    )
    path = provider["providers"][0]["options"]["path"]
    assert any(f"{path}/recsys.json" in one for one in COMPOSE["services"]["grafana"]["volumes"])


def test_alerts_say_what_is_wrong():
    documented = (ROOT / "docs/operations.md").read_text()
    for rule in ALERTS["groups"][0]["rules"]:
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["alert"] in documented, f"docs/operations.md does not know {rule['alert']}"
