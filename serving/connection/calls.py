"""Calls that a server and a cluster take in different ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

import redis

from serving.connection.clients import store_errors

__all__ = [
    "OTHER_TYPE",
    "PAGE",
    "compare_and_set",
    "count_existing",
    "in_blocks",
    "mget",
    "on_every_server",
    "scan_pages",
    "server_time",
]

PAGE = 1000
"""Keys of one pipeline or of one step of a scan."""
OTHER_TYPE = b"OTHER TYPE"
"""What a key that holds no text compares equal to in `compare_and_set`."""
T = TypeVar("T")

# One key only, so it runs on a cluster. An absent key compares equal to the empty string, and one
# that holds a list or the like to `OTHER_TYPE`.
_COMPARE_AND_SET = """
local current = redis.pcall('GET', KEYS[1]) or ''
if type(current) == 'table' then current = 'OTHER TYPE' end
if current ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'EXAT', ARGV[3])
end
return 1
"""


def is_cluster(client: redis.Redis) -> bool:
    """True for a client that spreads keys over several servers."""
    return hasattr(client, "mget_nonatomic")


def mget(client: redis.Redis, keys: Sequence[str]) -> list[bytes | None]:
    """Values in the order of ``keys``, split by slot on a cluster.

    Raises:
        StageUnavailable: the store is down, refuses or is too slow.
    """
    if not keys:
        return []
    read = getattr(client, "mget_nonatomic", client.mget)
    with store_errors("read"):
        return cast("list[bytes | None]", read(keys))


def count_existing(client: redis.Redis, keys: Sequence[str]) -> int:
    """How many of ``keys`` are there; a key given twice counts twice."""
    if not keys:
        return 0
    if not is_cluster(client):
        return cast(int, client.exists(*keys))
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        return sum(pipeline.execute())


def compare_and_set(
    client: redis.Redis, key: str, expected: bytes, value: bytes, expires_at: int | None = None
) -> bool:
    """Set ``key`` if it holds ``expected`` (b"": if it is absent); False when it does not.

    Args:
        client: the store.
        key: one key.
        expected: what it must hold.
        value: what it holds afterwards.
        expires_at: seconds since the epoch at which it goes. None: it stays.
    """
    arguments = (expected, value, "" if expires_at is None else expires_at)
    return bool(client.eval(_COMPARE_AND_SET, 1, key, *cast("tuple[Any, ...]", arguments)))


def server_time(client: redis.Redis) -> int:
    """Seconds since the epoch on the server, whose clock decides when keys go."""
    return int(cast("tuple[int, int]", client.time())[0])


def scan_pages(
    client: redis.Redis, pattern: str, *, limit: int | None = None
) -> Iterator[list[bytes]]:
    """Keys that match ``pattern`` in lists of up to `PAGE`; a key may come twice.

    Args:
        client: the store; of a cluster every primary is scanned.
        pattern: as of SCAN MATCH.
        limit: stop after so many keys. None: all.
    """
    found = cast("Iterator[bytes]", client.scan_iter(match=pattern, count=PAGE))
    yield from in_blocks(found if limit is None else islice(found, limit))


def in_blocks(values: Iterable[T], size: int = PAGE) -> Iterator[list[T]]:
    """``values`` in lists of ``size``, the last one shorter."""
    iterator = iter(values)
    while block := list(islice(iterator, size)):
        yield block


def on_every_server(client: redis.Redis, method: str, *arguments: Any) -> list[dict[str, Any]]:
    """What every primary answers to ``info`` or ``config_get``, one answer without a cluster."""
    call = getattr(client, method)
    if not is_cluster(client):
        return [call(*arguments)]
    primaries = cast(Any, client).PRIMARIES
    return list(call(*arguments, target_nodes=primaries).values())
