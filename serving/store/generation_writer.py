"""Writes values under one generation, block by block, and can prove what the store holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import redis

from serving.connection.calls import PAGE, count_existing, mget, scan_pages
from serving.errors import PublishRefused
from serving.store.publish_marker import DIGEST_BYTES, PublishMarker
from serving.store.write_lock import WriteLock

__all__ = ["GenerationWriter", "Progress", "content_sha256", "value_digest"]

Progress = Callable[[str, int], None]

_SAMPLE = 256


class GenerationWriter:
    """Pipelined writes with one expiry, a running checksum and a sample to read back.

    Args:
        client: the store.
        lock: held by this writer.
        marker: of an unfinished generation: blocks it knows are not written again. None: the
            generation is finished; every value is compared with what is there, and its expiry is
            renewed.
        expires_at: seconds since the epoch at which every value goes.
        on_progress: called after each block with the stage and the number of values so far.

    Attributes:
        num_bytes: of the values written by this writer.
        num_values: of all values, those that were there before included.
        num_resumed: values that were there before and were not written again.
        checksum: sum of the hashes of all values, so independent of their order.
        sample: some of the values by their key.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        lock: WriteLock,
        marker: PublishMarker | None,
        expires_at: int,
        on_progress: Progress | None,
    ) -> None:
        self._client = client
        self._lock = lock
        self._marker = marker
        self._expires_at = expires_at
        self._on_progress = on_progress
        self._rng = np.random.default_rng(0)
        self._hashes: dict[str, list[np.ndarray]] = {}
        self.num_bytes = 0
        self.num_values = 0
        self.num_resumed = 0
        self.checksum = 0
        self.sample: dict[str, bytes] = {}

    def write(self, stage: str, keys: Sequence[str], values: Sequence[bytes]) -> None:
        """Put ``values`` under ``keys``, or find that they are there.

        Raises:
            PublishRefused: the lock is lost, the store did not take a value, or a finished
                generation has another value.
        """
        for start in range(0, len(keys), PAGE):
            self._write_block(stage, keys[start : start + PAGE], values[start : start + PAGE])
            if self._on_progress is not None:
                self._on_progress(stage, self.num_values)

    def num_repeated(self, stage: str) -> int:
        """Keys of a stage that came more than once; a 64-bit hash stands for each."""
        every = np.concatenate(self._hashes.get(stage, [np.zeros(0, np.int64)]))
        return int(len(every) - len(np.unique(every)))

    def read_back(self) -> None:
        """Read the sample and compare it with what was written.

        Raises:
            PublishRefused: a value is missing or different.
        """
        keys = list(self.sample)
        for key, found in zip(keys, mget(self._client, keys), strict=True):
            if found != self.sample[key]:
                state = "is missing" if found is None else "reads back different"
                raise PublishRefused(
                    f"{key!r} {state} after it was written; is the store out of memory and "
                    "evicting, or is somebody else publishing this generation?"
                )

    def remove_strays(self, patterns: Sequence[str]) -> int:
        """Remove keys that match and were not written: those of an earlier attempt's other input.

        Returns:
            How many there were.
        """
        written = np.sort(
            np.concatenate([part for parts in self._hashes.values() for part in parts])
        )
        removed = 0
        for pattern in patterns:
            for page in scan_pages(self._client, pattern):
                hashes = _hashes(page)
                place = np.minimum(np.searchsorted(written, hashes), len(written) - 1)
                strays = [page[row] for row in np.flatnonzero(written[place] != hashes).tolist()]
                if strays:
                    self._lock.check()
                    with self._client.pipeline(transaction=False) as pipeline:
                        for key in strays:
                            pipeline.unlink(key)
                        removed += sum(pipeline.execute())
        return removed

    def _write_block(self, stage: str, keys: Sequence[str], values: Sequence[bytes]) -> None:
        self._lock.check()
        names = [key.encode() for key in keys]
        digests = [value_digest(name, value) for name, value in zip(names, values, strict=True)]
        self.checksum += sum(int.from_bytes(digest, "little") for digest in digests)
        self._hashes.setdefault(stage, []).append(_hashes(names))
        if self._marker is None:
            self._compare(keys, values)
        else:
            block = hashlib.blake2b(b"".join(digests), digest_size=DIGEST_BYTES).digest()
            if self._marker.begin(block) and count_existing(self._client, keys) == len(keys):
                self.num_resumed += len(keys)
            else:
                self._send(dict(zip(keys, values, strict=True)))
        self.num_values += len(keys)
        self._keep_sample(keys, values)

    def _send(self, values: dict[str, bytes]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            put = cast(Any, pipeline).execute_command  # `set` takes the client two thirds longer
            for key, value in values.items():
                put("SET", key, value, "EXAT", self._expires_at)
            replies = pipeline.execute()
        if len(replies) != len(values) or not all(replies):
            raise PublishRefused(
                f"the store took {sum(map(bool, replies))} of {len(values)} values"
            )
        self.num_bytes += sum(map(len, values.values()))

    def _compare(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        """Renew the expiry of values that are as they should be, and write those that are gone."""
        missing, there = {}, []
        for key, old, new in zip(keys, mget(self._client, keys), values, strict=True):
            if old is None:
                missing[key] = new
            elif old == new:
                there.append(key)
            else:
                raise PublishRefused(
                    f"key {key!r} is already published with another value; a generation never "
                    "changes as a whole: publish under a new id, or the changed users alone with "
                    "`recsys publish --delta`"
                )
        with self._client.pipeline(transaction=False) as pipeline:
            for key in there:
                pipeline.expireat(key, self._expires_at)
            pipeline.execute()
        self.num_resumed += len(there)
        if missing:
            self._send(missing)

    def _keep_sample(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        """Keep a few of every block; once full, a new one replaces an old one at random."""
        for position in self._rng.choice(len(keys), min(8, len(keys)), replace=False).tolist():
            if len(self.sample) >= _SAMPLE:
                victim = list(self.sample)[int(self._rng.integers(_SAMPLE))]
                del self.sample[victim]
            self.sample[keys[position]] = values[position]


def value_digest(key: bytes, value: bytes) -> bytes:
    """16 bytes that stand for a key and its value."""
    return hashlib.blake2b(key + b"\0" + value, digest_size=DIGEST_BYTES).digest()


def content_sha256(checksum: int) -> str:
    """Of the sum of the digests of all values, read as little-endian numbers."""
    return hashlib.sha256(str(checksum).encode()).hexdigest()


def _hashes(keys: Sequence[bytes]) -> np.ndarray:
    return np.fromiter(map(hash, keys), np.int64, len(keys))
