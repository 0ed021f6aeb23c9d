"""Many hashes in one round trip, with whatever Redis client the caller has.

A plain redis-py client gets all commands as one buffer on one of its connections, which halves the
time of its own pipeline. Clusters and other clients are asked through their pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from features.errors import DataError
from features.feast.redis_format import EntityKeys

__all__ = ["HashRequest", "read_hashes", "read_hashes_async", "require_bytes", "stored_ids"]

Reply = Sequence[bytes | None]


class HashRequest(NamedTuple):
    """The same fields of several hashes.

    Attributes:
        keys: [N] one hash each.
        fields: [F] wanted of every hash.
    """

    keys: Sequence[bytes]
    fields: Sequence[bytes]


def read_hashes(client: Any, requests: Sequence[HashRequest]) -> list[Reply]:
    """HMGET of every key.

    Args:
        client: redis-py's ``Redis`` or ``RedisCluster``, or what has their ``pipeline``.
        requests: what to read.

    Returns:
        [F] values for each key of each request, in order; None where there is none.
    """
    count = sum(len(request.keys) for request in requests)
    if count == 0:
        return []
    pool = getattr(client, "connection_pool", None)
    if pool is not None and hasattr(pool, "get_connection"):
        return _on_connection(pool, b"".join(map(_commands, requests)), count)
    with client.pipeline(transaction=False) as pipe:
        _queue(pipe, requests)
        replies: list[Reply] = pipe.execute()
    return replies


async def read_hashes_async(client: Any, requests: Sequence[HashRequest]) -> list[Reply]:
    """What `read_hashes` does, with a client of ``redis.asyncio``."""
    if not any(request.keys for request in requests):
        return []
    async with client.pipeline(transaction=False) as pipe:
        _queue(pipe, requests)
        replies: list[Reply] = await pipe.execute()
    return replies


def require_bytes(client: Any) -> None:
    """Refuse a client that turns replies into text.

    Raises:
        DataError: it was made with ``decode_responses``.
    """
    encoder = getattr(client, "get_encoder", lambda: None)()
    if getattr(encoder, "decode_responses", False):
        raise DataError(
            "client must return bytes, got one with decode_responses=True; make one without it"
        )


def stored_ids(
    client: Any, keys: EntityKeys, *, limit: int, scan_limit: int = 100_000
) -> Mapping[str, list[int | str]]:
    """Ids of up to ``limit`` entities that the store holds, found by SCAN.

    Args:
        client: as in `read_hashes`.
        keys: which kind of entity.
        limit: most entities.
        scan_limit: most keys of any kind that are looked at.
    """
    found: dict[str, list[int | str]] = {name: [] for name in keys.join_keys}
    scanned = islice(client.scan_iter(count=1000), scan_limit)
    name = next(iter(keys.join_keys))
    while len(found[name]) < limit and (part := list(islice(scanned, 1000))):
        for join_key, values in keys.decode(part).items():
            found[join_key].extend(values)
    return {join_key: values[:limit] for join_key, values in found.items()}


def _queue(pipe: Any, requests: Sequence[HashRequest]) -> None:
    for request in requests:
        for key in request.keys:
            pipe.hmget(key, request.fields)


def _commands(request: HashRequest) -> bytes:
    """The request in the protocol that all servers speak (RESP)."""
    head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(request.fields))
    tail = b"".join(b"\r\n$%d\r\n%b" % (len(field), field) for field in request.fields) + b"\r\n"
    return b"".join([b"%b$%d\r\n%b%b" % (head, len(key), key, tail) for key in request.keys])


def _on_connection(pool: Any, commands: bytes, count: int) -> list[Reply]:
    connection = pool.get_connection()
    try:
        connection.send_packed_command([commands])
        read = connection.read_response
        return [read() for _ in range(count)]
    except BaseException:
        connection.disconnect()  # replies may be left in it
        raise
    finally:
        pool.release(connection)
