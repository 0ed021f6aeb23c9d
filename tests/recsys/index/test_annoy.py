from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError
from recsys.index import AnnoyIndex, ExactIndex, recall_against_exact
from recsys.index.protocol import Metric


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 16))
    points = centres[rng.integers(20, size=1501)] + 0.5 * rng.normal(size=(1501, 16))
    return points.astype(np.float32)


def test_clustered_items_are_mostly_found(vectors: np.ndarray) -> None:
    query = vectors[1:101]
    recall = recall_against_exact(AnnoyIndex().build(vectors), vectors, query, 10)
    assert recall >= 0.8


def test_more_trees_and_a_wider_search_find_more(vectors: np.ndarray) -> None:
    query = vectors[1:101]
    poor = AnnoyIndex(num_trees=1, search_k=20, over_fetch=1.0).build(vectors)
    good = AnnoyIndex(num_trees=20, search_k=20, over_fetch=1.0).build(vectors)
    wide = AnnoyIndex(num_trees=20, search_k=50_000, over_fetch=1.0).build(vectors)
    more = AnnoyIndex(num_trees=20, search_k=20, over_fetch=10.0).build(vectors)
    recalls = [recall_against_exact(i, vectors, query, 10) for i in (poor, good, wide, more)]
    assert recalls[0] < recalls[1] < recalls[2]
    assert recalls[1] < recalls[3]
    assert recalls[2] == 1.0


def test_seed_changes_the_trees(vectors: np.ndarray) -> None:
    query = vectors[1:51]
    found = [
        AnnoyIndex(num_trees=1, seed=seed).build(vectors).search(query, 10).item_index
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_scores_are_those_of_the_exact_index(vectors: np.ndarray) -> None:
    query = vectors[1:51]
    annoy = AnnoyIndex(num_trees=30).build(vectors).search(query, 5)
    exact = ExactIndex().build(vectors).search(query, 1501)
    by_item = np.zeros((50, 1501), dtype=np.float32)
    rows = np.arange(50)[:, None]
    by_item[rows, exact.item_index[:, :1500]] = exact.score[:, :1500]
    np.testing.assert_allclose(annoy.score, by_item[rows, annoy.item_index], rtol=1e-5)


def test_the_best_ones_excluded(vectors: np.ndarray) -> None:
    # What Annoy finds first is all excluded; the fetch must grow until it has passed that.
    query = vectors[1:6]
    index = AnnoyIndex(num_trees=20).build(vectors)
    near = ExactIndex().build(vectors).search(query, 700).item_index
    excluded = np.zeros((5, 1501), dtype=bool)
    np.put_along_axis(excluded, near, True, axis=1)
    found = index.search(query, 20, excluded=excluded)
    assert (found.item_index >= 1).all()
    assert not np.take_along_axis(excluded, found.item_index, axis=1).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_trees": 0}, "num_trees must be >= 1, got 0"),
        ({"search_k": 0}, "search_k must be >= 1 or None, got 0"),
        ({"over_fetch": 0.5}, "over_fetch must be a finite number >= 1, got 0.5"),
        ({"over_fetch": float("inf")}, "over_fetch must be a finite number >= 1, got inf"),
        ({"over_fetch": float("nan")}, "over_fetch must be a finite number >= 1, got nan"),
        ({"seed": -1}, r"seed must be 0\.\.2\^31 - 1, got -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnnoyIndex(**settings)  # type: ignore[arg-type]


def test_settings_are_saved(vectors: np.ndarray, tmp_path: Path) -> None:
    made = AnnoyIndex(metric="angular", num_trees=3, search_k=77, over_fetch=3.5, seed=9)
    made.build(vectors[:40]).save(tmp_path)
    got = AnnoyIndex.load(tmp_path)
    for name in ("metric", "num_trees", "search_k", "over_fetch", "seed"):
        assert getattr(got, name) == getattr(made, name)


@pytest.mark.parametrize("metric", ["angular", "dot"])
def test_rows_of_zeros_hide_no_others(vectors: np.ndarray, tmp_path: Path, metric: Metric) -> None:
    rng = np.random.default_rng(1)
    mostly = vectors.copy()
    mostly[1 + rng.permutation(1500)[:1350]] = 0
    query = rng.normal(size=(40, 16)).astype(np.float32)
    index = AnnoyIndex(metric=metric).build(mostly)
    assert recall_against_exact(index, mostly, query, 10) >= 0.9
    index.save(tmp_path)
    loaded = AnnoyIndex.load(tmp_path)
    excluded = rng.random((40, 1501)) < 0.5
    allowed = rng.random(1501) < 0.5
    for k in (10, 200):  # 200: more than are not zero, so what is below zero is found as well
        for masks in ({}, {"excluded": excluded}, {"allowed": allowed}):
            found = index.search(query, k, **masks)
            again = loaded.search(query, k, **masks)
            np.testing.assert_array_equal(found.item_index, again.item_index)
            exact = ExactIndex(metric=metric).build(mostly).search(query, k, **masks)
            if k == 200:
                np.testing.assert_array_equal(found.item_index, exact.item_index)


@pytest.mark.parametrize("metric", ["angular", "dot"])
def test_nothing_but_zeros(tmp_path: Path, metric: Metric) -> None:
    index = AnnoyIndex(metric=metric).build(np.zeros((6, 4), dtype=np.float32))
    index.save(tmp_path)
    excluded = np.zeros((1, 6), dtype=bool)
    excluded[0, 2] = True
    for one in (index, AnnoyIndex.load(tmp_path)):
        found = one.search(np.ones((1, 4), dtype=np.float32), 3, excluded=excluded)
        assert found.item_index.tolist() == [[1, 3, 4]]
        assert found.score.tolist() == [[0.0, 0.0, 0.0]]


def test_a_forest_of_before_which_holds_the_zeros_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(31, 4)).astype(np.float32)
    whole = AnnoyIndex().build(vectors)
    vectors[[3, 9]] = 0
    AnnoyIndex().build(vectors).save(tmp_path)
    whole._trees.save(str(tmp_path / "trees.ann"))  # all 30 items
    query = rng.normal(size=(5, 4)).astype(np.float32)
    found = AnnoyIndex.load(tmp_path).search(query, 30).item_index
    np.testing.assert_array_equal(found, ExactIndex().build(vectors).search(query, 30).item_index)


def test_missing_or_foreign_trees(vectors: np.ndarray, tmp_path: Path) -> None:
    AnnoyIndex(num_trees=2).build(vectors[:40]).save(tmp_path / "a")
    AnnoyIndex(num_trees=2).build(vectors[:50]).save(tmp_path / "b")
    trees = tmp_path / "a" / "trees.ann"
    (tmp_path / "b" / "trees.ann").replace(trees)
    with pytest.raises(ArtifactError, match="holds 49 items, the vectors 39; build"):
        AnnoyIndex.load(tmp_path / "a")
    trees.write_bytes(b"abc")
    with pytest.raises(ArtifactError, match=r"trees.ann is damaged"):
        AnnoyIndex.load(tmp_path / "a")
    trees.unlink()
    with pytest.raises(ArtifactError, match=r"half an index in .*: trees.ann is missing"):
        AnnoyIndex.load(tmp_path / "a")
