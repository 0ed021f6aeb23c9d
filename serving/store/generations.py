"""Generations in Redis or Valkey: immutable values and one small pointer.

Readers ask the head which generation is served and then read only keys of that generation, so
they never see a mixture. A publish writes everything under the new generation, checks it, and
moves the head last, by compare-and-set. What an interrupted publish left is continued by the next
one, or expires by itself. A delta changes single users of a finished generation, one value each.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import redis

from recsys.config.store import ConnectionOptions
from serving.connection.calls import compare_and_set
from serving.connection.clients import store_errors
from serving.errors import NoGeneration, PublishRefused
from serving.store.delta import write_delta
from serving.store.expiry import renew_expiry
from serving.store.heads import GenerationInfo, StoreHeads
from serving.store.manifest import Manifest
from serving.store.publication import (
    DeltaReport,
    Gate,
    GateVerdict,
    Publication,
    PublishReport,
    UserBatch,
    check_ttl,
)
from serving.store.publisher import Progress, write_generation
from serving.store.write_lock import LEASE_S, WriteLock

__all__ = ["DeltaReport", "GenerationInfo", "GenerationStore", "PublishReport", "UserBatch"]


class GenerationStore(StoreHeads):
    """Reads, publishes and switches generations within one namespace.

    Args:
        client: see `StoreReads`.
        namespace: see `StoreReads`.
        lease_s: seconds that the lock of a writer outlives it when it is killed; another writer of
            the same generation waits for that long.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str = ConnectionOptions.default("namespace"),
        lease_s: float = LEASE_S,
    ) -> None:
        super().__init__(client, namespace=namespace)
        self._lease_s = lease_s

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
        popular_segments: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
        max_user_drop: float | None = None,
        gate: Gate | None = None,
        expected_epoch: int | None = None,
        on_progress: Progress | None = None,
    ) -> PublishReport:
        """Write a generation, check it, and make it the served one.

        A publish that was cut off and is run again with the same input goes on where it stopped;
        another input is told from it and replaces what was written. Publishing a finished
        generation again is allowed when every value is the same; it renews the expiry. Another
        value under the same id is refused before it is written.

        Args:
            generation: its id: 1 to 128 letters, digits, ``.``, ``_``, ``-``.
            users: batches of (user ids, item_index [Q, K] padded with -1, score [Q, K] best
                first, source [Q, K] uint8 or one number). A user may appear once.
            item_ids: ids of the vocabulary, entry i is item index i + 1.
            popular: (item_index [P], score [P]) served to unknown users, best first, not empty.
            vocabulary_sha256: of the vocabulary, kept in the manifest.
            ttl_s: seconds until every key of the generation goes, >= 60; counted from the first
                attempt where one is continued, which is so while a tenth of it has not passed.
            source_names: name of each source number, at most 256.
            item_rows: packed features, aligned with ``item_ids``. None: none.
            item_schema: JSON text that says how to read ``item_rows``.
            neighbours: batches like ``users``, with item ids in place of user ids.
            alive: [N + 1] bool, what may be recommended at first. None: everything.
            popular_segments: segment -> list like ``popular``, at most 1,000. None: none.
            max_user_drop: refuse when users fall by more than this fraction, 0 to 1, against the
                served generation. None: no check.
            gate: asked when all is written and checked; its refusal keeps the head where it is.
                What was written stays for the next attempt. None: no gate.
            expected_epoch: epoch of the head this publish builds on. None: the one read now.
            on_progress: called as ``on_progress(stage, values_written_so_far)``.

        Raises:
            ValueError: an argument is out of range.
            PublishRefused: a check failed, or another process writes this generation; the head is
                where it was.
            HeadConflict: another publisher moved the head meanwhile.
            StageUnavailable: the server went away; the head is where it was.
        """
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
            popular_segments=popular_segments or {},
        )
        publication.check()
        _check_drop(max_user_drop)
        before, standing = self._standing_head()
        self._check_epoch(before, expected_epoch)
        started = time.perf_counter()
        served = None if before is None else self._sound_manifest(before.generation)
        with self._writing(generation) as lock:
            existing = self.manifest(generation)
            with store_errors("publish"):
                written = write_generation(
                    self._client,
                    self.keys,
                    publication,
                    existing=existing,
                    lock=lock,
                    on_progress=on_progress,
                )
            manifest = written.manifest
            _check_gates(manifest, served, max_user_drop, gate)
            lock.check()
            with store_errors("publish"):
                self._client.set(
                    self.keys.manifest(generation), manifest.to_json(), exat=manifest.expires_at
                )
                self._client.unlink(self.keys.progress(generation))
                self._client.zadd(self.keys.generations, {generation: manifest.published_at})
        self._hide_again(generation, publication.item_ids)
        head = self._move_head(before, standing, generation)
        self._hide_again(generation, publication.item_ids)
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
            num_values=written.num_values,
            num_resumed=written.num_resumed,
            num_hidden=written.num_hidden,
        )

    def publish_delta(
        self,
        generation: str,
        *,
        users: Iterable[UserBatch | tuple[Any, ...]] = (),
        removed: Collection[str] = (),
        expected_revision: int | None = None,
        max_user_drop: float | None = None,
        on_progress: Progress | None = None,
    ) -> DeltaReport:
        """Change users' lists within a finished generation; the head does not move.

        Each user is compared with what the store has, and only what differs is written, a value a
        user: a reader sees the old list or the new one. The manifest is replaced last, with its
        counts and checksum right and its revision one higher. A delta that was cut off leaves valid
        lists, some old and some new; any later delta, this one again or another, accounts for it.
        Items, item rows and neighbours stay as they are.

        Args:
            generation: a finished one.
            users: batches as for `publish`, of any users; those whose list is the same cost a read.
            removed: users whose list is taken away.
            expected_revision: of the manifest this delta builds on. None: whatever it is.
            max_user_drop: refuse when ``removed`` is a larger fraction of the generation's users, 0
                to 1. None: no check.
            on_progress: called with "users" or "removed" and the number of users looked at so far.

        Raises:
            ValueError: an argument is out of range.
            NoGeneration: the generation is unknown, unfinished or expired.
            PublishRefused: a check failed, the revision is another, or another process writes this
                generation.
            StageUnavailable: the server went away; what was written stays, run it again.
        """
        _check_drop(max_user_drop)
        started = time.perf_counter()
        with self._writing(generation) as lock:
            value = self._manifest_value(generation)
            if value is None:
                raise NoGeneration(self._unknown(generation))
            manifest = Manifest.from_json(value)
            if expected_revision is not None and expected_revision != manifest.revision:
                raise PublishRefused(
                    f"generation {generation} has revision {manifest.revision}, expected "
                    f"{expected_revision}: another delta was published meanwhile; compute this one "
                    "against it"
                )
            if max_user_drop is not None and len(removed) > max_user_drop * manifest.num_users:
                raise PublishRefused(
                    f"the delta removes {len(removed)} of {manifest.num_users} users, more than "
                    f"{max_user_drop:.0%}; raise max_user_drop if that is right"
                )
            with store_errors("publish a delta"):
                written = write_delta(
                    self._client,
                    self.keys,
                    manifest,
                    users=users,
                    removed=removed,
                    lock=lock,
                    on_progress=on_progress,
                )
                after = written.manifest or manifest
                lock.check()
                if written.manifest is not None:
                    self._replace_manifest(value, after)
                    self._client.unlink(self.keys.progress(generation))
        return DeltaReport(
            generation=generation,
            revision=after.revision,
            num_users=after.num_users,
            num_added=written.num_added,
            num_changed=written.num_changed,
            num_unchanged=written.num_unchanged,
            num_removed=written.num_removed,
            num_settled=written.num_settled,
            bytes_written=written.num_bytes,
            seconds=time.perf_counter() - started,
        )

    def set_ttl(
        self, generation: str, ttl_s: int, *, on_progress: Progress | None = None
    ) -> Manifest:
        """Let every key of a finished generation go ``ttl_s`` seconds from now.

        Args:
            generation: which one.
            ttl_s: seconds, >= 60.
            on_progress: called with "expiry" and the number of keys so far.

        Returns:
            The manifest as it is afterwards.

        Raises:
            ValueError: ``ttl_s`` is out of range.
            NoGeneration: the generation is unknown, unfinished or expired.
            PublishRefused: another process writes this generation.
            StageUnavailable: the server went away; run it again.
        """
        check_ttl(ttl_s)
        with self._writing(generation) as lock:
            value = self._manifest_value(generation)
            if value is None:
                raise NoGeneration(self._unknown(generation))
            with store_errors("renew an expiry"):
                return renew_expiry(
                    self._client,
                    self.keys,
                    Manifest.from_json(value),
                    ttl_s,
                    replace_manifest=lambda after: self._replace_manifest(value, after),
                    lock=lock,
                    on_progress=on_progress,
                )

    # -- inside -------------------------------------------------------------------------------

    def _writing(self, generation: str) -> WriteLock:
        key = self.keys.lock(generation)
        return WriteLock(self._client, key, f"generation {generation}", lease_s=self._lease_s)

    def _replace_manifest(self, expected: bytes, manifest: Manifest) -> None:
        key, value = self.keys.manifest(manifest.generation), manifest.to_json()
        if compare_and_set(self._client, key, expected, value, manifest.expires_at):
            return
        if self._manifest_value(manifest.generation) != value:  # else the reply was lost
            raise PublishRefused(
                f"the manifest of generation {manifest.generation} changed or expired while it was "
                "being written; run this again"
            )


def _check_drop(max_user_drop: float | None) -> None:
    if max_user_drop is not None and not 0 <= max_user_drop <= 1:
        raise ValueError(
            f"max_user_drop must be within 0 and 1, got {max_user_drop}; None: no check"
        )


def _check_gates(
    manifest: Manifest, served: Manifest | None, max_user_drop: float | None, gate: Gate | None
) -> None:
    floor = 0.0
    if max_user_drop is not None and served is not None:
        floor = (1.0 - max_user_drop) * served.num_users
    if manifest.num_users < floor:
        raise PublishRefused(
            f"generation {manifest.generation} has {manifest.num_users} users against "
            f"{served.num_users if served else 0} served now, a fall of more than "
            f"{max_user_drop:.0%}; raise max_user_drop if that is right"
        )
    verdict = GateVerdict(True) if gate is None else gate(manifest, served)
    if not verdict.promote:
        raise PublishRefused(
            f"the gate does not let generation {manifest.generation} through: "
            f"{verdict.reason or 'no reason given'}; the served one stays, and a publish of the "
            "same candidates goes on from here once the gate agrees"
        )
