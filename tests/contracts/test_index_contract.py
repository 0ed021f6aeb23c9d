"""What every `Index` must do; a new index is added to `BUILDERS` and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError, NotFittedError
from recsys.index import AnnoyIndex, ExactIndex, Index, Metric, load_index
from recsys.topk import TopK

BUILDERS: dict[str, Callable[[Metric], Index]] = {
    "exact": lambda metric: ExactIndex(metric=metric),
    "exact_small_blocks": lambda metric: ExactIndex(metric=metric, block_bytes=1),
    # Searched so widely that on 60 items it is exact.
    "annoy_wide": lambda metric: AnnoyIndex(metric=metric, num_trees=20, search_k=10_000),
    "annoy": lambda metric: AnnoyIndex(metric=metric, num_trees=5),
}
FINDS_ALL = {"exact", "exact_small_blocks", "annoy_wide"}


def vectors_of(num_items: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num_items + 1, dim)).astype(np.float32)
    vectors[0] = 0.0
    return vectors


def reference(
    vectors: np.ndarray,
    query: np.ndarray,
    k: int,
    metric: str,
    excluded: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> TopK:
    """Plain float64 argsort."""
    items, asked = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "angular":
        items = items / np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-300)
        asked = asked / np.maximum(np.linalg.norm(asked, axis=1, keepdims=True), 1e-300)
    score = asked @ items.T
    score[:, 0] = -np.inf
    if excluded is not None:
        score[excluded] = -np.inf
    if allowed is not None:
        score[:, ~allowed] = -np.inf
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(score, order, axis=1)
    order = np.where(np.isneginf(best), -1, order)
    pad = k - order.shape[1]
    if pad > 0:
        order = np.pad(order, ((0, 0), (0, pad)), constant_values=-1)
        best = np.pad(best, ((0, 0), (0, pad)), constant_values=-np.inf)
    return TopK(order, best.astype(np.float32))


def assert_same(got: TopK, wanted: TopK) -> None:
    np.testing.assert_array_equal(got.item_index, wanted.item_index)
    np.testing.assert_allclose(got.score, wanted.score, rtol=1e-5, atol=1e-6)


def assert_well_formed(result: TopK, num_queries: int, k: int) -> None:
    assert result.item_index.shape == result.score.shape == (num_queries, k)
    assert result.item_index.dtype == np.int64
    assert result.score.dtype == np.float32
    nothing = result.item_index == -1
    np.testing.assert_array_equal(nothing, np.isneginf(result.score))
    assert (result.item_index[~nothing] >= 1).all()
    assert (result.score[:, 1:] <= result.score[:, :-1]).all()
    assert (np.diff(nothing.astype(int), axis=1) >= 0).all(), "padding comes last"
    for row in result.item_index:
        real = row[row >= 1]
        assert len(set(real.tolist())) == real.size


@pytest.fixture(params=sorted(BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["dot", "angular"])
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param  # type: ignore[no-any-return]


class TestIndexContract:
    def test_is_an_index(self, name: str, metric: Metric) -> None:
        index = BUILDERS[name](metric).build(vectors_of(7, 3))
        assert isinstance(index, Index)
        assert (index.num_items, index.dim, index.metric) == (7, 3, metric)
        assert index.is_exact == name.startswith("exact")

    @pytest.mark.parametrize("k", [1, 5, 60])
    @pytest.mark.parametrize("filtered", [False, True])
    def test_against_numpy_argsort(self, name: str, metric: Metric, k: int, filtered: bool) -> None:
        if name not in FINDS_ALL:
            pytest.skip("finds most, not all: see test_approximate_recall_has_a_bound")
        rng = np.random.default_rng(3)
        vectors, query = vectors_of(60, 8), vectors_of(11, 8, seed=1)
        excluded = rng.random((12, 61)) < 0.4 if filtered else None
        allowed = rng.random(61) < 0.6 if filtered else None
        index = BUILDERS[name](metric).build(vectors)
        got = index.search(query, k, excluded=excluded, allowed=allowed)
        assert_well_formed(got, 12, k)
        assert_same(got, reference(vectors, query, k, metric, excluded, allowed))

    def test_approximate_recall_has_a_bound(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(400, 8), vectors_of(49, 8, seed=1)
        got = BUILDERS[name](metric).build(vectors).search(query, 10)
        wanted = reference(vectors, query, 10, metric)
        rows = zip(got.item_index, wanted.item_index, strict=True)
        found = np.mean([len(set(a) & set(b)) / 10 for a, b in rows])
        assert found >= (0.999 if name in FINDS_ALL else 0.5)

    def test_filters_are_obeyed_and_never_return_too_few(self, name: str, metric: Metric) -> None:
        rng = np.random.default_rng(5)
        index = BUILDERS[name](metric).build(vectors_of(300, 6))
        excluded = rng.random((20, 301)) < np.linspace(0.0, 1.0, 20)[:, None]
        allowed = rng.random(301) < 0.5
        got = index.search(vectors_of(19, 6, seed=2), 25, excluded=excluded, allowed=allowed)
        assert_well_formed(got, 20, 25)
        may = allowed & ~excluded
        may[:, 0] = False
        np.testing.assert_array_equal(
            (got.item_index >= 1).sum(axis=1), np.minimum(25, may.sum(axis=1))
        )
        for row, items in enumerate(got.item_index):
            assert may[row, items[items >= 1]].all()

    def test_narrow_filter_is_exact(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(300, 6), vectors_of(3, 6, seed=2)
        allowed = np.zeros(301, dtype=bool)
        allowed[[0, 4, 9, 200]] = True
        got = BUILDERS[name](metric).build(vectors).search(query, 3, allowed=allowed)
        assert_same(got, reference(vectors, query, 3, metric, allowed=allowed))

    def test_all_excluded(self, name: str, metric: Metric) -> None:
        index = BUILDERS[name](metric).build(vectors_of(9, 3))
        got = index.search(vectors_of(1, 3), 4, excluded=np.ones((2, 10), dtype=bool))
        assert (got.item_index == -1).all()
        assert np.isneginf(got.score).all()

    def test_more_than_the_catalogue(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(5, 3), vectors_of(2, 3, seed=1)
        got = BUILDERS[name](metric).build(vectors).search(query, 8)
        assert_well_formed(got, 3, 8)
        assert_same(got, reference(vectors, query, 8, metric))

    @pytest.mark.parametrize(("num_items", "num_queries"), [(0, 2), (4, 0), (0, 0), (1, 1)])
    def test_empty_sizes(self, name: str, metric: Metric, num_items: int, num_queries: int) -> None:
        query = np.ones((num_queries, 3), dtype=np.float32)
        index = BUILDERS[name](metric).build(vectors_of(num_items, 3))
        excluded = np.zeros((num_queries, num_items + 1), dtype=bool)
        got = index.search(query, 2, excluded=excluded)
        assert_well_formed(got, num_queries, 2)
        assert int((got.item_index >= 1).sum()) == min(num_items, 2) * num_queries

    def test_ties_go_to_the_lower_index(self, name: str, metric: Metric) -> None:
        if name not in FINDS_ALL:
            pytest.skip("a tie outside the fetched items is not seen")
        for dim in (1, 3, 17, 64):
            vectors = np.tile(vectors_of(1, dim, seed=dim)[1], (38, 1))
            query = np.stack([vectors[1], 2 * vectors[1]])
            got = BUILDERS[name](metric).build(vectors).search(query, 9)
            np.testing.assert_array_equal(got.item_index, np.tile(np.arange(1, 10), (2, 1)))

    def test_zero_vectors_and_queries(self, name: str, metric: Metric) -> None:
        vectors = np.zeros((6, 4), dtype=np.float32)
        got = BUILDERS[name](metric).build(vectors).search(np.zeros((1, 4)), 5)
        np.testing.assert_array_equal(got.item_index, [[1, 2, 3, 4, 5]])
        np.testing.assert_array_equal(got.score, np.zeros((1, 5)))

    def test_row_zero_is_never_returned_and_does_not_matter(
        self, name: str, metric: Metric
    ) -> None:
        vectors, query = vectors_of(12, 4), vectors_of(3, 4, seed=1)
        plain = BUILDERS[name](metric).build(vectors).search(query, 12)
        vectors[0] = 100.0
        other = BUILDERS[name](metric).build(vectors).search(query, 12)
        assert (other.item_index >= 1).all()
        np.testing.assert_array_equal(plain.item_index, other.item_index)

    def test_batch_equals_one_by_one(self, name: str, metric: Metric) -> None:
        rng = np.random.default_rng(0)
        query = vectors_of(15, 16, seed=4)
        excluded = rng.random((16, 201)) < 0.3
        index = BUILDERS[name](metric).build(vectors_of(200, 16))
        batch = index.search(query, 10, excluded=excluded)
        for row in range(16):
            one = index.search(query[row : row + 1], 10, excluded=excluded[row : row + 1])
            np.testing.assert_array_equal(one.item_index, batch.item_index[row : row + 1])
            np.testing.assert_array_equal(one.score, batch.score[row : row + 1])

    def test_permuting_queries_permutes_results(self, name: str, metric: Metric) -> None:
        order = np.random.default_rng(0).permutation(16)
        query = vectors_of(15, 16, seed=4)
        index = BUILDERS[name](metric).build(vectors_of(100, 16))
        plain, moved = index.search(query, 7), index.search(query[order], 7)
        assert_same(moved, TopK(plain.item_index[order], plain.score[order]))

    def test_score_is_the_product(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(50, 5), vectors_of(3, 5, seed=9)
        got = BUILDERS[name](metric).build(vectors).search(query, 6)
        picked = vectors[got.item_index].astype(np.float64)  # [Q, K, D]
        score = np.einsum("qkd,qd->qk", picked, query)
        if metric == "angular":
            norms = np.linalg.norm(picked, axis=2) * np.linalg.norm(query, axis=1)[:, None]
            score = np.divide(score, norms, out=np.zeros_like(score), where=norms > 0)
        np.testing.assert_allclose(got.score, score, rtol=1e-5, atol=1e-6)

    def test_deterministic_twice(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(200, 8), vectors_of(9, 8, seed=1)
        first = BUILDERS[name](metric).build(vectors).search(query, 10)
        second = BUILDERS[name](metric).build(vectors).search(query, 10)
        np.testing.assert_array_equal(first.item_index, second.item_index)
        np.testing.assert_array_equal(first.score, second.score)

    def test_save_and_load_are_equal(self, name: str, metric: Metric, tmp_path: Path) -> None:
        query = vectors_of(9, 8, seed=1)
        index = BUILDERS[name](metric).build(vectors_of(200, 8))
        before = index.search(query, 10)
        index.save(tmp_path / "index")
        index.save(tmp_path / "again")  # saving twice is allowed
        for loaded in (type(index).load(tmp_path / "index"), load_index(tmp_path / "again"), index):
            after = loaded.search(query, 10)
            np.testing.assert_array_equal(before.item_index, after.item_index)
            np.testing.assert_array_equal(before.score, after.score)
            assert loaded.metric == metric

    def test_overwriting_a_saved_index(self, name: str, metric: Metric, tmp_path: Path) -> None:
        query = vectors_of(4, 8, seed=1)
        BUILDERS[name](metric).build(vectors_of(30, 8)).save(tmp_path)
        loaded = load_index(tmp_path)
        newer = BUILDERS[name](metric).build(vectors_of(60, 8, seed=5))
        before = loaded.search(query, 5)
        newer.save(tmp_path)
        assert_same(loaded.search(query, 5), before)
        assert_same(load_index(tmp_path).search(query, 5), newer.search(query, 5))

    @pytest.mark.parametrize("num_items", [0, 1])
    def test_tiny_catalogues_survive_saving(
        self, name: str, metric: Metric, num_items: int, tmp_path: Path
    ) -> None:
        index = BUILDERS[name](metric).build(vectors_of(num_items, 3))
        index.save(tmp_path)
        assert_same(
            load_index(tmp_path).search(np.ones((1, 3)), 2), index.search(np.ones((1, 3)), 2)
        )

    def test_building_again_replaces(self, name: str, metric: Metric) -> None:
        index = BUILDERS[name](metric).build(vectors_of(30, 4))
        vectors, query = vectors_of(20, 5, seed=8), vectors_of(2, 5, seed=1)
        assert_same(index.build(vectors).search(query, 20), reference(vectors, query, 20, metric))

    def test_inputs_are_not_changed(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(30, 4), vectors_of(2, 4, seed=1)
        excluded, allowed = np.zeros((3, 31), dtype=bool), np.ones(31, dtype=bool)
        copies = [a.copy() for a in (vectors, query, excluded, allowed)]
        index = BUILDERS[name](metric).build(vectors)
        index.search(query, 3, excluded=excluded, allowed=allowed)
        vectors_after = vectors.copy()
        for left, right in zip((vectors, query, excluded, allowed), copies, strict=True):
            np.testing.assert_array_equal(left, right)
        before = index.search(query, 3)
        vectors[:] = 1.0  # the index keeps its own copy
        assert_same(index.search(query, 3), before)
        np.testing.assert_array_equal(vectors_after, copies[0])

    def test_float64_and_strided_inputs(self, name: str, metric: Metric) -> None:
        vectors, query = vectors_of(30, 4), vectors_of(2, 4, seed=1)
        wide = np.asfortranarray(np.repeat(vectors.astype(np.float64), 2, axis=1))[:, ::2]
        index = BUILDERS[name](metric).build(wide)
        assert_same(
            index.search(query.astype(np.float64), 5),
            BUILDERS[name](metric).build(vectors).search(query, 5),
        )


class TestIndexRefusals:
    def test_before_building(self, name: str, tmp_path: Path) -> None:
        index = BUILDERS[name]("dot")
        with pytest.raises(NotFittedError, match=r"index is empty: call build\(vectors\) or load"):
            index.search(np.ones((1, 3)), 1)
        with pytest.raises(NotFittedError, match="index is empty"):
            index.save(tmp_path / "x")
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (2, 2, 2)])
    def test_vectors_of_a_wrong_shape(self, name: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"vectors must be \[N \+ 1, D\] with a padding row"):
            BUILDERS[name]("dot").build(np.ones(shape))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, name: str, bad: float) -> None:
        vectors = vectors_of(5, 3)
        vectors[[2, 4], 1] = bad
        with pytest.raises(
            ValueError, match=r"vectors must be finite.*: 2 of 6 rows are not, the first is row 2"
        ):
            BUILDERS[name]("dot").build(vectors)
        index = BUILDERS[name]("dot").build(vectors_of(5, 3))
        with pytest.raises(ValueError, match=r"query must be finite.*: 2 of 6 rows"):
            index.search(vectors, 2)

    @pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1)])
    def test_query_of_a_wrong_shape(self, name: str, shape: tuple[int, ...]) -> None:
        index = BUILDERS[name]("dot").build(vectors_of(5, 3))
        with pytest.raises(ValueError, match=r"query must be \[Q, 3\] like the indexed vectors"):
            index.search(np.ones(shape), 2)

    @pytest.mark.parametrize("k", [0, -1])
    def test_k_below_one(self, name: str, k: int) -> None:
        index = BUILDERS[name]("dot").build(vectors_of(5, 3))
        with pytest.raises(ValueError, match=f"k must be >= 1, got {k}"):
            index.search(np.ones((1, 3)), k)

    def test_masks_of_a_wrong_shape_or_type(self, name: str) -> None:
        index = BUILDERS[name]("dot").build(vectors_of(5, 3))
        query = np.ones((2, 3))
        with pytest.raises(ValueError, match=r"excluded must have shape \(2, 6\), got \(3, 6\)"):
            index.search(query, 1, excluded=np.zeros((3, 6), dtype=bool))
        with pytest.raises(ValueError, match=r"allowed must have shape \(6,\), got \(5,\)"):
            index.search(query, 1, allowed=np.ones(5, dtype=bool))
        with pytest.raises(ValueError, match="excluded must be a bool mask, got int64"):
            index.search(query, 1, excluded=np.zeros((2, 6), dtype=np.int64))
        with pytest.raises(ValueError, match="allowed must be a bool mask, got float64"):
            index.search(query, 1, allowed=np.ones(6))

    def test_unknown_metric(self, name: str) -> None:
        with pytest.raises(ValueError, match="metric must be 'dot' or 'angular', got 'l2'"):
            BUILDERS[name]("l2")  # type: ignore[arg-type]

    def test_loading_nothing_or_damage(self, name: str, tmp_path: Path) -> None:
        index = BUILDERS[name]("dot").build(vectors_of(5, 3))
        with pytest.raises(ArtifactError, match=r"no index in .*: index.json is missing"):
            type(index).load(tmp_path / "nowhere")
        index.save(tmp_path)
        (tmp_path / "vectors.safetensors").unlink()
        with pytest.raises(ArtifactError, match=r"half an index in .*: vectors.safetensors is"):
            type(index).load(tmp_path)
        (tmp_path / "vectors.safetensors").write_bytes(b"\x01")
        with pytest.raises(ArtifactError, match=r"vectors.safetensors is damaged"):
            type(index).load(tmp_path)
        type(index)().build(vectors_of(4, 3)).save(tmp_path / "other")
        (tmp_path / "other" / "vectors.safetensors").replace(tmp_path / "vectors.safetensors")
        with pytest.raises(ArtifactError, match=r"holds shape \(5, 3\), index.json says 5 items"):
            type(index).load(tmp_path)
