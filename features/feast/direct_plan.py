"""What a direct read of Feast's Redis hashes reads, resolved once by Feast itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from features.errors import DataError
from features.feast.redis_format import (
    EntityKeys,
    KeyType,
    hash_field,
    timestamp_field,
    timestamps_us,
)
from features.feast.redis_reads import Reply
from features.feast.values import ValueColumn
from features.moments import microseconds
from features.packing.schema import FeatureBlock

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["Ids", "ReadPlan", "ViewPlan", "compile_plan"]

Ids = Sequence[object] | np.ndarray | Mapping[str, Sequence[object] | np.ndarray]


class ViewPlan(NamedTuple):
    """What is read of one view.

    Attributes:
        name: the view as Feast names it in answers.
        stored_name: its name in the hash fields, with the version where Feast adds one.
        columns: the features.
        ttl: how old a row may be. None: any age.
    """

    name: str
    stored_name: str
    columns: tuple[ValueColumn, ...]
    ttl: timedelta | None

    @property
    def fields(self) -> list[bytes]:
        """Hash fields: one a feature, then the timestamp."""
        features = [hash_field(self.stored_name, column.name) for column in self.columns]
        return [*features, timestamp_field(self.stored_name)]


class ReadPlan(NamedTuple):
    """Views of one kind of entity, resolved.

    Attributes:
        features: what was asked for: a feature service, or references "view:feature".
        keys: how the entity's keys are written.
        views: the views, in the order of Feast's answer.
    """

    features: str | tuple[str, ...]
    keys: EntityKeys
    views: tuple[ViewPlan, ...]

    def columns_of(self, ids: Ids) -> Mapping[str, Sequence[object] | np.ndarray]:
        """Ids by join key; a plain sequence is the only join key's.

        Raises:
            DataError: a plain sequence, but several join keys.
        """
        if isinstance(ids, Mapping):
            return ids
        if len(self.keys.join_keys) > 1:
            raise DataError(
                f"ids must be a mapping of {', '.join(sorted(self.keys.join_keys))}, got one "
                "sequence; give a sequence for each"
            )
        return {next(iter(self.keys.join_keys)): ids}

    def decode(self, rows: Sequence[Reply], moment: datetime | None) -> dict[str, FeatureBlock]:
        """Blocks by view of the replies; see `DirectReader.read`."""
        width = sum(len(view.columns) + 1 for view in self.views)
        columns = list(zip(*rows, strict=True)) if rows else [()] * width
        now_us = microseconds(moment or datetime.now(UTC))
        blocks, place = {}, 0
        for view in self.views:
            stop = place + len(view.columns)
            state = _row_state(columns[stop], view.ttl, now_us, later=moment is None)
            blocks[view.name] = _block(view, columns[place:stop], *state)
            place = stop + 1
        return blocks


def compile_plan(
    store: FeatureStore,
    features: str | Sequence[str],
    *,
    widths: Mapping[str, int] | None = None,
    exact: Collection[str] = (),
) -> ReadPlan:
    """Resolve what to read, as Feast's ``get_online_features`` does.

    Args:
        store: the feature store.
        features: name of a feature service, or references "view:feature".
        widths: length of a list feature by its name, to get it as [N, width].
        exact: names of whole-number features wanted as Python ints, not as floats.

    Raises:
        DataError: the online store is not Redis, views of different or renamed entities, an
            on-demand view, or a join key that is neither a string nor a whole number.
    """
    from feast import utils
    from feast.infra.online_stores.helpers import compute_versioned_name
    from feast.infra.online_stores.redis import RedisOnlineStoreConfig

    if not features:
        raise DataError("features must name a feature service or references, got none")
    config = store.config
    if not isinstance(config.online_store, RedisOnlineStoreConfig):
        kind = getattr(config.online_store, "type", type(config.online_store).__name__)
        raise DataError(
            f"online_store must be Redis to be read directly, got {kind!r}; read it through Feast"
        )
    if config.entity_key_serialization_version != 3:
        raise DataError(
            "entity_key_serialization_version must be 3, got "
            f"{config.entity_key_serialization_version}; set it and materialize again"
        )
    asked = store.get_feature_service(features) if isinstance(features, str) else list(features)
    context = utils._get_online_request_context(store.registry, store.project, asked, True)
    on_demand, grouped = context[1], context[5]
    if on_demand:
        raise DataError(
            f"features must be stored, got the on-demand view {on_demand[0].name!r}; read it "
            "through Feast"
        )
    keys = {view.name: _keys_of(store, view) for view, _ in grouped}
    first = next(iter(keys))
    for name, own in keys.items():
        if own != keys[first]:
            raise DataError(
                f"features must be of one entity: view {first!r} has {', '.join(keys[first])}, "
                f"{name!r} has {', '.join(own)}; make one reader for each"
            )
    versioning = config.registry.enable_online_feature_view_versioning
    views = tuple(
        ViewPlan(
            view.projection.name_to_use(),
            compute_versioned_name(view, versioning),
            _columns_of(view, names, widths or {}, exact),
            view.ttl or None,
        )
        for view, names in grouped
    )
    request = features if isinstance(features, str) else tuple(features)
    return ReadPlan(request, EntityKeys(keys[first], store.project), views)


def _row_state(
    stamps: Sequence[bytes | None], ttl: timedelta | None, now_us: int, *, later: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows hold, and the age in seconds of those that are there."""
    count = len(stamps)
    found = np.fromiter((stamp is not None for stamp in stamps), dtype=bool, count=count)
    age_us = now_us - timestamps_us([stamp for stamp in stamps if stamp is not None])
    age_s = np.full(count, np.nan)
    age_s[found] = age_us / 1e6
    present = found.copy()
    if ttl is not None:
        present[found] = age_us <= ttl // timedelta(microseconds=1)
    if not later:
        present[found] &= age_us >= 0
    return present, age_s


def _block(
    view: ViewPlan,
    columns: Sequence[Sequence[bytes | None]],
    present: np.ndarray,
    age_s: np.ndarray,
) -> FeatureBlock:
    if bool(present.all()):
        values = {
            column.name: column.decode(messages)
            for column, messages in zip(view.columns, columns, strict=True)
        }
        return FeatureBlock(values, present, age_s)
    values, kept = {}, np.flatnonzero(present).tolist()
    for column, messages in zip(view.columns, columns, strict=True):
        values[column.name] = column.empty(len(present))
        if kept:
            values[column.name][present] = column.decode([messages[place] for place in kept])
    return FeatureBlock(values, present, age_s)


def _keys_of(store: FeatureStore, view: Any) -> dict[str, KeyType]:
    if view.projection.join_key_map:
        raise DataError(
            f"view {view.name!r} must keep its join keys, got the renaming "
            f"{view.projection.join_key_map}; read it through Feast"
        )
    found = {}
    for column in view.entity_columns:
        kind = column.dtype.to_value_type().name
        if kind not in KeyType.__members__:
            raise DataError(
                f"join key {column.name!r} must be one of {', '.join(KeyType.__members__)} to be "
                f"read directly, got {kind}; read view {view.name!r} through Feast"
            )
        found[column.name] = KeyType[kind]
    return dict(sorted(found.items()))


def _columns_of(
    view: Any, names: Sequence[str], widths: Mapping[str, int], exact: Collection[str]
) -> tuple[ValueColumn, ...]:
    fields = {field.name: field for field in view.features}
    return tuple(
        ValueColumn(
            name,
            fields[name].dtype.to_value_type().name,
            widths.get(name) or fields[name].vector_length or None,
            name in exact,
        )
        for name in names
    )
