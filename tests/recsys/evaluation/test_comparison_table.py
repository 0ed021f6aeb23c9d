from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation import Truth, comparison_table, evaluate
from recsys.topk import TopK


def lists(*rows: list[int]) -> TopK:
    index = np.array(rows, dtype=np.int64)
    return TopK(index, np.zeros(index.shape, dtype=np.float32))


def test_one_row_a_system_with_what_they_share() -> None:
    truth = Truth.from_lists([[1], [2]])
    found = {
        name: evaluate(
            answer,
            truth,
            popularity=np.array([0, 3, 2, 1]),
            rng=np.random.default_rng(0),
            ks=(2,),
            resamples=50,
        )
        for name, answer in {
            "right": lists([1, 3], [2, 3]),
            "half right": lists([1, 2], [1, 3]),
        }.items()
    }
    header, right, half = comparison_table(found).splitlines()[:3]
    assert header.split()[:3] == ["system", "users", "recall@2"]
    assert right.split()[:4] == ["right", "2", "1.0000", "1.000-1.000"]
    assert half.split()[:4] == ["half", "right", "2", "0.5000"]
    assert "coverage@2" in header
    with pytest.raises(ValueError, match="at least one system"):
        comparison_table({})
