"""Planted worlds: users of a group meet only the items of that group, in a random order."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from features.tables import Histories

MakeHistories = Callable[[list[list[int]]], Histories]


def _histories(rows: list[list[int]]) -> Histories:
    """Rows of items, one event a second from second 1 on."""
    counts = [len(row) for row in rows]
    return Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_index=np.array([item for row in rows for item in row], dtype=np.int64),
        timestamp=np.array([t + 1 for n in counts for t in range(n)], dtype=np.int64) * 1_000_000,
        weight=np.ones(sum(counts), dtype=np.float32),
    )


@pytest.fixture
def make_histories() -> MakeHistories:
    return _histories


@pytest.fixture
def planted() -> tuple[Histories, Histories]:
    """60 users x 40 items in 4 groups of 10: 7 events to train on, 3 held out."""
    rng = np.random.default_rng(0)
    rows = [list(1 + 10 * (user % 4) + rng.permutation(10)) for user in range(60)]
    return _histories(rows).head_fraction(0.7)


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """tests/reference/losses.py: the losses as plain loops."""
    return _reference("losses")


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """tests/reference/retrieval.py: the retrievers as plain loops."""
    return _reference("retrieval")


def _reference(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "reference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot read {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
