"""Checks of `recsys doctor feast` on the offline store: are rows in rows out, in their order?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.feast.finding import FeastFinding

__all__ = ["offline_checks", "source_times"]

# Offline stores that compute in this process -> rows of the order test, enough to see it.
_LOCAL = {"file": 2_000, "dask": 2_000, "duckdb": 20_000}
_SLATE = 10
_ROW = "recsys_row"


def offline_checks() -> dict[str, Callable[[Any], Iterator[FeastFinding]]]:
    """The checks by name."""
    return {"slate": _slate, "rows without a value": _without_value, "order": _order}


def source_times(store: Any, view: Any, limit: int) -> pl.DataFrame | None:
    """Ids of a view's Parquet source and when they have values; None where it is another source.

    Args:
        store: the feature store.
        view: one of its views.
        limit: most rows.

    Returns:
        The join keys, then "first" and "last": Datetime("us", "UTC") of the id's rows.
    """
    from feast import FileSource
    from feast.data_format import ParquetFormat

    source = view.batch_source
    if not isinstance(source, FileSource) or "://" in source.path:
        return None
    if not isinstance(source.file_format or ParquetFormat(), ParquetFormat):
        return None
    path = Path(store.config.repo_path or ".") / source.path
    if not path.exists():
        return None
    column_of = {feature: column for column, feature in source.field_mapping.items()}
    keys = [pl.col(column_of.get(key, key)).alias(key) for key in view.join_keys]
    table = pl.scan_parquet(path)
    time = pl.col(source.timestamp_field)
    dtype = table.collect_schema()[source.timestamp_field]
    if getattr(dtype, "time_zone", None) is None:
        time = time.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    time = time.cast(pl.Datetime("us", "UTC"))
    return (
        table.select(*keys, time.alias("time"))
        .drop_nulls()
        .group_by(view.join_keys)
        .agg(pl.col("time").min().alias("first"), pl.col("time").max().alias("last"))
        .head(limit)
        .collect()
    )


def _slate(store: Any) -> Iterator[FeastFinding]:
    """Ten rows of one key and one moment, as ten items shown to one user are."""
    tested, lost = [], []
    for view, times in _views_to_ask(store):
        asked = pl.concat([times.head(1)] * _SLATE)
        found = _historical(store, view, asked, asked["last"])
        tested.append(view.name)
        if len(found) != _SLATE:
            lost.append(f"{view.name}: {_SLATE} rows went in, {len(found)} came back")
    if lost:
        yield FeastFinding(
            "FAIL",
            "slate",
            f"rows of one key and one timestamp are lost: {'; '.join(lost)}",
            "read through features.feast.source, or use the DuckDB offline store",
            ("feast#6787", "feast#5590", "feast#6786"),
        )
    elif tested:
        detail = f"{_SLATE} rows of one key and one timestamp come back ({', '.join(tested)})"
        yield FeastFinding("OK", "slate", detail)
    else:
        yield _not_tested(store, "slate")


def _without_value(store: Any) -> Iterator[FeastFinding]:
    """A row from before the first value of its id, and one beyond the ttl of the last."""
    tested, lost = [], []
    for view, times in _views_to_ask(store):
        one = times.head(1)
        moments = [one["first"][0] - timedelta(days=1)]
        if view.ttl:
            moments.append(one["last"][0] + 2 * view.ttl)
        asked = pl.concat([one] * len(moments))
        found = _historical(store, view, asked, pl.Series(moments))
        tested.append(view.name)
        if len(found) != len(moments):
            lost.append(f"{view.name}: {len(moments)} went in, {len(found)} came back")
    if lost:
        yield FeastFinding(
            "FAIL",
            "rows without a value",
            "rows from before an id's first value, or beyond its ttl, are lost, not null: "
            f"{'; '.join(lost)}",
            "read through features.feast.source, or use the DuckDB offline store",
        )
    elif tested:
        yield FeastFinding(
            "OK", "rows without a value", f"they come back, with nulls ({', '.join(tested)})"
        )
    else:
        yield _not_tested(store, "rows without a value")


def _order(store: Any) -> Iterator[FeastFinding]:
    count = _LOCAL.get(store.config.offline_store.type, 0)
    for view, times in _views_to_ask(store)[:1]:
        rng = np.random.default_rng(0)
        asked = times[rng.integers(0, len(times), count).tolist()]
        apart = pl.Series(rng.permutation(count)).cast(pl.Duration("us"))
        found = _historical(store, view, asked, asked["last"] + apart)
        if np.array_equal(found, np.arange(count)):
            detail = f"{view.name}: kept for {count:,} rows, though Feast does not promise it"
            yield FeastFinding("OK", "order", detail)
        else:
            yield FeastFinding(
                "WARN",
                "order",
                f"{view.name}: {count:,} rows went in, {len(found):,} came back in another order",
                "carry a row id and sort by it, never align labels by position; "
                "features.feast.source does",
            )
        return
    yield _not_tested(store, "order")


def _not_tested(store: Any, check: str) -> FeastFinding:
    kind = store.config.offline_store.type
    why = "no view has a readable Parquet source"
    if kind not in _LOCAL:
        why = f"the offline store {kind} uploads the rows that are asked for"
    remedy = "try it with a slate of your own: rows out must be rows in"
    return FeastFinding("WARN", check, f"not tested: {why}", remedy)


def _views_to_ask(store: Any) -> list[tuple[Any, pl.DataFrame]]:
    """One view for each set of join keys, with ids of it."""
    if store.config.offline_store.type not in _LOCAL:
        return []
    found: dict[tuple[str, ...], tuple[Any, pl.DataFrame]] = {}
    for view in store.list_feature_views():
        keys = tuple(sorted(view.join_keys))
        if keys in found or not view.features:
            continue
        times = source_times(store, view, 1_000)
        if times is not None and not times.is_empty():
            found[keys] = view, times
    return list(found.values())


def _historical(store: Any, view: Any, asked: pl.DataFrame, moments: pl.Series) -> np.ndarray:
    """Which rows came back, in the order they came."""
    entity_df = asked.select(view.join_keys).with_columns(
        moments.alias("event_timestamp"), pl.Series(_ROW, np.arange(len(asked)))
    )
    features = [f"{view.name}:{view.features[0].name}"]
    job = store.get_historical_features(entity_df=entity_df.to_pandas(), features=features)
    return np.asarray(job.to_df()[_ROW])
