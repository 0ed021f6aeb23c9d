"""Histories in pieces: every event asked once, of a query that saw nothing of its own time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.tables import Histories
from recsys.retrieval.sampling.pieces import ask_pieces, cut, in_batches, next_items
from recsys.retrieval.towers.windows import ends_before_own_time

Rows = st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=1, max_size=5)


def histories_of(gaps: list[list[int]]) -> Histories:
    counts = [len(row) for row in gaps]
    time = np.array([t for row in gaps for t in np.cumsum(row).tolist()], dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    item = np.arange(1, time.size + 1, dtype=np.int64)  # every event its own item
    return Histories(indptr, item, time, np.ones(time.size, dtype=np.float32))


@given(Rows, st.integers(1, 4), st.integers(0, 9))
def test_every_event_is_asked_for_in_one_piece(
    gaps: list[list[int]], length: int, seed: int
) -> None:
    histories = histories_of(gaps)
    generator = torch.Generator().manual_seed(seed)
    pieces = cut(histories.indptr, length, generator=generator)
    first, asked, end = pieces.numpy().T
    assert ((first <= asked) & (asked < end) & (end - first <= length + 1)).all()
    begins = histories.indptr[:-1][histories.rows][first]
    assert ((first < asked) | (asked == begins)).all()
    events = [event for _, a, e in pieces.tolist() for event in range(a, e)]
    assert sorted(events) == list(range(histories.item_index.size))
    row = histories.rows
    assert all(row[f] == row[e - 1] for f, _, e in pieces.tolist())
    if len(pieces):
        batches = in_batches(pieces, 5, generator=generator)
        together = torch.cat(batches).tolist()
        assert sorted(together) == sorted(pieces.tolist())


@given(Rows, st.integers(1, 4), st.integers(0, 9), st.integers(0, 9))
def test_what_is_not_asked_for_is_read_where_it_fits(
    gaps: list[list[int]], length: int, seed: int, newest: int
) -> None:
    indptr = histories_of(gaps).indptr
    asked_from = np.maximum(indptr[:-1], indptr[1:] - newest)
    generator = torch.Generator().manual_seed(seed)
    pieces = cut(indptr, length, asked_from=asked_from, generator=generator).tolist()
    wanted = [e for a, b in zip(asked_from, indptr[1:], strict=True) for e in range(a, b)]
    assert sorted(event for _, a, e in pieces for event in range(a, e)) == wanted
    for first, asked, end in pieces:
        begin = indptr[:-1][np.searchsorted(indptr, end) - 1]
        assert first == max(begin, min(end - length, asked - 1))


@given(Rows, st.integers(1, 4), st.integers(0, 9))
def test_a_query_has_read_the_older_events_of_its_piece(
    gaps: list[list[int]], length: int, seed: int
) -> None:
    histories = histories_of(gaps)
    if not histories.item_index.size:
        return
    pieces = cut(histories.indptr, length, generator=torch.Generator().manual_seed(seed))
    row, start = histories.rows, histories.indptr[:-1][histories.rows]
    found = ask_pieces(
        pieces,
        row=torch.from_numpy(row),
        start=start,
        end=ends_before_own_time(histories),
        item_index=histories.item_index,
        timestamp=histories.timestamp,
    )
    assert found.query_of is not None
    assert found.place is not None
    assert found.last is not None
    width = found.window.shape[1] + 1
    wanted = set()
    fair = any(
        start[event] == first or histories.timestamp[event] > histories.timestamp[first]
        for first, asked, end in pieces.tolist()
        for event in range(asked, end)
    )
    for piece, (first, asked, end) in enumerate(pieces.tolist()):
        for event in range(asked, end):
            older = [
                e for e in range(first, end) if histories.timestamp[e] < histories.timestamp[event]
            ]
            if older or start[event] == first or not fair:
                wanted.add((event, piece, tuple(e + 1 for e in older)))
    seen = set()
    for event, query in zip(found.events.tolist(), found.query_of.tolist(), strict=True):
        piece, read = divmod(int(found.place[query]), width)
        assert int(found.row[query]) == row[event]
        seen.add((event, piece, tuple(found.window[piece, :read].tolist())))
    assert seen == wanted
    assert bool((found.query_of[1:] >= found.query_of[:-1]).all())
    begins = {piece for _, piece, _ in wanted}
    assert len(found.last) == len(begins)


def test_pieces_begin_elsewhere_each_time() -> None:
    indptr = np.array([0, 40])
    generator = torch.Generator().manual_seed(0)
    cuts = {tuple(cut(indptr, 8, generator=generator)[:, 2].tolist()) for _ in range(20)}
    assert len(cuts) > 3


def test_pieces_of_one_length_come_together() -> None:
    counts = np.random.default_rng(0).integers(1, 50, 500)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    generator = torch.Generator().manual_seed(0)
    batches = in_batches(cut(indptr, 50, generator=generator), 200, generator=generator)
    lengths = [(batch[:, 2] - batch[:, 0]).numpy() for batch in batches]
    padded = sum(int(length.max()) * length.size for length in lengths)
    assert padded < 1.2 * counts.sum()


def test_the_next_items_of_a_query_are_its_own() -> None:
    known = next_items(torch.tensor([0, 0, 1, 2]), torch.tensor([4, 5, 4, 1]), 6)
    mask = known.mask(torch.arange(3), torch.arange(1, 7))
    assert mask.nonzero().tolist() == [[0, 3], [0, 4], [1, 3], [2, 0]]


def test_items_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"item_index must be 1\.\.3"):
        next_items(torch.tensor([0]), torch.tensor([4]), 3)
