"""Batches of lists on their way into the store: checked, summed up, encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from serving.errors import PublishRefused
from serving.store.candidate_codec import encode_candidates
from serving.store.publication import UserBatch

__all__ = ["EncodedBatch", "ListSummary", "encode_batches", "encode_one"]


class EncodedBatch(NamedTuple):
    """Lists of some ids, as the store holds them.

    Attributes:
        batch: what they were made of.
        values: one for each id.
        counts: [Q] int64 entries of each.
    """

    batch: UserBatch
    values: list[bytes]
    counts: np.ndarray


class ListSummary:
    """What the lists added so far have in common.

    Attributes:
        count: lists.
        empty: lists without an entry.
        k: entries of the longest.
        low: lowest score; infinity while all are empty.
        high: highest score; minus infinity while all are empty.
        hidden: entries that ``alive`` hides.

    Args:
        alive: [N + 1] bool. None: nothing is hidden.
    """

    def __init__(self, alive: np.ndarray | None = None) -> None:
        self._alive = alive
        self.count = 0
        self.empty = 0
        self.k = 0
        self.low = np.inf
        self.high = -np.inf
        self.hidden = 0

    def add(self, encoded: EncodedBatch) -> None:
        """Count a batch."""
        item_index = np.asarray(encoded.batch.item_index)
        real = item_index != -1
        self.count += len(encoded.values)
        self.empty += int((encoded.counts == 0).sum())
        self.k = max(self.k, int(encoded.counts.max(initial=0)))
        if real.any():
            scores = np.asarray(encoded.batch.score)[real]
            self.low = min(self.low, float(scores.min()))
            self.high = max(self.high, float(scores.max()))
        if self._alive is not None:
            self.hidden += int((~self._alive[item_index[real]]).sum())


def encode_batches(
    stage: str,
    batches: Iterable[UserBatch | tuple[Any, ...]],
    *,
    num_items: int,
    num_sources: int,
) -> Iterator[EncodedBatch]:
    """Check and encode one batch after the other.

    Args:
        stage: "users" or "neighbours", for messages.
        batches: see `UserBatch`.
        num_items: N of the vocabulary that the indices refer to.
        num_sources: names that the sources count in.

    Raises:
        PublishRefused: a shape, range, order or finiteness rule is broken.
    """
    for given in batches:
        batch = UserBatch(*given)
        shape = np.shape(batch.item_index)
        if len(shape) != 2 or shape[0] != len(batch.ids):
            raise PublishRefused(
                f"{stage}: item_index must have one row per id: got shape {list(shape)} for "
                f"{len(batch.ids)} ids"
            )
        _check_ranges(stage, batch, num_items, num_sources)
        try:
            values = encode_candidates(batch.item_index, batch.score, batch.source)
        except ValueError as error:
            raise PublishRefused(f"{stage}: {error}") from error
        counts = (np.asarray(batch.item_index) != -1).sum(axis=1)
        yield EncodedBatch(batch, values, counts)


def encode_one(what: str, lists: tuple[np.ndarray, np.ndarray], num_items: int) -> bytes:
    """Encode a fallback list.

    Args:
        what: it is, for messages.
        lists: (item_index [P], score [P]), best first, not empty.
        num_items: N.

    Raises:
        PublishRefused: a shape, range, order or finiteness rule is broken.
    """
    item_index, score = (np.asarray(part) for part in lists)
    if item_index.ndim != 1 or item_index.shape != score.shape or len(item_index) == 0:
        raise PublishRefused(
            f"{what} must be (item_index [P], score [P]) and not empty: got shapes "
            f"{list(item_index.shape)} and {list(score.shape)}"
        )
    if int(item_index.max()) > num_items:
        raise PublishRefused(
            f"{what}: item_index must be at most {num_items}, got {int(item_index.max())}"
        )
    try:
        return encode_candidates(item_index[None, :], score[None, :])[0]
    except ValueError as error:
        raise PublishRefused(f"{what}: {error}") from error


def _check_ranges(stage: str, batch: UserBatch, num_items: int, num_sources: int) -> None:
    top = int(np.max(batch.item_index, initial=0))
    if top > num_items:
        raise PublishRefused(
            f"{stage}: item_index must be at most {num_items} (the vocabulary), got {top}"
        )
    source = int(np.max(batch.source, initial=0))
    if source >= num_sources:
        raise PublishRefused(
            f"{stage}: source must be below {num_sources} (the number of source_names), "
            f"got {source}"
        )
