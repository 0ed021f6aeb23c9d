"""What every `Retriever` must do; a new retriever is added to `BUILDERS` and nothing else."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from features.tables import Histories
from recsys.errors import ArtifactError
from recsys.index import ExactIndex
from recsys.retrieval.aging import AgedRetriever, asked_by_days, with_age
from recsys.retrieval.buy_again import BuyAgainRetriever
from recsys.retrieval.choices import LOADERS
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.finishing.distillation import DistillationOptions
from recsys.retrieval.finishing.distilled_two_tower import distil_user_tower
from recsys.retrieval.finishing.new_items import fit_new_items
from recsys.retrieval.graph_filter import GraphFilterRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.popular_in_category import PopularInCategoryRetriever
from recsys.retrieval.popularity import DAY_US, PopularityRetriever
from recsys.retrieval.protocol import Question, Retriever
from recsys.retrieval.rp3beta import Rp3BetaRetriever
from recsys.retrieval.source_options import NewItemOptions
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.trending import TrendingRetriever
from recsys.retrieval.user_knn import UserKnnRetriever
from recsys.topk import TopK

N, DIM, USERS = 30, 8, 12
# Met by nobody, and zero vectors of the towers: a float32 product of equal vectors may differ in
# its last bits with the place of the row, that of zeros does not.
TWINS = (N - 2, N - 1, N)
EVERY_ITEM = np.arange(1, N + 1)

DAN = {"l2": 2.0, "dropout": 0.3, "item_power": 0.2, "user_power": 0.3}


def histories_of(rows: list[list[int]]) -> Histories:
    """Rows of items, one event a day from day 1 on."""
    counts = [len(row) for row in rows]
    return Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_index=np.array([item for row in rows for item in row], dtype=np.int64),
        timestamp=np.array([t + 1 for n in counts for t in range(n)], dtype=np.int64) * DAY_US,
        weight=np.ones(sum(counts), dtype=np.float32),
    )


def drawn_rows(seed: int, num_rows: int) -> list[list[int]]:
    """Histories of 0 to 8 items, repeats and empty ones among them."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, TWINS[0], rng.integers(1, 9)).tolist() for _ in range(num_rows)]
    rows[1] = []
    return rows


LOG = histories_of(drawn_rows(0, 40))
ASKED = histories_of(drawn_rows(1, USERS))
MOMENT = np.full(USERS, 5 * DAY_US, dtype=np.int64)  # some events are later
KNOWN = np.arange(1, USERS + 1)
NOBODY = histories_of([[], [], []])


def towers(
    score: str = "cosine", *, pooling: str = "recency", users: bool = False
) -> TwoTowerRetriever:
    options = TowerOptions(
        dim=DIM,
        history_length=6,
        half_lives=(math.inf, 2.0),
        hidden_dim=8,
        pooling=pooling,  # type: ignore[arg-type]
        use_user_id=users,
    )
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(options, content_dim=0, generator=generator)
    tables = {"item": torch.randn(N + 1, DIM, generator=generator)}
    tables["item"][list(TWINS)] = 0.0
    if users:
        tables["user"] = torch.randn(USERS + 1, DIM, generator=generator)
    for table in tables.values():
        table[0] = 0.0
    return TwoTowerRetriever.from_tables(tower, tables, score=score)  # type: ignore[arg-type]


def with_index() -> Retriever:
    retriever = towers()
    retriever.index = ExactIndex(metric="dot").build(retriever.item_vectors)
    return retriever


def distilled() -> Retriever:
    quick = DistillationOptions(hidden=8, epochs=2, batch_size=16)
    return distil_user_tower(
        towers(), LOG, generator=torch.Generator().manual_seed(0), options=quick
    )


