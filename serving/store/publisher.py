"""Writes the values of one generation and checks them, without touching the head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import redis

from serving.connection.calls import server_time
from serving.errors import PublishRefused
from serving.store.candidate_codec import decode_candidates
from serving.store.generation_writer import GenerationWriter, Progress, content_sha256
from serving.store.id_list_codec import encode_ids
from serving.store.keys import Keys
from serving.store.list_batches import ListSummary, encode_batches, encode_one
from serving.store.manifest import Manifest
from serving.store.publication import Publication, UserBatch
from serving.store.publish_marker import PublishMarker
from serving.store.reads import alive_bitmap
from serving.store.write_lock import WriteLock

__all__ = ["Progress", "Written", "write_generation"]


class Written(NamedTuple):
    """What `write_generation` returns; the manifest is not stored yet.

    Attributes:
        manifest: of the generation.
        num_bytes: of the values written now.
        num_values: of the generation.
        num_resumed: values that were there before.
        num_hidden: candidates of users that the bitmap hides.
        refreshed: the generation was finished before.
    """

    manifest: Manifest
    num_bytes: int
    num_values: int
    num_resumed: int
    num_hidden: int
    refreshed: bool


def write_generation(
    client: redis.Redis,
    keys: Keys,
    publication: Publication,
    *,
    existing: Manifest | None,
    lock: WriteLock,
    on_progress: Progress | None = None,
) -> Written:
    """Write and check all values of ``publication``; the caller stores the manifest and flips.

    Args:
        client: the store.
        keys: names within the namespace.
        publication: what to write.
        existing: manifest of the same generation when it was finished before; then values are
            compared before they are written.
        lock: of the generation, held.
        on_progress: called after each block.

    Raises:
        PublishRefused: a check failed, or the lock was lost.
        redis.RedisError: the server failed.
    """
    generation = publication.generation
    if existing is not None and existing.vocabulary_sha256 != publication.vocabulary_sha256:
        raise PublishRefused(
            f"generation {generation} is already published with another vocabulary; "
            "a generation never changes, publish under a new id"
        )
    now = server_time(client)
    expires_at = now + publication.ttl_s
    marker, progress = None, keys.progress(generation)
    if existing is None:
        marker = PublishMarker(client, progress, now=now, ttl_s=publication.ttl_s)
        expires_at = marker.expires_at
    writer = GenerationWriter(
        client, lock=lock, marker=marker, expires_at=expires_at, on_progress=on_progress
    )
    neighbours, users = _write_values(writer, keys, publication)
    if marker is not None:
        marker.finish()
    # Of a finished generation: what an interrupted delta added is not part of this input.
    if client.exists(progress) if marker is None else marker.has_strays:
        writer.remove_strays(keys.patterns(generation))
    _verify(writer, keys, publication)
    manifest = Manifest(
        generation=generation,
        published_at=time.time(),
        expires_at=expires_at,
        num_users=users.count,
        num_items=len(publication.item_ids),
        num_neighbours=neighbours.count,
        k=users.k,
        num_empty=users.empty,
        min_score=None if users.empty == users.count else users.low,
        max_score=None if users.empty == users.count else users.high,
        source_names=publication.source_names,
        vocabulary_sha256=publication.vocabulary_sha256,
        item_schema=publication.item_schema,
        content_sha256=content_sha256(writer.checksum),
        segments=tuple(publication.popular_segments),
        content_sum=str(writer.checksum),
    )
    if existing is None:
        _write_alive(client, keys, publication, expires_at)
    else:
        manifest = _refreshed(existing, manifest)
        client.expireat(keys.alive(generation), expires_at)
        client.unlink(progress)
    return Written(
        manifest,
        writer.num_bytes,
        writer.num_values,
        writer.num_resumed,
        users.hidden,
        existing is not None,
    )


def _write_values(
    writer: GenerationWriter, keys: Keys, publication: Publication
) -> tuple[ListSummary, ListSummary]:
    """Write all of it; what the neighbours' and the users' lists have in common."""
    generation, num_items = publication.generation, len(publication.item_ids)
    writer.write("items", [keys.items(generation)], [encode_ids(publication.item_ids)])
    popular = encode_one("popular", publication.popular, num_items)
    writer.write("popular", [keys.popular(generation)], [popular])
    segments = publication.popular_segments
    writer.write(
        "popular_segments",
        [keys.popular_of(generation, segment) for segment in segments],
        [
            encode_one(f"popular_segments[{segment!r}]", lists, num_items)
            for segment, lists in segments.items()
        ],
    )
    if publication.item_rows is not None:
        names = [keys.item(generation, item_id) for item_id in publication.item_ids]
        writer.write("item_rows", names, publication.item_rows)
    neighbours = _write_lists(
        writer, "neighbours", publication.neighbours, keys.neighbours, publication
    )
    users = _write_lists(writer, "users", publication.users, keys.user, publication)
    if users.count == 0:
        raise PublishRefused("users: there is no user to publish; run the candidates stage first")
    return neighbours, users


def _write_lists(
    writer: GenerationWriter,
    stage: str,
    batches: Iterable[UserBatch | tuple[Any, ...]],
    key_of: Callable[[str, str], str],
    publication: Publication,
) -> ListSummary:
    summary = ListSummary(publication.alive)
    for encoded in encode_batches(
        stage,
        batches,
        num_items=len(publication.item_ids),
        num_sources=len(publication.source_names),
    ):
        summary.add(encoded)
        names = [key_of(publication.generation, one) for one in encoded.batch.ids]
        writer.write(stage, names, encoded.values)
    if writer.num_repeated(stage):
        raise PublishRefused(
            f"{stage}: {writer.num_repeated(stage)} ids came more than once; one list per id"
        )
    return summary


def _verify(writer: GenerationWriter, keys: Keys, publication: Publication) -> None:
    """Read a sample back; refuse a fallback list of hidden items alone."""
    writer.read_back()
    for key, value in writer.sample.items():
        if key.startswith(f"{keys.namespace}:u:"):
            decode_candidates(value)
    alive = publication.alive
    if alive is not None and not alive[np.asarray(publication.popular[0])].any():
        raise PublishRefused(
            f"popular: alive hides all {len(publication.popular[0])} items of the fallback list, "
            "so unknown users would get nothing; show some, or publish another list"
        )


def _write_alive(
    client: redis.Redis, keys: Keys, publication: Publication, expires_at: int
) -> None:
    """Write the bitmap and read it back.

    Hidden items of an earlier, unfinished attempt must not survive: written, not merged.
    """
    alive = publication.alive
    bitmap = alive_bitmap(np.ones(len(publication.item_ids) + 1) if alive is None else alive)
    key = keys.alive(publication.generation)
    client.set(key, bitmap, exat=expires_at)
    if cast("bytes | None", client.get(key)) != bitmap:
        raise PublishRefused(
            f"the bitmap of recommendable items {key!r} reads back different; is somebody else "
            "publishing or hiding items of this generation?"
        )


def _refreshed(existing: Manifest, manifest: Manifest) -> Manifest:
    if existing.content_sha256 != manifest.content_sha256:
        raise PublishRefused(
            f"generation {manifest.generation} is already published with other users or items; "
            "a generation never changes as a whole: publish under a new id, or the changed users "
            "alone with `recsys publish --delta`"
        )
    return replace(manifest, published_at=existing.published_at, revision=existing.revision)
