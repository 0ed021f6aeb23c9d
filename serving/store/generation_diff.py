"""In what two generations of the store differ, by a sample of their users."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import polars as pl

from serving.connection.calls import in_blocks
from serving.errors import NoGeneration
from serving.store.candidate_codec import CandidateList
from serving.store.estimates import Estimate, mean_of, share_of
from serving.store.manifest import Manifest
from serving.store.reads import StoreReads

__all__ = ["GenerationDiff", "compare_generations"]


class ScoreRange(NamedTuple):
    """Lowest and highest score of any list; None where all are empty."""

    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class GenerationDiff:
    """What differs from generation a to generation b.

    Attributes:
        a: id of the first.
        b: id of the second.
        k: cutoff of ``overlap``.
        num_users: users with a list, of each.
        only_a: share of a's users without a list in b.
        only_b: share of b's users without a list in a.
        num_compared: users in both whose lists were compared.
        changed: share of them whose list holds other items or another order.
        top_changed: share of them whose first item is another.
        overlap: mean share of items that the first k of both have in common; of the longer one
            where a list is shorter than k.
        items_gained: items of b's vocabulary that a's does not have.
        items_lost: items of a's vocabulary that b's does not have.
        shown_gained: items among the first k of compared users in b, and of none of them in a.
        shown_lost: the same from b to a.
        scores: of all lists, of each.
    """

    a: str
    b: str
    k: int
    num_users: tuple[int, int]
    only_a: Estimate | None
    only_b: Estimate | None
    num_compared: int
    changed: Estimate | None
    top_changed: Estimate | None
    overlap: Estimate | None
    items_gained: int
    items_lost: int
    shown_gained: int
    shown_lost: int
    scores: tuple[ScoreRange, ScoreRange]


def compare_generations(
    store: StoreReads,
    a: str,
    b: str,
    *,
    users: tuple[pl.Series, pl.Series] | None = None,
    k: int = 10,
    sample: int = 10_000,
    rng: np.random.Generator,
) -> GenerationDiff:
    """Compare two finished generations; reads ``sample`` lists of each at most.

    Args:
        store: where both are.
        a: id of the first.
        b: id of the second.
        users: ids of the users of each, different. None: those that a scan of all keys finds.
        k: cutoff, >= 1.
        sample: most users that are read, >= 1.
        rng: draws them, whatever the order in which a scan finds them.

    Raises:
        ValueError: k or sample is below 1.
        NoGeneration: one is unknown, unfinished or expired.
        StageUnavailable: the store is down, refuses or is too slow.
    """
    if k < 1 or sample < 1:
        raise ValueError(f"k and sample must be >= 1, got {k} and {sample}")
    manifests = _needed(store, a), _needed(store, b)
    first, second = manifests
    pairs = _Pairs(store, manifests, k)
    if users is None:
        key = rng.bytes(16)
        found, num_a = _drawn(store.user_ids(a), sample, key)
        missing = pairs.read(found)
        only_a = share_of(missing, len(found), total=num_a)
        only_b = _share_without(store, b, a, sample, key)
        total = len(pairs.overlaps) + num_a - len(found)
    else:
        in_a, in_b = users
        both = in_a.filter(in_a.is_in(in_b.implode()))
        only_a = share_of(len(in_a) - len(both), len(in_a), total=len(in_a))
        only_b = share_of(len(in_b) - len(both), len(in_b), total=len(in_b))
        rows = rng.choice(len(both), min(sample, len(both)), replace=False)
        pairs.read(both[np.sort(rows)].to_list())
        total = len(both)
    return GenerationDiff(
        a=a,
        b=b,
        k=k,
        num_users=(first.num_users, second.num_users),
        only_a=only_a,
        only_b=only_b,
        num_compared=len(pairs.overlaps),
        changed=share_of(pairs.num_changed, len(pairs.overlaps), total=total),
        top_changed=share_of(pairs.num_top_changed, len(pairs.overlaps), total=total),
        overlap=mean_of(pairs.overlaps, total=total),
        items_gained=pairs.items_gained,
        items_lost=pairs.items_lost,
        shown_gained=len(pairs.shown[1] - pairs.shown[0]),
        shown_lost=len(pairs.shown[0] - pairs.shown[1]),
        scores=(
            ScoreRange(first.min_score, first.max_score),
            ScoreRange(second.min_score, second.max_score),
        ),
    )


class _Pairs:
    """Reads users' lists of both generations and counts how they differ."""

    def __init__(self, store: StoreReads, manifests: tuple[Manifest, Manifest], k: int) -> None:
        self._store = store
        self._names = manifests[0].generation, manifests[1].generation
        self._k = k
        self.num_changed = 0
        self.num_top_changed = 0
        self.overlaps: list[float] = []
        self.shown: tuple[set[int], set[int]] = (set(), set())
        self._numbers, self.items_gained, self.items_lost = _common_numbers(store, manifests)

    def read(self, users: Sequence[str]) -> int:
        """Compare the lists of ``users``; how many of them have none in b."""
        missing = 0
        for block in in_blocks(users):
            pairs = zip(*(self._store.read_users(name, block) for name in self._names), strict=True)
            for one, other in pairs:
                missing += other is None
                if one is not None and other is not None:
                    self._add(one, other)
        return missing

    def _add(self, one: CandidateList, other: CandidateList) -> None:
        first, second = one.item_index, self._numbers[other.item_index]
        self.num_changed += not np.array_equal(first, second)
        self.num_top_changed += first[:1].tolist() != second[:1].tolist()
        tops = set(first[: self._k].tolist()), set(second[: self._k].tolist())
        longer = max(map(len, tops))
        self.overlaps.append(len(tops[0] & tops[1]) / longer if longer else 1.0)
        for seen, top in zip(self.shown, tops, strict=True):
            seen |= top