BUILDERS: dict[str, Callable[[], Retriever]] = {
    "two_tower": towers,
    "two_tower_dot": lambda: towers("dot"),
    "two_tower_attention": lambda: towers(pooling="attention"),
    "two_tower_sequence": lambda: towers(pooling="sequence"),
    "two_tower_sequence_users": lambda: towers("dot", pooling="sequence", users=True),
    "two_tower_users": lambda: towers(users=True),
    "two_tower_ids_alone": lambda: towers("dot", pooling="none", users=True),
    "two_tower_int8": lambda: towers().quantize(),
    "two_tower_index": with_index,
    "distilled_two_tower": distilled,
    "item_item_of_few_users": lambda: ItemItemRetriever.fit(LOG.take(range(20)), N, l2=2.0),
    "item_item_of_many_users": lambda: ItemItemRetriever.fit(LOG, N, l2=2.0),
    "item_item_normalised_of_few_users": lambda: ItemItemRetriever.fit(
        LOG.take(range(20)), N, **DAN
    ),
    "item_item_normalised_of_many_users": lambda: ItemItemRetriever.fit(LOG, N, **DAN),
    "item_item_of_neighbours": lambda: ItemItemRetriever.fit(
        LOG, N, dense_items=0, neighbours=6, **DAN
    ),
    "item_item_asked_otherwise": lambda: ItemItemRetriever.fit(LOG, N, l2=2.0).asked_otherwise(
        "item_item", None
    ),
    "co_occurrence": lambda: CoOccurrenceRetriever.fit(LOG, N),
    "next_item": lambda: CoOccurrenceRetriever.fit(LOG, N, direction="forward", name="next_item"),
    "popularity": lambda: PopularityRetriever.fit(LOG, N, window_days=2.5),
    "popularity_of_all_time": lambda: PopularityRetriever.fit(LOG, N, window_days=None),
    "buy_again": lambda: BuyAgainRetriever.fit(LOG, N, due=0.5),
    "item_item_by_days": lambda: asked_by_days(ItemItemRetriever.fit(LOG, N, l2=2.0), 3.0),
    "popular_recent": lambda: PopularityRetriever.fit(
        LOG, N, window_days=1.5, name="popular_recent"
    ),
    "popular_in_category": lambda: PopularInCategoryRetriever.fit(
        LOG, np.arange(N + 1) // 7, window_days=2.5
    ),
    "trending": lambda: TrendingRetriever.fit(LOG, N, window_days=1.5, past_days=2.0),
    "graph_filter_of_few_users": lambda: GraphFilterRetriever.fit(LOG.take(range(20)), N),
    "graph_filter_of_many_users": lambda: GraphFilterRetriever.fit(LOG, N),
    "rp3beta": lambda: Rp3BetaRetriever.fit(LOG, N, neighbours=12),
    "user_knn": lambda: UserKnnRetriever.fit(LOG, N, neighbours=5),
    "new_items": lambda: fit_new_items(
        LOG, CONTENT, is_new=IS_NEW, options=NewItemOptions(new_items_dim=8, new_items_examples=1)
    ),
}
# What each of them looks at beside the items.
POPULAR = {"popularity", "popularity_of_all_time", "popular_recent", "trending"}
READS_NO_HISTORY = {"two_tower_ids_alone", *POPULAR}
READS_THE_CLOCK = {"buy_again", "item_item_by_days", "popular_in_category", *POPULAR}
READS_THE_USER = {"two_tower_users", "two_tower_ids_alone", "two_tower_sequence_users"}
FINDS_NOTHING_FOR_STRANGERS = {"buy_again", "two_tower_ids_alone"}
CONTENT = np.random.default_rng(5).standard_normal((N + 1, 6)).astype(np.float32)
CONTENT[[0, *TWINS]] = 0.0
IS_NEW = np.isin(np.arange(N + 1), [*range(2, N + 1, 3), *TWINS])

built = functools.cache(lambda name: BUILDERS[name]())


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Retriever:
    return built(name)  # type: ignore[no-any-return]


def findable(name: str) -> np.ndarray:
    """[USERS, N + 1] bool: what a retriever may find of what it scores."""
    if name == "buy_again":
        return ASKED.before(MOMENT).seen_mask(N)  # type: ignore[no-any-return]
    return np.tile(IS_NEW if name == "new_items" else np.ones(N + 1, dtype=bool), (USERS, 1))


def question(model: Retriever, rows: list[int] | None = None) -> Question:
    """The known users' question, or that of some of them."""
    chosen = list(range(USERS)) if rows is None else rows
    return model.ask(ASKED.take(chosen), moment=MOMENT[chosen], user_index=KNOWN[chosen])


def every_score(asked: Question, num_queries: int) -> np.ndarray:
    return asked.score(np.tile(EVERY_ITEM, (num_queries, 1)))


