"""Graph smoothing against a plain loop, its invariants, and what it does in a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import train_two_tower
from recsys.retrieval.training.examples import EventStream
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.smoothing import GraphSmoothing
from recsys.retrieval.training.step import TrainingStep
from recsys.retrieval.training.train import TrainingOptions

NUM_ITEMS = 7
ROWS = TowerOptions(dim=8, use_user_id=True, pooling="none", id_dropout=0.0)
QUICK = TrainingOptions(epochs=2, batch_size=8, negatives=4, patience=0)


def histories_of(*met: list[int]) -> Histories:
    flat = [item for items in met for item in items]
    return Histories(
        indptr=np.cumsum([0, *(len(items) for items in met)]).astype(np.int64),
        item_index=np.array(flat, dtype=np.int64),
        timestamp=np.zeros(len(flat), dtype=np.int64),
        weight=np.ones(len(flat), dtype=np.float32),
    )


LOG = histories_of([1, 2, 3], [2, 3, 3], [], [4], [5, 1])  # items 6 and 7 were met by nobody


def blended(row: np.ndarray, neighbours: np.ndarray, share: float) -> np.ndarray:
    direction = neighbours / np.linalg.norm(neighbours)
    return (1 - share) * row + share * np.linalg.norm(row) * direction


def test_users_and_items_move_as_a_plain_loop_says() -> None:
    met = [set(LOG.item_index[a:b]) for a, b in zip(LOG.indptr, LOG.indptr[1:], strict=False)]
    fans = {item: [u for u, items in enumerate(met) if item in items] for item in range(1, 8)}
    rng = np.random.default_rng(0)
    users = rng.normal(size=(5, 4)).astype(np.float32)
    items = rng.normal(size=(8, 4)).astype(np.float32)
    unit = lambda rows, r: rows[r] / np.linalg.norm(rows[r])  # noqa: E731
    wanted_users, wanted_items = users.copy(), items.copy()
    for u, mine in enumerate(met):
        total = np.zeros(4)
        for i in mine:
            for v in fans[i]:
                total += len(fans[i]) ** -1.5 * len(met[v]) ** -0.5 * unit(users, v)
        if mine:
            wanted_users[u] = blended(users[u], total, 0.3)
    for i, mine in fans.items():
        total = np.zeros(4)
        for u in mine:
            for j in met[u]:
                total += len(met[u]) ** -1.0 * len(fans[j]) ** -0.75 * unit(items, j)
        if mine:
            wanted_items[i] = blended(items[i], total, 0.3)
    graph = GraphSmoothing(LOG, NUM_ITEMS)
    found_users, found_items = torch.from_numpy(users), torch.from_numpy(items)
    graph.smooth_users(found_users, 0.3)
    graph.smooth_items(found_items, 0.3)
    np.testing.assert_allclose(found_users.numpy(), wanted_users, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found_items.numpy(), wanted_items, rtol=1e-5, atol=1e-6)


def test_share_0_and_rows_without_neighbours_change_nothing() -> None:
    graph = GraphSmoothing(LOG, NUM_ITEMS)
    items = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    before = items.clone()
    graph.smooth_items(items, 0.0)
    assert torch.equal(items, before)
    graph.smooth_items(items, 0.5)
    assert torch.equal(items[[0, 6, 7]], before[[0, 6, 7]])
    assert not torch.equal(items[1], before[1])


def test_rows_of_one_component_come_together_and_stay_apart_from_the_others() -> None:
    graph = GraphSmoothing(histories_of([1, 2, 3], [1, 2, 3], [4, 5], [4, 5]), NUM_ITEMS)
    items = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(60):
        graph.smooth_items(items, 0.5)
    unit = torch.nn.functional.normalize(items, dim=1)
    alike = unit @ unit.T
    assert alike[1:4, 1:4].min() > 0.999
    assert alike[4:6, 4:6].min() > 0.999
    assert alike[1:4, 4:6].max() < 0.95


def test_an_all_zero_row_takes_no_direction() -> None:
    graph = GraphSmoothing(LOG, NUM_ITEMS)
    items = torch.zeros(8, 4)
    graph.smooth_items(items, 0.5)
    assert not items.any()


def test_an_item_beyond_the_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="num_items must be at least the largest item index 5"):
        GraphSmoothing(LOG, 4)


def test_frozen_items_are_not_smoothed() -> None:
    start = train_two_tower(LOG, num_items=NUM_ITEMS, towers=ROWS, training=QUICK)
    smoothing = QUICK.but(smoothing=0.5)
    again = train_two_tower(
        LOG, num_items=NUM_ITEMS, towers=ROWS, training=smoothing, start=start, frozen_items=True
    )
    np.testing.assert_array_equal(again.item_vectors, start.item_vectors)
    assert not torch.equal(again.tables["user"], start.tables["user"])


def test_smoothing_falls_with_the_learning_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(GraphSmoothing, "smooth_items", lambda self, rows, share: None)
    monkeypatch.setattr(
        GraphSmoothing, "smooth_users", lambda self, rows, share: shares.append(share)
    )
    training = QUICK.but(epochs=3, smoothing=0.4, final_learning_rate=0.5)
    step = TrainingStep(TrainingInputs(LOG, NUM_ITEMS), ROWS, training, seed=0)
    for epoch in (1, 2, 3):
        step.epoch(epoch)
    assert shares == pytest.approx([0.4, 0.3, 0.2])


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"smoothing must be (>= 0|< 1), got"):
        TrainingOptions(smoothing=share)


@pytest.mark.parametrize(
    ("power", "wanted"), [(0.0, [1, 1]), (0.5, [3**-0.5, 1]), (1.0, [1 / 3, 1])]
)
def test_active_users_weigh_less(power: float, wanted: list[float]) -> None:
    training = QUICK.but(user_power=power)
    stream = EventStream(LOG, NUM_ITEMS, training, generator=torch.Generator())
    first_user, fourth_user = stream.weight[0], stream.weight[6]
    assert [first_user.item(), fourth_user.item()] == pytest.approx(wanted)
