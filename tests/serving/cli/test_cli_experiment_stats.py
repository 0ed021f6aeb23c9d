from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.impressions.log import FeedbackLog, ImpressionLog
from serving.messages import Event, Recommendations, RecommendedItem, RecommendRequest

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
CONFIG = """
[data]
events = "events.parquet"
items = "items.parquet"
[data.item_columns]
title = "title"
[[experiments]]
name = "order"
arms = [{name = "control"}, {name = "new", ranker = "shuffle"}]
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in ("experiments", *arguments)])


def json_of(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_plan_of_a_rate() -> None:
    found = json_of("plan", "--baseline", 0.05, "--lift", 0.05, "--per-day", 10_000)
    assert found["units"] == [119_303, 119_303]
    assert found["days"] == 28
    assert found["sequential_units"][0] > 200_000
    assert [one["power"] for one in found["power"]] == sorted(
        one["power"] for one in found["power"]
    )
    text = run("plan", "--baseline", 0.05, "--lift", 0.05, "--per-day", 10_000).stdout
    assert "119,303" in text
    assert "28 days until the end" in text


def test_plan_of_a_mean_with_arms_and_a_covariate() -> None:
    plain = json_of("plan", "--baseline", 10, "--lift", 0.05, "--deviation", 4)
    less = json_of("plan", "--baseline", 10, "--lift", 0.05, "--deviation", 4, "--correlation", 0.6)
    assert less["total"] / plain["total"] == pytest.approx(0.64, abs=0.01)
    shares = [word for share in (2, 1, 1) for word in ("--share", share)]
    three = json_of("plan", "--baseline", 10, "--lift", 0.05, "--deviation", 4, *shares)
    assert three["units"][0] == pytest.approx(2 * three["units"][1], abs=1)
    assert three["days"] is None


def test_a_wrong_plan_is_told() -> None:
    done = run("plan", "--baseline", 1.5, "--lift", 0.05)
    assert done.exit_code == 2
    assert "a mean that is no rate is planned with" in done.stderr
    done = run("plan", "--baseline", 0.5, "--lift", 0.05, "--correction", "tukey")
    assert (done.exit_code, "unknown correction 'tukey'" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 users in two arms; of the control 30% click, of the other 50%."""
    directory = tmp_path_factory.mktemp("logged")
    (directory / "recsys.toml").write_text(CONFIG)
    shown = ImpressionLog(directory / "log" / "impressions")
    done = FeedbackLog(directory / "log" / "feedback")
    draw = random.Random(0)
    for number in range(1000):
        user, arm = f"u{number}", ("control", "new")[number % 2]
        answer = Recommendations(
            items=(RecommendedItem("i1", 1.0, "two_tower", 1.0),),
            source="cache",
            generation="g1",
            request_id=f"r{number}",
            arms={"order": arm},
        )
        at = NOON + number
        assert shown.record(RecommendRequest(user, k=1), answer, at)
        if draw.random() < (0.3 if arm == "control" else 0.5):
            assert done.record([Event(user, "i1", at + 5, event="click")])
    shown.close()
    done.close()
    return directory


def analysed(logged: Path, *arguments: object) -> tuple[object, ...]:
    where = ("--config", logged / "recsys.toml", "--log", logged / "log")
    return ("analyse", "order", *where, *arguments)


def test_analyse_reads_the_log(logged: Path) -> None:
    found = json_of(*analysed(logged, "--planned", 1000))
    assert found["verdict"] == "SHIP"
    assert found["arms"] == {"control": 500, "new": 500}
    clicks, requests = found["metrics"]
    assert clicks["metric"] == "clicks per user"
    assert clicks["control_mean"] == pytest.approx(0.3, abs=0.08)
    assert clicks["low"] > 0.05
    assert (requests["metric"], requests["guardrail"]) == ("requests", "safe")
    text = run(*analysed(logged, "--planned", 1000)).stdout
    assert text.startswith("SHIP: new is better than the control")


def test_analyse_while_it_runs_and_per_impression(logged: Path) -> None:
    found = json_of(*analysed(logged, "--planned", 5000, "--per", "impressions"))
    assert found["reading"] == "running"
    assert found["metrics"][0]["metric"] == "clicks per impression"
    assert any("users' values still grow" in one for one in found["warnings"])
    windowed = analysed(
        logged, "--planned", 5000, "--window-days", 0.001, "--until", "2026-05-01T12:10:00"
    )
    found = json_of(*windowed)
    assert 400 < found["units"] < 600  # those whose window was over
    assert not any("still grow" in one for one in found["warnings"])


def test_analyse_with_another_control_and_guardrails(logged: Path) -> None:
    found = json_of(
        *analysed(
            logged,
            "--control",
            "new",
            "--guardrail",
            "impressions=0.1",
            "--event",
            "click",
            "--event",
            "buy",
        )
    )
    assert found["control"] == "new"
    assert found["verdict"] == "STOP"
    assert [one["metric"] for one in found["metrics"]] == [
        "clicks per user",
        "buys per user",
        "impressions",
    ]


def test_analyse_writes_a_page(logged: Path, tmp_path: Path) -> None:
    page = tmp_path / "order.html"
    found = json_of(*analysed(logged, "--planned", 1000, "--report", page))
    assert found["report"] == str(page)
    assert "Experiment order" in page.read_text()
    values = json.loads(page.with_suffix(".json").read_text())
    assert values["decision"]["verdict"] == "SHIP"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--control", "blue"), "unknown arm 'blue'"),
        (("--guardrail", "requests"), "guardrail must be COLUMN=LOSS such as requests=0.05"),
        (("--guardrail", "lost=0.1"), "must have the columns lost"),
        (("--per", "session"), "unknown per 'session'"),
        (("--report", "page.txt"), "path must end in .html"),
    ],
)
def test_analyse_says_what_is_wrong(arguments: tuple[str, ...], message: str, logged: Path) -> None:
    done = run(*analysed(logged, *arguments))
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_an_unknown_experiment_and_an_empty_log(logged: Path, tmp_path: Path) -> None:
    done = run("analyse", "price", "--config", logged / "recsys.toml")
    assert (done.exit_code, "unknown experiment 'price'" in done.stderr) == (2, True)
    done = run("analyse", "order", "--config", logged / "recsys.toml", "--log", tmp_path)
    assert (done.exit_code, "got none of 'order' among 0 impressions" in done.stderr) == (2, True)
