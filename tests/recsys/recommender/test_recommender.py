"""Who asks, and what is likely: the recommender around towers that know users, and their extras."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from features.tables import Histories, Interactions, ItemTable, Vocabulary
from recsys.ranking.ranker import RankingRows
from recsys.recommender import Recommender
from recsys.recommender.past import LiveItems
from recsys.recommender.pool import CandidatePool
from recsys.retrieval.finishing.distillation import DistillationOptions
from recsys.retrieval.finishing.distilled_two_tower import distil_user_tower
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.finishing.threshold import ThresholdHead
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower

N, DIM, USERS = 30, 8, 6
AS_OF = datetime(2024, 1, 1)
ITEMS = Vocabulary.from_ids([f"i{number}" for number in range(1, N + 1)])
PEOPLE = Vocabulary.from_ids([f"u{number}" for number in range(1, USERS + 1)])


class ByTowers:
    """Feature rows that are the towers' scores; the ranker hands them through."""

    names = ("two_tower", "popularity")
    live_items = LiveItems(ITEMS, ITEMS)

    def rows(self, pool: CandidatePool, *_: Any, **__: Any) -> RankingRows:
        score = np.stack([pool.score[name][pool.real] for name in self.names], axis=1)
        request = np.nonzero(pool.real)[0]
        return RankingRows(score, np.zeros(len(score), dtype=np.int64), request, self.names)

    live_rows = rows


def towers(pooling: str = "recency", *, use_user_id: bool = True) -> TwoTowerRetriever:
    options = TowerOptions(
        dim=DIM,
        half_lives=(math.inf,),
        hidden_dim=0,
        use_user_id=use_user_id,
        pooling=pooling,  # type: ignore[arg-type]
    )
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(options, content_dim=0, generator=generator)
    tables = {"item": torch.randn(N + 1, DIM, generator=generator)}
    if use_user_id:
        tables["user"] = 2 * torch.randn(USERS + 1, DIM, generator=generator)
    for table in tables.values():
        table[0] = 0.0
    return TwoTowerRetriever.from_tables(tower, tables)


def everybody() -> Histories:
    """Everyone met the items 1 to 5; these alone are popular."""
    row = np.arange(1, 6)
    return Histories(
        np.arange(0, 5 * USERS + 1, 5),
        np.tile(row, USERS),
        np.tile(row * 1_000_000, USERS),
        np.ones(5 * USERS, dtype=np.float32),
    )


def recommender(
    retriever: TwoTowerRetriever,
    *,
    light: bool = False,
    threshold: float | None = None,
    interactions: Interactions | None = None,
) -> Recommender:
    finished = FinishedTowers(retriever)
    if light:
        quick = DistillationOptions(hidden=4, epochs=1)
        student = distil_user_tower(
            retriever, everybody().last(2), generator=torch.Generator(), options=quick
        )
        student.name = retriever.name
        finished = FinishedTowers(retriever, student)
    if threshold is not None:
        head = ThresholdHead(
            "none",
            center=np.zeros(0),
            width=np.ones(0),
            weight=np.zeros((2, 0)),
            bias=np.array([math.log(math.e - 1), 0.0]),  # slope 1
            score_scale=(0.0, 1.0),
            threshold=threshold,
        )
        finished = FinishedTowers(retriever, finished.light, head)
    table = retriever.tower.options.use_user_id
    return Recommender(
        generation="g",
        items=ItemTable(pl.DataFrame({"item_id": ITEMS.to_series()})),
        item_ids=ITEMS,
        retrievers=[retriever, PopularityRetriever.fit(everybody(), N)],
        features=ByTowers(),  # type: ignore[arg-type]
        ranker=SimpleNamespace(score=lambda features, _: features[:, 0]),  # type: ignore[arg-type]
        content=np.eye(N + 1, DIM, dtype=np.float32),
        item_values=pl.DataFrame(),
        as_of=AS_OF,
        title_column=None,
        candidates_per_source=10,
        diversity=0.0,
        interactions=interactions,
        user_ids=PEOPLE if table else None,
        towers=finished,
    )


def names(slate: Any) -> list[str]:
    return [item.item_id for item in slate.items]


def best(query: np.ndarray, retriever: TwoTowerRetriever, seen: list[str], k: int) -> list[str]:
    excluded = np.zeros((1, N + 1), dtype=bool)
    excluded[0, ITEMS.index(seen)] = True
    return ITEMS.ids(retriever.search(query, k, excluded=excluded).item_index[0])


RECENT = ["i7", "i9"]


def test_a_known_user_is_asked_for_by_the_row_an_unknown_one_by_the_history() -> None:
    retriever = towers()
    whole = recommender(retriever)
    known, other, unknown, nobody = (
        names(whole.recommend(user, 5, recent_items=RECENT)) for user in ("u2", "u5", "new", "")
    )
    history = one_history([7, 9])
    by_row = retriever.user_vectors(history, user_index=np.array([2]))
    assert known == best(by_row, retriever, RECENT, 5)
    assert unknown == best(retriever.user_vectors(history), retriever, RECENT, 5)
    assert nobody == unknown
    assert len({tuple(known), tuple(other), tuple(unknown)}) == 3
    alike = recommender(towers(use_user_id=False))
    answers = [names(alike.recommend(user, 5, recent_items=RECENT)) for user in ("u2", "new")]
    assert answers[0] == answers[1]


