"""Splits, result lists and disturbed data that the retrieval benchmarks share.

The splits are read from ``$RECSYS_DATA`` (default: ``shared/data`` beside the checkout). Users are
rows 0..U-1 of every `Histories`; items are 1..N, the files' own number plus one. There are no
times, so every event has timestamp 0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import recsys  # noqa: F401, before torch: how its threads wait is decided when it loads

# isort: split
import numpy as np
import polars as pl
import torch

from features.tables import Histories
from recsys.evaluation import Truth, judge
from recsys.evaluation.metrics import coverage, head_share, ndcg, recall
from recsys.evaluation.popularity import popularity_rank
from recsys.topk import top_k

K = 20
DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Split:
    """One data set with a fixed test part.

    Attributes:
        name: folder it was read from.
        num_items: N.
        train: events to fit on while something is chosen.
        validation: events held out of the published train part, to choose by.
        test: the published test part.
    """

    name: str
    num_items: int
    train: Histories
    validation: Histories
    test: Histories

    @property
    def whole_train(self) -> Histories:
        """The published train part: what the published numbers were fitted on."""
        return merge(self.train, self.validation)

    @property
    def popularity(self) -> np.ndarray:
        """[N + 1] int64 events of each item in the published train part."""
        return np.bincount(self.whole_train.item_index, minlength=self.num_items + 1)


def load_split(name: str, *, validation_share: float = 0.1, seed: int = 0) -> Split:
    """Read a split and hold out a share of every user's train events, at random.

    Raises:
        FileNotFoundError: the folder is not there.
    """
    folder = DATA / name
    if not folder.is_dir():
        raise FileNotFoundError(f"no data in {folder}; set RECSYS_DATA to the folder of {name}")
    frames = [pl.read_parquet(folder / f"{part}.parquet") for part in ("train", "test")]
    num_users = 1 + max(int(frame["user"].max()) for frame in frames)  # type: ignore[arg-type]
    num_items = 1 + max(int(frame["item"].max()) for frame in frames)  # type: ignore[arg-type]
    whole, test = (
        histories_of(
            frame["user"].to_numpy().astype(np.int64),
            frame["item"].to_numpy().astype(np.int64) + 1,
            num_users,
        )
        for frame in frames
    )
    train, validation = carve(whole, validation_share, rng=np.random.default_rng(seed))
    return Split(name, num_items, train, validation, test)


def histories_of(row: np.ndarray, item_index: np.ndarray, num_users: int) -> Histories:
    """Histories of (row, item) pairs [E] int64 without times, items rising within a row."""
    order = np.lexsort((item_index, row))
    counts = np.bincount(row, minlength=num_users)
    return Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_index=item_index[order],
        timestamp=np.zeros(row.size, dtype=np.int64),
        weight=np.ones(row.size, dtype=np.float32),
    )


def merge(*parts: Histories) -> Histories:
    """The events of several parts of the same users, row by row."""
    row = np.concatenate([part.rows for part in parts])
    item_index = np.concatenate([part.item_index for part in parts])
    return histories_of(row, item_index, len(parts[0]))


def carve(
    histories: Histories, share: float, *, rng: np.random.Generator
) -> tuple[Histories, Histories]:
    """The rest, and a random ``share`` of each row: rounded, at least 1 where a row has 3 events.

    Rows of one or two events stay whole.
    """
    counts = histories.counts
    held = np.where(counts >= 3, np.maximum(1, np.rint(share * counts)), 0).astype(np.int64)
    order = np.lexsort((rng.random(histories.item_index.size), histories.rows))
    place = np.arange(order.size) - np.repeat(histories.indptr[:-1], counts)
    out = np.zeros(order.size, dtype=bool)
    out[order] = place < np.repeat(held, counts)
    row, item_index = histories.rows, histories.item_index
    rest, carved = (
        histories_of(row[kept], item_index[kept], len(histories)) for kept in (~out, out)
    )
    return rest, carved


@torch.no_grad()
def topk_lists(
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    seen: Histories,
    *,
    k: int = K,
    block_bytes: int = 64 * 2**20,
) -> np.ndarray:
    """The ``k`` items with the largest product, items of ``seen`` left out.

    Args:
        user_vectors: [U, D] float.
        item_vectors: [N + 1, D] float, row 0 padding.
        seen: U rows of items not to be returned.
        k: places.
        block_bytes: most bytes one block of scores may take.

    Returns:
        [U, k] int64, best first, -1 where nothing is left.
    """
    users = torch.as_tensor(user_vectors, dtype=torch.float32)
    items = torch.as_tensor(item_vectors, dtype=torch.float32)
    height = max(1, block_bytes // (4 * len(items)))
    found = [np.zeros((0, k), dtype=np.int64)]
    for start in range(0, len(users), height):
        score = (users[start : start + height] @ items.T).numpy()
        block = slice(int(seen.indptr[start]), int(seen.indptr[start + len(score)]))
        score[seen.rows[block] - start, seen.item_index[block]] = -np.inf
        found.append(top_k(score, k).item_index)
    return np.concatenate(found)


@dataclass(frozen=True)
class Measured:
    """What result lists are worth, per user so that systems can be compared user by user.

    Attributes:
        recall: [U] recall@k of users with a test item, hits / number of test items.
        ndcg: [U] ndcg@k, ideal cut at min(k, number of test items).
        tail_recall: [V] recall@k of users with a test item in the less popular half of items,
            counting only such items.
        head_share: share of the places taken by the most popular tenth of items.
        coverage: share of the catalogue in at least one list.
    """

    recall: np.ndarray
    ndcg: np.ndarray
    tail_recall: np.ndarray
    head_share: float
    coverage: float


def measure(lists: np.ndarray, test: Histories, popularity: np.ndarray) -> Measured:
    """Judge lists [U, k] by the test events of the same users; see `Measured`."""
    k = lists.shape[1]
    rank = popularity_rank(popularity)
    tail = rank >= (popularity.size - 1) // 2
    truth = Truth.from_histories(test)
    judged = judge(lists, truth)
    judged_tail = judge(lists, truth.only(items=tail))
    return Measured(
        recall=recall(judged, k),
        ndcg=ndcg(judged, k),
        tail_recall=recall(judged_tail, k),
        head_share=head_share(lists, k, popularity),
        coverage=coverage(lists, k, popularity),
    )


def average(runs: Sequence[Measured]) -> Measured:
    """The mean over seeds, user by user."""
    return Measured(*(np.mean([getattr(run, name) for run in runs], axis=0) for name in FIELDS))


FIELDS = tuple(Measured.__dataclass_fields__)


class NoisyTrain(NamedTuple):
    """Training events with false ones among them.

    Attributes:
        histories: E true and F false events.
        is_false: [E + F] bool, True where the event was made up.
    """

    histories: Histories
    is_false: np.ndarray


def add_false_interactions(
    train: Histories,
    share: float,
    *,
    forbidden: Sequence[Histories],
    num_items: int,
    rng: np.random.Generator,
) -> NoisyTrain:
    """Add ``share * E`` events of items that the user never met, drawn uniformly.

    The users are those of randomly picked training events, so everyone's share of false events is
    about the same. No false event is one of the user's train or ``forbidden`` items: a held-out
    item among them would be masked as seen, and no model could find it.

    Args:
        train: U rows, E events.
        share: of E to add, >= 0.
        forbidden: more histories of the same users, usually validation and test.
        num_items: N.
        rng: the draws.

    Raises:
        ValueError: ``share`` < 0, or a user has fewer unmet items than false events.
    """
    if share < 0:
        raise ValueError(f"share must be >= 0, got {share}")
    known = merge(train, *forbidden)
    total = round(share * train.item_index.size)
    picked = rng.choice(train.rows, total, replace=share > 1.0)
    wanted = np.bincount(picked, minlength=len(train))
    rows, items = [], []
    for user in np.flatnonzero(wanted):
        met = np.unique(known.item_index[known.indptr[user] : known.indptr[user + 1]])
        unmet = num_items - met.size
        if wanted[user] > unmet:
            raise ValueError(
                f"share {share} asks for {wanted[user]} false events in row {user}, which has only "
                f"{unmet} unmet items; lower it"
            )
        place = rng.choice(unmet, wanted[user], replace=False)
        met_before = np.searchsorted(met - np.arange(met.size), place + 1, side="right")
        rows.append(np.full(place.size, user))
        items.append(place + 1 + met_before)  # the place-th of the unmet items
    row = np.concatenate([train.rows, *rows])
    item_index = np.concatenate([train.item_index, *items])
    order = np.lexsort((item_index, row))  # the order `histories_of` puts them in
    return NoisyTrain(histories_of(row, item_index, len(train)), order >= train.item_index.size)
