"""What a name in a Feast repository stands for, worked out once: the read plan.

A name is a feature view, a feature view at a version (``view@v2``) or a feature service. The plan
holds what every read needs and the registry would be asked for again: key columns and their types,
the features and their types, ttl, version, and the Parquet file when one can be read directly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import polars as pl

from features.errors import DataError
from features.sources.protocol import ViewDescription, unknown_view

__all__ = ["PlannedView", "all_views", "plan_of", "polars_type"]

_VERSIONED = re.compile(r"(.+)@v(\d+)", re.IGNORECASE)
_LOCAL_STORES = ("file", "dask", "duckdb")
_DUMMY_KEY = "__dummy_id"

_TYPES: Mapping[str, pl.DataType] = {
    "STRING": pl.String(),
    "BYTES": pl.Binary(),
    "PDF_BYTES": pl.Binary(),
    "IMAGE_BYTES": pl.Binary(),
    "BOOL": pl.Boolean(),
    "INT32": pl.Int32(),
    "INT64": pl.Int64(),
    "FLOAT32": pl.Float32(),
    "FLOAT64": pl.Float64(),
    "UNIX_TIMESTAMP": pl.Datetime("us"),
    "JSON": pl.String(),
    "UUID": pl.String(),
    "TIME_UUID": pl.String(),
    "DECIMAL": pl.String(),
}


class PlannedView(NamedTuple):
    """One view of a feature set, ready to be read.

    Attributes:
        description: name, keys and value columns as the caller sees them.
        feast: the view's object in Feast.
        join_keys: the key columns as Feast calls them, in the order of ``description.keys``.
        key_types: their types.
        timestamp: the event time's column in the batch source; None: there is no batch source.
        created: the creation time's column there; None: it has none.
        mapping: columns of the batch source by the names that Feast gives them, where they differ.
        path: the Parquet file or directory behind the view; None: only Feast can read it.
    """

    description: ViewDescription
    feast: Any
    join_keys: tuple[str, ...]
    key_types: tuple[pl.DataType, ...]
    timestamp: str | None
    created: str | None
    mapping: dict[str, str]
    path: Path | None

    @property
    def reference(self) -> str:
        """The view in a feature reference of Feast, with its version if one is pinned."""
        pinned = self.feast.projection.version_tag
        return str(self.feast.name) if pinned is None else f"{self.feast.name}@v{pinned}"

    def column(self, name: str) -> str:
        """The column of the batch source behind a name of Feast's."""
        return self.mapping.get(name, name)


def all_views(store: Any) -> list[PlannedView]:
    """Every view that is stored: batch and stream views, sorted by name."""
    return [_planned(store, view) for _, view in sorted(_stored_views(store).items())]


def plan_of(store: Any, name: str) -> tuple[PlannedView, ...]:
    """The views behind a name; a service has one or more, with the features it selects.

    Raises:
        DataError: there is nothing of that name, no such version, or an on-demand view in it.
    """
    views = _stored_views(store)
    if name in views:
        return (_planned(store, views[name]),)
    services = {service.name: service for service in store.list_feature_services()}
    if name in services:
        return tuple(
            _planned(store, _at_version(store, projection.name, projection.version_tag), projection)
            for projection in _projections(store, services[name])
        )
    if match := _VERSIONED.fullmatch(name):
        view = _at_version(store, match[1], int(match[2]))
        return (_planned(store, view, name=name),)
    _refuse_on_demand(store, name, f"view {name!r}")
    raise unknown_view(name, [*views, *services], f"the Feast project {store.project!r}")


def polars_type(feast_type: Any) -> pl.DataType:
    """The Polars type of a Feast type; Object for maps, structs and what else has none."""
    base = getattr(feast_type, "base_type", None)
    if base is not None:
        inner = polars_type(base)
        return inner if inner == pl.Object else pl.List(inner)
    return _TYPES.get(getattr(feast_type, "name", ""), pl.Object())


def _stored_views(store: Any) -> dict[str, Any]:
    """Feast's objects of the batch and stream views, by name."""
    found = [*store.list_batch_feature_views(), *store.list_stream_feature_views()]
    return {str(view.name): view for view in found}


def _planned(
    store: Any, view: Any, projection: Any = None, *, name: str | None = None
) -> PlannedView:
    projection = view.projection if projection is None else projection
    renamed = dict(projection.join_key_map)
    columns = [column for column in view.entity_columns if column.name != _DUMMY_KEY]
    source = view.batch_source
    path = _direct_path(store, view)
    features = {field.name: polars_type(field.dtype) for field in projection.features}
    pinned = projection.version_tag
    version = view.current_version_number if pinned is None else pinned
    if pinned is not None:
        view.projection.version_tag = pinned
    description = ViewDescription(
        name=name or str(projection.name_alias or projection.name),
        keys=tuple(renamed.get(column.name, column.name) for column in columns),
        columns=features,
        rows=None if path is None else _count(path),
        ttl=view.ttl if view.ttl and view.ttl > timedelta(0) else None,
        version=None if version is None else f"v{version}",
        created=bool(source is not None and source.created_timestamp_column),
    )
    return PlannedView(
        description,
        view,
        join_keys=tuple(column.name for column in columns),
        key_types=tuple(polars_type(column.dtype) for column in columns),
        timestamp=None if source is None else str(source.timestamp_field),
        created=(source.created_timestamp_column or None) if source is not None else None,
        mapping={} if source is None else {new: old for old, new in source.field_mapping.items()},
        path=path,
    )


def _direct_path(store: Any, view: Any) -> Path | None:
    """The local Parquet file that Feast's own local stores would read for the view, unchanged."""
    from feast import FileSource
    from feast.data_format import ParquetFormat

    source = view.batch_source
    if str(store.config.offline_store.type) not in _LOCAL_STORES or not isinstance(
        source, FileSource
    ):
        return None
    if type(view).__name__ == "BatchFeatureView" or view.source_views:
        return None  # computed when it is read
    if source.s3_endpoint_override or urlparse(source.path).netloc:
        return None
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        return None
    path = Path(FileSource.get_uri_for_file_path(store.repo_path, source.path))
    return path if path.exists() else None


def _count(path: Path) -> int:
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())


def _projections(store: Any, service: Any) -> list[Any]:
    known = {view.name for view in store.list_on_demand_feature_views()}
    computed = [p.name for p in service.feature_view_projections if p.name in known]
    if computed:
        _refuse_on_demand(store, computed[0], f"feature service {service.name!r}")
    return list(service.feature_view_projections)


def _refuse_on_demand(store: Any, name: str, where: str) -> None:
    if any(view.name == name for view in store.list_on_demand_feature_views()):
        raise DataError(
            f"{where} must hold stored features only, got the on-demand view {name!r}; "
            "name the views it is computed from"
        )


def _at_version(store: Any, name: str, version: int | None) -> Any:
    from feast.errors import FeastObjectNotFoundException

    try:
        if version is None:
            return store.registry.get_any_feature_view(name, store.project, allow_cache=True)
        return store.registry.get_feature_view_by_version(
            name, store.project, version, allow_cache=True
        )
    except FeastObjectNotFoundException as error:
        pinned = name if version is None else f"{name}@v{version}"
        raise DataError(
            f"view {pinned!r} must exist in the Feast project {store.project!r}: {error}; "
            "`feast feature-views list-versions` shows its versions"
        ) from error
