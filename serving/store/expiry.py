"""Moves the moment at which the keys of a generation go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import redis

from serving.connection.calls import scan_pages, server_time
from serving.store.generation_writer import Progress
from serving.store.keys import Keys
from serving.store.manifest import Manifest
from serving.store.write_lock import WriteLock

__all__ = ["renew_expiry"]


def renew_expiry(
    client: redis.Redis,
    keys: Keys,
    manifest: Manifest,
    ttl_s: int,
    *,
    replace_manifest: Callable[[Manifest], None],
    lock: WriteLock,
    on_progress: Progress | None = None,
) -> Manifest:
    """Give every key of a generation the same new expiry, by a scan of the store.

    The manifest, which makes a generation readable, never outlives a value: it is replaced first
    when the generation is to go sooner, and last when it is to stay longer.

    Args:
        client: the store.
        keys: names within the namespace.
        manifest: of the generation.
        ttl_s: seconds from now.
        replace_manifest: stores the new manifest with its own expiry.
        lock: of the generation, held.
        on_progress: called after each page with "expiry" and the number of keys so far.

    Returns:
        The new manifest.

    Raises:
        PublishRefused: the lock was lost, or the manifest changed.
        redis.RedisError: the server failed.
    """
    after = replace(manifest, expires_at=server_time(client) + ttl_s)
    if after.expires_at < manifest.expires_at:
        replace_manifest(after)
    generation = manifest.generation
    single = [keys.items(generation), keys.popular(generation), keys.alive(generation)]
    count = _expire(client, [key.encode() for key in single], after.expires_at)
    for pattern in keys.patterns(generation):
        for page in scan_pages(client, pattern):
            lock.check()
            count += _expire(client, page, after.expires_at)
            if on_progress is not None:
                on_progress("expiry", count)
    if after.expires_at >= manifest.expires_at:
        replace_manifest(after)
    return after


def _expire(client: redis.Redis, names: list[bytes], moment: int) -> int:
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.expireat(name, moment)
        return sum(pipeline.execute())
