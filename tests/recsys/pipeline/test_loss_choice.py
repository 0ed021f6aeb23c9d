"""``loss = "auto"``: which loss is chosen, and what becomes of the choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from features.tables import Histories
from recsys.bundle import Bundle, latest
from recsys.config import Config, RetrievalConfig, load_config
from recsys.errors import CollapseError, ConfigError
from recsys.pipeline import evaluate, train
from recsys.pipeline.lineage import Lineage
from recsys.pipeline.source_choice import (
    LOSSES,
    choose_loss,
    loss_of,
    read_choices,
    read_tried,
    tried_losses,
)
from recsys.pipeline.towers import ItemInputs, fit_towers, validation_recall
from recsys.progress import Progress
from recsys.retrieval.training import TrainingOptions
from recsys.tuning.space import of_one_loss
from serving.cli import app
from tests.recsys.pipeline.test_lineage import make_config, worlds  # noqa: F401
from tests.recsys.pipeline.test_tower_training import items, make_histories, small  # noqa: F401
from tests.test_gate_end_to_end import settings as run_settings
from tests.test_gate_end_to_end import write_world

Key = tuple[str, str]


class Notes(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def note(self, line: str) -> None:
        self.told.append(line)


def key_of(settings: RetrievalConfig) -> Key:
    return settings.loss, settings.denoising


def measured(values: Mapping[Key, float | Exception], asked: list[Key]) -> Any:
    def measure(settings: RetrievalConfig) -> float:
        asked.append(key_of(settings))
        value = values.get(key_of(settings), 0.1)
        if isinstance(value, Exception):
            raise value
        return value

    return measure


PAIRS = [(str(pair["loss"]), str(pair["denoising"])) for pair in LOSSES]


@pytest.mark.parametrize("best", PAIRS)
def test_the_best_on_validation_is_chosen(best: Key) -> None:
    asked: list[Key] = []
    notes = Notes()
    chosen, tried = choose_loss(
        RetrievalConfig(loss="auto"), measured({best: 0.3}, asked), progress=notes
    )
    assert (chosen["loss"], chosen["denoising"]) == best
    assert asked == PAIRS
    assert list(tried.values()) == [0.3 if pair == best else 0.1 for pair in PAIRS]
    assert notes.told[-1].startswith(
        f'chosen for the towers: loss = "{best[0]}", denoising = "{best[1]}"'
    )
    assert sum("validation recall@20 0.3000" in line for line in notes.told) == 1


def test_of_equal_ones_the_first_stays() -> None:
    chosen, _ = choose_loss(RetrievalConfig(loss="auto"), measured({}, []))
    assert chosen == LOSSES[0]
    assert LOSSES[0] == {"loss": "sampled_softmax", "denoising": "none"}  # as by default


def test_what_is_given_is_not_changed_and_tried_once() -> None:
    asked: list[Key] = []
    given = RetrievalConfig(loss="auto", denoising="reweighted", temperature=0.2)
    chosen, tried = choose_loss(given, measured({("bsl", "reweighted"): 0.2}, asked))
    assert asked == [(loss, "reweighted") for loss in dict(PAIRS)]
    assert chosen == {"loss": "bsl"}
    assert tried["bsl, reweighted"] == 0.2


def test_a_loss_that_fails_is_not_chosen() -> None:
    values: dict[Key, float | Exception] = {
        PAIRS[0]: CollapseError("too few dimensions"),
        PAIRS[1]: FloatingPointError("loss is nan"),
        PAIRS[2]: 0.2,
    }
    notes = Notes()
    chosen, tried = choose_loss(RetrievalConfig(loss="auto"), measured(values, []), progress=notes)
    assert (chosen["loss"], chosen["denoising"]) == PAIRS[2]
    assert list(tried.values())[:3] == [None, None, 0.2]
    assert notes.told[0] == f"loss {PAIRS[0][0]}: failed (too few dimensions)"


def test_where_all_fail_the_last_failure_is_told() -> None:
    values = dict.fromkeys(PAIRS, CollapseError("too few dimensions"))
    with pytest.raises(CollapseError, match="too few dimensions"):
        choose_loss(RetrievalConfig(loss="auto"), measured(values, []))


def test_the_same_seed_chooses_the_same() -> None:
    rng = np.random.default_rng(0)
    drawn = np.argsort(rng.random((30, 200)), axis=1)[:, :14] + 1  # all of a user's are different
    past, future = (
        Histories(
            np.arange(31, dtype=np.int64) * part.shape[1],
            part.ravel(),
            np.tile(np.arange(part.shape[1]), 30),
            np.ones(part.size, dtype=np.float32),
        )
        for part in (drawn[:, :8], drawn[:, 8:])
    )
    nothing_known = ItemInputs(None, None, 0, np.zeros((201, 0), dtype=np.int64), 0)

    def chosen(seed: int) -> Any:
        return choose_loss(
            small(loss="auto", soup=3),
            lambda settings: validation_recall(
                past, nothing_known, settings, seed=seed, validation=future
            ),
        )

    first = chosen(1)
    assert chosen(1) == first
    assert first[1][key_name(first[0])] == max(first[1].values())
    assert chosen(2)[1] != first[1]


def key_name(chosen: Mapping[str, Any]) -> str:
    if chosen["denoising"] == "none":
        return str(chosen["loss"])
    return f"{chosen['loss']}, {chosen['denoising']}"


def test_one_training_has_one_loss(items: ItemInputs) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=r"loss must be one of bpr, .*, got 'auto'"):
        TrainingOptions(loss="auto")
    with pytest.raises(ConfigError, match=r"loss must be one of bpr, .*, got 'auto'"):
        fit_towers(make_histories(0, 4), items, small(loss="auto"), seed=1)
    with pytest.raises(ConfigError, match=r"sl_at_k, auto, got 'autoo'; did you mean 'auto'"):
        RetrievalConfig(loss="autoo")


# -- runs -----------------------------------------------------------------------------------------


def auto(world: Path, output: Path, **retrieval: Any) -> Config:
    given = {"loss": "auto", **retrieval}
    base = make_config(world, output)
    return make_config(
        world, output, retrieval={**base.retrieval.model_dump(exclude_unset=True), **given}
    )


def says(bundle: Bundle) -> tuple[str, str]:
    used = bundle.manifest.config["retrieval"]
    return used["loss"], used["denoising"]


def prefer(monkeypatch: pytest.MonkeyPatch, best: Key) -> list[Key]:
    """Validation finds this pair best; the pairs that the served towers and others train with."""
    from recsys.pipeline import run as stages
    from recsys.pipeline import towers

    trained: list[Key] = []
    real = towers.train_two_tower

    def train_two_tower(*arguments: Any, **named: Any) -> Any:
        trained.append((named["training"].loss, named["training"].denoising))
        return real(*arguments, **named)

    monkeypatch.setattr(towers, "train_two_tower", train_two_tower)
    monkeypatch.setattr(
        stages,
        "validation_recall",
        lambda histories, inputs, settings, **named: float(key_of(settings) == best),
    )
    return trained


def test_all_towers_of_a_run_have_the_chosen_loss(
    worlds: dict[str, Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = prefer(monkeypatch, ("sampled_softmax", "truncated"))
    config = auto(worlds["then"], tmp_path / "a", soup=2)
    bundle = train(config)
    assert set(trained) == {("sampled_softmax", "truncated")}
    assert says(bundle) == ("sampled_softmax", "truncated")
    kept = read_choices(bundle.path / "retrieval")["two_tower"]
    assert kept == {"loss": "sampled_softmax", "denoising": "truncated"}
    assert read_tried(bundle.path / "retrieval")["sampled_softmax, truncated"] == 1.0
    assert evaluate(config, bundle)["funnel"].users > 0
    (line,) = tried_losses(bundle.path / "retrieval")
    assert line in (bundle.path / "report.html").read_text()


def test_what_continues_a_bundle_without_choosing_has_its_loss(
    worlds: dict[str, Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = prefer(monkeypatch, ("directau", "none"))
    config = auto(worlds["then"], tmp_path / "a")
    parent = train(config)
    refreshed = train(
        auto(worlds["then"], tmp_path / "b"), lineage=Lineage(start=parent, frozen_items=True)
    )
    assert says(refreshed) == says(parent) == ("directau", "none")
    assert read_tried(refreshed.path / "retrieval") == {}
    warm = train(auto(worlds["now"], tmp_path / "c"), lineage=Lineage(start=parent))
    assert says(warm) == ("directau", "none")
    assert set(trained) == {("directau", "none")}
    other = auto(worlds["then"], tmp_path / "d", loss="bpr")
    assert says(train(other, lineage=Lineage(start=parent, frozen_items=True)))[0] == "bpr"
    assert trained[-1] == ("bpr", "none")


def test_settings_of_the_chosen_loss_are_tuned(
    worlds: dict[str, Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefer(monkeypatch, ("directau", "none"))
    config = auto(worlds["then"], tmp_path / "a")
    with pytest.raises(ConfigError, match=r"must be one loss to tune .*, got 'auto' and no bundle"):
        of_one_loss(config)
    bundle = train(config)
    assert key_of(of_one_loss(config).retrieval) == ("directau", "none")
    fixed = make_config(worlds["then"], tmp_path / "a")
    assert of_one_loss(fixed) is fixed
    given = auto(worlds["then"], tmp_path / "a", denoising="pld")
    assert loss_of(bundle, given.retrieval) == {"loss": "directau", "distinct_items": True}


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    file = tmp_path / "recsys.toml"
    file.write_text(
        run_settings().replace("[retrieval]\n", '[retrieval]\nloss = "auto"\n')
        + "[tuning]\ntrials = 1\n"
    )

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--config", str(file)])
        assert result.exit_code == 0, result.output
        return result

    told = json.loads(run("train", "--json").stdout)
    assert len(told["losses"]) == len(LOSSES)
    bundle = latest(tmp_path / "artifacts")
    best = max(told["losses"], key=told["losses"].get)
    loss, denoising = says(bundle)
    assert best == (loss if denoising == "none" else f"{loss}, {denoising}")
    assert "losses tried, by validation recall@20: " in run("train").stdout
    run("evaluate")
    run("tune", "--dry-run")
    run("tune")
    tuned = load_config(tmp_path / "artifacts/tuning/best.toml").retrieval
    assert key_of(tuned) == (loss, denoising)
