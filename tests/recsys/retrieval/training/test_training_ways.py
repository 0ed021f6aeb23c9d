"""Every option of the training loop does what it says, on worlds with planted groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.errors import CollapseError
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training import train_two_tower
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.objectives import OBJECTIVES
from recsys.retrieval.training.step import TrainingStep
from recsys.retrieval.training.train import EpochReport, TowerOptions, TrainingOptions

NUM_ITEMS = 40
ROWS = TowerOptions(dim=16, use_user_id=True, pooling="none", id_dropout=0.0)
QUICK = TrainingOptions(epochs=12, batch_size=64, negatives=32, patience=0, table_learning_rate=0.3)
World = tuple[Histories, Histories]
Changed = dict[str, object]


def recall(retriever: TwoTowerRetriever, world: World, k: int = 3) -> float:
    seen, target = world
    rows = np.arange(1, len(seen) + 1)
    lists = retriever.retrieve(
        seen, k, excluded=seen.seen_mask(NUM_ITEMS), user_index=rows
    ).item_index
    wanted = target.seen_mask(NUM_ITEMS)
    return float(np.take_along_axis(wanted, lists, axis=1).mean())


def trained(world: World, changed: Changed, **more: object) -> TwoTowerRetriever:
    return train_two_tower(
        world[0],
        num_items=NUM_ITEMS,
        towers=ROWS,
        training=QUICK.but(**changed),
        **more,
    )


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"events_per_user": 3},
        {"events_per_user": 100, "batch_size": 128},
        {"negatives": 1000},
        {"negative_source": "mixed"},
        {"negative_source": "queue", "queue_size": 50},
        {"users": "alike"},
        {"propensity_power": 0.5},
        {"user_power": 0.5},
        {"smoothing": 0.2},
        {"loss": "in_batch_softmax", "frequency": "streaming", "epochs": 30},
        {"final_learning_rate": 0.1},
        {"low_precision": True},
        {"denoising": "reweighted", "warmup_epochs": 2},
        {"denoising": "pld", "warmup_epochs": 2, "pool_size": 3},
        {"mann_whitney_weight": 0.2},
    ],
)
def test_rows_of_users_find_the_groups(planted: World, changed: Changed) -> None:
    assert recall(trained(planted, changed), planted) > 0.85  # by chance .09


@pytest.mark.parametrize("loss", sorted(set(OBJECTIVES) - {"cm3"}))
def test_every_loss_trains_rows_of_users(planted: World, loss: str) -> None:
    changed = {"loss": loss, "epochs": 30, "temperature": 0.2, "negatives": 64}
    changed |= {"ccl_margin": 0.0, "ccl_weight": 2.0}
    changed |= {"mawu_user_gamma": 0.2, "mawu_item_gamma": 0.2}
    assert recall(trained(planted, changed), planted) > 0.6


def test_a_user_without_a_row_gets_a_finite_answer(planted: World) -> None:
    retriever = trained(planted, {"epochs": 1})
    assert np.isfinite(retriever.user_vectors(planted[0])).all()


def test_grouping_changes_the_order_alone(planted: World) -> None:
    """Every event is in exactly one batch, in groups of one user."""
    options = QUICK.but(events_per_user=3)
    step = TrainingStep(TrainingInputs(planted[0], NUM_ITEMS), ROWS, options, seed=0)
    order = step.events.order()
    assert sorted(order.tolist()) == list(range(len(planted[0].item_index)))
    row = step.events.row[order].numpy()
    runs = np.diff(np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1], [True]])))
    assert runs.mean() > 2.0
    assert not np.array_equal(order.numpy(), step.events.order().numpy())


def test_a_shared_query_trains_like_its_copies(planted: World) -> None:
    """One query for a user's events gives the gradient of one query an event."""
    inputs = TrainingInputs(planted[0], NUM_ITEMS)
    negatives = (torch.arange(1, 20), torch.zeros(19))
    together = torch.tensor([0, 1, 2, 8, 9, 15])
    apart = together[torch.tensor([3, 0, 4, 1, 5, 2])]
    gradients = []
    for events in (together, apart):
        step = TrainingStep(inputs, ROWS, QUICK, seed=0)
        batch, _ = step._forward(step.events.ask(events, 0), negatives, training=True)
        assert (batch.distinct_query is not None) == (events is together)
        loss = OBJECTIVES["sampled_softmax"].loss(batch)
        loss.backward()
        looked_up = {
            name: (row, vector.grad) for name, row, vector in step.weights.tables._looked_up
        }
        gradients.append((loss.detach(), looked_up["user"], looked_up["item"]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_training_goes_on_from_a_model_and_takes_new_ids_in(planted: World) -> None:
    before = trained(planted, {})
    same = trained(planted, {"epochs": 1, "table_learning_rate": 1e-12}, start=before)
    np.testing.assert_allclose(same.item_vectors, before.item_vectors, atol=1e-5)
    more = train_two_tower(
        planted[0],
        num_items=NUM_ITEMS + 5,
        towers=ROWS,
        training=QUICK.but(epochs=1, table_learning_rate=1e-12),
        start=before,
    )
    known = before.item_vectors
    np.testing.assert_allclose(more.item_vectors[: len(known)], known, atol=1e-5)


def test_frozen_items_stay_to_the_bit_while_users_move(planted: World) -> None:
    before = trained(planted, {"epochs": 3})
    after = trained(planted, {"epochs": 3}, start=before, frozen_items=True)
    np.testing.assert_array_equal(after.item_vectors, before.item_vectors)
    rows = np.arange(1, 61)
    moved = after.user_vectors(planted[0], user_index=rows) != before.user_vectors(
        planted[0], user_index=rows
    )
    assert moved.any(axis=1).all()


def test_new_users_can_ask_old_items_only_when_held_to_them(planted: World) -> None:
    old = trained(planted, {})

    def cross(weight: float) -> float:
        new = trained(planted, {"compatibility_weight": weight}, old=old, seed=1)
        mixed = TwoTowerRetriever(new.tower, new.tables, old._encoded)
        return recall(mixed, planted)

    assert cross(0.0) < 0.3
    assert cross(0.5) > 0.6


def test_hard_negatives_are_adopted_only_when_validation_gains(
    planted: World, caplog: pytest.LogCaptureFixture
) -> None:
    hard = {"hard_epochs": 2, "hard_skip": 0, "hard_pool": 20, "hard_negatives": 4}
    plain = trained(planted, {}, validation=planted[1])
    reports: list[EpochReport] = []
    after = trained(planted, hard, validation=planted[1], on_epoch=reports.append)
    assert len(reports) == QUICK.epochs + 2
    # recall@20 of 33 unseen items is 1 for a trained model: nothing is left to gain.
    assert "hard negatives did not raise" in caplog.text
    np.testing.assert_array_equal(after.item_vectors, plain.item_vectors)


def test_a_collapse_stops_with_the_epoch_and_the_cause(
    make_histories: Callable[[list[list[int]]], Histories],
) -> None:
    rng = np.random.default_rng(0)
    rows = [list(1 + rng.permutation(NUM_ITEMS)[:10]) for _ in range(60)]  # all meet all
    seen, target = make_histories(rows).head_fraction(0.7)
    narrow = ROWS.but(dim=4)  # 40 items say enough about 4 dimensions

    def train(**changed: object) -> None:
        options = QUICK.but(epochs=40, **changed)
        train_two_tower(
            seen,
            num_items=NUM_ITEMS,
            validation=target,
            towers=narrow,
            training=options,
        )

    with pytest.raises(CollapseError, match=r"after epoch \d+, step \d+: the .* collapsed"):
        train(loss="directau", gamma=0.0)
    train()
    train(loss="directau", gamma=0.0, least_rank=0.0)


def test_each_epoch_reports_how_the_vectors_lie(planted: World) -> None:
    reports: list[EpochReport] = []
    trained(planted, {"epochs": 3}, validation=planted[1], on_epoch=reports.append)
    for report in reports:
        assert all(value is not None for value in report)
        assert 0 < report.training_seconds <= report.seconds
        assert report.gradient_norm > 0
    assert reports[-1].alignment < reports[0].alignment  # the pairs come closer


def test_watching_ends_the_training_with_the_model_of_that_epoch(planted: World) -> None:
    seen: list[TwoTowerRetriever] = []

    def watch(report: EpochReport, retriever: TwoTowerRetriever) -> bool:
        seen.append(retriever)
        return report.epoch == 2

    found = trained(planted, {}, watch=watch)
    assert len(seen) == 2
    np.testing.assert_array_equal(found.item_vectors, seen[-1].item_vectors)


Call = Callable[[World], object]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: trained(w, {}, frozen_items=True), "frozen_items must be False without start"),
        (lambda w: trained(w, {}, watch=lambda *_: False, workers=2), "watch needs workers=1"),
        (lambda w: trained(w, {"loss": "cm3"}), "cm3 needs the items' content"),
        (lambda w: TrainingOptions(hard_skip=10, hard_pool=10), "hard_pool must be > hard_skip"),
        (lambda w: TrainingOptions(negative_source="some"), "negative_source must be one of s"),
        (lambda w: TrainingOptions(propensity_clip=0.0), "propensity_clip must be > 0"),
        (lambda w: TrainingOptions(least_rank=2.0), "least_rank must be < 1"),
        (lambda w: TrainingOptions(events_per_user=0), "events_per_user must be >= 1"),
    ],
)
def test_a_wrong_argument_is_named(planted: World, call: Call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(planted)


def test_a_model_with_more_items_than_the_data_is_refused(planted: World) -> None:
    start = trained(planted, {"epochs": 1})
    with pytest.raises(ValueError, match="start must not have more items than the data"):
        TrainingInputs(planted[0], NUM_ITEMS - 1, start=start)


def test_bpr_ties_no_user_to_a_stretch_of_the_catalogue(planted: World) -> None:
    """Rows come sorted and so do negatives: the pairs must not follow that order."""
    options = QUICK.but(loss="bpr")
    step = TrainingStep(TrainingInputs(planted[0], NUM_ITEMS), ROWS, options, seed=0)
    negatives = (torch.arange(1, NUM_ITEMS + 1), torch.zeros(NUM_ITEMS))
    events = torch.arange(len(planted[0].item_index))
    met: dict[int, set[int]] = {}
    for _ in range(20):
        batch, _vectors = step._forward(step.events.ask(events[:70], 0), negatives, training=True)
        asked: list[torch.Tensor] = []

        class Spy:
            def contains(self, row: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
                asked.append(item)  # noqa: B023
                return torch.zeros(len(row), dtype=torch.bool)

        OBJECTIVES["bpr"].loss(dataclasses.replace(batch, known=Spy()))
        for row, item in zip(batch.row.tolist(), asked[0].tolist(), strict=True):
            met.setdefault(row, set()).add(item)
    assert min(len(items) for items in met.values()) > 30  # of 40 items, in 140 draws a user


def test_rows_without_events_stay_zero_unless_a_start_model_knew_them(planted: World) -> None:
    seen = planted[0]
    counts = seen.counts.copy()
    kept = np.arange(seen.item_index.size) >= seen.indptr[1]  # the first user is gone
    counts[0] = 0
    without = dataclasses.replace(
        seen,
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        item_index=seen.item_index[kept],
        timestamp=seen.timestamp[kept],
        weight=seen.weight[kept],
    )
    fresh = trained((without, planted[1]), {"epochs": 1})
    assert not fresh.tables["user"][1].any()
    start = trained(planted, {"epochs": 1})
    warm = trained((without, planted[1]), {"epochs": 1}, start=start)
    torch.testing.assert_close(warm.tables["user"][1], start.tables["user"][1])
