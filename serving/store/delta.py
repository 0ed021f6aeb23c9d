"""Changes some users' lists of a finished generation, and can be stopped at any moment.

Before a block is written its users' old values are noted (as digests) in the store, together with
what the manifest will say for all that was written before. So whoever comes next reads what the
noted users have now and knows exactly what the generation holds, whether the block was written,
half-written or not at all, and whatever the next input is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import redis

from serving.connection.calls import in_blocks, mget
from serving.errors import CorruptValue, PublishRefused
from serving.store.candidate_codec import decode_candidates
from serving.store.generation_writer import Progress, content_sha256, value_digest
from serving.store.keys import Keys
from serving.store.list_batches import ListSummary, encode_batches
from serving.store.manifest import Manifest
from serving.store.publication import UserBatch
from serving.store.write_lock import WriteLock

__all__ = ["DeltaWritten", "write_delta"]

KIND = "delta"
_SAMPLE = 256


@dataclass(slots=True)
class _Totals:
    """What the manifest says of the users, kept right block by block."""

    checksum: int
    num_users: int
    num_empty: int
    k: int
    min_score: float | None
    max_score: float | None

    @classmethod
    def of(cls, manifest: Manifest) -> _Totals:
        return cls(
            int(manifest.content_sum or 0),
            manifest.num_users,
            manifest.num_empty,
            manifest.k,
            manifest.min_score,
            manifest.max_score,
        )

    def widen(self, k: int, low: float | None, high: float | None) -> None:
        """Take in lists of up to ``k`` entries with scores from ``low`` to ``high``."""
        self.k = max(self.k, k)
        lows = [one for one in (self.min_score, low) if one is not None]
        highs = [one for one in (self.max_score, high) if one is not None]
        self.min_score = min(lows, default=None)
        self.max_score = max(highs, default=None)

    def replace(self, old: _State, new: _State) -> None:
        """Account for one user whose value was ``old`` and is ``new``."""
        self.checksum += new.digest - old.digest
        self.num_users += new.there - old.there
        self.num_empty += new.empty - old.empty

    def manifest(self, before: Manifest) -> Manifest:
        return replace(
            before,
            num_users=self.num_users,
            num_empty=self.num_empty,
            k=self.k,
            min_score=self.min_score,
            max_score=self.max_score,
            content_sum=str(self.checksum),
            content_sha256=content_sha256(self.checksum),
            revision=before.revision + 1,
        )


class _State(NamedTuple):
    """One user's value as the totals count it; all zero where there is none."""

    digest: int
    there: int
    empty: int

    @classmethod
    def of(cls, key: str, value: bytes | None) -> _State:
        if value is None:
            return cls(0, 0, 0)
        digest = int.from_bytes(value_digest(key.encode(), value), "little")
        try:
            empty = len(decode_candidates(value).item_index) == 0
        except CorruptValue as error:
            raise CorruptValue(
                f"{key!r}: {error}; a delta cannot go on from it, publish a new generation"
            ) from error
        return cls(digest, 1, int(empty))


class DeltaWritten(NamedTuple):
    """What `write_delta` returns; the manifest is not stored yet.

    Attributes:
        manifest: None when the generation is as it was.
        num_added: users who had no list.
        num_changed: users with another list than before.
        num_unchanged: users given with the list they had.
        num_removed: users who had a list and have none now.
        num_settled: users of an interrupted delta.
        num_bytes: of all values written.
    """

    manifest: Manifest | None
    num_added: int
    num_changed: int
    num_unchanged: int
    num_removed: int
    num_settled: int
    num_bytes: int


def write_delta(
    client: redis.Redis,
    keys: Keys,
    manifest: Manifest,
    *,
    users: Iterable[UserBatch | tuple[Any, ...]],
    removed: Collection[str],
    lock: WriteLock,
    on_progress: Progress | None = None,
) -> DeltaWritten:
    """Write what differs; the caller stores the manifest and then removes the journal.

    Args:
        client: the store.
        keys: names within the namespace.
        manifest: of the generation, finished.
        users: see `GenerationStore.publish_delta`.
        removed: see there.
        lock: of the generation, held.
        on_progress: called after each block with "users" or "removed" and how many were looked at.

    Raises:
        PublishRefused: a check failed, or the lock was lost.
        CorruptValue: a value in the store cannot be decoded.
        redis.RedisError: the server failed.
    """
    if manifest.content_sum is None:
        raise PublishRefused(
            f"generation {manifest.generation} was published by an older release that did not keep "
            "what a delta goes on from; publish the bundle again once (`recsys publish`)"
        )
    journal = _Journal(client, keys, manifest)
    delta = _Delta(client, keys, manifest, journal, lock)
    summary = ListSummary()
    going = set(removed)
    hashes: list[np.ndarray] = []
    for encoded in encode_batches(
        "users", users, num_items=manifest.num_items, num_sources=len(manifest.source_names)
    ):
        ids = encoded.batch.ids
        _refuse_repeated(len(ids) - len(set(ids)))
        both = going.intersection(ids)
        if both:
            raise PublishRefused(
                f"removed must name no user who has a new list, got {min(both)!r} in both "
                f"({len(both)} users); leave them out of one"
            )
        summary.add(encoded)
        journal.totals.widen(
            summary.k,
            None if np.isinf(summary.low) else summary.low,
            None if np.isinf(summary.high) else summary.high,
        )
        hashes.append(np.fromiter(map(hash, ids), np.int64, len(ids)))
        for part in in_blocks(zip(ids, encoded.values, strict=True)):
            delta.write([one for one, _ in part], [value for _, value in part])
            if on_progress is not None:
                on_progress("users", delta.num_seen)
    every = np.concatenate(hashes or [np.zeros(0, np.int64)])
    _refuse_repeated(len(every) - len(np.unique(every)))
    for block in in_blocks(sorted(going)):
        delta.write(block, [None] * len(block))
        if on_progress is not None:
            on_progress("removed", delta.num_seen)
    delta.read_back()
    changed = delta.num_written > 0 or journal.num_settled > 0
    return DeltaWritten(
        journal.totals.manifest(manifest) if changed else None,
        delta.num_added,
        delta.num_written - delta.num_added - delta.num_removed,
        delta.num_seen - delta.num_written - delta.num_absent,
        delta.num_removed,
        journal.num_settled,
        delta.num_bytes,
    )


