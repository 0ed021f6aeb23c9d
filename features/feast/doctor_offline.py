"""Checks of `recsys doctor feast` on the offline store: rows lost, order lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.feast.doctor import FeastFinding

__all__ = ["offline_checks", "source_ids"]

# Offline stores that compute in this process -> rows of the order test, enough to see it.
_LOCAL = {"file": 2_000, "dask": 2_000, "duckdb": 20_000}
_SLATE = 10
_ROW = "recsys_row"


def offline_checks() -> dict[str, Callable[[Any], Iterator[FeastFinding]]]:
    """The checks by name."""
    return {"slate": _slate, "order": _order}


def source_ids(store: Any, view: Any, limit: int) -> pl.DataFrame | None:
    """Up to ``limit`` different ids of a view's Parquet source; None where it is another source.

    Args:
        store: the feature store.
        view: one of its views.
        limit: most rows.
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
    return pl.scan_parquet(path).select(keys).drop_nulls().unique().head(limit).collect()


def _slate(store: Any) -> Iterator[FeastFinding]:
    """Ten rows of one key and one moment, as ten items shown to one user are."""
    tested, lost = [], []
    for view, ids in _views_to_ask(store):
        asked = pl.concat([ids.head(1)] * _SLATE)
        moments = [datetime.now(UTC)] * _SLATE
        found = _historical(store, view, asked, moments)
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


def _order(store: Any) -> Iterator[FeastFinding]:
    count = _LOCAL.get(store.config.offline_store.type, 0)
    for view, ids in _views_to_ask(store)[:1]:
        rng = np.random.default_rng(0)
        asked = ids[rng.integers(0, len(ids), count).tolist()]
        now = datetime.now(UTC)
        moments = [now - timedelta(seconds=int(back)) for back in rng.permutation(count)]
        found = _historical(store, view, asked, moments)
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
        ids = source_ids(store, view, 1_000)
        if ids is not None and not ids.is_empty():
            found[keys] = view, ids
    return list(found.values())


def _historical(store: Any, view: Any, ids: pl.DataFrame, moments: list[datetime]) -> np.ndarray:
    """Which rows came back, in the order they came."""
    entity_df = ids.to_pandas().assign(event_timestamp=moments, **{_ROW: np.arange(len(moments))})
    features = [f"{view.name}:{view.features[0].name}"]
    job = store.get_historical_features(entity_df=entity_df, features=features)
    return np.asarray(job.to_df()[_ROW])
