"""Reading a view out of Feast's online store, whichever it is: the portable tier.

The plan knows the view, so the store's own ``online_read`` is asked, the call that
``get_online_features`` ends in for any store; the registry is not walked. A row is there when it
has a time or a value: with Redis, Feast reports ids it does not know as PRESENT.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from features.errors import DataError
from features.feast.plan import PlannedView
from features.moments import EPOCH, utc
from features.sources.point_in_time import as_id, ids_frame
from features.sources.protocol import Id
from features.tables.schema import TIMESTAMP

__all__ = ["read_online"]


def read_online(
    store: Any, planned: PlannedView, ids: Sequence[Id] | Sequence[tuple[Id, ...]], moment: datetime
) -> pl.DataFrame:
    """What the online store holds at a moment, within the view's ttl.

    Args:
        store: the ``FeatureStore``.
        planned: the view.
        ids: C ids, or C tuples of one id a key column.
        moment: UTC without a zone.

    Returns:
        C rows of ``timestamp`` and the view's values; null where nothing holds.

    Raises:
        DataError: the view is not online, or the store cannot be read.
    """
    view = planned.description
    if not planned.feast.online:
        raise DataError(
            f"view {view.name!r} must be online to be read, but has online=False; set it, apply "
            "and materialize"
        )
    asked = ids_frame(view, ids)
    asked = asked.select(
        as_id(name, pl.String(), wanted)
        for name, wanted in zip(view.keys, planned.key_types, strict=True)
    )
    places = [place for place, row in enumerate(asked.iter_rows()) if None not in row]
    answers = _read(store, planned, asked[places])
    times: list[datetime | None] = [None] * asked.height
    held: list[Any] = [None] * asked.height
    for place, (time, values) in zip(places, answers, strict=True):
        row_time = _row_time(time, values)
        if row_time is None or row_time > moment:
            continue
        if view.ttl is not None and row_time < moment - view.ttl:
            continue
        times[place], held[place] = row_time, values
    columns = [_column(name, dtype, held) for name, dtype in view.columns.items()]
    return pl.DataFrame([pl.Series(TIMESTAMP, times, pl.Datetime("us")), *columns])


def _read(store: Any, planned: PlannedView, asked: pl.DataFrame) -> list[tuple[Any, Any]]:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    if not asked.height:
        return []
    types = {column.name: column.dtype.to_value_type() for column in planned.feast.entity_columns}
    parts = [
        python_values_to_proto_values(asked[ours].to_list(), types[theirs])
        for ours, theirs in zip(planned.description.keys, planned.join_keys, strict=True)
    ]
    keys = [
        EntityKey(join_keys=planned.join_keys, entity_values=values)
        for values in zip(*parts, strict=True)
    ]
    try:
        answers = store.provider.online_read(
            config=store.config,
            table=planned.feast,
            entity_keys=keys,
            requested_features=list(planned.description.columns),
        )
    except Exception as error:
        raise DataError(
            f"Feast could not read view {planned.description.name!r} from the online store: "
            f"{type(error).__name__}: {error}"
        ) from error
    return list(answers)


def _row_time(time: datetime | None, values: Any) -> datetime | None:
    """The row's time in UTC; None where there is no row. 1970 with no value at all is no row."""
    if time is None or values is None:
        return None
    naive = utc(time)
    if naive == EPOCH and all(value.WhichOneof("val") is None for value in values.values()):
        return None
    return naive


def _column(name: str, dtype: pl.DataType, held: Sequence[Any]) -> pl.Series:
    values = [None if row is None else _value(row.get(name)) for row in held]
    if isinstance(dtype, pl.Datetime):
        seconds = pl.Series(name, values, pl.Int64)
        return (seconds * 1_000_000).cast(dtype)
    if dtype == pl.Object:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return pl.Series(name, array, dtype=pl.Object)
    return pl.Series(name, values, dtype, strict=False)


def _value(value: Any) -> Any:
    """A ``Value`` message as Python has it; lists of numbers and text as lists."""
    kind = None if value is None else value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    held = getattr(value, kind)
    if kind.endswith(("_list_val", "_set_val")) and hasattr(held, "val"):
        return list(held.val)
    if kind in _PLAIN:
        return held
    from feast.type_map import feast_value_type_to_python_type

    return feast_value_type_to_python_type(value)


_PLAIN = frozenset(
    f"{name}_val"
    for name in ("string", "bytes", "int32", "int64", "double", "float", "bool", "unix_timestamp")
)
