"""Generations in Redis or Valkey: immutable values and one small pointer.

Readers ask the head which generation is served and then read only keys of that generation, so
they never see a mixture. A publish writes everything under the new generation, checks it, and
moves the head last, by compare-and-set. What an interrupted publish left expires by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import redis

from serving.candidate_codec import CandidateList, decode_candidates
from serving.connection import store_errors
from serving.errors import HeadConflict, NoGeneration, PublishRefused
from serving.id_list_codec import decode_ids
from serving.keys import Keys
from serving.manifest import Head, Manifest
from serving.publication import Publication, PublishReport, UserBatch
from serving.publisher import Progress, write_generation

__all__ = ["GenerationInfo", "GenerationStore", "PublishReport", "UserBatch"]

# One key only, so it runs on a cluster. An absent head compares equal to the empty string.
_COMPARE_AND_SET = """
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """One line of `generations`: its manifest and whether the head names it."""

    manifest: Manifest
    is_current: bool
    is_previous: bool


class GenerationStore:
    """Reads, publishes and switches generations within one namespace.

    Args:
        client: from `serving.connection.connect`; its timeouts bound every call. Replies must be
            bytes (``decode_responses=False``).
        namespace: first part of every key, a plain name.

    Every method raises `StageUnavailable` when the server is down, refuses or is too slow, and
    `CorruptValue` when a value cannot be decoded.
    """

    def __init__(self, client: redis.Redis, *, namespace: str = "recsys") -> None:
        self._client = client
        self.keys = Keys(namespace)

    # -- reading ------------------------------------------------------------------------------

    def ping(self) -> None:
        """Return when the server answers."""
        with store_errors("ping"):
            self._client.ping()

    def head(self) -> Head | None:
        """The pointer, or None when nothing was ever published."""
        with store_errors("read the head"):
            value = cast("bytes | None", self._client.get(self.keys.head))
        return None if value is None else Head.from_json(value)

    def manifest(self, generation: str) -> Manifest | None:
        """The manifest; None for a generation that is unknown, unfinished or expired."""
        with store_errors("read a manifest"):
            value = cast("bytes | None", self._client.get(self.keys.manifest(generation)))
        return None if value is None else Manifest.from_json(value)

    def generations(self) -> list[GenerationInfo]:
        """Finished generations that are still there, newest first."""
        head = self.head()
        with store_errors("list generations"):
            listed = cast("list[bytes]", self._client.zrevrange(self.keys.generations, 0, -1))
        found = []
        for name in (value.decode() for value in listed):
            manifest = self.manifest(name)
            if manifest is None:
                with store_errors("list generations"):
                    self._client.zrem(self.keys.generations, name)
                continue
            found.append(
                GenerationInfo(
                    manifest,
                    is_current=head is not None and head.generation == name,
                    is_previous=head is not None and head.previous == name,
                )
            )
        return found

    def item_ids(self, generation: str) -> list[str]:
        """Ids of the vocabulary; entry i belongs to item index i + 1.

        Raises:
            NoGeneration: the generation is unknown or expired.
        """
        return decode_ids(self._needed(self.keys.items(generation), generation))

    def popular(self, generation: str) -> CandidateList:
        """The fallback list.

        Raises:
            NoGeneration: the generation is unknown or expired.
        """
        return decode_candidates(self._needed(self.keys.popular(generation), generation))

    def alive(self, generation: str, num_items: int) -> np.ndarray:
        """[N + 1] bool, True where an item may be recommended; row 0 is always False."""
        with store_errors("read the alive bitmap"):
            value = cast("bytes | None", self._client.get(self.keys.alive(generation)))
        mask = np.zeros(num_items + 1, dtype=bool)
        if value is None:
            mask[1:] = True
            return mask
        bits = np.unpackbits(np.frombuffer(value, np.uint8))[: num_items + 1].astype(bool)
        mask[: len(bits)] = bits
        mask[0] = False
        return mask

    def read_user(self, generation: str, user_id: str) -> CandidateList | None:
        """Candidates of one user, None when there are none."""
        return self.read_users(generation, [user_id])[0]

    def read_users(self, generation: str, user_ids: Sequence[str]) -> list[CandidateList | None]:
        """Candidates of several users in one round trip, in the order asked."""
        return self._lists([self.keys.user(generation, user_id) for user_id in user_ids])

    def neighbours(self, generation: str, item_id: str) -> CandidateList | None:
        """Items like ``item_id``, None when there is no list for it."""
        return self._lists([self.keys.neighbours(generation, item_id)])[0]

    def read_items(self, generation: str, item_ids: Sequence[str]) -> list[bytes | None]:
        """Packed feature rows in the order asked, in one round trip."""
        return self._mget([self.keys.item(generation, item_id) for item_id in item_ids])

    # -- writing ------------------------------------------------------------------------------

    def publish(
        self,
        generation: str,
        *,
        users: Iterable[UserBatch | tuple[Any, ...]],
        item_ids: Sequence[str],
        popular: tuple[np.ndarray, np.ndarray],
        vocabulary_sha256: str,
        ttl_s: int,
        source_names: Sequence[str] = ("candidates",),
        item_rows: Sequence[bytes] | None = None,
        item_schema: str | None = None,
        neighbours: Iterable[UserBatch | tuple[Any, ...]] = (),
        alive: np.ndarray | None = None,
        max_user_drop: float | None = None,
        expected_epoch: int | None = None,
        on_progress: Progress | None = None,
    ) -> PublishReport:
        """Write a generation, check it, and make it the served one.

        Publishing a finished generation again is allowed when every value is the same; it renews
        the expiry. Another value under the same id is refused before it is written.

        Args:
            generation: its id: 1 to 128 letters, digits, ``.``, ``_``, ``-``.
            users: batches of (user ids, item_index [Q, K] padded with -1, score [Q, K] best
                first, source [Q, K] uint8 or one number). A user may appear once.
            item_ids: ids of the vocabulary, entry i is item index i + 1.
            popular: (item_index [P], score [P]) served to unknown users, best first, not empty.
            vocabulary_sha256: of the vocabulary, kept in the manifest.
            ttl_s: seconds until every key of the generation goes, >= 60.
            source_names: name of each source number, at most 256.
            item_rows: packed features, aligned with ``item_ids``. None: none.
            item_schema: JSON text that says how to read ``item_rows``.
            neighbours: batches like ``users``, with item ids in place of user ids.
            alive: [N + 1] bool, what may be recommended at first. None: everything.
            max_user_drop: refuse when users fall by more than this fraction against the served
                generation. None: no check.
            expected_epoch: epoch of the head this publish builds on. None: the one read now.
            on_progress: called as ``on_progress(stage, values_written_so_far)``.

        Raises:
            ValueError: an argument is out of range.
            PublishRefused: a check failed; the head is where it was.
            HeadConflict: another publisher moved the head meanwhile.
            StageUnavailable: the server went away; the head is where it was.
        """
        before = self.head()
        self._check_epoch(before, expected_epoch)
        publication = Publication(
            generation=generation,
            users=users,
            item_ids=item_ids,
            popular=popular,
            vocabulary_sha256=vocabulary_sha256,
            ttl_s=ttl_s,
            source_names=tuple(source_names),
            item_rows=item_rows,
            item_schema=item_schema,
            neighbours=neighbours,
            alive=alive,
        )
        started = time.perf_counter()
        served = None if before is None else self.manifest(before.generation)
        with store_errors("publish"):
            written = write_generation(
                self._client,
                self.keys,
                publication,
                existing=self.manifest(generation),
                mget=self._mget,
                on_progress=on_progress,
            )
        manifest = written.manifest
        floor = 0.0
        if max_user_drop is not None and served is not None:
            floor = (1.0 - max_user_drop) * served.num_users
        if manifest.num_users < floor:
            raise PublishRefused(
                f"generation {generation} has {manifest.num_users} users against "
                f"{served.num_users if served else 0} served now, a fall of more than "
                f"{max_user_drop:.0%}; raise max_user_drop if that is right"
            )
        with store_errors("publish"):
            self._client.set(
                self.keys.manifest(generation), manifest.to_json(), exat=manifest.expires_at
            )
            self._client.zadd(self.keys.generations, {generation: manifest.published_at})
        head = self._move_head(before, generation)
        return PublishReport(
            generation=generation,
            previous=head.previous,
            epoch=head.epoch,
            num_users=manifest.num_users,
            num_items=manifest.num_items,
            num_empty=manifest.num_empty,
            bytes_written=written.num_bytes,
            seconds=time.perf_counter() - started,
            refreshed=written.refreshed,
        )

    def flip(self, generation: str, *, expected_epoch: int | None = None) -> Head:
        """Serve ``generation``, which must be finished and still there.

        Raises:
            NoGeneration: it is unknown, unfinished or expired.
            HeadConflict: the head moved meanwhile.
        """
        before = self.head()
        self._check_epoch(before, expected_epoch)
        if self.manifest(generation) is None:
            known = ", ".join(info.manifest.generation for info in self.generations()) or "none"
            raise NoGeneration(
                f"generation {generation!r} is not in the store (unknown, unfinished or expired); "
                f"there: {known}"
            )
        return self._move_head(before, generation)

    def rollback(self) -> Head:
        """Serve the previous generation again; a second call undoes the first.

        Raises:
            NoGeneration: nothing is published, there is no previous generation, or it expired.
            HeadConflict: the head moved meanwhile.
        """
        head = self.head()
        if head is None or head.previous is None:
            raise NoGeneration("there is no previous generation to roll back to")
        return self.flip(head.previous, expected_epoch=head.epoch)

    def set_alive(self, generation: str, item_index: Sequence[int], alive: bool) -> None:
        """Hide or show items of a published generation, without a republish.

        Args:
            generation: which one.
            item_index: rows of the vocabulary, 1..N.
            alive: False hides.

        Raises:
            ValueError: an index is out of range.
            NoGeneration: the generation is unknown or expired.
        """
        manifest = self.manifest(generation)
        if manifest is None:
            raise NoGeneration(f"generation {generation!r} is not in the store")
        outside = [index for index in item_index if not 1 <= index <= manifest.num_items]
        if outside:
            raise ValueError(f"item_index must be in 1..{manifest.num_items}, got {outside[0]}")
        with store_errors("write the alive bitmap"), self._client.pipeline(False) as pipeline:
            for index in item_index:
                pipeline.setbit(self.keys.alive(generation), int(index), int(alive))
            pipeline.execute()

    # -- inside -------------------------------------------------------------------------------

    def _move_head(self, before: Head | None, generation: str) -> Head:
        if before is not None and before.generation == generation:
            after = Head(generation, before.previous, before.epoch + 1, time.time())
        else:
            previous, epoch = (before.generation, before.epoch) if before else (None, 0)
            after = Head(generation, previous, epoch + 1, time.time())
        expected = before.to_json() if before else b""
        with store_errors("move the head"):
            moved = cast(
                int,
                self._client.eval(_COMPARE_AND_SET, 1, self.keys.head, expected, after.to_json()),
            )
        if not moved:
            now = self.head()
            if now == after:  # our own flip went through and the reply was lost
                return after
            raise HeadConflict(_conflict(before.epoch if before else 0, now))
        return after

    def _check_epoch(self, head: Head | None, expected: int | None) -> None:
        if expected is not None and expected != (head.epoch if head else 0):
            raise HeadConflict(_conflict(expected, head))

    def _needed(self, key: str, generation: str) -> bytes:
        with store_errors("read a generation"):
            value = cast("bytes | None", self._client.get(key))
        if value is None:
            raise NoGeneration(f"generation {generation!r} is unknown, unfinished or expired")
        return value

    def _lists(self, keys: list[str]) -> list[CandidateList | None]:
        return [None if value is None else decode_candidates(value) for value in self._mget(keys)]

    def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        # A cluster answers MGET for one slot only; its client has a method that splits the keys.
        read = getattr(self._client, "mget_nonatomic", self._client.mget)
        with store_errors("read"):
            return cast("list[bytes | None]", read(keys))


def _conflict(expected: int, head: Head | None) -> str:
    found = f"epoch {head.epoch} ({head.generation})" if head else "no generation"
    return (
        f"the head moved while this publish ran: expected epoch {expected}, found {found}; "
        "nothing was flipped, run it again to publish on top"
    )
