from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.towers.windows import latest_window

N, DIM, USERS = 40, 8, 5


@pytest.mark.parametrize("hidden_dim", [0, 12])
@pytest.mark.parametrize("user_table", [False, True])
@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_one_history_is_asked_for_as_many_are(
    hidden_dim: int, user_table: bool, score: str
) -> None:
    options = TowerOptions(
        dim=DIM,
        half_lives=(2.0, 10.0, math.inf),
        hidden_dim=hidden_dim,
        history_length=6,
        use_user_id=user_table,
    )
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(options, content_dim=0, generator=generator)
    with torch.no_grad():
        for weight in tower.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    tables = {"item": torch.randn(N + 1, DIM, generator=generator)}
    if user_table:
        tables["user"] = torch.randn(USERS + 1, DIM, generator=generator)
    retriever = TwoTowerRetriever.from_tables(tower, tables, score=score)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    counts = np.array([0, 1, 3, 6, 11])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    histories = Histories(
        indptr,
        rng.integers(1, N + 1, indptr[-1]),
        np.concatenate([np.arange(count) for count in counts]),
        np.ones(indptr[-1], dtype=np.float32),
    )
    user_index = np.arange(5) if user_table else None
    index = None if user_index is None else torch.from_numpy(user_index)
    together = retriever.encode_windows(latest_window(histories, 6), user_index=index).numpy()
    for row in range(5):
        one = None if user_index is None else user_index[row : row + 1]
        alone = retriever.user_vectors(histories.take([row]), user_index=one)
        np.testing.assert_allclose(alone[0], together[row], rtol=2e-5, atol=2e-6)
        moment = np.array([4], dtype=np.int64)
        before = retriever.user_vectors(histories.take([row]), moment, user_index=one)
        seen = latest_window(histories.take([row]).before(moment), 6)
        wanted = retriever.encode_windows(
            seen, user_index=None if one is None else torch.from_numpy(one)
        )
        np.testing.assert_allclose(before, wanted.numpy(), rtol=2e-5, atol=2e-6)
