"""Items that nobody met are found by their content, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.tables import Histories
from recsys.errors import ArtifactError
from recsys.retrieval.finishing.new_items import fit_new_items
from recsys.retrieval.new_items import NewItemsRetriever
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.source_options import NewItemOptions
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training import train_two_tower

GROUPS, EACH, USERS, EVENTS = 4, 60, 160, 8
NUM_ITEMS = GROUPS * EACH
NEW = np.array([EACH * group + offset for group in range(GROUPS) for offset in (EACH - 1, EACH)])
OPTIONS = NewItemOptions(new_items_dim=8, new_items_examples=20_000)


def group_of(item: np.ndarray) -> np.ndarray:
    return (item - 1) // EACH


@pytest.fixture(scope="module")
def content() -> np.ndarray:
    """What tells the groups apart stands in few of many loud columns."""
    rng = np.random.default_rng(1)
    found = rng.standard_normal((NUM_ITEMS + 1, 24)).astype(np.float32)
    found[:, :GROUPS] += 2.0 * np.eye(GROUPS)[group_of(np.arange(NUM_ITEMS + 1)) % GROUPS]
    found[0] = 0.0
    return found


@pytest.fixture(scope="module")
def histories() -> Histories:
    """Users of one group each, who met some of its old items."""
    rng = np.random.default_rng(0)
    rows = [
        1 + EACH * (user % GROUPS) + rng.permutation(EACH - 2)[:EVENTS] for user in range(USERS)
    ]
    for user, row in enumerate(rows):  # each old item is met by somebody
        place = (user // GROUPS * 2 + np.arange(2)) % (EACH - 2)
        row[:2] = 1 + EACH * (user % GROUPS) + place
    item = np.concatenate(rows).astype(np.int64)
    time = np.tile(np.arange(EVENTS), USERS).astype(np.int64)
    indptr = np.arange(0, item.size + 1, EVENTS, dtype=np.int64)
    return Histories(indptr, item, time, np.ones(item.size, dtype=np.float32))


@pytest.fixture(scope="module")
def retriever(histories: Histories, content: np.ndarray) -> NewItemsRetriever:
    return fit_new_items(histories, content, options=OPTIONS, seed=3)


def test_it_finds_what_nobody_met(retriever: NewItemsRetriever, histories: Histories) -> None:
    assert isinstance(retriever, Retriever)
    np.testing.assert_array_equal(np.flatnonzero(retriever.is_new), NEW)
    found = retriever.retrieve(histories, 2).item_index
    assert np.isin(found, NEW).all()
    own = np.arange(USERS) % GROUPS
    assert (group_of(found) == own[:, None]).mean() > 0.75  # by chance a quarter


def test_what_is_learned_beats_likeness_of_content(
    retriever: NewItemsRetriever, histories: Histories, content: np.ndarray
) -> None:
    unit = content / np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-9)
    profile = histories.to_csr(NUM_ITEMS, histories.weight) @ unit
    near = NEW[np.argsort(-(profile @ unit[NEW].T), axis=1)[:, :2]]
    own = (np.arange(USERS) % GROUPS)[:, None]
    found = retriever.retrieve(histories, 2).item_index
    assert (group_of(found) == own).mean() > (group_of(near) == own).mean()


def test_lists_end_where_nothing_is_new(retriever: NewItemsRetriever, histories: Histories) -> None:
    some = histories.take(np.arange(3))
    excluded = np.zeros((3, NUM_ITEMS + 1), dtype=bool)
    excluded[1, NEW[1:]] = True
    excluded[2, NEW] = True
    found = retriever.retrieve(some, 9, excluded=excluded)
    assert (found.item_index > 0).sum(axis=1).tolist() == [8, 1, 0]
    assert found.item_index[1, 0] == NEW[0]
    assert np.isneginf(found.score[found.item_index < 0]).all()


def test_every_item_is_scored_as_found(retriever: NewItemsRetriever, histories: Histories) -> None:
    some = histories.take(np.arange(5))
    top = retriever.retrieve(some, 4)
    np.testing.assert_allclose(retriever.score(some, top.item_index), top.score, atol=1e-6)
    items = np.tile(np.array([1, 12, 0, -1]), (5, 1))
    score = retriever.score(some, items)
    assert np.isfinite(score[:, :2]).all()
    assert np.isneginf(score[:, 2:]).all()


def test_what_counts_as_new_may_be_said(histories: Histories, content: np.ndarray) -> None:
    wanted = np.zeros(NUM_ITEMS + 1, dtype=bool)
    wanted[[4, 99]] = True
    few = OPTIONS.but(new_items_examples=1)
    found = fit_new_items(histories, content, is_new=wanted, options=few)
    lists = found.retrieve(histories, 3).item_index
    assert set(lists.flatten().tolist()) == {4, 99, -1}
    wanted[:] = False
    none = fit_new_items(histories, content, is_new=wanted, options=few)
    assert (none.retrieve(histories, 3).item_index == -1).all()


def test_it_learns_from_so_many_events_and_no_more(
    histories: Histories, content: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def train(some: Histories, **options: Any) -> TwoTowerRetriever:
        asked.append((some.item_index.size, options["training"].epochs))
        return train_two_tower(some, **options)

    monkeypatch.setattr("recsys.retrieval.finishing.new_items.train_two_tower", train)
    whole = histories.item_index.size
    for wanted in (whole // 4, whole, 2 * whole + 1):
        options = OPTIONS.but(new_items_examples=wanted)
        found = fit_new_items(histories, content, options=options)
        assert not found.is_new[histories.item_index].any()  # of all users, whoever was drawn
    assert asked == [(whole // 4, 1), (whole, 1), (whole, 2)]


def test_it_repeats_itself_and_is_saved_and_loaded(
    retriever: NewItemsRetriever, histories: Histories, content: np.ndarray, tmp_path: Path
) -> None:
    again = fit_new_items(histories, content, options=OPTIONS, seed=3)
    again.save(tmp_path)
    loaded = NewItemsRetriever.load(tmp_path)
    for other in (again, loaded):
        one, two = (each.retrieve(histories, 5) for each in (retriever, other))
        np.testing.assert_array_equal(one.item_index, two.item_index)
        np.testing.assert_array_equal(one.score, two.score)
    (tmp_path / "model.json").write_text("[")
    with pytest.raises(ArtifactError):
        NewItemsRetriever.load(tmp_path)


@pytest.mark.parametrize(
    ("k", "shape", "problem"),
    [(0, (USERS, NUM_ITEMS + 1), "k must be >= 1"), (1, (USERS, 3), r"excluded must be \[Q, N")],
)
def test_what_is_wrong_is_named(
    retriever: NewItemsRetriever,
    histories: Histories,
    k: int,
    shape: tuple[int, int],
    problem: str,
) -> None:
    with pytest.raises(ValueError, match=problem):
        retriever.retrieve(histories, k, excluded=np.zeros(shape, dtype=bool))
