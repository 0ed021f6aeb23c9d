"""The light tower and the threshold of a trained retriever, and their way into the next one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.errors import ArtifactError, NotFittedError
from recsys.retrieval.finishing.extras import FinishedTowers, TowerExtras, finish_towers
from recsys.retrieval.finishing.tower_soup import Branch, SoupPlan
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower

USERS, ITEMS, DIM = 300, 80, 8
MakeHistories = Callable[[list[list[int]]], Histories]


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(*, user_rows: torch.Tensor | None = None, scale: float = 1.0) -> TwoTowerRetriever:
    """Queries are bent means of histories, or rows of users alone."""
    options = TowerOptions(
        dim=DIM,
        half_lives=(math.inf, 2.0),
        history_length=20,
        hidden_dim=8,
        use_user_id=user_rows is not None,
        pooling="recency" if user_rows is None else "none",
    )
    tower = TwoTower(options, content_dim=0, generator=torch.Generator().manual_seed(0))
    if user_rows is None:
        with torch.no_grad():
            tower.output_weight.copy_(drawn(DIM, 8, seed=1))
    tables = {"item": scale * drawn(ITEMS + 1, DIM, seed=2)}
    if user_rows is not None:
        tables["user"] = user_rows
    tables["item"][0] = 0.0
    return TwoTowerRetriever.from_tables(tower, tables, score="dot", best_epoch=5)


@pytest.fixture
def world(make_histories: MakeHistories) -> tuple[Histories, Histories]:
    """The longer a user's history, the more of its best unseen items it takes later."""
    rng = np.random.default_rng(0)
    length = rng.integers(1, 25, USERS)
    past = make_histories([list(rng.permutation(ITEMS)[:n] + 1) for n in length])
    best = made().retrieve(past, 30, excluded=past.seen_mask(ITEMS)).item_index
    wanted = rng.random(best.shape) < 0.03 * length[:, None] / np.arange(1, 31) ** 0.5
    return past, make_histories([list(row[kept]) for row, kept in zip(best, wanted, strict=True)])


BOTH = TowerExtras(light_user_tower=True, threshold_head=True)


def test_the_light_tower_asks_the_same_items_nearly_the_same(
    world: tuple[Histories, Histories],
) -> None:
    past, _ = world
    retriever = made()
    finished = finish_towers(retriever, past, None, TowerExtras(light_user_tower=True), seed=0)
    light = finished.light
    assert light is not None
    assert finished.online is light
    assert finished.retriever is retriever
    assert light.name == "two_tower"  # the ranker knows its scores by this name
    assert np.shares_memory(light.item_vectors, retriever.item_vectors)
    for asked in (past, past.last(2)):  # a live request often knows the newest few events only
        full, fast = retriever.user_vectors(asked), light.user_vectors(asked)
        assert not np.array_equal(full, fast)
        length = np.linalg.norm(full, axis=1) * np.linalg.norm(fast, axis=1)
        assert np.mean((full * fast).sum(axis=1) / length) > 0.9
    assert light.student.options.half_lives == retriever.tower.options.half_lives
    assert light.student.options.history_length == retriever.tower.options.history_length


def test_the_light_tower_learns_the_rows_of_users(world: tuple[Histories, Histories]) -> None:
    past, _ = world
    item = made().tables["item"]
    mean = torch.stack([item[past.take([row]).item_index].mean(dim=0) for row in range(USERS)])
    rows = torch.cat([torch.zeros(1, DIM), mean @ drawn(DIM, DIM, seed=4)])
    retriever = made(user_rows=rows)
    finished = finish_towers(retriever, past, None, TowerExtras(light_user_tower=True), seed=0)
    fast = torch.from_numpy(finished.online.user_vectors(past))
    assert torch.nn.functional.cosine_similarity(fast, rows[1:]).mean() > 0.9
    assert not retriever.user_vectors(past).any()  # without rows the full towers know nobody


def test_the_head_is_fitted_by_what_followed(world: tuple[Histories, Histories]) -> None:
    past, later = world
    finished = finish_towers(made(), past, later, TowerExtras(threshold_head=True), seed=0)
    assert finished.online is finished.retriever
    items = finished.retriever.retrieve(past, 30, excluded=past.seen_mask(ITEMS)).item_index
    score = finished.retriever.score(past, items)
    kept = finished.likely(past, score)
    taken = np.take_along_axis(later.seen_mask(ITEMS), items, axis=1)
    assert kept[taken].mean() > 0.85
    assert kept[~taken].mean() < kept[taken].mean() - 0.2
    short, long = past.counts < 6, past.counts > 18
    assert kept[long].mean() > kept[short].mean() + 0.3
    assert not finished.likely(past, np.full((USERS, 2), -np.inf)).any()