def one_history(items: list[int]) -> Histories:
    size = len(items)
    return Histories(
        np.array([0, size]),
        np.array(items, dtype=np.int64),
        np.arange(size, dtype=np.int64),
        np.ones(size, dtype=np.float32),
    )


def rank(whole: Recommender, user_ids: list[str]) -> np.ndarray:
    history = one_history([7, 9]).take(np.zeros(len(user_ids), dtype=np.int64))
    moment = np.full(len(user_ids), 10**15)
    log = Interactions.from_frame(
        pl.DataFrame({"user_id": ["u1"], "item_id": ["i1"], "timestamp": [AS_OF]})
    )
    return whole.rank(history, user_ids, moment, log, 5).item_index


def test_the_batch_job_asks_for_known_users_by_their_rows_too() -> None:
    retriever = towers()
    found = rank(recommender(retriever), ["u2", "new", "u5"])
    query = retriever.user_vectors(
        one_history([7, 9]).take([0, 0, 0]), user_index=np.array([2, 0, 5])
    )
    for row in range(3):
        assert ITEMS.ids(found[row]) == best(query[row : row + 1], retriever, RECENT, 5)


def test_towers_of_rows_alone_leave_unknown_users_to_the_other_retrievers() -> None:
    whole = recommender(towers("none"))
    pool = whole.pool(
        one_history([7, 9]).take([0, 0]),
        moment=np.full(2, 10**15),
        user_ids=["u2", "new"],
    )
    assert all(np.isfinite(score[pool.real]).all() for score in pool.score.values())
    assert pool.real[0].sum() > pool.real[1].sum() == 10  # popularity's alone
    unknown = whole.recommend("new", 5, recent_items=RECENT)
    assert unknown.source == "ranker"
    assert all(math.isfinite(item.score) for item in unknown.items)
    assert set(names(unknown)) <= {f"i{number}" for number in range(1, 13)}
    known = names(whole.recommend("u2", 5, recent_items=RECENT))
    row = whole.towers.retriever.tables["user"][2:3].numpy()  # type: ignore[union-attr]
    row = row / np.linalg.norm(row)
    assert known == best(row, whole.towers.retriever, RECENT, 5)  # type: ignore[union-attr]
    cold = whole.recommend("u2", 3)  # its row would bring back what it has met
    assert (names(cold), cold.source) == (["i1", "i2", "i3"], "popularity")


def test_live_requests_go_through_the_light_tower_and_the_batch_does_not() -> None:
    retriever = towers(use_user_id=False)
    full, light = recommender(retriever), recommender(retriever, light=True)
    student = light.towers.light  # type: ignore[union-attr]
    assert student is not None
    history = one_history([7, 9])
    wanted = best(student.user_vectors(history), retriever, RECENT, 5)
    assert names(light.recommend("new", 5, recent_items=RECENT)) == wanted
    assert names(full.recommend("new", 5, recent_items=RECENT)) != wanted
    np.testing.assert_array_equal(rank(light, ["u1"]), rank(full, ["u1"]))
    assert light.source_names == full.source_names == ("two_tower", "popularity")


def test_the_threshold_drops_what_is_unlikely() -> None:
    retriever = towers()
    plain = recommender(retriever).recommend("u2", N, recent_items=RECENT)
    middle = sorted(item.score for item in plain.items)[len(plain.items) // 2]
    whole = recommender(retriever, threshold=middle)
    assert whole.recommend("u2", N, recent_items=RECENT) == plain
    likely = whole.recommend("u2", N, recent_items=RECENT, threshold=True)
    assert likely.source == "ranker"
    assert 0 < len(likely.items) < len(plain.items)
    assert likely.items == [item for item in plain.items if item.score >= middle - 1e-6]
    nothing = recommender(retriever, threshold=9.0)
    assert nothing.recommend("u2", 5, recent_items=RECENT, threshold=True) == (
        [],
        "nothing likely",
    )
    assert nothing.recommend("u2", 5, threshold=True).source == "popularity"
    with pytest.raises(ValueError, match="threshold must be False for bundle g"):
        recommender(retriever).recommend("u2", 5, recent_items=RECENT, threshold=True)


def test_recent_items_come_on_top_of_the_log() -> None:
    log = Interactions.from_frame(
        pl.DataFrame(
            {
                "user_id": ["u2", "u3"],
                "item_id": ["i7", "i8"],
                "timestamp": [AS_OF - timedelta(days=1)] * 2,
            }
        )
    )
    retriever = towers()
    logged = recommender(retriever, interactions=log)
    both = recommender(retriever)
    assert names(logged.recommend("u2", 5, recent_items=["i9"])) == names(
        both.recommend("u2", 5, recent_items=RECENT)
    )
    assert "i7" not in names(logged.recommend("u2", N))