class _Journal:
    """The note of a delta under way; what an interrupted one left is settled when it is opened."""

    def __init__(self, client: redis.Redis, keys: Keys, manifest: Manifest) -> None:
        self._client = client
        self._key = keys.progress(manifest.generation)
        self._manifest = manifest
        self.totals = _Totals.of(manifest)
        self.num_settled = 0
        found = _read(cast("bytes | None", client.get(self._key)), manifest.revision)
        if found is None:
            return
        self.totals = _Totals(**found["totals"])
        pending = {user: _State(*old) for user, *old in found["pending"]}
        names = {user: keys.user(manifest.generation, user) for user in pending}
        now = mget(client, list(names.values()))
        for (user, key), value in zip(names.items(), now, strict=True):
            self.totals.replace(pending[user], _State.of(key, value))
        self.num_settled = len(pending)

    def note(self, old: dict[str, _State]) -> None:
        """Write down the totals so far and what the users of the next block have."""
        value = {
            "kind": KIND,
            "revision": self._manifest.revision,
            "totals": asdict(self.totals),
            "pending": [[user, *state] for user, state in old.items()],
        }
        self._client.set(self._key, json.dumps(value), exat=self._manifest.expires_at)


class _Delta:
    """Writes the blocks and counts what they did."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        manifest: Manifest,
        journal: _Journal,
        lock: WriteLock,
    ) -> None:
        self._client = client
        self._keys = keys
        self._manifest = manifest
        self._journal = journal
        self._lock = lock
        self.num_seen = 0
        self.num_written = 0
        self.num_added = 0
        self.num_removed = 0
        self.num_absent = 0
        self.num_bytes = 0
        self._sample: dict[str, bytes | None] = {}

    def write(self, ids: Sequence[str], values: Sequence[bytes | None]) -> None:
        """Give each user its value; None takes it away."""
        self.num_seen += len(ids)
        keys = [self._keys.user(self._manifest.generation, one) for one in ids]
        there = mget(self._client, keys)
        different = [row for row, old in enumerate(there) if old != values[row]]
        self.num_absent += sum(old is None is values[row] for row, old in enumerate(there))
        if not different:
            return
        before = {ids[row]: _State.of(keys[row], there[row]) for row in different}
        self._lock.check()
        self._journal.note(before)
        with self._client.pipeline(transaction=False) as pipeline:
            for row in different:
                value = values[row]
                if value is None:
                    pipeline.unlink(keys[row])
                else:
                    pipeline.set(keys[row], value, exat=self._manifest.expires_at)
            pipeline.execute()
        for row in different:
            old, new = before[ids[row]], _State.of(keys[row], values[row])
            self._journal.totals.replace(old, new)
            self.num_added += new.there > old.there
            self.num_removed += new.there < old.there
            self.num_bytes += len(values[row] or b"")
            if len(self._sample) < _SAMPLE:
                self._sample[keys[row]] = values[row]
        self.num_written += len(different)

    def read_back(self) -> None:
        """Read some of what was written and compare.

        Raises:
            PublishRefused: a value is missing or different.
        """
        for key, found in zip(self._sample, mget(self._client, list(self._sample)), strict=True):
            if found != self._sample[key]:
                raise PublishRefused(
                    f"{key!r} reads back different after it was written; is the store out of "
                    "memory and evicting, or is somebody else writing this generation?"
                )


def _read(value: bytes | None, revision: int) -> dict[str, Any] | None:
    """The note, None for an absent one, one of another kind, or one whose delta was finished."""
    try:
        found = json.loads(value or b"")
        matches = found["kind"] == KIND and found["revision"] == revision
    except (ValueError, KeyError, TypeError):
        return None
    return found if matches else None


def _refuse_repeated(count: int) -> None:
    if count:
        raise PublishRefused(f"users: {count} ids came more than once; one list per id")
