from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.ranking.listwise import ListwiseRanker
from recsys.ranking.options import ListwiseOptions


@pytest.mark.parametrize("size", [2, 3, 17, 50])
def test_one_list_is_scored_as_several_are(size: int) -> None:
    rng = np.random.default_rng(size)
    features = rng.normal(size=(40, size, 6)).astype(np.float32)
    features[0, 0, 0] = np.nan
    first = rng.normal(size=(40, size)).astype(np.float32)
    label = (rng.random((40, size)) < 0.3).astype(np.float32)
    mask = np.ones((40, size), dtype=bool)
    ranker = ListwiseRanker.fit(
        features,
        first,
        label,
        mask,
        options=ListwiseOptions(epochs=3),
        generator=torch.Generator().manual_seed(1),
    )
    ranker.strength = 0.7
    together = ranker.predict(features, first, mask)
    alone = [
        ranker.predict(*(part[row : row + 1] for part in (features, first, mask)))
        for row in range(len(first))
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-5, atol=1e-5)
    assert float(np.ptp(together - (first - first.mean(axis=1, keepdims=True)))) > 0.01
    short = mask[:1].copy()
    short[0, -1] = False  # padding goes through torch
    padded = ranker.predict(features[:1], first[:1], short)
    assert padded[0, -1] == -np.inf
    cut = ranker.predict(features[:1, :-1], first[:1, :-1], short[:, :-1])
    np.testing.assert_allclose(padded[:, :-1], cut, rtol=1e-5, atol=1e-5)
