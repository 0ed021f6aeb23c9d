"""Writes the values of one generation and checks them, without touching the head."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import redis

from serving.candidate_codec import decode_candidates, encode_candidates
from serving.errors import PublishRefused
from serving.id_list_codec import encode_ids
from serving.keys import Keys
from serving.manifest import Manifest
from serving.publication import Publication, UserBatch

__all__ = ["Progress", "Written", "write_generation"]

Progress = Callable[[str, int], None]

_PIPELINE = 1000
_SAMPLE = 256


class Written(NamedTuple):
    """What `write_generation` returns; the manifest is not stored yet."""

    manifest: Manifest
    num_bytes: int
    refreshed: bool


class _Summary:
    """What the lists written so far have in common."""

    def __init__(self) -> None:
        self.count = 0
        self.empty = 0
        self.k = 0
        self.low = np.inf
        self.high = -np.inf
        self._hashes: list[np.ndarray] = []

    def add(self, batch: UserBatch) -> None:
        real = np.asarray(batch.item_index) != -1
        self.count += len(batch.ids)
        counts = real.sum(axis=1)
        self.empty += int((counts == 0).sum())
        self.k = max(self.k, int(counts.max(initial=0)))
        if real.any():
            scores = np.asarray(batch.score)[real]
            self.low = min(self.low, float(scores.min()))
            self.high = max(self.high, float(scores.max()))
        self._hashes.append(np.fromiter(map(hash, batch.ids), np.int64, len(batch.ids)))

    def num_repeated(self) -> int:
        """Ids that came more than once; a 64-bit hash stands for each id."""
        if not self._hashes:
            return 0
        every = np.concatenate(self._hashes)
        return int(len(every) - len(np.unique(every)))


class _Writer:
    """Pipelined writes with one expiry, a running checksum and a sample to read back."""

    def __init__(
        self,
        client: redis.Redis,
        expires_at: int,
        mget: Callable[[Sequence[str]], list[bytes | None]],
        *,
        compare: bool,
        on_progress: Progress | None,
    ) -> None:
        self._client = client
        self._expires_at = expires_at
        self._mget = mget
        self._compare = compare
        self._on_progress = on_progress
        self._rng = np.random.default_rng(0)
        self._checksum = 0
        self.num_bytes = 0
        self.num_values = 0
        self.sample: dict[str, bytes] = {}

    def write(self, stage: str, keys: Sequence[str], values: Sequence[bytes]) -> None:
        for start in range(0, len(keys), _PIPELINE):
            self._write_some(keys[start : start + _PIPELINE], values[start : start + _PIPELINE])
            if self._on_progress is not None:
                self._on_progress(stage, self.num_values)

    def _write_some(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        if self._compare:
            for key, old, new in zip(keys, self._mget(keys), values, strict=True):
                if old is not None and old != new:
                    raise PublishRefused(
                        f"key {key!r} is already published with another value; a generation never "
                        "changes, publish under a new id"
                    )
        with self._client.pipeline(transaction=False) as pipeline:
            for key, value in zip(keys, values, strict=True):
                pipeline.set(key, value, exat=self._expires_at)
            replies = pipeline.execute()
        if len(replies) != len(keys) or not all(replies):
            raise PublishRefused(f"the store took {sum(map(bool, replies))} of {len(keys)} values")
        for key, value in zip(keys, values, strict=True):
            digest = hashlib.blake2b(key.encode() + b"\0" + value, digest_size=16)
            self._checksum += int.from_bytes(digest.digest(), "little")
            self.num_bytes += len(value)
        self.num_values += len(keys)
        self._keep_sample(keys, values)

    def _keep_sample(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        """Keep a few of every pipeline; once full, a new one replaces an old one at random."""
        for position in self._rng.choice(len(keys), min(8, len(keys)), replace=False).tolist():
            if len(self.sample) >= _SAMPLE:
                victim = list(self.sample)[int(self._rng.integers(_SAMPLE))]
                del self.sample[victim]
            self.sample[keys[position]] = values[position]

    def read_back(self) -> None:
        """Read the sample and compare it with what was written.

        Raises:
            PublishRefused: a value is missing or different.
        """
        keys = list(self.sample)
        for key, found in zip(keys, self._mget(keys), strict=True):
            if found != self.sample[key]:
                state = "is missing" if found is None else "reads back different"
                raise PublishRefused(
                    f"{key!r} {state} after it was written; is the store out of memory and "
                    "evicting, or is somebody else publishing this generation?"
                )

    def checksum(self) -> str:
        """Sum of the hashes of all values, so independent of their order."""
        return hashlib.sha256(str(self._checksum).encode()).hexdigest()


def write_generation(
    client: redis.Redis,
    keys: Keys,
    publication: Publication,
    *,
    existing: Manifest | None,
    mget: Callable[[Sequence[str]], list[bytes | None]],
    on_progress: Progress | None = None,
) -> Written:
    """Write and check all values of ``publication``; the caller stores the manifest and flips.

    Args:
        client: the store.
        keys: names within the namespace.
        publication: what to write.
        existing: manifest of the same generation when it was finished before; then values are
            compared before they are written.
        mget: reads values, split by slot on a cluster.
        on_progress: called after each pipeline.

    Raises:
        ValueError: an argument is out of range.
        PublishRefused: a check failed.
        redis.RedisError: the server failed.
    """
    publication.check()
    generation = publication.generation
    num_items = len(publication.item_ids)
    if existing is not None and existing.vocabulary_sha256 != publication.vocabulary_sha256:
        raise PublishRefused(
            f"generation {generation} is already published with another vocabulary; "
            "a generation never changes, publish under a new id"
        )
    seconds = cast("tuple[int, int]", client.time())[0]
    expires_at = int(seconds) + publication.ttl_s
    writer = _Writer(
        client, expires_at, mget, compare=existing is not None, on_progress=on_progress
    )

    writer.write("items", [keys.items(generation)], [encode_ids(publication.item_ids)])
    popular = _popular_value(publication)
    writer.write("popular", [keys.popular(generation)], [popular])
    if publication.item_rows is not None:
        names = [keys.item(generation, item_id) for item_id in publication.item_ids]
        writer.write("item_rows", names, publication.item_rows)
    neighbours = _write_lists(
        writer, "neighbours", publication.neighbours, keys.neighbours, publication
    )
    users = _write_lists(writer, "users", publication.users, keys.user, publication)
    writer.read_back()
    for key, value in writer.sample.items():
        if key.startswith(f"{keys.namespace}:u:"):
            decode_candidates(value)

    manifest = Manifest(
        generation=generation,
        published_at=time.time(),
        expires_at=expires_at,
        num_users=users.count,
        num_items=num_items,
        num_neighbours=neighbours.count,
        k=users.k,
        num_empty=users.empty,
        min_score=None if users.empty == users.count else users.low,
        max_score=None if users.empty == users.count else users.high,
        source_names=publication.source_names,
        vocabulary_sha256=publication.vocabulary_sha256,
        item_schema=publication.item_schema,
        content_sha256=writer.checksum(),
    )
    if existing is not None:
        if existing.content_sha256 != manifest.content_sha256:
            raise PublishRefused(
                f"generation {generation} is already published with other users or items; "
                "a generation never changes, publish under a new id"
            )
        manifest = replace(manifest, published_at=existing.published_at)
        client.expireat(keys.alive(generation), expires_at)
    else:
        # Hidden items of an earlier, unfinished attempt must not survive: written, not merged.
        client.set(keys.alive(generation), _alive_bitmap(publication), exat=expires_at)
    return Written(manifest, writer.num_bytes, existing is not None)


def _write_lists(
    writer: _Writer,
    stage: str,
    batches: Iterable[UserBatch | tuple[Any, ...]],
    key_of: Callable[[str, str], str],
    publication: Publication,
) -> _Summary:
    summary = _Summary()
    for given in batches:
        batch = UserBatch(*given)
        shape = np.shape(batch.item_index)
        if len(shape) != 2 or shape[0] != len(batch.ids):
            raise PublishRefused(
                f"{stage}: item_index must have one row per id: got shape {list(shape)} for "
                f"{len(batch.ids)} ids"
            )
        _check_ranges(stage, batch, publication)
        try:
            values = encode_candidates(batch.item_index, batch.score, batch.source)
        except ValueError as error:
            raise PublishRefused(f"{stage}: {error}") from error
        summary.add(batch)
        writer.write(stage, [key_of(publication.generation, one) for one in batch.ids], values)
    if summary.num_repeated():
        raise PublishRefused(
            f"{stage}: {summary.num_repeated()} ids came more than once; one list per id"
        )
    if stage == "users" and summary.count == 0:
        raise PublishRefused("users: there is no user to publish; run the candidates stage first")
    return summary


def _check_ranges(stage: str, batch: UserBatch, publication: Publication) -> None:
    top = int(np.max(batch.item_index, initial=0))
    if top > len(publication.item_ids):
        raise PublishRefused(
            f"{stage}: item_index must be at most {len(publication.item_ids)} (the vocabulary), "
            f"got {top}"
        )
    source = int(np.max(batch.source, initial=0))
    if source >= len(publication.source_names):
        raise PublishRefused(
            f"{stage}: source must be below {len(publication.source_names)} "
            f"(the number of source_names), got {source}"
        )


def _popular_value(publication: Publication) -> bytes:
    item_index, score = (np.asarray(part) for part in publication.popular)
    if item_index.ndim != 1 or item_index.shape != score.shape or len(item_index) == 0:
        raise PublishRefused(
            "popular must be (item_index [P], score [P]) and not empty: got shapes "
            f"{list(item_index.shape)} and {list(score.shape)}"
        )
    if int(item_index.max()) > len(publication.item_ids):
        raise PublishRefused(
            f"popular: item_index must be at most {len(publication.item_ids)}, "
            f"got {int(item_index.max())}"
        )
    try:
        return encode_candidates(item_index[None, :], score[None, :])[0]
    except ValueError as error:
        raise PublishRefused(f"popular: {error}") from error


def _alive_bitmap(publication: Publication) -> bytes:
    mask = np.ones(len(publication.item_ids) + 1, dtype=bool)
    if publication.alive is not None:
        mask[:] = publication.alive
    mask[0] = False
    return np.packbits(mask).tobytes()