def assert_well_formed(found: TopK, num_queries: int, k: int) -> None:
    assert found.item_index.shape == found.score.shape == (num_queries, k)
    assert found.item_index.dtype == np.int64
    assert found.score.dtype == np.float32
    nothing = found.item_index == -1
    np.testing.assert_array_equal(nothing, np.isneginf(found.score))
    assert np.isfinite(found.score[~nothing]).all()
    assert ((found.item_index[~nothing] >= 1) & (found.item_index[~nothing] <= N)).all()
    assert (found.score[:, 1:] <= found.score[:, :-1]).all()
    tied = (found.score[:, 1:] == found.score[:, :-1]) & ~nothing[:, 1:]
    assert (found.item_index[:, 1:] > found.item_index[:, :-1])[tied].all()
    for row in found.item_index:
        assert len(set(row[row > 0].tolist())) == (row > 0).sum()


def read_again(model: Retriever, directory: Path) -> Retriever:
    inner = model.inner if isinstance(model, AgedRetriever) else model
    loaded: Retriever = type(inner).load(directory)  # type: ignore[attr-defined]
    return with_age(loaded, directory)


def assert_same(one: TopK, other: TopK) -> None:
    np.testing.assert_array_equal(one.item_index, other.item_index)
    np.testing.assert_array_equal(one.score, other.score)


