from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import Config, load_config
from recsys.dataset import read_dataset
from recsys.errors import ArtifactError, CollapseError, ConfigError
from recsys.pipeline import run as pipeline
from recsys.pipeline.item_stages import item_stages, load_content, load_item_inputs
from recsys.pipeline.retrievers import fit_sources
from recsys.pipeline.stages import Stage, run_stages
from recsys.progress import Progress
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.semantic_ids import SemanticIds
from recsys.tuning import search as tuning
from recsys.tuning import study
from recsys.tuning.search import TuningResult, tune
from recsys.tuning.trials import changed_settings, recall_of_towers, trial_data

NUM_USERS, NUM_ITEMS, EVENTS_EACH = 40, 160, 10
TEMPERATURES = {"retrieval.temperature": {"low": 0.05, "high": 0.5, "log": True}}
EPOCHS = {"retrieval.epochs": {"choices": (1, 16)}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each user meets items of one of four groups; what is known of the items says nothing."""
    directory = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(NUM_USERS):
        items = rng.choice(NUM_ITEMS // 4, EVENTS_EACH, replace=False) * 4 + user % 4
        rows += [(f"u{user}", f"i{item}", 10**9 + user + 100 * at) for at, item in enumerate(items)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(directory / "events.parquet")
    items = {
        "item_id": [f"i{n}" for n in range(NUM_ITEMS)],
        "title": ["a thing"] * NUM_ITEMS,
        "kind": [f"k{n}" for n in rng.integers(0, 5, NUM_ITEMS)],
    }
    pl.DataFrame(items).write_parquet(directory / "items.parquet")
    return directory


def make_config(
    world: Path, output: Path, *, retrieval: Any = None, tuning: Any = None, **sections: Any
) -> Config:
    return Config.model_validate(
        {
            "seed": 3,
            "data": {
                "events": world / "events.parquet",
                "items": world / "items.parquet",
                "item_columns": {"category": ("kind",), "text": ("title",)},
            },
            "output": {"directory": output},
            "content": {"dim": 4},
            "semantic_ids": {"kind": "residual_kmeans", "levels": 2, "codes": 4},
            "retrieval": {
                "dim": 8,
                "epochs": 3,
                "negatives": 16,
                "batch_size": 64,
                "history_length": 5,
                **(retrieval or {}),
            },
            "evaluation": {"bootstrap_samples": 100},
            "tuning": {"trials": 4, "space": TEMPERATURES, **(tuning or {})},
            **sections,
        }
    )


class Clock:
    """Seconds that pass only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Trainer:
    """Stands in for the training: recall of each user falls with the distance from .2.

    Every epoch takes ten seconds of ``clock`` and calls ``hook`` with the number of the training
    and of the epoch.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.hook: Callable[[int, int], None] = lambda training, epoch: None
        self.temperatures: list[float] = []
        self.epochs: list[int] = []

    def __call__(self, data: Any, settings: Any, *, seed: int, progress: Any, on_epoch: Any) -> Any:
        self.temperatures.append(settings.temperature)
        self.epochs.append(0)
        per_user = np.clip(np.linspace(0.2, 0.8, 25) - abs(settings.temperature - 0.2), 0.0, 1.0)
        for epoch in range(1, settings.epochs + 1):
            self.clock.now += 10.0
            self.hook(len(self.epochs), epoch)
            self.epochs[-1] = epoch
            on_epoch(EpochReport(epoch, settings.epochs, 1.0, float(per_user.mean()), 10.0))
        return per_user


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Trainer:
    trainer = Trainer(clock)
    monkeypatch.setattr(tuning, "recall_of_towers", trainer)
    monkeypatch.setattr(tuning, "trial_data", lambda *_, **__: None)
    return trainer


def lines_of(directory: Path) -> list[tuple[dict[str, Any], float | None, str]]:
    """Settings, value and outcome of the finished trials of the only study there is."""
    optuna = study.load_optuna()
    backend = optuna.storages.journal.JournalFileBackend(str(directory / "tuning/study.jsonl"))
    storage = optuna.storages.JournalStorage(backend)
    [one] = storage.get_all_studies()
    opened = optuna.load_study(study_name=one.study_name, storage=storage)
    return [
        (trial.params, trial.value, trial.user_attrs["outcome"])
        for trial in opened.get_trials()
        if trial.state.name in ("COMPLETE", "PRUNED")
    ]


# With the real towers.


@pytest.fixture(scope="module")
def tuned(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, TuningResult]:
    """One epoch or sixteen: the sixteen begin with the one, and their best epoch counts."""
    config = make_config(
        world,
        tmp_path_factory.mktemp("tuned"),
        retrieval={"epochs": 1},
        tuning={"space": EPOCHS},
    )
    return config, tune(config)


def test_the_better_setting_is_found(tuned: tuple[Config, TuningResult]) -> None:
    config, found = tuned
    assert (found.now, found.best) == ({"retrieval.epochs": 1}, {"retrieval.epochs": 16})
    assert found.gain is not None
    assert found.gain.low > 0
    assert found.recall.users == NUM_USERS
    assert found.recall.low < found.recall.mean < found.recall.high
    assert (found.trials, found.failed, found.used_up) == (4, 0, True)
    trials = lines_of(config.output.directory)
    assert trials[0][0] == found.now
    assert max(value or 0.0 for _, value, _ in trials) == pytest.approx(found.recall.mean)


def test_a_trial_is_the_towers_of_the_past_stage(tuned: tuple[Config, TuningResult]) -> None:
    config, found = tuned
    data = read_dataset(config)
    past, future = data.histories(data.split(config).train).head_fraction(config.split.fraction)
    curve: list[EpochReport] = []
    fit_sources(
        past,
        load_item_inputs(config.output.directory / "work"),
        config.retrieval.model_copy(update={"sources": ("two_tower", "popularity"), "epochs": 16}),
        seed=config.seed,
        validation=future,
        on_epoch=curve.append,
    )
    assert max(epoch.recall or 0.0 for epoch in curve) == pytest.approx(found.recall.mean)


def test_the_best_settings_are_a_configuration(tuned: tuple[Config, TuningResult]) -> None:
    config, found = tuned
    best = load_config(found.path)
    assert best.retrieval == config.retrieval.model_copy(update={"epochs": 16})
    assert best.data.events.resolve() == config.data.events.resolve()
    assert best.output.directory.resolve() == config.output.directory.resolve()
    plain = {"data", "output", "retrieval"}
    assert best.model_dump(exclude=plain) == config.model_dump(exclude=plain)
    assert best.data.model_dump(exclude={"events", "items"}) == config.data.model_dump(
        exclude={"events", "items"}
    )
    # It goes on with the same study: what is searched is no part of its identity.
    again = tune(best)
    assert (again.recall, again.trials, again.best) == (found.recall, found.trials, found.best)
    assert again.now == found.best


def poisoned(world: Path, directory: Path, *, part: slice) -> Path:
    """A copy of the world in which each user's events ``part`` are of the user's first items."""
    directory.mkdir()
    events = pl.read_parquet(world / "events.parquet").sort("user_id", "timestamp")
    rows = []
    for user in events.partition_by("user_id", maintain_order=True):
        items = user["item_id"].to_list()
        items[part] = items[: len(items[part])]
        rows.append(user.with_columns(pl.Series("item_id", items)))
    pl.concat(rows).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(
        directory / "events.parquet"
    )
    (directory / "items.parquet").write_bytes((world / "items.parquet").read_bytes())
    return directory


def test_test_events_change_nothing(
    world: Path, tmp_path: Path, tuned: tuple[Config, TuningResult]
) -> None:
    """Of ten events eight are the training part, and the last two of these validate."""
    config = tuned[0]
    changed = {}
    for name, part in {"test": slice(8, 10), "validation": slice(6, 8)}.items():
        data = make_config(poisoned(world, tmp_path / name, part=part), tmp_path / f"{name}-out")
        other = config.model_copy(update={"data": data.data, "output": data.output})
        tune(other)
        changed[name] = lines_of(other.output.directory)
    assert changed["test"] == lines_of(config.output.directory)
    assert changed["validation"] != lines_of(config.output.directory)


def test_the_data_of_trials_end_where_the_test_part_begins(world: Path, tmp_path: Path) -> None:
    config = make_config(world, tmp_path)
    data = read_dataset(config)
    found = trial_data(config, data)
    assert found.past.counts.tolist() == [6] * NUM_USERS
    assert found.future.counts.tolist() == [2] * NUM_USERS
    test = data.histories(data.split(config).test)
    last = found.future.timestamp[found.future.indptr[1:] - 1]
    assert (last < test.timestamp[test.indptr[:-1]]).all()


def test_the_stages_of_the_items_are_those_of_training(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EnoughSeen(Exception):
        pass

    seen: list[Stage] = []

    def record(stages: list[Stage], *_: Any, **__: Any) -> None:
        seen.extend(stages)
        raise EnoughSeen

    config = make_config(world, tmp_path)
    monkeypatch.setattr(pipeline, "run_stages", record)
    with pytest.raises(EnoughSeen):
        pipeline.train(config)
    work = tmp_path / "work"
    run_stages(seen[:3], work, code="c")
    results = run_stages(item_stages(config, read_dataset(config), work), work, code="c")
    assert [result.reused for result in results.values()] == [True] * 3
    before = {path: path.read_bytes() for path in work.rglob("*.safetensors")}
    run_stages(item_stages(config, read_dataset(config), work), work, code="c", fresh=True)
    assert {path: path.read_bytes() for path in work.rglob("*.safetensors")} == before
    assert load_content(work).shape == (NUM_ITEMS + 1, 4)
    other = config.model_copy(update={"seed": 4})
    results = run_stages(item_stages(other, read_dataset(other), work), work, code="c")
    assert [result.reused for result in results.values()] == [False] * 3


def test_few_codes_for_the_items_are_no_limit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"kind": "residual_kmeans", "levels": 1, "codes": 2}
    config = make_config(world, tmp_path, semantic_ids=settings)
    monkeypatch.setattr("recsys.pipeline.item_stages._NUM_TIES", 3)
    data = read_dataset(config)
    run_stages(item_stages(config, data, tmp_path), tmp_path, code="c")
    ids = SemanticIds.load(tmp_path / "semantic-ids")
    assert len(ids) == data.num_items
    assert ids.num_codes[-1] >= data.num_items / 2 > 3


def test_users_are_asked_in_blocks(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(world, tmp_path, retrieval={"use_user_id": True, "epochs": 2})
    data = trial_data(config, read_dataset(config))
    gone = replace(data, future=data.future.before(np.arange(NUM_USERS) % 3 * 10**18))
    whole = recall_of_towers(gone, config.retrieval, seed=1)
    monkeypatch.setattr("recsys.tuning.trials._USERS_AT_ONCE", 7)
    assert recall_of_towers(gone, config.retrieval, seed=1).tolist() == whole.tolist()
    assert whole.shape == (2 * NUM_USERS // 3,)
    assert recall_of_towers(gone, config.retrieval, seed=2).tolist() != whole.tolist()


# With a training that only pretends.


def test_a_resumed_study_equals_one_that_was_not_interrupted(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    straight = make_config(world, tmp_path / "a", tuning={"trials": 8})
    tune(straight, clock=clock)
    # Three epochs of ten seconds a trial: the second call stops within its third trial.
    for minutes, trials in ((0.5, 1), (1.2, 3), (1.0, 5), (10.0, 8)):
        config = make_config(world, tmp_path / "b", tuning={"trials": 8, "minutes": minutes})
        found = tune(config, clock=clock)
        assert (found.trials, found.used_up) == (trials, trials == 8)
    assert lines_of(tmp_path / "b") == lines_of(tmp_path / "a")
    assert trainer.temperatures[11:13] == [trainer.temperatures[3]] * 2  # stopped, and again


def test_the_budget_ends_at_an_epoch(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    config = make_config(world, tmp_path, tuning={"minutes": 0.25})
    message = r"no trial came to its end within 0\.25 minutes, 0 were given up; raise tuning"
    with pytest.raises(TimeoutError, match=message):
        tune(config, clock=clock)
    assert trainer.epochs == [2]
    assert clock.now == 20.0
    assert not (tmp_path / "tuning/best.toml").exists()


def test_a_last_epoch_over_time_still_counts(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    found = tune(make_config(world, tmp_path, tuning={"minutes": 0.49}), clock=clock)
    assert (found.trials, found.used_up) == (1, False)
    assert found.best == found.now
    assert found.gain is not None
    assert found.gain.mean == 0.0


def test_an_interruption_keeps_finished_trials(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    def interrupt(training: int, epoch: int) -> None:
        if (training, epoch) == (3, 2):
            raise KeyboardInterrupt

    config = make_config(world, tmp_path)
    trainer.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        tune(config, clock=clock)
    assert len(lines_of(tmp_path)) == 2
    kept = load_config(tmp_path / "tuning/best.toml").retrieval.temperature
    assert kept == min(trainer.temperatures[:2], key=lambda found: abs(found - 0.2))
    assert tune(config, clock=clock).trials == 4
    assert trainer.temperatures[3] == trainer.temperatures[2]


def test_a_bug_is_not_taken_for_bad_settings(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    def stumble(training: int, epoch: int) -> None:
        raise ZeroDivisionError("by zero")

    trainer.hook = stumble
    with pytest.raises(ZeroDivisionError):
        tune(make_config(world, tmp_path), clock=clock)
    assert lines_of(tmp_path) == []


def test_settings_that_run_away_are_told_and_left(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def run_away(training: int, epoch: int) -> None:
        if training != 2:
            raise FloatingPointError("loss is nan at step 3")

    trainer.hook = run_away
    with caplog.at_level(logging.INFO, logger="recsys.tuning.search"):
        found = tune(make_config(world, tmp_path), clock=clock)
    assert (found.trials, found.failed, found.trial) == (4, 3, 1)
    assert found.gain is None  # the settings as they are ran away
    assert caplog.text.count("recall@20 failed (loss is nan at step 3); temperature") == 3
    trainer.hook = lambda training, epoch: run_away(0, 0)
    with pytest.raises(TimeoutError, match=r"4 were given up; the last one: loss is nan at step 3"):
        tune(make_config(world, tmp_path / "other"), clock=clock)


def test_vectors_that_collapse_are_a_failed_trial(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    def collapse(training: int, epoch: int) -> None:
        if training == 2:
            raise CollapseError("users use 1.2 of 8 dimensions")

    trainer.hook = collapse
    found = tune(make_config(world, tmp_path), clock=clock)
    assert (found.trials, found.failed) == (4, 1)


def test_a_trial_makes_nothing_of_its_towers(world: Path, tmp_path: Path) -> None:
    """A soup would be several trainings, and a threshold needs more users than these."""
    config = make_config(world, tmp_path)
    extras = {"soup": 3, "threshold_head": True, "light_user_tower": True}
    asked = config.retrieval.model_copy(update=extras)
    data = trial_data(config, read_dataset(config))
    curves: list[list[EpochReport]] = [[], []]
    for settings, curve in zip((config.retrieval, asked), curves, strict=True):
        recall_of_towers(data, settings, seed=1, on_epoch=curve.append)
    assert [epoch.recall for epoch in curves[0]] == [epoch.recall for epoch in curves[1]]


def test_values_that_do_not_go_together_are_a_failed_trial(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(settings: Any, changes: Any) -> Any:
        if changes["temperature"] != 0.1:
            raise ConfigError("not these together")
        return changed_settings(settings, changes)

    monkeypatch.setattr(tuning, "changed_settings", refuse)
    found = tune(make_config(world, tmp_path), clock=clock)
    assert (found.trials, found.failed, found.best) == (4, 3, found.now)


def test_bad_trials_are_given_up_early(
    world: Path,
    tmp_path: Path,
    trainer: Trainer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study, "STARTUP_TRIALS", 1)
    config = make_config(world, tmp_path, tuning={"trials": 12})
    found = tune(config, clock=clock)
    outcomes = [outcome for _, _, outcome in lines_of(tmp_path)]
    assert found.pruned == outcomes.count("pruned") > 0
    # The pruner may say so from the second epoch on.
    assert trainer.epochs == [{"pruned": 2, "complete": 3}[outcome] for outcome in outcomes]


def test_the_gain_is_over_the_settings_as_they_are(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    config = make_config(world, tmp_path, retrieval={"temperature": 0.3})
    found = tune(config, clock=clock)
    assert trainer.temperatures[0] == 0.3
    best = min(trainer.temperatures, key=lambda temperature: abs(temperature - 0.2))
    assert found.best["retrieval.temperature"] == best
    assert found.gain is not None
    assert found.gain.mean == pytest.approx(0.1 - abs(best - 0.2), abs=0.01)
    kept = {path.name for path in (tmp_path / "tuning").glob("*/*")}
    assert kept == {"recall-0.npy", f"recall-{found.trial}.npy"}


def test_settings_outside_the_space_are_not_measured(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    config = make_config(world, tmp_path, retrieval={"temperature": 0.9})
    found = tune(config, clock=clock)
    assert 0.9 not in trainer.temperatures
    assert found.gain is None
    assert found.now["retrieval.temperature"] == 0.9


def test_a_study_that_is_used_up_trains_nothing(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    config = make_config(world, tmp_path)
    first = tune(config, clock=clock)
    (tmp_path / "tuning/best.toml").unlink()
    assert tune(config, clock=clock) == first
    assert len(trainer.epochs) == 4
    assert first.path.is_file()
    more = config.model_copy(update={"tuning": config.tuning.model_copy(update={"trials": 5})})
    assert tune(more, clock=clock).trials == 5
    assert len(trainer.epochs) == 5


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"seed": 4}, "settings"),
        ({"retrieval": {"dim": 16}}, "settings"),
        ({"content": {"dim": 5}}, "settings"),
        ({"split": {"fraction": 0.7}}, "data"),
        ({"tuning": {"space": EPOCHS}}, "space"),
    ],
)
def test_what_changes_a_trial_starts_a_new_study(
    world: Path,
    tmp_path: Path,
    trainer: Trainer,
    clock: Clock,
    change: dict[str, Any],
    part: str,
) -> None:
    notes: list[str] = []

    class Notes(Progress):
        def note(self, message: str) -> None:
            notes.append(message)

    tune(make_config(world, tmp_path), clock=clock, progress=Notes())
    assert not any("new study" in note for note in notes)
    other = make_config(world, tmp_path, **change)
    assert tune(other, clock=clock, progress=Notes()).trials == 4
    assert len(trainer.epochs) == 8
    assert any(f"a new study, because of other {part}" in note for note in notes)


def test_what_changes_no_trial_goes_on_with_the_study(
    world: Path, tmp_path: Path, trainer: Trainer, clock: Clock
) -> None:
    tune(make_config(world, tmp_path), clock=clock)
    same = {"index": "annoy", "half_life": 3.0, "temperature": 0.3}  # the last one is searched
    tune(make_config(world, tmp_path, retrieval=same, evaluation={"ks": (3,)}), clock=clock)
    assert len(trainer.epochs) == 4


def test_one_process_at_a_time(world: Path, tmp_path: Path, trainer: Trainer) -> None:
    (tmp_path / "tuning").mkdir()
    with (tmp_path / "tuning/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(
            ArtifactError, match=r"another process is tuning in .*tuning, process unknown; wait"
        ):
            tune(make_config(world, tmp_path))


def test_there_must_be_towers_and_events_to_judge_them_on(world: Path, tmp_path: Path) -> None:
    config = make_config(world, tmp_path, retrieval={"sources": ("popularity", "item_item")})
    with pytest.raises(ConfigError, match="must include 'two_tower' to tune it, got popularity, i"):
        tune(config)
    config = make_config(world, tmp_path, split={"fraction": 0.05})
    with pytest.raises(ConfigError, match=r"split.fraction 0\.05 leaves 0 events to learn from"):
        tune(config)


def test_changed_settings_are_checked() -> None:
    settings = make_config(Path("w"), Path("o")).retrieval
    assert changed_settings(settings, {"dim": 12}).dim == 12
    with pytest.raises(ConfigError, match="dim must be >= 4, got 0"):
        changed_settings(settings, {"dim": 0})


def test_the_result_is_plain(tuned: tuple[Config, TuningResult]) -> None:
    json.dumps({**tuned[1]._asdict(), "path": ""})
