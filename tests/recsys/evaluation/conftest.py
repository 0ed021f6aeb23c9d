from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from recsys.topk import TopK


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """`tests/reference/metrics.py`: the same formulas as plain loops."""
    path = Path(__file__).parents[2] / "reference" / "metrics.py"
    spec = importlib.util.spec_from_file_location("reference_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RandomCase:
    """Lists, truth with grades and training counts of some users, drawn at random."""

    def __init__(self, rng: np.random.Generator, num_users: int, num_items: int, k: int) -> None:
        item_index = np.full((num_users, k), -1, dtype=np.int64)
        self.relevant: list[dict[int, float]] = []
        for row in range(num_users):
            size = int(rng.integers(0, min(k, num_items) + 1))
            item_index[row, :size] = rng.permutation(num_items)[:size] + 1
            wanted = rng.permutation(num_items)[: rng.integers(0, num_items + 1)] + 1
            self.relevant.append({int(i): float(rng.integers(1, 5)) for i in wanted})
        score = np.where(item_index >= 1, -np.arange(k, dtype=np.float32), -np.inf)
        self.lists = TopK(item_index, score.astype(np.float32))
        self.popularity = rng.integers(0, 6, size=num_items + 1)
        self.popularity[0] = 0
        sizes = [len(row) for row in self.relevant]
        self.indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.items = np.array([i for row in self.relevant for i in row], dtype=np.int64)
        self.grades = np.array([g for row in self.relevant for g in row.values()])


@pytest.fixture
def random_case() -> type[RandomCase]:
    return RandomCase