def _share_without(
    store: StoreReads, inside: str, outside: str, sample: int, key: bytes
) -> Estimate | None:
    """The share of the users drawn from ``inside`` who have no list in ``outside``."""
    found, total = _drawn(store.user_ids(inside), sample, key)
    missing = 0
    for block in in_blocks(found):
        missing += sum(one is None for one in store.read_users(outside, block))
    return share_of(missing, len(found), total=total)


def _drawn(users: Iterable[str], sample: int, key: bytes) -> tuple[list[str], int]:
    """The users with the lowest keyed hashes, which no order of ``users`` changes, and how many.

    Memory is that of twice the sample. Of a generation that is being written one may be met, and
    counted, twice.
    """
    kept: dict[str, bytes] = {}
    count, highest = 0, b"\xff" * 8
    for user in users:
        count += 1
        mark = hashlib.blake2b(user.encode(), key=key, digest_size=8).digest()
        if mark <= highest:
            kept[user] = mark
            if len(kept) >= 2 * sample:
                kept = dict(sorted(kept.items(), key=itemgetter(1))[:sample])
                highest = max(kept.values())
    found = sorted(kept, key=lambda user: (kept[user], user))[:sample]
    return found, count if len(found) == sample else len(found)


def _common_numbers(
    store: StoreReads, manifests: tuple[Manifest, Manifest]
) -> tuple[np.ndarray, int, int]:
    """[N_b + 1] a's index of each of b's items, below zero where a does not have it; and counts."""
    first, second = manifests
    if first.vocabulary_sha256 == second.vocabulary_sha256:
        return np.arange(second.num_items + 1), 0, 0
    places = {one: row for row, one in enumerate(store.item_ids(first.generation), start=1)}
    numbers = np.zeros(second.num_items + 1, dtype=np.int64)
    for row, item_id in enumerate(store.item_ids(second.generation), start=1):
        numbers[row] = places.get(item_id, -row)
    gained = int((numbers < 0).sum())
    return numbers, gained, first.num_items - (second.num_items - gained)


def _needed(store: StoreReads, generation: str) -> Manifest:
    manifest = store.manifest(generation)
    if manifest is None:
        raise NoGeneration(
            f"generation {generation!r} is not in the store (unknown, unfinished or expired); see "
            "`recsys generations`"
        )
    return manifest
