from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.config import RetrievalConfig
from recsys.errors import ConfigError
from recsys.pipeline.towers import (
    ItemInputs,
    Plan,
    fit_towers,
    plan_of_past,
    training_options,
    write_curve,
)
from recsys.retrieval.finishing.extras import FinishedTowers, TowerExtras
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import TrainingOptions
from recsys.retrieval.training.epoch_report import EpochReport

NUM_USERS, NUM_ITEMS, NUM_FIELDS = 12, 20, 4


def test_what_is_not_configured_is_trained_as_the_options_default() -> None:
    settings = RetrievalConfig()
    assert training_options(settings) == TrainingOptions()
    assert settings.only(TowerOptions) == TowerOptions()
    assert settings.only(TowerExtras) == TowerExtras()


OTHERS: dict[str, Any] = {
    "loss": "bpr",
    "score": "dot",
    "pooling": "attention",
    "users": "alike",
    "negative_source": "queue",
    "frequency": "streaming",
    "denoising": "reweighted",
    "device": "cpu",
    "psl_sigma": "tanh",
    "use_user_id": True,
    "dim": 32,
    "half_lives": (3.0,),
    "example_events": 5,
    "example_days": 30.0,
    "example_half_life_days": 30.0,
}


def other_value(name: str) -> Any:
    """Another value than the default one, inside the bounds."""
    now = RetrievalConfig.model_fields[name].default
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(now, bool):
        return not now
    return now + 1 if isinstance(now, int) else now * 0.5 + 0.01


@pytest.mark.parametrize("name", [*TrainingOptions.model_fields, *TowerOptions.model_fields])
def test_a_setting_reaches_its_option_and_no_other(name: str) -> None:
    needed = {"use_user_id": True} if name == "user_dropout" else {}
    needed |= {"use_fields": True} if name == "masking_weight" else {}
    before, after = (
        RetrievalConfig(**needed),
        RetrievalConfig(**{**needed, name: other_value(name)}),
    )
    changed = {
        setting
        for kind in (TrainingOptions, TowerOptions)
        for setting in kind.model_fields
        if getattr(before.only(kind), setting) != getattr(after.only(kind), setting)
    }
    assert changed == {name}


