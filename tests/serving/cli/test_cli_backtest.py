"""`recsys backtest`: arguments, output, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from serving.cli import app

DAY = 86_400


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small log of a month and its configuration, in the current directory."""
    rows = [(f"u{n % 9}", f"i{(n * 7 + n // 9) % 20}", 10**9 + n * DAY // 6) for n in range(180)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_parquet(tmp_path / "events.parquet")
    (tmp_path / "recsys.toml").write_text(
        '[data]\nevents = "events.parquet"\n'
        '[data.columns]\ntimestamp_unit = "s"\n'
        '[retrieval]\nsources = ["item_item", "popularity"]\n'
        "[ranking]\nfolds = 2\n[ranking.gbdt]\nnum_trees = 3\n[ranking.listwise]\nenabled = false\n"
        "[evaluation]\nbootstrap_samples = 20\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["backtest", *arguments])


def test_tables_are_printed_and_a_report_is_written(project: Path) -> None:
    done = run("--origins", "3", "--every", "4d")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "ndcg@20 of each origin in its own window"
    assert lines[1].split()[:3] == ["origin", "users", "funnel"]
    assert "recall@20 of the funnel by age, against a fresh one" in lines
    assert lines[-2] == "report: artifacts/backtest/backtest.html"
    assert (project / "artifacts/backtest/backtest.html").is_file()
    values = json.loads(run("--origins", "3", "--every", "4d", "--json").stdout)
    assert values["advice"] == lines[-1]
    assert [one["taken_over"] for one in values["windows"]] == [True] * 3
    written = json.loads((project / "artifacts/backtest/backtest.json").read_text())
    assert written == values
    # the same origins with another horizon are not the same models: the newest lies elsewhere
    other = json.loads(run("--origins", "2", "--every", "4d", "--horizon", "2d", "--json").stdout)
    assert (other["every"], other["horizon"]) == ("4d", "2d")
    assert [one["taken_over"] for one in other["windows"]] == [False] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--every", "soon"], "--every must be a time of a minute or more such as '7d'"),
        (["--horizon", "1y"], "--horizon must be a time of a minute or more"),
        (["--origins", "1"], "--origins must be 2 or more"),
        (["--origins", "40"], "the log must hold events before the oldest origin"),
    ],
)
def test_what_is_refused_is_told_and_nothing_is_written(
    project: Path, arguments: list[str], message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {message}")
    assert json.loads(run(*arguments, "--json").stdout)["error"]["message"].startswith(message)
    assert sorted(path.name for path in project.iterdir()) == ["events.parquet", "recsys.toml"]


def test_a_log_without_clock_is_refused(project: Path) -> None:
    text = (project / "recsys.toml").read_text().replace('"s"', '"order"')
    (project / "recsys.toml").write_text(text)
    done = run()
    assert done.exit_code == 2
    assert "data.columns.timestamp_unit must be of a clock" in done.stderr


def test_its_help_loads_no_model_library(project: Path) -> None:
    code = (
        "import sys; from serving.cli import app\n"
        "try: app(['backtest', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join(sorted({'torch', 'lightgbm', 'polars', 'recsys.pipeline'}"
        " & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=project,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--every" in done.stdout
