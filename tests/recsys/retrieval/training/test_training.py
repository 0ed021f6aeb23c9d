"""The training loop finds planted structure, leaks nothing and repeats itself."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.config.retrieval import RetrievalConfig
from recsys.errors import ConfigError
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training import train_two_tower
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.objectives import OBJECTIVES
from recsys.retrieval.training.step import TrainingStep
from recsys.retrieval.training.train import EpochReport, TowerOptions, TrainingOptions

NUM_ITEMS = 40
SMALL = TowerOptions(dim=16, history_length=10, hidden_dim=16)
QUICK = TrainingOptions(epochs=6, batch_size=64, negatives=32, patience=0)
MakeHistories = Callable[[list[list[int]]], Histories]
World = tuple[Histories, Histories]


def recall(retriever: TwoTowerRetriever, world: World, k: int = 10) -> float:
    seen, target = world
    found = retriever.retrieve(seen, k, excluded=seen.seen_mask(NUM_ITEMS)).item_index
    hits = [
        np.isin(target.item_index[a:b], found[row]).mean()
        for row, (a, b) in enumerate(zip(target.indptr[:-1], target.indptr[1:], strict=True))
    ]
    return float(np.mean(hits))


def test_an_untrained_model_does_not_know_the_world(planted: World) -> None:
    options = QUICK.but(epochs=1, learning_rate=1e-9, table_learning_rate=1e-9)
    retriever = train_two_tower(planted[0], num_items=NUM_ITEMS, towers=SMALL, training=options)
    assert recall(retriever, planted, k=3) < 0.5


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"negative_power": 0.75},
        {"positive_half_life": 3.0},
        {"loss": "in_batch_softmax"},
        {"loss": "bpr", "negatives": 64},
        {"loss": "bpr", "score": "dot", "temperature": 1.0},
        {"loss": "directau", "gamma": 1.0, "epochs": 15},
        {"denoising": "pld", "warmup_epochs": 2, "pool_size": 3},
        {"denoising": "truncated", "warmup_epochs": 2, "drop_rate": 0.1},
    ],
    ids=lambda changed: "-".join(f"{value}" for value in changed.values()) or "default",
)
def test_every_way_of_training_finds_the_groups(planted: World, changed: dict[str, object]) -> None:
    retriever = train_two_tower(
        planted[0],
        num_items=NUM_ITEMS,
        towers=SMALL,
        training=QUICK.but(**changed),
    )
    assert recall(retriever, planted, k=3) > 0.9


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"negatives": 40},
        {"loss": "bpr", "negatives": 64, "epochs": 40},
        {"denoising": "truncated", "warmup_epochs": 2, "drop_rate": 0.1},
        {"history_dropout": 0.0, "low_precision": True},
    ],
    ids=lambda changed: "-".join(f"{value}" for value in changed.values()) or "default",
)
def test_sequences_train_in_every_way(planted: World, changed: dict[str, object]) -> None:
    retriever = train_two_tower(
        planted[0],
        num_items=NUM_ITEMS,
        towers=SMALL.but(pooling="sequence"),
        training=QUICK.but(**({"epochs": 15, "temperature": 0.3} | changed)),
    )
    assert recall(retriever, planted, k=3) > 0.9


@pytest.mark.parametrize("loss", sorted(set(OBJECTIVES) - {"cm3"}))  # cm3 wants content
def test_every_loss_takes_sequences_and_repeats_itself(planted: World, loss: str) -> None:
    training = QUICK.but(loss=loss, epochs=2)
    runs = [
        train_two_tower(
            planted[0],
            num_items=NUM_ITEMS,
            towers=SMALL.but(pooling="sequence", use_user_id=True),
            training=training,
        )
        for _ in range(2)
    ]
    first, second = (run.user_vectors(planted[0]) for run in runs)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"denoising": "pld"}, "denoising must be 'none', .* got 'pld'"),
        ({"users": "alike"}, "users must be 'by_event' .* set user_power = 1"),
    ],
)
def test_sequences_refuse_what_picks_single_events(
    planted: World, changed: dict[str, object], problem: str
) -> None:
    towers = SMALL.but(pooling="sequence")
    with pytest.raises(ValueError, match=problem):
        train_two_tower(
            planted[0], num_items=NUM_ITEMS, towers=towers, training=QUICK.but(**changed)
        )
    with pytest.raises(ConfigError, match=problem):
        RetrievalConfig(pooling="sequence", **changed)


def test_user_rows_can_carry_what_the_history_does_not(planted: World) -> None:
    options = SMALL.but(use_user_id=True)
    retriever = train_two_tower(planted[0], num_items=NUM_ITEMS, towers=options, training=QUICK)
    assert recall(retriever, planted, k=3) > 0.9  # unknown users: from the history alone
    empty = planted[0].take(np.arange(4)).last(0)
    known = retriever.user_vectors(empty, user_index=np.arange(1, 5))
    unknown = retriever.user_vectors(empty, user_index=np.zeros(4, dtype=np.int64))
    assert len(np.unique(known.round(4), axis=0)) == 4
    assert len(np.unique(unknown.round(4), axis=0)) == 1
    np.testing.assert_array_equal(unknown, retriever.user_vectors(empty))


def test_content_and_prefixes_stand_in_for_an_item_without_interactions(
    make_histories: MakeHistories,
) -> None:
    rng = np.random.default_rng(0)
    rows = [list(1 + 10 * (user % 4) + rng.permutation(9)) for user in range(60)]  # never 10, 20...
    content = np.zeros((NUM_ITEMS + 1, 4), dtype=np.float32)
    content[1:] = np.eye(4, dtype=np.float32)[np.arange(NUM_ITEMS) // 10]
    tokens = np.zeros((NUM_ITEMS + 1, 1), dtype=np.int64)
    tokens[1:, 0] = 1 + np.arange(NUM_ITEMS) // 10
    histories = make_histories(rows)
    for inputs in ({"content": content}, {"prefix_tokens": tokens}):
        retriever = train_two_tower(
            histories,
            num_items=NUM_ITEMS,
            towers=SMALL.but(id_dropout=0.3),
            training=QUICK,
            **inputs,
        )
        assert not retriever.tables["item"][[10, 20, 30, 40]].any()
        cold = retriever.retrieve(histories, 1, excluded=histories.seen_mask(NUM_ITEMS)).item_index[
            :, 0
        ]
        np.testing.assert_array_equal(cold, 10 + 10 * (np.arange(60) % 4))
        given = {name: table[[10, 30]] for name, table in inputs.items()}
        np.testing.assert_allclose(
            retriever.encode_items(**given), retriever.item_vectors[[10, 30]], atol=1e-6
        )


def test_a_target_never_enters_its_own_query(planted: World) -> None:
    """Changing what happens at or after the target changes no query vector of training."""
    histories = planted[0]
    inputs = TrainingInputs(histories, NUM_ITEMS)
    options = QUICK.but(history_dropout=0.0)
    towers = SMALL.but(id_dropout=0.0)
    events = torch.arange(3, len(histories.item_index), 7)  # the fourth event of each row
    later = histories.item_index.copy()
    position = np.arange(later.size) % 7
    later[position >= 3] = 1 + (later[position >= 3] + 4) % NUM_ITEMS
    changed = dataclasses.replace(histories, item_index=later)
    queries = []
    negatives = (torch.tensor([1, 2]), torch.zeros(2))
    for data in (histories, changed):
        run = TrainingStep(dataclasses.replace(inputs, histories=data), towers, options, seed=0)
        run.weights.trained_item[1:] = True
        queries.append(run._forward(run.events.ask(events, 5), negatives, training=True)[0].query)
    torch.testing.assert_close(queries[0], queries[1], rtol=0, atol=0)
    earlier = histories.item_index.copy()
    earlier[position == 2] = 1 + (earlier[position == 2] + 4) % NUM_ITEMS
    run = TrainingStep(
        dataclasses.replace(inputs, histories=dataclasses.replace(histories, item_index=earlier)),
        towers,
        options,
        seed=0,
    )
    moved = run._forward(run.events.ask(events, 5), negatives, training=True)[0].query
    assert bool((moved != queries[0]).any(dim=1).all())  # the test can see a leak


def test_same_seed_same_bits(planted: World) -> None:
    def weights(seed: int) -> np.ndarray:
        return train_two_tower(
            planted[0],
            num_items=NUM_ITEMS,
            towers=SMALL,
            training=QUICK.but(epochs=2, denoising="pld", warmup_epochs=1),
            seed=seed,
        ).item_vectors

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


def test_validation_stops_early_and_returns_the_best_epoch(
    planted: World, caplog: pytest.LogCaptureFixture
) -> None:
    seen, target = planted
    reports: list[EpochReport] = []
    with caplog.at_level(logging.INFO, logger="recsys.retrieval"):
        retriever = train_two_tower(
            seen,
            num_items=NUM_ITEMS,
            validation=target,
            towers=SMALL,
            training=QUICK.but(epochs=30, patience=2),
            on_epoch=reports.append,
        )
    recalls = [report.recall for report in reports]
    assert len(reports) < 30
    assert retriever.best_epoch == 1 + int(np.argmax(recalls))
    assert len(reports) == retriever.best_epoch + 2
    assert [report.epoch for report in reports] == list(range(1, len(reports) + 1))
    best = recalls[retriever.best_epoch - 1]
    assert best == pytest.approx(recall(retriever, planted, k=20))
    assert f"validation recall@20 {best:.4f}" in caplog.text


def test_diverged_training_names_step_and_loss(planted: World) -> None:
    content = np.zeros((NUM_ITEMS + 1, 2), dtype=np.float32)
    content[1:] = np.inf
    with pytest.raises(FloatingPointError, match=r"loss 'sampled_softmax' is nan at step 1;"):
        train_two_tower(
            planted[0], num_items=NUM_ITEMS, content=content, towers=SMALL, training=QUICK
        )


def test_inputs_cross_processes_unchanged(planted: World, tmp_path: Path) -> None:
    content = np.zeros((NUM_ITEMS + 1, 2), dtype=np.float32)
    tokens = np.zeros((NUM_ITEMS + 1, 3), dtype=np.int64)
    for inputs in (
        TrainingInputs(planted[0], NUM_ITEMS),
        TrainingInputs(planted[0], NUM_ITEMS, content, tokens, 7, planted[1]),
    ):
        inputs.save(tmp_path)
        loaded = TrainingInputs.load(tmp_path)
        assert (loaded.num_items, loaded.num_prefix_tokens) == (
            NUM_ITEMS,
            inputs.num_prefix_tokens,
        )
        np.testing.assert_array_equal(loaded.histories.item_index, planted[0].item_index)
        assert (loaded.validation is None) == (inputs.validation is None)
        assert (loaded.content is None) == (inputs.content is None)
        assert (loaded.prefix_tokens is None) == (inputs.prefix_tokens is None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"content": np.zeros((3, 2), np.float32)}, r"content must be \[41"),
        ({"content": np.ones((41, 2), np.float32)}, "row 0 of content"),
        ({"prefix_tokens": np.eye(41, dtype=np.int64)[::-1] * 3, "num_prefix_tokens": 2}, "row 0"),
        ({"workers": 0}, "workers must be >= 1"),
    ],
)
def test_wrong_inputs_are_named(planted: World, changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_two_tower(planted[0], num_items=NUM_ITEMS, **changed)


def test_more_wrong_inputs_are_named(planted: World) -> None:
    tokens = np.full((NUM_ITEMS + 1, 1), 3)
    tokens[0] = 0
    with pytest.raises(ValueError, match="num_prefix_tokens must be at least"):
        TrainingInputs(planted[0], NUM_ITEMS, prefix_tokens=tokens, num_prefix_tokens=2)
    with pytest.raises(ValueError, match="validation must have one row per history"):
        TrainingInputs(planted[0], NUM_ITEMS, validation=planted[1].take([0]))
    with pytest.raises(ValueError, match="at least one event"):
        TrainingInputs(planted[0].last(0), NUM_ITEMS)
    with pytest.raises(ValueError, match="validation must hold at least one event"):
        train_two_tower(
            planted[0],
            num_items=NUM_ITEMS,
            validation=planted[1].last(0),
            towers=SMALL,
            training=QUICK,
        )


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"negatives": 0},
        {"negative_power": -0.1},
        {"temperature": 0.0},
        {"gamma": -1.0},
        {"learning_rate": 0.0},
        {"table_learning_rate": float("nan")},
        {"history_dropout": 1.0},
        {"positive_half_life": 0.0},
        {"denoising": "some"},
        {"warmup_epochs": -1},
        {"pool_size": 0},
        {"denoise_temperature": 0.0},
        {"drop_rate": 1.0},
        {"patience": -1},
        {"score": "euclid"},
    ],
)
def test_options_out_of_range_are_named(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        TrainingOptions(**changed)


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sampled_softmax'"):
        TrainingOptions(loss="sampled-softmax")