class TestRetrieverContract:
    def test_is_a_retriever(self, name: str, model: Retriever) -> None:
        assert isinstance(model, Retriever)
        assert name.startswith(model.name)

    @pytest.mark.parametrize("k", [1, 5, N, N + 4])
    @pytest.mark.parametrize("filtered", [False, True])
    def test_best_k_different_items_then_padding(
        self, name: str, model: Retriever, k: int, filtered: bool
    ) -> None:
        rng = np.random.default_rng(2)
        excluded = rng.random((USERS, N + 1)) < 0.6 if filtered else None
        if excluded is not None:
            excluded[3] = True
        found = question(model).retrieve(k, excluded=excluded)
        assert_well_formed(found, USERS, k)
        wanted = findable(name) if excluded is None else findable(name) & ~excluded
        for row in range(USERS):
            items = found.item_index[row][found.item_index[row] > 0]
            left = np.flatnonzero(wanted[row, 1:]) + 1
            assert set(items) <= set(left)
            assert items.size == min(k, left.size)

    def test_retrieve_sorts_what_score_says(self, name: str, model: Retriever) -> None:
        score = every_score(question(model), USERS)
        assert score.dtype == np.float32
        assert np.isfinite(score).all()
        found = question(model).retrieve(N)
        score = np.where(findable(name)[:, 1:], score, -np.inf)
        of_items = np.take_along_axis(score, np.maximum(found.item_index, 1) - 1, axis=1)
        of_items[found.item_index < 0] = -np.inf
        np.testing.assert_allclose(of_items, found.score, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(-np.sort(-score, axis=1), found.score, rtol=1e-5, atol=1e-6)

    def test_one_question_gives_both_answers(self, model: Retriever) -> None:
        asked = model.ask(ASKED, moment=MOMENT)
        assert_same(asked.retrieve(7), model.retrieve(ASKED, 7, moment=MOMENT))
        items = np.tile(EVERY_ITEM, (USERS, 1))
        np.testing.assert_array_equal(asked.score(items), model.score(ASKED, items, moment=MOMENT))
        assert_same(asked.retrieve(7), model.retrieve(ASKED, 7, moment=MOMENT))

    def test_no_item_scores_less_than_anything(self, model: Retriever) -> None:
        score = question(model).score(np.tile([-1, 3, 0, 3], (USERS, 1)))
        assert np.isneginf(score[:, [0, 2]]).all()
        assert np.isfinite(score[:, [1, 3]]).all()
        np.testing.assert_array_equal(score[:, 1], score[:, 3])

    def test_batch_equals_one_by_one(self, model: Retriever) -> None:
        excluded = np.random.default_rng(3).random((USERS, N + 1)) < 0.3
        batch = question(model).retrieve(6, excluded=excluded)
        score = every_score(question(model), USERS)
        for row in [*range(USERS), *range(USERS)]:  # the second time what was kept is asked for
            alone = question(model, [row])
            one = alone.retrieve(6, excluded=excluded[[row]])
            np.testing.assert_array_equal(one.item_index[0], batch.item_index[row])
            np.testing.assert_allclose(one.score[0], batch.score[row], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(every_score(alone, 1)[0], score[row], rtol=1e-5, atol=1e-6)

    def test_rows_may_come_in_any_order_and_twice(self, model: Retriever) -> None:
        order = [5, 0, 5, 11, 1, 3]
        found, whole = question(model, order).retrieve(6), question(model).retrieve(6)
        np.testing.assert_array_equal(found.item_index, whole.item_index[order])
        np.testing.assert_allclose(found.score, whole.score[order], rtol=1e-5, atol=1e-6)

    def test_strangers_without_a_history(self, name: str, model: Retriever) -> None:
        for asked in (
            model.ask(NOBODY),
            model.ask(NOBODY, moment=MOMENT[:3]),
            model.ask(NOBODY, moment=MOMENT[:3], user_index=np.zeros(3, dtype=np.int64)),
        ):
            found = asked.retrieve(5)
            assert_well_formed(found, 3, 5)
            silent = name in FINDS_NOTHING_FOR_STRANGERS
            assert ((found.item_index == -1) == silent).all()
            assert np.isfinite(every_score(asked, 3)).all()

    def test_no_rows(self, model: Retriever) -> None:
        none = ASKED.take([])
        assert_well_formed(model.retrieve(none, 3), 0, 3)
        assert model.score(none, np.zeros((0, 2), dtype=np.int64)).shape == (0, 2)

    def test_ties_go_to_the_lower_index(self, name: str, model: Retriever) -> None:
        if not findable(name)[:, TWINS[0]].all():
            pytest.skip("the twins are met by nobody")
        excluded = np.ones((USERS, N + 1), dtype=bool)
        excluded[:, list(TWINS)] = False
        found = question(model).retrieve(3, excluded=excluded)
        alike = question(model).score(np.tile(TWINS, (USERS, 1)))
        assert (alike == alike[:, :1]).all()
        np.testing.assert_array_equal(found.item_index, np.tile(TWINS, (USERS, 1)))
        excluded[:, TWINS[0]] = True
        found = question(model).retrieve(1, excluded=excluded)
        assert (found.item_index == TWINS[1]).all()

    def test_the_same_call_gives_the_same_answer(self, model: Retriever) -> None:
        first, score = question(model).retrieve(6), every_score(question(model), USERS)
        kept = TopK(first.item_index.copy(), first.score.copy())
        first.item_index[:], first.score[:] = 3, 0.0  # the answer belongs to the caller
        assert_same(question(model).retrieve(6), kept)
        np.testing.assert_array_equal(every_score(question(model), USERS), score)

    def test_inputs_are_not_changed(self, model: Retriever) -> None:
        given = [
            ASKED.item_index, ASKED.timestamp, MOMENT.copy(), KNOWN.copy(),
            np.zeros((USERS, N + 1), dtype=bool), np.tile(np.arange(-1, 5), (USERS, 1)),
        ]  # fmt: skip
        copies = [array.copy() for array in given]
        asked = model.ask(ASKED, moment=given[2], user_index=given[3])
        asked.retrieve(4, excluded=given[4])
        asked.score(given[5])
        for left, right in zip(given, copies, strict=True):
            np.testing.assert_array_equal(left, right)

    def test_nothing_at_or_after_the_moment_is_seen(self, model: Retriever) -> None:
        cut = ASKED.before(MOMENT)
        assert cut.item_index.size < ASKED.item_index.size
        asked, before = question(model), model.ask(cut, moment=MOMENT, user_index=KNOWN)
        np.testing.assert_array_equal(every_score(asked, USERS), every_score(before, USERS))
        assert_same(asked.retrieve(6), before.retrieve(6))

    def test_what_an_answer_depends_on(self, name: str, model: Retriever) -> None:
        """Two users differ in one thing; the scores do where the model reads it, and nowhere."""

        def differ(histories: Histories, moment: list[int], user: list[int]) -> bool:
            asked = model.ask(
                histories, moment=np.array(moment) * DAY_US, user_index=np.array(user)
            )
            score = every_score(asked, 2)
            return not np.allclose(score[0], score[1], rtol=1e-5, atol=1e-6)

        same = histories_of([[4, 5], [4, 5]])
        assert not differ(same, [9, 9], [0, 0])
        assert differ(histories_of([[4, 5], [6, 7]]), [9, 9], [0, 0]) == (
            name not in READS_NO_HISTORY
        )
        assert differ(same, [4, 9], [0, 0]) == (name in READS_THE_CLOCK)
        assert differ(same, [9, 9], [1, 2]) == (name in READS_THE_USER)

    def test_save_and_load_are_equal(self, model: Retriever, tmp_path: Path) -> None:
        model.save(tmp_path / "one")
        model.save(tmp_path / "one")  # saving twice is allowed
        loaded = read_again(model, tmp_path / "one")
        loaded.save(tmp_path / "two")
        again = read_again(model, tmp_path / "two")
        for other in (loaded, again):
            assert other.name == model.name
            found, wanted = question(other).retrieve(6), question(model).retrieve(6)
            np.testing.assert_array_equal(found.item_index, wanted.item_index)
            np.testing.assert_allclose(found.score, wanted.score, rtol=1e-6, atol=1e-7)
            np.testing.assert_array_equal(
                every_score(question(other), USERS), every_score(question(model), USERS)
            )


class TestRetrieverRefusals:
    @pytest.mark.parametrize("k", [0, -1])
    def test_k_below_one(self, model: Retriever, k: int) -> None:
        with pytest.raises(ValueError, match=f"k must be >= 1, got {k}"):
            model.retrieve(ASKED, k)

    def test_excluded_of_a_wrong_shape(self, model: Retriever) -> None:
        for shape in [(USERS, N), (USERS + 1, N + 1), (N + 1,)]:
            with pytest.raises(ValueError, match=r"excluded must .*, got \("):
                model.retrieve(ASKED, 2, excluded=np.zeros(shape, dtype=bool))

    def test_items_of_a_wrong_shape_or_outside_the_catalogue(self, model: Retriever) -> None:
        for shape in [(USERS + 1, 2), (USERS,)]:
            with pytest.raises(ValueError, match=r"item_index must .*got shape \("):
                model.score(ASKED, np.ones(shape, dtype=np.int64))
        with pytest.raises(ValueError, match=f"item_index must be .*{N}, got {N + 1}"):
            model.score(ASKED, np.full((USERS, 1), N + 1))

    def test_moments_of_a_wrong_shape(self, model: Retriever) -> None:
        with pytest.raises(ValueError, match=r"moment.* must have one entry per .*\(3,\)"):
            model.ask(ASKED, moment=np.zeros(3, dtype=np.int64))

    def test_histories_of_items_outside_the_catalogue(self, model: Retriever) -> None:
        for rows in ([[N + 1]], [[1], [N + 7, 2]]):
            with pytest.raises(ValueError, match=f"at least the largest item index .* got {N}"):
                model.retrieve(histories_of(rows), 2)

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("model.json", None, r"model.json is missing"),
            ("model.safetensors", None, r"model.safetensors is missing"),
            ("model.json", b"{", "damaged"),
            ("model.json", b'{"format": 1, "kind": "other", "settings": {}}', "got 'other'"),
            ("model.safetensors", b"\x01", "damaged"),
        ],
    )
    def test_loading_damage(
        self, model: Retriever, tmp_path: Path, file: str, content: bytes | None, message: str
    ) -> None:
        model.save(tmp_path)
        if content is None:
            (tmp_path / file).unlink()
        else:
            (tmp_path / file).write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            read_again(model, tmp_path)

    def test_loading_the_tensors_of_something_else(self, model: Retriever, tmp_path: Path) -> None:
        model.save(tmp_path)
        save_file({"something": np.zeros(3)}, tmp_path / "model.safetensors")
        with pytest.raises(ArtifactError, match=str(tmp_path)):
            read_again(model, tmp_path)


def test_every_retriever_of_a_bundle_is_here() -> None:
    loaded = {load.__self__ for load in LOADERS.values()}  # type: ignore[attr-defined]
    assert loaded <= {type(built(name)) for name in BUILDERS}
