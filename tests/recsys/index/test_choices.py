from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError, ConfigError
from recsys.index import (
    INDEXES,
    AnnoyIndex,
    ExactIndex,
    load_index,
    make_index,
    recall_against_exact,
)


def test_by_name() -> None:
    assert set(INDEXES) == {"exact", "annoy"}
    assert {name: cls.kind for name, cls in INDEXES.items()} == {"exact": "exact", "annoy": "annoy"}
    index = make_index("annoy", num_trees=3)
    assert isinstance(index, AnnoyIndex)
    assert index.num_trees == 3


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="unknown index 'anoy'; known: annoy, exact; did you"):
        make_index("anoy")


def test_load_refuses(tmp_path: Path) -> None:
    ExactIndex().build(np.ones((3, 2))).save(tmp_path)
    with pytest.raises(ArtifactError, match="index of kind 'exact', not 'annoy'; use load_index"):
        AnnoyIndex.load(tmp_path)
    path = tmp_path / "index.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(ArtifactError, match="must have format 1, got 2; build the index again"):
        load_index(tmp_path)
    path.write_text(json.dumps(description | {"kind": "hnsw"}))
    with pytest.raises(ConfigError, match="unknown index 'hnsw'"):
        load_index(tmp_path)
    path.write_text("[]")
    with pytest.raises(ArtifactError, match="it must hold an object, got list"):
        load_index(tmp_path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"index\.json is damaged .*; build the index again"):
        load_index(tmp_path)


def test_recall_against_exact_by_hand() -> None:
    # One direction: item i scores i. The "index" was built on other vectors, so it is wrong.
    vectors = np.arange(5, dtype=np.float32)[:, None]
    upside_down = ExactIndex().build(-vectors)
    query = np.array([[1.0]])
    assert recall_against_exact(ExactIndex().build(vectors), vectors, query, 2) == 1.0
    assert recall_against_exact(upside_down, vectors, query, 2) == 0.0
    ties = np.ones((5, 1), dtype=np.float32)
    excluded = np.array([[False, True, False, False, False]])
    index = ExactIndex().build(ties)
    assert recall_against_exact(index, ties, query, 2, excluded=excluded) == 1.0
    nobody = np.zeros(5, dtype=bool)
    assert recall_against_exact(index, ties, query, 2, allowed=nobody) == 1.0


def test_recall_wants_the_indexed_vectors() -> None:
    index = ExactIndex().build(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"vectors must be the indexed ones, \(3, 2\): got \(4, 2"):
        recall_against_exact(index, np.ones((4, 2)), np.ones((1, 2)), 1)