def test_a_user_is_as_active_as_the_training_data_say(
    world: tuple[Histories, Histories],
) -> None:
    past, later = world
    finished = finish_towers(made(), past, later, TowerExtras(threshold_head=True), seed=0)
    busy = np.flatnonzero(past.counts > 18)[:20]
    recent = past.take(busy).last(1)
    score = finished.online.score(recent, np.tile(np.arange(1, 31), (busy.size, 1)))
    known = finished.likely(recent, score, user_index=busy + 1)
    unknown = finished.likely(recent, score, user_index=np.zeros(busy.size, dtype=np.int64))
    assert known.mean() > unknown.mean() + 0.2
    np.testing.assert_array_equal(unknown, finished.likely(recent, score))


def test_the_head_goes_over_to_a_model_of_another_scale(
    world: tuple[Histories, Histories],
) -> None:
    past, later = world
    extras = TowerExtras(threshold_head=True)
    before = finish_towers(made(), past, later, extras, seed=0)
    after = finish_towers(made(scale=3.0), past, None, extras, seed=0, past=before)
    assert before.head is not None
    assert after.head is not None
    items = np.tile(np.arange(1, 31), (USERS, 1))
    # Items three times as long make queries about three times as long: scores grow by nine.
    old_score, score = (one.retriever.score(past, items) for one in (before, after))
    assert score.std() > 5 * old_score.std()
    old, new = before.likely(past, old_score), after.likely(past, score)
    as_it_was = FinishedTowers(after.retriever, head=before.head, activity=before.activity)
    agreed = (old == new).mean()
    assert agreed > 0.9
    assert (old == as_it_was.likely(past, score)).mean() < agreed - 0.05


def test_what_was_made_is_found_again(world: tuple[Histories, Histories], tmp_path: Path) -> None:
    past, later = world
    retriever = made().quantize()
    plan = SoupPlan(6, (Branch(2, 3), Branch(0, 4)))
    finished = finish_towers(retriever, past, later, BOTH, seed=0, soup=plan)
    retriever.save(tmp_path)
    finished.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"light_user_tower", "threshold", "activity", "soup.json"} <= names
    for given in (None, retriever):
        loaded = FinishedTowers.load(tmp_path, given)
        assert loaded.soup == plan
        score = loaded.online.score(past, np.tile(np.arange(1, 31), (USERS, 1)))
        np.testing.assert_array_equal(
            score, finished.online.score(past, np.tile(np.arange(1, 31), (USERS, 1)))
        )
        user = np.arange(1, USERS + 1)
        np.testing.assert_array_equal(
            loaded.likely(past, score, user_index=user),
            finished.likely(past, score, user_index=user),
        )
    other = TwoTowerRetriever.from_tables(retriever.tower, retriever.tables, score="cosine")
    with pytest.raises(ArtifactError, match="light_user_tower: student must give vectors"):
        FinishedTowers.load(tmp_path, other)


def test_nothing_asked_for_is_nothing_made(
    world: tuple[Histories, Histories], tmp_path: Path
) -> None:
    retriever = made()
    finished = finish_towers(retriever, *world, TowerExtras(), seed=0)
    assert (finished.light, finished.head, finished.soup) == (None, None, None)
    assert not finished.knows_users
    retriever.save(tmp_path)
    written = sorted(tmp_path.iterdir())
    finished.save(tmp_path)
    assert sorted(tmp_path.iterdir()) == written
    loaded = FinishedTowers.load(tmp_path)
    assert (loaded.light, loaded.head, loaded.soup) == (None, None, None)
    assert loaded.retriever.best_epoch == 5
    with pytest.raises(NotFittedError, match="no threshold head"):
        loaded.likely(world[0], np.zeros((USERS, 1), dtype=np.float32))


def test_wrong_arguments_are_named(world: tuple[Histories, Histories]) -> None:
    past, _ = world
    with pytest.raises(ValueError, match="soup must be >= 1, got 0"):
        TowerExtras(soup=0)
    head = TowerExtras(threshold_head=True)
    with pytest.raises(ValueError, match="validation must be given to fit the threshold head"):
        finish_towers(made(), past, None, head, seed=0)
    without = finish_towers(made(), past, None, TowerExtras(), seed=0)
    with pytest.raises(ValueError, match="finish the retriever of the past first"):
        finish_towers(made(), past, None, head, seed=0, past=without)
    with pytest.raises(ValueError, match="must hold a positive among"):
        finish_towers(made(), past, past.last(1), head, seed=0)  # takes nothing unseen
