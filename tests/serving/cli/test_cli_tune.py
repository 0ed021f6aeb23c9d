from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.evaluation import Difference, Interval
from recsys.tuning.search import TuningResult
from serving.cli import app


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration whose data nobody reads, as the current one."""
    (tmp_path / "recsys.toml").write_text(
        '[data]\nevents = "e.parquet"\nitems = "i.parquet"\n'
        "[retrieval]\nnegatives = 300\n"
        "[tuning]\nminutes = 5\n"
        "[tuning.space]\n"
        '"retrieval.temperature" = {low = 0.05, high = 0.2, log = true}\n'
        '"retrieval.negatives" = {choices = [300, 600]}\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["tune", *arguments])


def result(project: Path, **changes: Any) -> TuningResult:
    return TuningResult(
        best={"retrieval.temperature": 0.0812345, "retrieval.negatives": 600},
        now={"retrieval.temperature": 0.1, "retrieval.negatives": 300},
        recall=Interval(0.2105, 0.205, 0.216, 1234),
        gain=Difference(0.0102, 0.0061, 0.0143, 0.002, 1234),
        trial=12,
        trials=23,
        pruned=9,
        failed=1,
        used_up=False,
        path=project / "artifacts/tuning/best.toml",
    )._replace(**changes)


def install(monkeypatch: pytest.MonkeyPatch, found: TuningResult | BaseException) -> dict[str, Any]:
    """Stand in for the search; what it is called with."""
    seen: dict[str, Any] = {}

    def tune(config: Any, *, progress: Any) -> TuningResult:
        seen.update(config=config, progress=progress)
        if isinstance(found, BaseException):
            raise found
        return found

    module = types.ModuleType("recsys.tuning.search")
    module.tune = tune  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recsys.tuning.search", module)
    return seen


def test_the_best_settings_are_printed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = install(monkeypatch, result(project))
    assert run().stdout.splitlines() == [
        "validation recall@20 0.2105 [0.2050, 0.2160] over 1,234 users, the best of 23 trials "
        "(9 given up early, 1 failed)",
        "+0.0102 [+0.0061, +0.0143] over the settings now",
        "setting                now  best",
        "retrieval.temperature  0.1  0.08123",
        "retrieval.negatives    300  600",
        "the same command goes on; train with the best: "
        "recsys train --config artifacts/tuning/best.toml",
    ]
    assert seen["config"] == load_config(project / "recsys.toml")
    assert not seen["progress"].enabled


def test_the_settings_now_may_be_the_best(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = result(project)
    install(monkeypatch, found._replace(now=found.best, used_up=True))
    text = run().stdout
    assert "over the settings now" not in text
    assert "raise tuning.trials to go on; train with the best" in text
    install(monkeypatch, found._replace(gain=None))
    assert "over the settings now" not in run().stdout


def test_json_holds_everything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, result(project))
    values = json.loads(run("--json").stdout)
    assert set(values) == {*TuningResult._fields, "command"}
    assert values["best"] == {"retrieval.temperature": 0.0812345, "retrieval.negatives": 600}
    assert values["recall"] == {"mean": 0.2105, "low": 0.205, "high": 0.216, "users": 1234}
    assert values["gain"]["low"] == 0.0061
    assert values["path"] == str(project / "artifacts/tuning/best.toml")
    install(monkeypatch, result(project, gain=None))
    assert json.loads(run("--json").stdout)["gain"] is None


def test_the_budget_can_be_given(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = install(monkeypatch, result(project))
    run("--minutes", "1.5", "--trials", "7", "--progress")
    tuning = seen["config"].tuning
    assert (tuning.minutes, tuning.trials, seen["progress"].enabled) == (1.5, 7, True)
    assert tuning.space == load_config(project / "recsys.toml").tuning.space
    run("--trials", "8")
    assert seen["config"].tuning.minutes == 5
    assert run("--minutes", "0").exit_code == 2
    assert run("--trials", "0").exit_code == 2


def test_a_dry_run_prints_the_space_and_loads_no_model_library(project: Path) -> None:
    code = (
        "import sys; from serving.cli import app\n"
        "try: app(['tune', '--dry-run'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({'torch', 'optuna', 'lightgbm'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=project,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert done.stdout.splitlines() == [
        "setting                now  searched",
        "retrieval.temperature  0.1  0.05 to 0.2, log",
        "retrieval.negatives    300  300, 600",
        "5 minutes, at most 100 trials",
        "",
    ]
    assert sorted(path.name for path in project.iterdir()) == ["recsys.toml"]
    values = json.loads(run("--dry-run", "--json", "--trials", "3").stdout)
    assert values["space"]["retrieval.negatives"] == {"log": False, "choices": [300, 600]}
    assert values["now"] == {"retrieval.temperature": 0.1, "retrieval.negatives": 300}
    assert (values["minutes"], values["trials"]) == (5, 3)


def test_a_mistake_in_the_space_is_a_message(project: Path) -> None:
    with (project / "recsys.toml").open("a") as file:
        file.write('"retrieval.gama" = {low = 1, high = 2}\n')
    done = run("--dry-run")
    assert done.exit_code == 2
    assert "unknown setting 'retrieval.gama'; did you mean 'retrieval.gamma'?" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted: finished trials stay; the same command goes on"),
        (TimeoutError("no trial came to its end"), 1, "error: no trial came to its end"),
        (ImportError("tuning needs optuna"), 1, "error: tuning needs optuna; run `make setup`"),
    ],
)
def test_what_ends_a_search_is_a_message(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    install(monkeypatch, error)
    done = run()
    assert done.exit_code == code
    assert done.stderr.startswith(message)
    assert done.stdout == ""
    assert "Traceback" not in done.output
