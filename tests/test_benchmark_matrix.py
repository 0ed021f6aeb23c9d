"""What the benchmarks of denoising say about false events, on a model that knows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from retrieval_data import histories_of
from retrieval_lab import Row, ratio
from retrieval_matrix import TOWERS, are_among, false_picks

from features.tables import Histories
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.training import TrainingOptions

NUM_ITEMS = 40


def model_that_likes(liked: np.ndarray) -> TwoTowerRetriever:
    """Every user alike; the cosine of an item is 1 where ``liked`` [N + 1], else -1."""
    tables = {
        "user": torch.zeros(9, TOWERS.dim),
        "item": torch.zeros(NUM_ITEMS + 1, TOWERS.dim),
    }
    tables["user"][1:, 0] = 1.0
    tables["item"][1:, 0] = torch.where(torch.from_numpy(liked[1:]), 1.0, -1.0)
    tower = TwoTower(TOWERS, content_dim=0, generator=torch.Generator())
    return TwoTowerRetriever.from_tables(tower, tables)


def events() -> tuple[Histories, np.ndarray]:
    """8 users with 8 true events of items 1-20 and 2 false ones of items 21-40, each."""
    rng = np.random.default_rng(0)
    items = [
        np.concatenate([rng.permutation(20)[:8], 20 + rng.permutation(20)[:2]]) for _ in range(8)
    ]
    noisy = histories_of(np.repeat(np.arange(8), 10), 1 + np.concatenate(items), 8)
    return noisy, noisy.item_index > 20


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({}, 0.2, 0.2),
        ({"denoising": "truncated", "drop_rate": 0.1}, 1 / 9, 1 / 9),
        ({"denoising": "truncated", "drop_rate": 0.2}, 0.0, 0.0),
        ({"denoising": "reweighted", "reweight_power": 0.0}, 0.2, 0.2),
        ({"denoising": "reweighted", "reweight_power": 9.0}, 0.0, 1e-6),
        ({"denoising": "pld", "pool_size": 5}, 0.0, 0.0),
        ({"denoising": "pld", "pool_size": 1}, 0.1, 0.3),
    ],
)
def test_false_picks_are_what_the_denoising_leaves(
    options: dict[str, object], least: float, most: float
) -> None:
    noisy, is_false = events()
    retriever = model_that_likes(np.arange(NUM_ITEMS + 1) <= 20)
    training = TrainingOptions(**options, temperature=1.0)  # type: ignore[arg-type]
    kept, without = false_picks(retriever, noisy, is_false, training)
    assert least - 1e-6 <= kept <= most + 1e-6
    assert without == pytest.approx(0.2, abs=0.06)


def test_a_model_that_likes_the_false_events_picks_them() -> None:
    noisy, is_false = events()
    retriever = model_that_likes(np.arange(NUM_ITEMS + 1) > 20)
    training = TrainingOptions(denoising="pld", temperature=1.0)
    kept, without = false_picks(retriever, noisy, is_false, training)
    assert kept > 0.6
    assert without < 0.3


def test_events_among_others() -> None:
    some = histories_of(np.array([0, 0, 2]), np.array([3, 5, 9]), 3)
    of = histories_of(np.array([0, 1, 2, 2]), np.array([5, 3, 9, 10]), 3)
    assert are_among(of, some).tolist() == [True, False, True, False]


def test_a_row_holds_on_its_side_of_the_bar() -> None:
    assert ratio(1, "a", 1.2, 1.0, 1.15, None).holds
    assert not ratio(1, "a", 1.1, 1.0, 1.15, None).holds
    assert ratio(1, "a", 0.9, 1.0, 0.97, None, least=False).holds
    assert not Row(1, "a", 0.98, 0.97, at_least=False).holds
