"""`recsys simulate` from data and bundles to the verdict line."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.bundle import bundles
from serving.cli import app
from serving.cli.simulate import parse_count
from tests.test_gate_end_to_end import settings, write_world

FAST = ["--sessions", "20k", "--log-sessions", "3k", "-k", "5"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one bundle and two configurations that share it."""
    directory = tmp_path_factory.mktemp("simulation")
    write_world(directory)
    (directory / "recsys.toml").write_text(settings())
    diverse = settings().replace("[ranking]\n", "[ranking]\ndiversity = 0.5\n")
    (directory / "diverse.toml").write_text(diverse)
    done = CliRunner().invoke(app, ["train", "--config", str(directory / "recsys.toml")])
    assert done.exit_code == 0, done.output
    return directory


def run(project: Path, *arguments: str, code: int = 0) -> str:
    config = ["--config", str(project / "recsys.toml")]
    done = CliRunner().invoke(app, ["simulate", *config, *FAST, *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_default_arms_end_with_the_report_and_the_verdict(project: Path) -> None:
    lines = run(project).splitlines()
    assert lines[-2] == f"report: {project / 'artifacts/simulation.html'}"
    assert lines[-1].startswith("verdict: ")
    numbered = [line.split()[0] for line in lines if line[:2].strip().isdigit()]
    assert [str(number) for number in range(1, 10)] == [n for n in numbered if n in "123456789"][:9]
    page = (project / "artifacts/simulation.html").read_text()
    assert "Simulation: pipeline, shuffle, epsilon against popular" in page
    assert "Arms by estimator" in page
    head = next(line for line in lines if "dm minus snips" in line)
    assert head.split()[:2] == ["arm", "verdict"]
    assert any(line.startswith("no number for pipeline (log of popular): ") for line in lines)
    assert any("chosen by the log" in line for line in lines)
    assert any(line.startswith("8 guardrails; arms compared with the control: 3") for line in lines)
    assert any(line.split()[:2] == ["pipeline", "diversity"] for line in lines)


def test_pipelines_as_arms(project: Path) -> None:
    report = project / "two.html"
    found = json.loads(
        run(
            project,
            "--arms",
            str(project / "recsys.toml"),
            "--arms",
            str(bundles(project / "artifacts")[-1].path),
            "--arms",
            "noop",
            str(project / "diverse.toml"),
            "--report",
            str(report),
            "--json",
        )
    )
    assert found["report"] == str(report)
    assert found["verdict"] in ("PROMOTE", "HOLD", "SUSPICIOUS")
    assert found == {**json.loads(report.with_suffix(".json").read_text()), **_own(found)}
    pairs = next(table for table in found["tables"] if table["title"] == "All pairs")
    assert len(pairs["rows"]) == 1 + 2 * 6  # four arms, two metrics
    guarded = next(table for table in found["tables"] if table["title"] == "Guardrails")
    assert len(guarded["rows"]) == 1 + 3 * 6
    unusable = [one for one in found["estimates"] if one["verdict"] == "unusable"]
    assert unusable  # the control explores nothing
    assert all(one["value"] is None for one in unusable)
    assert {one["estimator"] for one in found["estimates"]} == {
        "ips", "snips", "dm", "dr", "clipped ips"
    }  # fmt: skip


def test_one_seed_one_answer(project: Path) -> None:
    arms = ["--arms", "popular", "epsilon", "--json", "--world", "dependent"]
    one, two, other = (
        json.loads(run(project, *arms, "--seed", seed))["tables"][0] for seed in ("1", "1", "2")
    )
    assert one == two
    assert one != other


def test_rounds_of_training_on_the_own_log(project: Path) -> None:
    arms = ["--arms", "popular", "epsilon", "--json"]
    without, found = (json.loads(run(project, *arms, *more)) for more in ([], ["--rounds", "2"]))
    rounds = found["tables"][-1]
    assert rounds["title"] == "Retraining rounds"
    assert len(rounds["rows"]) == 1 + 2 * 2 * 2  # arms, ways of training, rounds
    assert found["tables"][:-1] == without["tables"]  # the experiment itself is the same
    assert [one["title"].split(" by ")[0] for one in found["curves"]] == [
        "Clicks a session",
        "Concentration of what is shown",
    ]
    assert without["curves"] == []
    page = (project / "artifacts/simulation.html").read_text()
    assert "Retraining rounds" in page
    text = run(project, "--arms", "popular", "epsilon", "--rounds", "1")
    assert "10 trained again on its own log" in text
    assert "places made even" in run(project, "--arms", "popular", "epsilon", "--rounds", "2")


def test_refusals(project: Path) -> None:
    assert "at least two" in run(project, "--arms", "popular", code=2)
    assert "must be a configuration" in run(project, "--arms", "popular", "nothing", code=2)
    assert "arms must differ" in run(project, "--arms", "popular", "popular", code=2)
    assert "unknown click model" in run(project, "--world", "flat", code=2)
    assert "unknown arm 'b'" in run(project, "--logging", "b", code=2)
    assert "guardrail must be NAME=LOSS" in run(project, "--guardrail", "diversity", code=2)
    assert "unknown guardrail 'fun'" in run(project, "--guardrail", "fun=0.1", code=2)
    assert "k must be at most" in run(project, "-k", "100", code=2)
    assert "must be a count >= 1" in run(project, "--sessions", "abc", code=2)
    other = project / "other"
    other.mkdir()
    write_world(other)
    films = pl.read_parquet(other / "movies.parquet")
    films.with_columns(pl.col("movieId") + 10**6).write_parquet(other / "movies.parquet")
    ratings = pl.read_parquet(other / "ratings.parquet")
    ratings.with_columns(pl.col("movieId") + 10**6).write_parquet(other / "ratings.parquet")
    (other / "recsys.toml").write_text(settings())
    done = CliRunner().invoke(
        app,
        ["simulate", "--config", str(other / "recsys.toml"), *FAST, "--arms", "popular",
         str(bundles(project / "artifacts")[-1].path)],
    )  # fmt: skip
    assert done.exit_code == 2
    assert "must recommend items of the world" in done.output


def test_counts() -> None:
    assert [parse_count(text) for text in ("7", "200k", "1M", "1.5m", "1_000")] == [
        7, 200_000, 1_000_000, 1_500_000, 1000
    ]  # fmt: skip
    for text in ("0", "-1", "a", "1G"):
        with pytest.raises(Exception, match="count >= 1"):
            parse_count(text)


def _own(found: dict[str, object]) -> dict[str, object]:
    return {name: found[name] for name in ("verdict", "winner", "report")}
