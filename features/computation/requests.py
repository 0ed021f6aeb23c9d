"""Request rows: what a computation is asked, checked, and cut into parts that fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl

from features.definitions.columns import Definition, TextMatch
from features.definitions.sets import REQUEST_COLUMNS
from features.errors import DataError
from features.tables.schema import ITEM, USER

__all__ = ["OWN", "aligned", "checked_requests", "item_requests", "parts_of"]

OWN = REQUEST_COLUMNS


def aligned(
    item_values: pl.DataFrame | Mapping[str, np.ndarray], item_ids: Sequence[str], names: list[str]
) -> dict[str, np.ndarray]:
    """The published values of each candidate, by definition."""
    if isinstance(item_values, pl.DataFrame):
        absent = [name for name in (ITEM, *names) if name not in item_values.columns]
        if absent:
            raise DataError(
                f"item_values must have the column {absent[0]!r}, got "
                f"{', '.join(item_values.columns)}; make it with item_features"
            )
        wanted = pl.DataFrame({ITEM: pl.Series(item_ids, dtype=pl.String)})
        joined = wanted.join(item_values, on=ITEM, how="left", maintain_order="left")
        missing = pl.col(names).fill_null(float("nan"))
        return {column.name: column.to_numpy() for column in joined.select(missing)}
    given = {}
    for name in names:
        if name not in item_values:
            raise DataError(
                f"item_values must have {name!r}, got {', '.join(item_values) or 'none'}; publish "
                "what item_features gives"
            )
        given[name] = np.asarray(item_values[name], dtype=np.float32)
        if given[name].shape != (len(item_ids),):
            raise DataError(
                f"item_values[{name!r}] must have one value per candidate: got shape "
                f"{given[name].shape} for {len(item_ids)} candidates"
            )
    return given


def item_requests(item_ids: pl.Series, moment: datetime) -> pl.DataFrame:
    """One row for each item, of nobody in particular."""
    return item_ids.to_frame(ITEM).select(
        pl.lit(0).alias("request_id"),
        pl.lit("-").alias(USER),
        ITEM,
        pl.lit(moment, dtype=pl.Datetime("us")).alias("moment"),
    )


def checked_requests(requests: pl.DataFrame, definitions: Sequence[Definition]) -> pl.DataFrame:
    """The requests with String ids and microsecond moments."""
    read = {
        source.partition(".")[2]
        for each in definitions
        for source in each.columns()
        if source.startswith("request.")
    }
    for name in (*OWN, *sorted(read)):
        if name not in requests.columns:
            raise DataError(
                f"requests must have the column {name!r}, got {', '.join(requests.columns)}; add it"
            )
    moment = requests.schema["moment"]
    if not isinstance(moment, pl.Datetime) or moment.time_zone is not None:
        raise DataError(
            f"requests: moment must be a Datetime in UTC without time zone, got {moment}; cast it"
        )
    texts = {each.query for each in definitions if isinstance(each, TextMatch)}
    for name in sorted(read):
        dtype = requests.schema[name]
        if name in texts and dtype != pl.String:
            raise DataError(f"requests: {name} must be text, got {dtype}; cast it to String")
        if name not in texts and not dtype.is_numeric():
            raise DataError(f"requests: {name} must be a number, got {dtype}; cast it")
    requests = requests.with_columns(
        pl.col(USER, ITEM).cast(pl.String), pl.col("moment").cast(pl.Datetime("us"))
    )
    for name in OWN:
        bad = requests[name].is_null()
        if name in (USER, ITEM):
            bad = bad | (requests[name] == "")
        if bool(bad.any()):
            raise DataError(
                f"requests: {name} must not be null or empty: {int(bad.sum())} of "
                f"{requests.height} are, first in row {bad.arg_true()[0]}; drop these rows"
            )
    return requests


def parts_of(requests: pl.DataFrame, rows_at_once: int) -> list[np.ndarray]:
    """Positions of the rows in parts of at most ``rows_at_once``, whole requests together."""
    if requests.height <= rows_at_once:
        return [np.arange(requests.height)]
    order = requests["request_id"].arg_sort().to_numpy()
    ids = requests["request_id"].gather(order)
    differs = (ids != ids.shift(1)).fill_null(True).to_numpy()
    ends = np.append(np.flatnonzero(differs)[1:], ids.len())  # of every request
    cuts: list[int] = []
    while (begin := cuts[-1] if cuts else 0) < ids.len():
        fits = int(np.searchsorted(ends, begin + rows_at_once, side="right")) - 1
        longer = int(np.searchsorted(ends, begin, side="right"))  # one request of more rows
        cuts.append(int(ends[max(fits, longer)]))
    return np.split(order, cuts[:-1])
