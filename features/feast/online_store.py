"""A drop-in for Feast's Redis online store: faster reads, the ttl applied, absent rows told.

In ``feature_store.yaml``::

    online_store:
      type: features.feast.online_store.RecsysRedisOnlineStore
      connection_string: localhost:6379

Everything else about ``type: redis`` stays: its settings, its writes, the bytes in Redis. What
``get_online_features`` answers differs in three ways:

===================  ================  ==============================================
the row              ``type: redis``   here
===================  ================  ==============================================
is not there         None, PRESENT     None, NOT_FOUND
is beyond the ttl    value, PRESENT    None, OUTSIDE_MAX_AGE, with its timestamp
is there, of null    None, PRESENT     None, NULL_VALUE
===================  ================  ==============================================

Upstream: feast#6821 and #1802 (ttl). Written for Feast 0.67: `RedisOnlineStore` asks one private
method for all views of a request, and that is what is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
from feast import utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisClient, RedisOnlineStore, RedisOnlineStoreConfig
from feast.metrics import track_feature_statuses
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

from features.feast.redis_format import (
    EntityKeys,
    KeyType,
    hash_field,
    timestamp_field,
    timestamps_us,
    varint,
)
from features.feast.redis_reads import HashRequest, Reply, read_hashes, read_hashes_async
from features.moments import microseconds

__all__ = ["RecsysRedisOnlineStore", "RecsysRedisOnlineStoreConfig"]

_KEY_FIELDS = {
    "string_val": KeyType.STRING,
    "int32_val": KeyType.INT32,
    "int64_val": KeyType.INT64,
}
_NULL = b"\x98\x01\x00"  # a Value whose null_val is set


class RecsysRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Settings of `RecsysRedisOnlineStore`: those of ``type: redis``."""

    type: Literal["features.feast.online_store.RecsysRedisOnlineStore"] = (
        "features.feast.online_store.RecsysRedisOnlineStore"
    )


class _Work(NamedTuple):
    """One view of a request."""

    table: Any
    features: list[str]
    request: HashRequest
    places: Sequence[int]  # of every row of the request, which reply is its own


class RecsysRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis online store with the read path of this library."""

    def _read_features_per_fv(
        self,
        config: Any,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        work = _work(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        requests = [one.request for one in work]
        if config.online_store.client == RedisClient.glide:
            commands = [(key, one.fields) for one in requests for key in one.keys]
            replies = self._read_hash_fields(config, commands)
        else:
            replies = read_hashes(self._get_client(config.online_store), requests)
        _answer(
            online_features_response,
            work,
            replies,
            full_feature_names,
            include_feature_view_version_metadata,
        )

    async def _read_features_per_fv_async(
        self,
        config: Any,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        work = _work(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        client = await self._get_client_async(config.online_store)
        replies = await read_hashes_async(client, [one.request for one in work])
        _answer(
            online_features_response,
            work,
            replies,
            full_feature_names,
            include_feature_view_version_metadata,
        )

    def online_read(
        self,
        config: Any,
        table: Any,
        entity_keys: Any,
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Rows of one view; no values for a row that is not there or is beyond its ttl."""
        rows = super().online_read(config, table, entity_keys, requested_features)
        return [_allowed(row, table.ttl) for row in rows]

    async def online_read_async(
        self,
        config: Any,
        table: Any,
        entity_keys: Any,
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Rows of one view, as `online_read` gives them."""
        rows = await super().online_read_async(config, table, entity_keys, requested_features)
        return [_allowed(row, table.ttl) for row in rows]

    def _get_features_for_entity(
        self, values: Any, feature_view: str, requested_features: list[str]
    ) -> tuple[datetime | None, dict[str, Any] | None]:
        if values[requested_features.index(f"_ts:{feature_view}")] is None:
            return None, None
        found: tuple[datetime | None, dict[str, Any] | None] = super()._get_features_for_entity(
            values, feature_view, requested_features
        )
        return found


def _allowed(
    row: tuple[datetime | None, dict[str, Any] | None], ttl: timedelta | None
) -> tuple[datetime | None, dict[str, Any] | None]:
    time, values = row
    if time is not None and ttl and datetime.now(UTC) - time > ttl:
        return time, None
    return time, values


def _work(
    config: Any, grouped_refs: Any, join_key_values: Any, entity_name_to_join_key_map: Any
) -> list[_Work]:
    found = []
    versioning = config.registry.enable_online_feature_view_versioning
    for table, features in grouped_refs:
        values = utils._get_table_entity_values(table, entity_name_to_join_key_map, join_key_values)
        keys = _keys(config, values) if set(values) == set(table.join_keys) else None
        if keys is None:  # a key of another type, or not all of them: as Feast does it
            unique, groups, count = utils._get_unique_entities(
                table, join_key_values, entity_name_to_join_key_map
            )
            distinct = [
                serialize_entity_key(proto, config.entity_key_serialization_version)
                + config.project.encode()
                for proto in utils._get_entity_key_protos(unique)
            ]
            places = [0] * count
            for place, group in enumerate(groups):
                for row in group:
                    places[row] = place
        else:
            place_of = {key: place for place, key in enumerate(dict.fromkeys(keys))}
            distinct, places = list(place_of), [place_of[key] for key in keys]
        name = compute_versioned_name(table, versioning)
        fields = [*(hash_field(name, feature) for feature in features), timestamp_field(name)]
        found.append(_Work(table, features, HashRequest(distinct, fields), places))
    return found


def _keys(config: Any, values: dict[str, Sequence[Any]]) -> list[bytes] | None:
    """The key of every row; None where a value is not of one type that can be written here."""
    kinds, ids = {}, {}
    for name, column in values.items():
        fields = {value.WhichOneof("val") for value in column}
        field = fields.pop() if len(fields) == 1 else None
        if field not in _KEY_FIELDS:
            return None
        kinds[name] = _KEY_FIELDS[field]
        ids[name] = [getattr(value, field) for value in column]
    if config.entity_key_serialization_version != 3:
        return None
    return EntityKeys(kinds, config.project).encode(ids)


def _answer(
    response: Any,
    work: list[_Work],
    replies: Sequence[Reply],
    full_feature_names: bool,
    include_versions: bool,
) -> None:
    start, now_us = 0, microseconds(datetime.now(UTC))
    for one in work:
        stop = start + len(one.request.keys)
        _append(response, one, [replies[start + place] for place in one.places], now_us)
        start = stop
        projection = one.table.projection
        prefix = f"{projection.name_to_use()}__" if full_feature_names else ""
        response.metadata.feature_names.val.extend(prefix + feature for feature in one.features)
        name = projection.name_alias or projection.name
        known = {view.name for view in response.metadata.feature_view_metadata}
        if include_versions and name not in known:
            added = response.metadata.feature_view_metadata.add()
            added.name = name
            added.version = getattr(one.table, "current_version_number", 0) or 0


def _append(response: Any, work: _Work, rows: Sequence[Reply], now_us: int) -> None:
    """Add one vector a feature, put together from the stored bytes without parsing them."""
    *columns, stamps = zip(*rows, strict=True)
    row_status = _statuses(stamps, work.table.ttl, now_us)
    here = row_status == FieldStatus.PRESENT
    kept = None if here.all() else here.tolist()
    times = _repeated(3, [stamp or b"" for stamp in stamps])
    present = 0
    for column in columns:
        values = [value or b"" for value in column]
        if kept is not None:
            values = [value if ok else b"" for value, ok in zip(values, kept, strict=True)]
        status = row_status
        if b"" in values or _NULL in values:
            null = np.array([value in (b"", _NULL) for value in values])
            status = np.where(here & null, FieldStatus.NULL_VALUE, row_status)
        packed = status.astype(np.uint8).tobytes()
        present += packed.count(FieldStatus.PRESENT)
        vector = _repeated(1, values) + b"\x12" + varint(len(packed)) + packed + times
        response.results.add().MergeFromString(vector)
    track_feature_statuses(work.table.name, present, len(columns) * len(rows) - present)


def _statuses(stamps: Sequence[bytes | None], ttl: timedelta | None, now_us: int) -> np.ndarray:
    """[N] what Feast calls the state of a field, from the row's timestamp."""
    found = np.fromiter((stamp is not None for stamp in stamps), dtype=bool, count=len(stamps))
    status = np.where(found, FieldStatus.PRESENT, FieldStatus.NOT_FOUND)
    if ttl:
        age_us = now_us - timestamps_us([stamp for stamp in stamps if stamp is not None])
        old = np.zeros(len(stamps), dtype=bool)
        old[found] = age_us > ttl // timedelta(microseconds=1)
        status[old] = FieldStatus.OUTSIDE_MAX_AGE
    return status


def _repeated(field: int, messages: Sequence[bytes]) -> bytes:
    """Messages as a repeated field of a protobuf message."""
    tag = bytes([field << 3 | 2])
    sizes = set(map(len, messages))
    if len(sizes) == 1:
        head = tag + varint(sizes.pop())
        return head + head.join(messages)
    heads = {size: tag + varint(size) for size in sizes}
    return b"".join([heads[len(message)] + message for message in messages])
