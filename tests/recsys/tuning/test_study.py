from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.config.tuning import Dimension
from recsys.errors import ArtifactError
from recsys.tuning import study as study_module
from recsys.tuning.study import Study

SPACE = {
    "retrieval.temperature": Dimension(low=0.05, high=0.5, log=True),
    "retrieval.dim": Dimension(low=4, high=64),
    "retrieval.loss": Dimension(choices=("bpr", "directau")),
}
IDENTITY = {"data": "d", "code": "c"}


def open_study(path: Path, *, seed: int = 1, **identity: str) -> Study:
    steps = {"retrieval.dim": 4}
    return Study.open(path, {**IDENTITY, **identity}, SPACE, steps=steps, seed=seed)


def value(params: dict[str, Any]) -> float:
    """Best at temperature .2, dim 32 and bpr."""
    distance = abs(params["retrieval.temperature"] - 0.2) + abs(params["retrieval.dim"] - 32) / 64
    return 1.0 - distance - 0.5 * (params["retrieval.loss"] != "bpr")


def go_on(study: Study, count: int) -> None:
    for _ in range(count):
        trial = study.next_trial()
        study.complete(trial, value(trial.params))


def drawn(study: Study) -> list[dict[str, Any]]:
    return [trial.settings for trial in study.finished()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.jsonl"


def test_an_interrupted_study_ends_where_another_would(tmp_path: Path) -> None:
    go_on(straight := open_study(tmp_path / "a.jsonl"), 14)
    for count in (1, 5, 8):  # before and after the sampler has learned something
        study = open_study(tmp_path / "b.jsonl")
        go_on(study, count)
        study.interrupt(study.next_trial())
        study.next_trial()  # a process that is killed here leaves it running
    assert drawn(open_study(tmp_path / "b.jsonl")) == drawn(straight)
    assert len({json.dumps(settings) for settings in drawn(straight)}) == 14


def test_the_seed_decides(tmp_path: Path) -> None:
    studies = [open_study(tmp_path / f"{seed}.jsonl", seed=seed) for seed in (1, 2)]
    for study in studies:
        go_on(study, 2)
    assert drawn(studies[0]) != drawn(studies[1])


def test_values_are_of_the_space_and_the_search_learns(path: Path) -> None:
    go_on(study := open_study(path), 30)
    for settings in drawn(study):
        assert all(SPACE[name].holds(found) for name, found in settings.items())
        assert isinstance(settings["retrieval.dim"], int)
    losses = [settings["retrieval.loss"] for settings in drawn(study)]
    assert losses[:10].count("bpr") <= 7
    assert losses[-10:].count("bpr") >= 8
    values = [trial.value or 0.0 for trial in study.finished()]
    best = study.best()
    assert best is not None
    assert best.value == max(values)


def test_given_settings_go_first_and_only_once(path: Path) -> None:
    settings = {"retrieval.temperature": 0.1, "retrieval.dim": 8, "retrieval.loss": "bpr"}
    open_study(path).next_trial(settings)  # killed
    study = open_study(path)
    trial = study.next_trial(settings)
    assert trial.params == settings
    study.complete(trial, 0.5)
    assert study.next_trial().params != settings


def test_what_failed_counts_and_what_was_interrupted_does_not(path: Path) -> None:
    study = open_study(path)
    study.fail(study.next_trial(), "the loss is nan")
    study.interrupt(study.next_trial())
    study.prune(study.next_trial())
    assert study.best() is None
    study.complete(study.next_trial(), 0.25)
    study.interrupt(study.finished()[-1].number)  # too late: it is complete
    finished = open_study(path).finished()
    assert [trial.outcome for trial in finished] == ["failed", "pruned", "complete"]
    assert [trial.reason for trial in finished] == ["the loss is nan", "", ""]
    assert [trial.value for trial in finished] == [None, None, 0.25]
    assert [trial.number for trial in finished] == [0, 2, 3]


def test_of_equal_trials_the_first_is_best(path: Path) -> None:
    study = open_study(path)
    for reached in (0.0, 0.5, 0.5):
        study.complete(study.next_trial(), reached)
    best = study.best()
    assert best is not None
    assert best.number == 1


def test_a_trial_below_the_median_is_given_up(path: Path) -> None:
    study = open_study(path)
    for number in range(study_module.STARTUP_TRIALS):
        trial = study.next_trial()
        for epoch in (1, 2, 3):
            trial.report(0.1 * number, epoch)
            assert not trial.should_prune()
        study.complete(trial, 0.1 * number)
    worse, better = study.next_trial(), study.next_trial()
    worse.report(0.19, 1)
    assert not worse.should_prune()  # too early to tell
    worse.report(0.19, 2)
    assert worse.should_prune()
    better.report(0.21, 1)
    better.report(0.21, 2)
    assert not better.should_prune()


def test_another_identity_is_another_study(path: Path) -> None:
    first = open_study(path)
    go_on(first, 2)
    assert first.changed == ()
    other = open_study(path, code="newer")
    assert other.changed == ("code",)
    assert other.finished() == []
    go_on(other, 1)
    assert open_study(path, code="newer").changed == ()
    again = open_study(path)
    assert again.changed == ()
    assert len(again.finished()) == 2


def test_every_line_is_json_and_there_is_nothing_else(path: Path) -> None:
    go_on(open_study(path), 3)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) > 10
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_a_killed_process_left_is_put_right(path: Path) -> None:
    go_on(open_study(path), 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    os.symlink(path, f"{path}.lock")
    study = open_study(path)
    go_on(study, 1)
    assert path.read_bytes().startswith(whole + b'{"op_code"')
    assert len(open_study(path).finished()) == 3


@pytest.mark.parametrize("line", [b"nothing\n", b"{}\n", b"[]\n", b'{"op_code": 99}\n'])
def test_a_damaged_file_is_refused(path: Path, line: bytes) -> None:
    go_on(open_study(path), 1)
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(ArtifactError, match=r"study\.jsonl is damaged .* move it away"):
        open_study(path)


def test_without_optuna_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"tuning needs optuna .*recsys-plugin\[tune\]"):
        open_study(path)
