"""Feast definitions of the views a bundle is published as, written into a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError
from features.sources.publishing import IMPRESSION_SCHEMA
from features.tables import ITEM, TIMESTAMP, USER
from features.whole_files import whole_file

__all__ = ["DEFINITIONS_FILE", "declared_id_types", "write_feast_views"]

DEFINITIONS_FILE = "recsys_views.py"
_HEAD = '''\
"""Views that `recsys features publish` writes. Edit what you like, but not the types of the ids."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int32, String

DATA = Path(__file__).parent / "data"

recsys_user = Entity(name="recsys_user", join_keys=["user_id"], value_type=ValueType.{user})
recsys_item = Entity(name="recsys_item", join_keys=["item_id"], value_type=ValueType.{item})
'''
_VIEW = """
{view} = FeatureView(
    name="{view}",
    entities=[{entities}],
    ttl=timedelta(0),
    online={online},
    schema=[
{fields}
    ],
    source=FileSource(
        name="{view}_file", path=str(DATA / "{view}.parquet"), timestamp_field="timestamp"
    ),
)
"""
_ENTITIES = {USER: "recsys_user", ITEM: "recsys_item"}
_TYPES: dict[pl.DataType, tuple[str, pa.DataType]] = {
    pl.String(): ("String", pa.string()),
    pl.Float32(): ("Float32", pa.float32()),
    pl.Int32(): ("Int32", pa.int32()),
}
_ID_TYPES = {"STRING": pa.string(), "INT32": pa.int32(), "INT64": pa.int64()}


def declared_id_types(repository: Path) -> dict[str, str]:
    """Feast's types of "user_id" and "item_id" in a repository's views, where they have these keys.

    An id of two types has two keys online, so what is written back takes the type that is there.

    Raises:
        DataError: there is no repository, or Feast is not installed.
    """
    from features.feast.plan import all_views
    from features.feast.source import FeastSource

    names = {pl.String(): "STRING", pl.Int32(): "INT32", pl.Int64(): "INT64"}
    return {
        key: names[dtype]
        for view in all_views(FeastSource(repository).store)
        for key, dtype in zip(view.join_keys, view.key_types, strict=True)
        if key in _ENTITIES and dtype in names
    }


def write_feast_views(
    repository: Path,
    schemas: Mapping[str, Mapping[str, pl.DataType]],
    *,
    prefix: str,
    id_types: Mapping[str, str] | None = None,
) -> list[str]:
    """Write definitions of the views and of the impressions into a Feast repository.

    Feast cannot write to a file that is not there, so each view also gets an empty one in ``data``.
    Run ``feast apply`` afterwards. Files that exist are left alone.

    Args:
        repository: its directory.
        schemas: columns of each view, as they are published.
        prefix: of the impressions view's name.
        id_types: what `declared_id_types` found. None: ids are text.

    Returns:
        Names of the views.

    Raises:
        DataError: there is no repository, or the definitions exist already and are others.
    """
    if not (repository / "feature_store.yaml").is_file():
        raise DataError(f"{repository} must be a Feast repository, but has no feature_store.yaml")
    wanted = {**schemas, f"{prefix}impressions": IMPRESSION_SCHEMA}
    types = {USER: "STRING", ITEM: "STRING", **(id_types or {})}
    text = _HEAD.format(user=types[USER], item=types[ITEM])
    text += "".join(
        _definition(view, schema, online=schema is not IMPRESSION_SCHEMA)
        for view, schema in wanted.items()
    )
    target = repository / DEFINITIONS_FILE
    if target.is_file() and target.read_text(encoding="utf-8") != text:
        raise DataError(f"{target} must not be there or be unedited; move it away to write it anew")
    with whole_file(target) as draft:
        draft.write_text(text, encoding="utf-8")
    (repository / "data").mkdir(exist_ok=True)
    for view, schema in wanted.items():
        path = repository / "data" / f"{view}.parquet"
        if not path.exists():
            with whole_file(path) as draft:
                pq.write_table(pa.schema(_arrow(schema, types)).empty_table(), draft)
    return list(wanted)


def _definition(view: str, schema: Mapping[str, pl.DataType], *, online: bool) -> str:
    keys = [name for name in _ENTITIES if name in schema]
    fields = [
        f'        Field(name="{name}", dtype={_feast_type(dtype)}),'
        for name, dtype in schema.items()
        if name not in (*keys, TIMESTAMP)
    ]
    entities = ", ".join(_ENTITIES[key] for key in keys)
    return _VIEW.format(view=view, entities=entities, online=online, fields="\n".join(fields))


def _feast_type(dtype: pl.DataType) -> str:
    if _is_json(dtype):
        return "String"
    if isinstance(dtype, pl.List | pl.Array):
        return f"Array({_TYPES[_inner(dtype)][0]})"
    return _TYPES[dtype][0]


def _arrow(
    schema: Mapping[str, pl.DataType], id_types: Mapping[str, str]
) -> Sequence[tuple[str, pa.DataType]]:
    found = []
    for name, dtype in schema.items():
        if name in id_types:
            found.append((name, _ID_TYPES[id_types[name]]))
        elif isinstance(dtype, pl.Datetime):
            found.append((name, pa.timestamp("us", "UTC")))
        elif _is_json(dtype):
            found.append((name, pa.string()))
        elif isinstance(dtype, pl.List | pl.Array):
            found.append((name, pa.list_(_TYPES[_inner(dtype)][1])))
        else:
            found.append((name, _TYPES[dtype][1]))
    return found


def _is_json(dtype: pl.DataType) -> bool:
    """Lists of text are published as JSON: Feast 0.67's file store cannot append them."""
    return isinstance(dtype, pl.List) and _inner(dtype) == pl.String()


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()
