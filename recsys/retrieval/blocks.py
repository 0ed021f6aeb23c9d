"""Retrieval from dense score blocks: bounded memory, one rule for exclusion and ties."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

from features.tables import Histories
from recsys.retrieval.protocol import Question
from recsys.topk import TopK, stacked, top_k

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "AskedRetriever",
    "DenseQuestion",
    "DenseRetriever",
    "moments_of",
    "retrieve_in_blocks",
    "score_in_blocks",
]

DEFAULT_BLOCK_BYTES = 64 * 2**20

ScoreAll = Callable[[Histories, np.ndarray], np.ndarray]
"""(histories of Q rows, [Q] int64 moments) -> [Q, N + 1] float scores."""


def moments_of(histories: Histories, moment: np.ndarray | None) -> np.ndarray:
    """[Q] int64 microseconds: ``moment``, or one microsecond after each row's newest event.

    A row without events and without a moment gets the moment after the newest event of all rows.

    Raises:
        ValueError: ``moment`` has not one entry per row.
    """
    if moment is not None:
        given = np.asarray(moment, dtype=np.int64)
        if given.shape != (len(histories),):
            raise ValueError(
                f"moment must have one entry per history: got shape {given.shape} for "
                f"{len(histories)} rows"
            )
        return given
    newest = int(histories.timestamp.max(initial=0))
    last = np.full(len(histories), newest, dtype=np.int64)
    filled = histories.counts > 0
    last[filled] = histories.timestamp[histories.indptr[1:][filled] - 1]
    return last + 1


def retrieve_in_blocks(
    score_all: ScoreAll,
    histories: Histories,
    k: int,
    *,
    num_items: int,
    moment: np.ndarray | None,
    excluded: np.ndarray | None,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
) -> TopK:
    """Exact top-k of ``score_all``, a block of rows at a time.

    Args:
        score_all: gives [Q, N + 1] scores of a block of histories.
        histories: Q rows.
        k: results per row, >= 1.
        num_items: N.
        moment: [Q] int64 microseconds, or None: just after each row's newest event.
        excluded: [Q, N + 1] bool, True = must not be returned.
        block_bytes: most bytes that one float32 score block may take.

    Raises:
        ValueError: k < 1, or ``excluded`` or ``moment`` has another shape.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    wanted = (len(histories), num_items + 1)
    if excluded is not None and excluded.shape != wanted:
        raise ValueError(f"excluded must be [Q, N + 1] = {wanted}, got {excluded.shape}")
    moments = moments_of(histories, moment)
    parts = [
        top_k(
            score_all(histories.take(rows), moments[rows]),
            k,
            excluded=None if excluded is None else excluded[rows],
        )
        for rows in _row_blocks(len(histories), num_items, block_bytes)
    ]
    return stacked(parts, k)


def score_in_blocks(
    score_all: ScoreAll,
    histories: Histories,
    item_index: np.ndarray,
    *,
    num_items: int,
    moment: np.ndarray | None,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
) -> np.ndarray:
    """[Q, C] float32 scores of ``item_index`` [Q, C]; -inf where it is 0 or -1.

    Raises:
        ValueError: ``item_index`` has not one row per history, or an index exceeds N.
    """
    _check_items(item_index, len(histories), num_items)
    moments = moments_of(histories, moment)
    scores = np.full(item_index.shape, -np.inf, dtype=np.float32)
    for rows in _row_blocks(len(histories), num_items, block_bytes):
        block = score_all(histories.take(rows), moments[rows])
        scores[rows] = _picked(block, item_index[rows])
    return scores


def _check_items(item_index: np.ndarray, num_rows: int, num_items: int) -> None:
    if item_index.ndim != 2 or item_index.shape[0] != num_rows:
        raise ValueError(
            f"item_index must be [Q, C] with Q = {num_rows}, got shape {item_index.shape}"
        )
    if item_index.size and int(item_index.max()) > num_items:
        raise ValueError(f"item_index must be <= {num_items}, got {int(item_index.max())}")


def _picked(block: np.ndarray, item_index: np.ndarray) -> np.ndarray:
    """[Q, C] float32 of a block [Q, N + 1]; -inf where the index is 0 or -1."""
    row = np.arange(len(block))[:, None]
    picked = block[row, np.maximum(item_index, 0)]
    return np.where(item_index > 0, picked, -np.inf).astype(np.float32, copy=False)


def _row_blocks(num_rows: int, num_items: int, block_bytes: int) -> Iterator[np.ndarray]:
    height = max(1, block_bytes // (4 * (num_items + 1)))
    for start in range(0, num_rows, height):
        yield np.arange(start, min(start + height, num_rows))


class DenseQuestion:
    """Queries put to a `DenseRetriever`; their scores are kept where they fit into one block.

    Args:
        retriever: who is asked.
        histories: Q rows.
        moment: [Q] int64 microseconds, or None: just after each row's newest event.
    """

    def __init__(
        self, retriever: DenseRetriever, histories: Histories, moment: np.ndarray | None
    ) -> None:
        histories.check_width(retriever.num_items)
        self._retriever = retriever
        self._moment = moments_of(histories, moment)
        self._histories = histories if moment is None else histories.before(self._moment)
        self._whole: np.ndarray | None = None
        if 4 * len(histories) * (retriever.num_items + 1) <= retriever.block_bytes:
            self._whole = retriever.score_all(self._histories, self._moment)

    def retrieve(self, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """See `recsys.retrieval.protocol.Question`."""
        return retrieve_in_blocks(
            self._score_all,
            self._histories,
            k,
            num_items=self._retriever.num_items,
            moment=self._moment,
            excluded=excluded,
            block_bytes=self._retriever.block_bytes,
        )

    def score(self, item_index: np.ndarray) -> np.ndarray:
        """See `recsys.retrieval.protocol.Question`."""
        if self._whole is not None:
            _check_items(item_index, len(self._histories), self._retriever.num_items)
            return _picked(self._whole, item_index)
        return score_in_blocks(
            self._score_all,
            self._histories,
            item_index,
            num_items=self._retriever.num_items,
            moment=self._moment,
            block_bytes=self._retriever.block_bytes,
        )

    def _score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        if self._whole is not None:  # then there is one block, of all rows
            return self._whole
        return self._retriever.score_all(histories, moment)


class AskedRetriever(ABC):
    """The two answers of a `Retriever` as those of the question it makes of histories."""

    @abstractmethod
    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> Question:
        """See `recsys.retrieval.protocol.Retriever`."""

    def retrieve(
        self,
        histories: Histories,
        k: int,
        *,
        moment: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> TopK:
        """See `recsys.retrieval.protocol.Retriever`."""
        return self.ask(histories, moment=moment).retrieve(k, excluded=excluded)

    def score(
        self, histories: Histories, item_index: np.ndarray, *, moment: np.ndarray | None = None
    ) -> np.ndarray:
        """See `recsys.retrieval.protocol.Retriever`."""
        return self.ask(histories, moment=moment).score(item_index)


class DenseRetriever(AskedRetriever):
    """A `Retriever` for models that score every item at once.

    Attributes:
        num_items: N.
        block_bytes: most bytes that one float32 block of scores may take.
    """

    num_items: int
    block_bytes: int = DEFAULT_BLOCK_BYTES

    @abstractmethod
    def score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float32 scores at [Q] int64 moments."""

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> DenseQuestion:
        """See `recsys.retrieval.protocol.Retriever`; ``user_index`` is ignored."""
        return DenseQuestion(self, histories, moment)
