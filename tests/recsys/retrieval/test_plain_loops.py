"""Retrievers against plain loops, and what they refuse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.sparse import csr_array

from features.tables import Histories
from recsys.errors import ConfigError
from recsys.pipeline.towers import ItemInputs
from recsys.retrieval import graph_filter
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.graph_filter import GraphFilterRetriever, chebyshev_weights
from recsys.retrieval.popular_in_category import PopularInCategoryRetriever
from recsys.retrieval.popularity import DAY_US
from recsys.retrieval.rp3beta import Rp3BetaRetriever
from recsys.retrieval.source_options import GraphOptions
from recsys.retrieval.trending import TrendingRetriever
from recsys.retrieval.user_knn import UserKnnRetriever

N = 17
Log = list[list[tuple[int, int, float]]]


def drawn(seed: int, num_rows: int, *, weighted: bool) -> Log:
    """Rows of 0 to 7 events on days 1..30, items met again among them; item N is met by nobody."""
    rng = np.random.default_rng(seed)
    log: Log = []
    for _ in range(num_rows):
        size = int(rng.integers(0, 8))
        times = np.sort(rng.integers(1, 31, size)) * DAY_US
        weights = rng.choice([0.5, 1.0, 2.0, 4.0], size) if weighted else np.ones(size)
        items = rng.integers(1, N, size)
        log.append(list(zip(items.tolist(), times.tolist(), weights.tolist(), strict=True)))
    return log


def histories_of(log: Log) -> Histories:
    events = [event for row in log for event in row]
    item, time, weight = zip(*events, strict=True)
    return Histories(
        indptr=np.cumsum([0, *(len(row) for row in log)]).astype(np.int64),
        item_index=np.array(item, dtype=np.int64),
        timestamp=np.array(time, dtype=np.int64),
        weight=np.array(weight, dtype=np.float32),
    )


@pytest.fixture(params=[False, True], ids=["ones", "weights"])
def logs(request: pytest.FixtureRequest) -> tuple[Log, Log]:
    """Training rows and rows that ask, the first two of them rows of the training."""
    log = drawn(0, 25, weighted=request.param)
    return log, [*log[:2], *drawn(1, 6, weighted=request.param)]


def assert_scores(found: np.ndarray, wanted: list[list[float]]) -> None:
    np.testing.assert_allclose(found, np.array(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("degree", "plateau", "rank", "ideal", "power", "half_life"),
    [(1, 1.0, 3, 0.0, 0.0, None), (8, 10.0, 5, 3.0, 0.3, None), (5, 1.5, 1000, 0.2, 1.0, 2.0)],
)
@pytest.mark.parametrize("users", [10, 25])
@pytest.mark.parametrize("whole", [True, False])
def test_graph_filter_is_the_formula(
    plain: ModuleType, logs: tuple[Log, Log], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    whole: bool, users: int, degree: int, plateau: float, rank: int, ideal: float, power: float,
    half_life: float | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(graph_filter, "_DENSE_SIDE", N if whole else 0)
    train, asking = logs[0][:users], logs[1]
    options = GraphOptions(
        graph_degree=degree, graph_plateau=plateau, graph_rank=rank, graph_ideal_weight=ideal,
        graph_degree_power=power,
    )  # fmt: skip
    model = GraphFilterRetriever.fit(
        histories_of(train), N, half_life=half_life, options=options, name="graph_filter"
    )
    wanted = [
        plain.graph_filter(
            train, plain.asked(row, N, half_life), degree=degree, plateau=plateau, rank=rank,
            ideal_weight=ideal, degree_power=power,
        )
        for row in asking
    ]  # fmt: skip
    model.save(tmp_path)
    for same in (model, GraphFilterRetriever.load(tmp_path)):
        assert_scores(same.score_all(histories_of(asking)), wanted)
        assert_scores(same.score_all(histories_of(asking[:1])), wanted[:1])


def test_the_whole_filter_is_made_where_it_is_smaller_than_an_answer() -> None:
    pairs = [[(item, DAY_US, 1.0), (item + 1, DAY_US, 1.0)] for item in range(1, N)]  # 32 cells
    for degree, whole in ((5, False), (6, True)):  # 320 and 384 products, 324 entries
        model = GraphFilterRetriever.fit(
            histories_of(pairs), N, options=GraphOptions(graph_degree=degree)
        )
        assert ("filter" in model._tensors) == whole


def test_weights_of_the_plateau(plain: ModuleType) -> None:
    for degree, plateau in ((1, 1.0), (2, 1.0), (8, 10.0), (7, 1.5)):
        np.testing.assert_allclose(
            chebyshev_weights(degree, plateau), plain.chebyshev_weights(degree, plateau), atol=1e-12
        )
    # Degree 1: response 1 at -1 and 0 at 1 paired with roots -+sqrt(1/2), the sum of the products.
    np.testing.assert_allclose(chebyshev_weights(1, 1.0), [0.5, -np.sqrt(0.5)])


@pytest.mark.parametrize("users", [12, 25])
def test_both_ways_to_the_vectors_agree(
    logs: tuple[Log, Log], users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, asking = histories_of(logs[0][:users]), histories_of(logs[1])
    options = GraphOptions(graph_rank=4)
    exact = GraphFilterRetriever.fit(train, N, options=options).score_all(asking)
    monkeypatch.setattr(graph_filter, "_DENSE_SIDE", 0)
    iterated = [
        GraphFilterRetriever.fit(train, N, options=options).score_all(asking) for _ in range(2)
    ]
    np.testing.assert_allclose(iterated[0], exact, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(iterated[0], iterated[1])


def test_memory_bounds_the_vectors(
    logs: tuple[Log, Log], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(graph_filter, "_DENSE_SIDE", 0)
    memory = 3.5 * (16 * (N + 1) + 4 * (N + 1)) / 1e9
    options = GraphOptions(graph_rank=10, graph_memory_gb=memory)
    train = histories_of(logs[0])
    with caplog.at_level(logging.INFO):
        few = GraphFilterRetriever.fit(train, N, options=options)
    assert f"3 of 10 singular vectors, for 25 users, {N} items" in caplog.text
    same = GraphFilterRetriever.fit(train, N, options=options.but(graph_rank=3, graph_memory_gb=1))
    np.testing.assert_array_equal(few.score_all(train), same.score_all(train))


def test_small_graphs_have_few_vectors_where_their_number_is_not_said() -> None:
    log = histories_of(drawn(0, 25, weighted=False))  # a tenth of 17 items
    usual, one, two = (
        GraphFilterRetriever.fit(log, N, options=GraphOptions(graph_rank=rank)).score_all(log)
        for rank in (None, 1, 2)
    )
    np.testing.assert_array_equal(usual, one)
    assert not np.allclose(usual, two)


def test_a_graph_of_one_user_has_no_vectors(plain: ModuleType) -> None:
    train = [[(1, DAY_US, 1.0), (2, DAY_US, 1.0)]]
    model = GraphFilterRetriever.fit(histories_of(train), N, half_life=None)
    options = {"degree": 8, "plateau": 5.0, "rank": 0, "ideal_weight": 0.0, "degree_power": 0.3}
    wanted = plain.graph_filter(train, plain.asked(train[0], N, None), **options)
    assert_scores(model.score_all(histories_of(train)), [wanted])


@pytest.mark.parametrize(
    ("power", "popularity_power", "neighbours", "half_life"),
    [(1.0, 0.0, 100, None), (0.7, 0.5, 3, 2.0), (1.3, 1.0, 1, None)],
)
def test_rp3beta_is_the_formula(
    plain: ModuleType, logs: tuple[Log, Log], power: float, popularity_power: float,
    neighbours: int, half_life: float | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    train, asking = logs
    monkeypatch.setattr("recsys.retrieval.rp3beta._BLOCK_STEPS", 40)
    model = Rp3BetaRetriever.fit(
        histories_of(train), N, power=power, popularity_power=popularity_power,
        neighbours=neighbours, half_life=half_life,
    )  # fmt: skip
    wanted = [
        plain.rp3beta(
            train, plain.asked(row, N, half_life), power=power,
            popularity_power=popularity_power, neighbours=neighbours,
        )
        for row in asking
    ]  # fmt: skip
    assert_scores(model.score_all(histories_of(asking)), wanted)


@pytest.mark.parametrize(("neighbours", "half_life"), [(1, None), (4, 2.0), (1000, None)])
def test_user_knn_is_the_formula(
    plain: ModuleType, logs: tuple[Log, Log], neighbours: int, half_life: float | None
) -> None:
    train, asking = logs
    model = UserKnnRetriever.fit(histories_of(train), N, neighbours=neighbours, half_life=half_life)
    model.block_bytes = 4 * 26 * 3  # three rows at a time
    wanted = [
        plain.user_knn(train, plain.asked(row, N, half_life), neighbours=neighbours)
        for row in asking
    ]
    assert_scores(model.score_all(histories_of(asking)), wanted)


def test_nobody_is_their_own_neighbour() -> None:
    def row(*items: int) -> list[tuple[int, int, float]]:
        return [(item, DAY_US, 1.0) for item in items]

    train = [row(1, 2, 3), row(2, 3, 4), row(5, 6)]
    model = UserKnnRetriever.fit(histories_of(train), N, neighbours=1, half_life=None)
    score = model.score_all(histories_of([row(1, 2, 3), row(1, 2, 3, 5), row(5, 6)]))
    assert np.flatnonzero(score[0]).tolist() == [2, 3, 4]  # those of the second user alone
    assert np.flatnonzero(score[1]).tolist() == [5, 6]  # what is rare says more of likeness
    assert not score[2].any()  # who brings nothing new is no neighbour


@pytest.mark.parametrize("moment", [1, 6, 20, 40])
def test_trending_is_the_formula(plain: ModuleType, logs: tuple[Log, Log], moment: int) -> None:
    train, asking = logs
    model = TrendingRetriever.fit(histories_of(train), N, window_days=3, past_days=7.5)
    wanted = plain.trending(
        train, N, moment * DAY_US, window_us=3 * DAY_US, past_us=int(7.5 * DAY_US)
    )
    moments = np.array([moment, 2, moment]) * DAY_US
    score = model.score_all(histories_of(asking).take([0, 1, 2]), moments)
    assert_scores(score[[0, 2]], [wanted, wanted])
    assert_scores(model.score_all(histories_of(asking).take([0]), moments[:1]), [wanted])


def test_what_rises_is_above_what_is_popular() -> None:
    steady = [(1, day * DAY_US, 1.0) for day in range(1, 31) for _ in range(10)]
    rising = [(2, day * DAY_US, 1.0) for day in range(26, 31)]
    falling = [(3, day * DAY_US, 1.0) for day in range(1, 20)]
    log = histories_of([sorted([*steady, *rising, *falling], key=lambda event: event[1])])
    model = TrendingRetriever.fit(log, 4, window_days=5, past_days=20)
    found = model.retrieve(log.last(0), 4, moment=np.array([31 * DAY_US]))
    # 1 has 50 events where 51.4 were to be expected, since all grew; 4 has none and none expected.
    assert found.item_index.tolist() == [[2, 4, 1, 3]]
    assert found.score[0, 2] == pytest.approx((50 - 51.4) / np.sqrt(52.4), abs=0.01)


@pytest.mark.parametrize("half_life", [None, 2.0])
def test_popular_in_category_is_the_formula(
    plain: ModuleType, logs: tuple[Log, Log], half_life: float | None
) -> None:
    train, asking = logs
    category = np.arange(N + 1) % 4
    model = PopularInCategoryRetriever.fit(
        histories_of(train), category, window_days=6, half_life=half_life
    )
    moments = np.arange(3, 3 + 4 * len(asking), 4) * DAY_US
    wanted = [
        plain.popular_in_category(
            train, plain.asked(row, N, half_life), category, int(moment), window_us=6 * DAY_US
        )
        for row, moment in zip(asking, moments, strict=True)
    ]
    score = model.score_all(histories_of(asking), moments)
    assert_scores(score, wanted)
    total = score.sum(axis=1)
    assert total.max() < 1.0 + 1e-5
    assert total[-1] == pytest.approx(1.0)  # by then every category has an event


def test_categories_are_a_field_of_the_items() -> None:
    fields = np.array([[0, 0], [1, 4], [2, 5], [0, 4]])
    items = ItemInputs(None, None, 0, fields, 5, ("kind", "studio"))
    assert items.category("").tolist() == items.category("kind").tolist() == [0, 1, 2, 0]
    assert items.category("studio").tolist() == [0, 4, 5, 4]
    with pytest.raises(ConfigError, match=r"category_column .* kind, studio; got 'stdio'"):
        items.category("stdio")
    alike = ItemInputs(None, None, 0, fields[:, :0], 0)
    assert alike.category("").tolist() == [0, 0, 0, 0]
    with pytest.raises(ConfigError, match="of which there are none; got 'kind'"):
        alike.category("kind")


@pytest.mark.parametrize(
    "fit", [GraphFilterRetriever.fit, Rp3BetaRetriever.fit, UserKnnRetriever.fit]
)
def test_events_of_no_weight_teach_nothing(
    logs: tuple[Log, Log], fit: Callable[[Histories, int], DenseRetriever]
) -> None:
    nothing = [(item, DAY_US, 0.0) for item in (1, 2, N)]
    asking = histories_of(logs[1])
    moment = np.zeros(len(asking), dtype=np.int64)
    with_it, without = (
        fit(histories_of([*logs[0], row]), N).score_all(asking, moment) for row in (nothing, [])
    )
    # The mean weight is another one, so all scores may be larger by one factor.
    np.testing.assert_allclose(
        with_it / with_it.max(), without / without.max(), rtol=1e-4, atol=1e-5
    )


def test_models_of_another_catalogue_are_refused() -> None:
    empty = {name: np.zeros(1, dtype=np.float32) for name in ("data", "degree", "weights")}
    with pytest.raises(ValueError, match="vectors must be of 4 items, got 2"):
        GraphFilterRetriever(
            name="graph_filter", num_items=3, half_life=None, ideal_weight=1.0, degree_power=0.0,
            tensors={**empty, "vectors": np.zeros((2, 1))},
        )  # fmt: skip
    with pytest.raises(ValueError, match="filter must be of 4 items, got 2"):
        GraphFilterRetriever(
            name="graph_filter", num_items=3, half_life=None, ideal_weight=1.0, degree_power=0.0,
            tensors={"filter": np.zeros((2, 2))},
        )  # fmt: skip
    with pytest.raises(ValueError, match="users must be of 4 items, got 2"):
        UserKnnRetriever(
            name="user_knn", num_items=3, neighbours=1, half_life=None, users=csr_array((1, 2))
        )


def test_wrong_arguments_are_named(logs: tuple[Log, Log]) -> None:
    log = histories_of(logs[0])
    with pytest.raises(ValueError, match="power must be > 0, got 0"):
        Rp3BetaRetriever.fit(log, N, power=0)
    with pytest.raises(ValueError, match="popularity_power must be >= 0, got -1"):
        Rp3BetaRetriever.fit(log, N, popularity_power=-1)
    with pytest.raises(ValueError, match="neighbours must be >= 1, got 0"):
        Rp3BetaRetriever.fit(log, N, neighbours=0)
    with pytest.raises(ValueError, match="neighbours must be >= 1, got 0"):
        UserKnnRetriever.fit(log, N, neighbours=0)
    with pytest.raises(ValueError, match="window_days must be > 0, got None"):
        TrendingRetriever.fit(log, N, window_days=None)
    with pytest.raises(ValueError, match="past_days must be > 0, got -2"):
        TrendingRetriever.fit(log, N, past_days=-2)
    with pytest.raises(ValueError, match=r"category must be \[N \+ 1\] .*shape \(2, 2\) from 0"):
        PopularInCategoryRetriever.fit(log, np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(ValueError, match=r"category must be .*shape \(2,\) from -1"):
        PopularInCategoryRetriever.fit(log, np.array([0, -1]))
    for fit in (GraphFilterRetriever.fit, Rp3BetaRetriever.fit, UserKnnRetriever.fit):
        with pytest.raises(ValueError, match="half_life must be > 0 events, got 0"):
            fit(log, N, half_life=0)
        with pytest.raises(ValueError, match=f"largest item index {N - 1}, got 3"):
            fit(log, 3)
