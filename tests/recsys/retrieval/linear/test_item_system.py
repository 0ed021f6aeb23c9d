from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.retrieval.linear.dense import solve_by_items
from recsys.retrieval.linear.sparse import solve_by_neighbours, sparse_bill
from recsys.retrieval.linear.system import ItemSystem
from tests.reference.item_item import dan_ease, neighbour_ease

EASE = {"l2": 3.0}
DAN = {"l2": 2.0, "dropout": 0.4, "item_power": 0.3, "user_power": 0.5}
SETTINGS = [
    EASE,
    {"l2": 2.0, "dropout": 0.4},
    {"l2": 2.0, "item_power": 0.3},
    {"l2": 2.0, "user_power": 0.5},
    DAN,
]


def drawn(rng: np.random.Generator, num_users: int, num_items: int) -> np.ndarray:
    """[U, N + 1] weights, a third of them not 0; item 0, the last item and user 0 met nothing."""
    x = rng.uniform(0.5, 2.0, (num_users, num_items + 1)) * (
        rng.random((num_users, num_items + 1)) < 1 / 3
    )
    x[:, [0, -1]] = 0.0
    x[0] = 0.0
    return x


@pytest.fixture
def x() -> np.ndarray:
    return drawn(np.random.default_rng(0), 40, 25)


@pytest.mark.parametrize("settings", SETTINGS)
def test_all_pairs_are_the_closed_form(x: np.ndarray, settings: dict[str, float]) -> None:
    found = solve_by_items(ItemSystem.of(csr_array(x), **settings))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, dan_ease(x.tolist(), **settings), atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("neighbours", [24, 400])
def test_with_every_item_a_neighbour_the_sparse_form_is_the_closed_form(
    settings: dict[str, float], neighbours: int
) -> None:
    x = drawn(np.random.default_rng(3), 200, 25)
    assert ((x.T @ x)[1:-1, 1:-1] > 0).all()  # else they are no neighbours
    found = solve_by_neighbours(ItemSystem.of(csr_array(x), **settings), neighbours)
    np.testing.assert_allclose(found.toarray(), dan_ease(x.tolist(), **settings), atol=2e-5)


@pytest.mark.parametrize("settings", [EASE, DAN])
@pytest.mark.parametrize("neighbours", [1, 2, 5])
def test_few_neighbours_are_those_of_the_largest_cosine(
    settings: dict[str, float], neighbours: int
) -> None:
    x = drawn(np.random.default_rng(1), 60, 6)  # no more items than rows of 5 neighbours hold
    found = solve_by_neighbours(ItemSystem.of(csr_array(x), **settings), neighbours)
    wanted = neighbour_ease(x.tolist(), neighbours, **settings)
    assert found.dtype == np.float32
    assert found.has_sorted_indices
    assert (np.diff(found.tocsc().indptr) <= neighbours).all()
    np.testing.assert_allclose(found.toarray(), wanted, atol=1e-5)


def test_pairs_that_are_not_held_leave_finite_weights_near_the_exact_ones() -> None:
    rng = np.random.default_rng(2)
    group = np.arange(300) % 10
    x = np.zeros((500, 301))
    for user in range(500):
        liked = 1 + np.flatnonzero(group == user % 10)
        x[user, rng.choice(liked, 10, replace=False)] = 1.0
        x[user, 1 + rng.choice(300, 3)] = 1.0  # so that every item meets more than are held
    system = ItemSystem.of(csr_array(x), l2=5.0)
    bill = sparse_bill(system, 30)
    assert bill.kept < bill.pairs
    found = solve_by_neighbours(system, 30).toarray()
    exact = solve_by_items(system)
    same = np.add.outer(group, -group) == 0
    inside, outside = found[1:, 1:][same], found[1:, 1:][~same]
    assert np.isfinite(found).all()
    assert inside.mean() > 20 * outside.mean()
    assert np.corrcoef((x @ found).ravel(), (x @ exact).ravel())[0, 1] > 0.8


def test_equal_items_are_chosen_by_index_and_runs_agree_to_the_bit() -> None:
    x = csr_array(np.pad(np.ones((5, 9)), ((0, 0), (1, 0))))
    system = ItemSystem.of(x, l2=1.0)
    found = solve_by_neighbours(system, 3)
    again = solve_by_neighbours(system, 3)
    columns = found.tocsc()
    assert columns[:, [9]].indices.tolist() == [1, 2, 3]
    assert columns[:, [2]].indices.tolist() == [1, 3, 4]
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))


def test_the_bill_counts_what_is_made(x: np.ndarray) -> None:
    system = ItemSystem.of(csr_array(x), **DAN)
    together = (x.T @ x) > 0
    bill = sparse_bill(system, 4)
    assert bill.pairs == together.sum()
    assert bill.kept == np.minimum(together.sum(axis=0), 21).sum()
    assert bill.weights == solve_by_neighbours(system, 4).nnz
    assert bill.peak_bytes >= 8 * (bill.kept + bill.weights)
    assert sparse_bill(system, 20).seconds > bill.seconds > 0


def test_cells_of_no_weight_count_for_nothing(x: np.ndarray) -> None:
    """They are in the matrix of a log with events of weight 0."""
    row, column = np.nonzero(np.ones_like(x))
    padded = csr_array((x[row, column], (row, column)), shape=x.shape)
    assert padded.nnz > np.count_nonzero(x)
    found = solve_by_neighbours(ItemSystem.of(padded, **DAN), 6)
    wanted = solve_by_neighbours(ItemSystem.of(csr_array(x), **DAN), 6)
    np.testing.assert_array_equal(found.toarray(), wanted.toarray())
    assert found.nnz == wanted.nnz


def test_nobody_met_anything() -> None:
    system = ItemSystem.of(csr_array((3, 5)), l2=1.0)
    assert solve_by_neighbours(system, 2).nnz == 0
    assert not solve_by_items(system).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"l2": 0}, "l2 must be > 0, got 0; 100 to 1000 is usual"),
        ({"l2": float("nan")}, "l2 must be > 0, got nan"),
        ({"dropout": 1.0}, "dropout must be >= 0 and < 1, got 1.0; 0 turns it off"),
        ({"dropout": -0.1}, "dropout must be >= 0 and < 1, got -0.1"),
        ({"item_power": 1.5}, r"item_power must be 0\.\.1, got 1.5; 0 turns it off"),
        ({"user_power": -1}, r"user_power must be 0\.\.1, got -1; 0 turns it off"),
    ],
)
def test_wrong_settings_are_named(x: np.ndarray, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemSystem.of(csr_array(x), **{**EASE, **changed})


def test_no_neighbours_are_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="neighbours must be >= 1, got 0; 100 to 400 is usual"):
        solve_by_neighbours(ItemSystem.of(csr_array(x), **EASE), 0)
