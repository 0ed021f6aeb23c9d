"""What the keys of a namespace take, how long they stay, and how the server fares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappush, heappushpop
from typing import Any, NamedTuple

import numpy as np
import redis

from serving.connection.calls import on_every_server, scan_pages
from serving.connection.clients import store_errors
from serving.store.estimates import Estimate, mean_of
from serving.store.keys import Keys

__all__ = ["KeyStats", "ServerStats", "StoreStats", "read_stats"]


@dataclass(frozen=True, slots=True)
class KeyStats:
    """Keys of one kind, of one generation where they belong to one.

    Attributes:
        kind: "user", "item", "session", ...; see `serving.store.keys`.
        generation: None where the kind knows none.
        keys: how many.
        without_expiry: of them, those that stay for ever.
        first_expiry_s: seconds until the first goes; None where none does.
        last_expiry_s: seconds until the last goes; None where none does.
        bytes_each: memory of one with its key, by a sample.
    """

    kind: str
    generation: str | None
    keys: int
    without_expiry: int
    first_expiry_s: int | None
    last_expiry_s: int | None
    bytes_each: Estimate | None


class ServerStats(NamedTuple):
    """The server as a whole, summed over the primaries of a cluster; counts since it started.

    Attributes:
        servers: how many.
        used_memory: bytes, of other namespaces too.
        max_memory: bytes; 0: no limit.
        policy: what it does at the limit; several where servers disagree.
        hits: reads that found their key.
        misses: reads that did not.
        evicted: keys removed for want of memory.
        expired: keys that went as planned.
    """

    servers: int
    used_memory: int
    max_memory: int
    policy: str
    hits: int
    misses: int
    evicted: int
    expired: int

    @property
    def hit_rate(self) -> float | None:
        """Share of reads that found their key; None before the first."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None


class StoreStats(NamedTuple):
    """Answer of `read_stats`."""

    keys: list[KeyStats]
    server: ServerStats


@dataclass(slots=True)
class _Group:
    count: int = 0
    without_expiry: int = 0
    first: int | None = None
    last: int | None = None
    drawn: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def sample(self) -> list[bytes]:
        """The keys that were drawn."""
        return [key for _, key in self.drawn]

    def add(self, key: bytes, ttl_s: int, size: int, number: int) -> None:
        """Count a key, and keep it while its number is among the ``size`` smallest."""
        self.count += 1
        if ttl_s < 0:
            self.without_expiry += 1
        else:
            self.first = ttl_s if self.first is None else min(self.first, ttl_s)
            self.last = ttl_s if self.last is None else max(self.last, ttl_s)
        if len(self.drawn) < size:
            heappush(self.drawn, (-number, key))
        else:
            heappushpop(self.drawn, (-number, key))


def read_stats(
    client: redis.Redis,
    keys: Keys,
    *,
    sample: int = 1000,
    rng: np.random.Generator,
    on_progress: Callable[[int], None] | None = None,
) -> StoreStats:
    """Scan the namespace once.

    Args:
        client: the store.
        keys: names within the namespace.
        sample: keys of each kind whose memory is asked for, >= 1.
        rng: draws them, whatever the order in which a scan finds them.
        on_progress: called with the number of keys of each page.

    Raises:
        ValueError: sample is below 1.
        StageUnavailable: the store is down, refuses or is too slow.
    """
    if sample < 1:
        raise ValueError(f"sample must be >= 1, got {sample}")
    groups: dict[tuple[str, str | None], _Group] = {}
    salt, prefix = rng.bytes(16), len(keys.namespace.encode())
    with store_errors("read its statistics"):
        for page in scan_pages(client, f"{keys.namespace}:*"):
            with client.pipeline(transaction=False) as pipeline:
                for key in page:
                    pipeline.ttl(key)
                for key, ttl_s in zip(page, pipeline.execute(), strict=True):
                    if ttl_s != -2:  # gone meanwhile
                        group = groups.setdefault(keys.kind_of(key), _Group())
                        # By the name within the namespace: the same draw in every namespace.
                        digest = blake2b(key[prefix:], digest_size=8, key=salt).digest()
                        group.add(key, ttl_s, sample, int.from_bytes(digest))
            if on_progress is not None:
                on_progress(len(page))
        found = [
            KeyStats(
                kind,
                generation,
                group.count,
                group.without_expiry,
                group.first,
                group.last,
                _bytes_each(client, group),
            )
            for (kind, generation), group in groups.items()
        ]
        server = _server_stats(client)
    found.sort(key=lambda one: (one.generation or "", one.kind))
    return StoreStats(found, server)


def _bytes_each(client: redis.Redis, group: _Group) -> Estimate | None:
    with client.pipeline(transaction=False) as pipeline:
        for key in group.sample:
            pipeline.memory_usage(key, samples=0)  # 0: all members of a set, no guess
        sizes = [size for size in pipeline.execute() if size is not None]
    return mean_of(sizes, total=group.count)


def _server_stats(client: redis.Redis) -> ServerStats:
    memory = on_every_server(client, "info", "memory")
    stats = on_every_server(client, "info", "stats")

    def total(parts: list[dict[str, Any]], name: str) -> int:
        return sum(int(part.get(name, 0)) for part in parts)

    return ServerStats(
        servers=len(memory),
        used_memory=total(memory, "used_memory"),
        max_memory=total(memory, "maxmemory"),
        policy=", ".join(sorted({str(part.get("maxmemory_policy", "?")) for part in memory})),
        hits=total(stats, "keyspace_hits"),
        misses=total(stats, "keyspace_misses"),
        evicted=total(stats, "evicted_keys"),
        expired=total(stats, "expired_keys"),
    )