def test_what_the_docs_of_losses_set_can_be_set() -> None:
    page = (Path(__file__).parents[3] / "docs" / "losses.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, flags=re.S)
    found = [RetrievalConfig(**tomllib.loads(block)["retrieval"]) for block in blocks]
    assert [(one.loss, one.pooling) for one in found] == [
        ("auto", "recency"),
        ("sampled_softmax", "sequence"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "none"}, "use_user_id must be true for pooling = 'none'"),
        ({"user_dropout": 0.1}, "and for user_dropout, got false with pooling = 'recency'"),
        ({"masking_weight": 0.5}, "masking_weight must be 0 without use_fields, got 0.5"),
        ({"hard_skip": 1000}, "hard_pool must be > hard_skip, got 1000 and 1000"),
        ({"soup": 2, "hard_epochs": 1}, "soup must be 1 with epochs < 2 or with hard_epochs"),
        ({"soup": 2, "epochs": 1}, "soup must be 1 with epochs < 2"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetrievalConfig(**settings)


# -- training -------------------------------------------------------------------------------------


def make_histories(first: int, last: int) -> Histories:
    """Events ``first`` to ``last`` of each user, who goes round a third of the items."""
    each = last - first
    row, at = np.repeat(np.arange(NUM_USERS), each), np.tile(np.arange(first, last), NUM_USERS)
    return Histories(
        np.arange(0, NUM_USERS * each + 1, each).astype(np.int64),
        (row % 3 + 3 * (at + row // 3) % 18 + 1).astype(np.int64),
        at.astype(np.int64),
        np.ones(row.size, dtype=np.float32),
    )


@pytest.fixture
def items() -> ItemInputs:
    rng = np.random.default_rng(0)
    content = np.pad(rng.normal(size=(NUM_ITEMS, 4)).astype(np.float32), ((1, 0), (0, 0)))
    tokens = np.pad(rng.integers(1, 4, (NUM_ITEMS, 1)), ((1, 0), (0, 0)))
    fields = rng.integers(0, 3, (NUM_ITEMS, NUM_FIELDS)) + 3 * np.arange(NUM_FIELDS) + 1
    return ItemInputs(content, tokens, 3, np.pad(fields, ((1, 0), (0, 0))), 3 * NUM_FIELDS + 1)


def small(**settings: Any) -> RetrievalConfig:
    return RetrievalConfig(
        **{"dim": 8, "epochs": 2, "negatives": 8, "batch_size": 16, "history_length": 4, **settings}
    )


def test_fields_are_used_where_they_are_asked_for(items: ItemInputs) -> None:
    histories = make_histories(0, 4)
    plain = fit_towers(histories, items, small(), seed=1)
    asked = fit_towers(histories, items, small(use_fields=True, masking_weight=0.5), seed=1)
    assert "field" not in plain.retriever.tables
    assert len(asked.retriever.tables["field"]) == items.num_field_tokens + 1
    unmasked = fit_towers(histories, items, small(use_fields=True), seed=1)
    assert not asked.retriever.tables["field"].equal(unmasked.retriever.tables["field"])


@pytest.mark.parametrize(
    ("num_fields", "settings", "message"),
    [
        (0, {}, r"retrieval\.use_fields must be false for a catalogue without category"),
        (
            3,
            {"masking_weight": 0.5},
            r"masking_weight must be 0 for a catalogue with fewer than 4 fields, got 0\.5 with 3; "
            "name more",
        ),
    ],
)
def test_a_catalogue_with_too_few_fields(
    items: ItemInputs, num_fields: int, settings: dict[str, Any], message: str
) -> None:
    few = ItemInputs(
        items.content, items.prefix_tokens, 3, items.fields[:, :num_fields], items.num_field_tokens
    )
    with pytest.raises(ConfigError, match=message):
        fit_towers(make_histories(0, 4), few, small(use_fields=True, **settings), seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hard_epochs": 1}, "hard_epochs must be 0 with several workers, got 1 with 2"),
        ({"smoothing": 0.2}, r"smoothing must be 0 with several workers, got 0\.2 with 2"),
        ({"loss": "mawu"}, "loss must not be 'mawu' with several workers, got 2"),
        ({"device": "cuda"}, "device must be 'cpu' or 'auto' with several workers, got 'cuda'"),
    ],
)
def test_what_looks_at_whole_tables_needs_one_process(
    items: ItemInputs, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_towers(make_histories(0, 4), items, small(**settings), seed=1, workers=2)


def test_cuda_is_refused_before_anything_is_trained(
    items: ItemInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"retrieval\.device must be 'cpu' or 'auto' where torch"):
        fit_towers(make_histories(0, 4), items, small(device="cuda"), seed=1)


def test_a_soup_is_counted_through_and_repeated_from_its_plan(items: ItemInputs) -> None:
    past, future = make_histories(0, 4), make_histories(4, 6)
    curve: list[EpochReport] = []
    settings = small(soup=2, epochs=3)
    made = fit_towers(past, items, settings, seed=1, validation=future, on_epoch=curve.append)
    assert made.soup is not None
    assert [epoch.epoch for epoch in curve] == list(range(1, len(curve) + 1))
    assert len(curve) == 2 + 2 * 1  # the start's, and one of each branch
    again = fit_towers(make_histories(0, 6), items, settings, seed=1, plan=Plan(past=made))
    assert again.soup == made.soup


def test_the_extras_follow_the_settings(items: ItemInputs) -> None:
    past, future = make_histories(0, 4), make_histories(4, 6)
    made = fit_towers(past, items, small(light_user_tower=True), seed=1, validation=future)
    assert (made.light is None, made.head) == (False, None)
    with pytest.raises(ConfigError, match=r"threshold_head .* must be false for these data"):
        fit_towers(past, items, small(threshold_head=True), seed=1)


# -- what the past says about the whole -----------------------------------------------------------


def save_past(directory: Path, items: ItemInputs, best: int, recalls: list[float]) -> None:
    """Towers of the past whose best epoch is ``best``, with a recall for each epoch."""
    made = fit_towers(make_histories(0, 4), items, small(epochs=1), seed=1)
    made.retriever.best_epoch = best
    made.retriever.save(directory / "two_tower")
    made.save(directory / "two_tower")
    write_curve(
        [
            EpochReport(number, len(recalls), 1.0, recall, 1.0)
            for number, recall in enumerate(recalls, start=1)
        ],
        directory,
    )


@pytest.mark.parametrize(
    ("hard_epochs", "best", "recalls", "wanted"),
    [
        (0, 2, [0.1, 0.3, 0.2], (2, 0)),
        (2, 2, [0.1, 0.3, 0.2, 0.2, 0.2], (2, 0)),  # hard negatives did not help
        (2, 4, [0.1, 0.3, 0.2, 0.4, 0.2], (2, 1)),  # the first of their epochs did
        (2, 5, [0.1, 0.3, 0.2, 0.4, 0.5], (2, 2)),
    ],
)
def test_the_whole_is_trained_as_the_past_did_best(
    items: ItemInputs,
    tmp_path: Path,
    hard_epochs: int,
    best: int,
    recalls: list[float],
    wanted: tuple[int, int],
) -> None:
    save_past(tmp_path, items, best, recalls)
    plan = plan_of_past(tmp_path, small(hard_epochs=hard_epochs))
    assert (plan.epochs, plan.hard_epochs) == wanted
    assert isinstance(plan.past, FinishedTowers)
    training = training_options(small(epochs=9), epochs=plan.epochs, hard_epochs=plan.hard_epochs)
    assert (training.epochs, training.hard_epochs) == wanted


def test_frozen_items_stay_whoever_meets_them(
    items: ItemInputs,
) -> None:
    """Rows of items that nobody meets any more are the start's, whatever training did to them."""
    settings = small(use_user_id=True, use_fields=True, masking_weight=0.5, soup=3)
    start = fit_towers(
        make_histories(0, 6), items, settings.model_copy(update={"soup": 1}), seed=1
    ).retriever
    less = make_histories(0, 1)
    assert np.unique(less.item_index).size < np.count_nonzero(start.tables["item"].any(dim=1))
    plan = Plan(start=start, frozen_items=True, epochs=1)
    made = fit_towers(less, items, settings, seed=2, plan=plan).retriever
    assert made.item_vectors.tobytes() == start.item_vectors.tobytes()
    assert not made.tables["user"].equal(start.tables["user"])
    assert made.best_epoch == 1
