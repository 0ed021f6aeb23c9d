"""Histories cut into pieces that are read in one pass each, and what their queries are asked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.retrieval.sampling.negatives import KnownPositives

__all__ = ["Asked", "ask_pieces", "cut", "in_batches", "next_items"]

_SORTED_TOGETHER = 16  # batches whose pieces are sorted by length


class Asked(NamedTuple):
    """The Q queries of a step and the B events that they should find.

    Attributes:
        events: [B] int64 the events.
        row: [Q] int64 history row of each query.
        window: [W, T] int64 items that are read, 0 = none; newest last, but for a sequence oldest
            first.
        query_of: [B] int64 query of each event, ascending. None: each has its own.
        time: [W, T] int64 microseconds, for a sequence. None: not looked at.
        window_row: [W] int64 history row of each window, for a sequence. None: those of queries.
        place: [Q] int64 place of each query among the W * (T + 1) of a sequence. None: a query a
            window.
        last: [L] int64 places in ``events`` of the last event of each piece that has any. None: no
            pieces.
    """

    events: Tensor
    row: Tensor
    window: Tensor
    query_of: Tensor | None = None
    time: Tensor | None = None
    window_row: Tensor | None = None
    place: Tensor | None = None
    last: Tensor | None = None


def cut(
    indptr: np.ndarray,
    length: int,
    *,
    asked_from: np.ndarray | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Pieces [P, 3] of rows: of the events ``[first, end)`` those from ``asked`` on are asked for.

        length 4, a row of 7 events, cut before its event 2:  (0, 0, 2)  (1, 2, 6)  (3, 6, 7)

    Of a row more than ``length`` events are cut at a place that is drawn and every ``length``
    events from there on: each is asked for once, after other events each time. A piece is filled up
    with what lies before it to ``length`` events, with one at least.

    Args:
        indptr: [U + 1] int64 rows of events.
        length: T >= 1; a piece has T + 1 events at most.
        asked_from: [U] int64 first event of each row that is asked for. None: each row's first.
        generator: draws where rows are cut.
    """
    start = indptr[:-1]
    asked_from = start if asked_from is None else asked_from
    counts = indptr[1:] - asked_from
    drawn = torch.randint(1, length + 1, (len(counts),), generator=generator).numpy()
    begin = np.where(counts > length, drawn, counts)  # events asked for by a row's first piece
    pieces = np.where(counts > 0, 1 - (begin - counts) // length, 0)
    row = np.repeat(np.arange(len(counts)), pieces)
    number = np.arange(row.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    end = np.minimum(begin[row] + number * length, counts[row])
    asked = np.where(number > 0, begin[row] + (number - 1) * length, 0)
    asked, end = asked + asked_from[row], end + asked_from[row]
    first = np.maximum(np.minimum(end - length, asked - 1), start[row])
    return torch.from_numpy(np.stack([first, asked, end], axis=1))


def in_batches(pieces: Tensor, size: int, *, generator: torch.Generator) -> list[Tensor]:
    """``pieces`` [P, 3] shuffled into batches of about ``size`` events.

    Pieces of one length come together where the order allows it, so that little is padding.
    """
    pieces = pieces[torch.randperm(len(pieces), generator=generator)]
    length = pieces[:, 2] - pieces[:, 0]
    group = length.cumsum(0) // (size * _SORTED_TOGETHER)
    order = np.lexsort((length.numpy(), group.numpy()))
    pieces, length, group = pieces[order], length[order], group[order]
    number = (length.cumsum(0) - length) // size
    begins = (number[1:] != number[:-1]) | (group[1:] != group[:-1])
    batches = torch.tensor_split(pieces, begins.nonzero()[:, 0] + 1)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def ask_pieces(
    pieces: Tensor,
    *,
    row: Tensor,
    start: np.ndarray,
    end: np.ndarray,
    item_index: np.ndarray,
    timestamp: np.ndarray,
) -> Asked:
    """What is asked of pieces: each event of the query that has read all older ones of its piece.

    Events at one moment share a query and never see each other. An event that no older one of its
    piece stands before is asked for only where none stands before it in its history either, or
    where nothing else could be asked.

    Args:
        pieces: [P, 3] int64, P >= 1; see `cut`.
        row: [E] int64 row of each event.
        start: [E] int64 first event of that row.
        end: [E] int64 one past the last event that the event's query may see.
        item_index: [E] int64.
        timestamp: [E] int64 microseconds.
    """
    first, asked, stop = pieces.numpy().T
    column = np.arange(int((stop - first).max()))
    event = first[:, None] + column  # [P, T]
    inside = event < stop[:, None]
    event = np.where(inside, event, 0)
    piece, within = (inside & (event >= asked[:, None])).nonzero()
    events = event[piece, within]
    seen = end[events] - first[piece]  # events of the piece that the query has read
    fair = (seen > 0) | (start[events] == first[piece])
    fair |= not fair.any()  # a step must ask for something
    events, piece, seen = events[fair], piece[fair], np.maximum(seen[fair], 0)
    place, query_of = np.unique(piece * (column.size + 1) + seen, return_inverse=True)
    last = np.flatnonzero(np.append(piece[1:] != piece[:-1], True)[: piece.size])
    window_row = row[pieces[:, 0]]
    return Asked(
        events=torch.from_numpy(events),
        row=window_row[torch.from_numpy(place // (column.size + 1))],
        query_of=torch.from_numpy(query_of),
        window=torch.from_numpy(item_index[event] * inside),
        time=torch.from_numpy(timestamp[event] * inside),
        window_row=window_row,
        place=torch.from_numpy(place),
        last=torch.from_numpy(last),
    )


def next_items(query_of: Tensor, item_index: Tensor, num_items: int) -> KnownPositives:
    """What must not be a negative of each of Q queries: the items [B] it should find."""
    counts = torch.bincount(query_of)
    indptr = np.concatenate([[0], counts.cumsum(0).numpy()])
    return KnownPositives(indptr, item_index.numpy(), num_items)
