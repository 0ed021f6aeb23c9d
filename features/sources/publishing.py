"""What a training run learnt and what was shown, as rows of ordinary feature views.

    <prefix>user_vectors   user_id | timestamp | vector [D] | generation
    <prefix>item_vectors   item_id | timestamp | vector [D] | generation
    <prefix>semantic_ids   item_id | timestamp | code_0 .. code_L-1, semantic_id | generation
    <prefix>candidates     user_id | timestamp | item_ids, scores, sources | generation
    <prefix>impressions    user_id, item_id | timestamp | request_id, position, policy, propensity,
                           generation

The time of a row is when its bundle was made, so a point-in-time join of older events does not see
it. Vectors of two generations must not be compared; ``generation`` says which one a row is of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from features.errors import DataError
from features.sources.protocol import FeatureSource, WriteReceipt
from features.tables.schema import ITEM, TIMESTAMP, USER

__all__ = [
    "GENERATION",
    "IMPRESSION_SCHEMA",
    "PublishedView",
    "append_impressions",
    "candidate_rows",
    "is_published",
    "publish_view",
    "semantic_id_rows",
    "vector_rows",
]

GENERATION = "generation"
BATCH_ROWS = 50_000
IMPRESSION_SCHEMA: dict[str, pl.DataType] = {
    USER: pl.String(),
    ITEM: pl.String(),
    TIMESTAMP: pl.Datetime("us"),
    "request_id": pl.String(),
    "position": pl.Int32(),
    "policy": pl.String(),
    "propensity": pl.Float32(),
    GENERATION: pl.String(),
}
"""Columns of the impressions view; ``position`` counts from 1, ``propensity`` may be null."""


class PublishedView(NamedTuple):
    """What was written to one view.

    Attributes:
        view: its name.
        rows: rows of this generation in it.
        written: False: they were there already.
    """

    view: str
    rows: int
    written: bool


def vector_rows(
    key: str, ids: Sequence[str], vectors: np.ndarray, *, moment: datetime, generation: str
) -> pl.DataFrame:
    """Rows of a vector view.

    Args:
        key: "user_id" or "item_id".
        ids: N ids.
        vectors: [N, D] float.
        moment: UTC time without zone that the rows hold from.
        generation: id of the bundle.

    Raises:
        DataError: the shapes disagree.
    """
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise DataError(
            f"vectors must be [{len(ids)}, D], one row per id: got shape {vectors.shape}"
        )
    vector = pl.Series(
        "vector",
        np.ascontiguousarray(vectors, dtype=np.float32),
        dtype=pl.Array(pl.Float32, vectors.shape[1]),
    )
    return _rows(key, ids, moment, generation, [vector])


def semantic_id_rows(
    ids: Sequence[str], codes: np.ndarray, *, moment: datetime, generation: str
) -> pl.DataFrame:
    """Rows of the semantic id view: each level's code, and all of them as text ("3-0-17").

    Args:
        ids: N item ids.
        codes: [N, L] integers.
        moment: UTC time without zone that the rows hold from.
        generation: id of the bundle.

    Raises:
        DataError: the shapes disagree.
    """
    if codes.ndim != 2 or len(codes) != len(ids) or codes.shape[1] < 1:
        raise DataError(f"codes must be [{len(ids)}, L], one row per id: got shape {codes.shape}")
    levels = [
        pl.Series(f"code_{level}", codes[:, level].astype(np.int32))
        for level in range(codes.shape[1])
    ]
    text = pl.select(pl.concat_str(levels, separator="-").alias("semantic_id")).to_series()
    return _rows(ITEM, ids, moment, generation, [*levels, text])


def candidate_rows(
    user_ids: Sequence[str],
    item_index: np.ndarray,
    score: np.ndarray,
    source: np.ndarray,
    *,
    item_ids: Sequence[str],
    source_names: Sequence[str],
    moment: datetime,
    generation: str,
) -> pl.DataFrame:
    """Rows of the candidate view; lists are best first and may be shorter than K.

    Args:
        user_ids: Q users.
        item_index: [Q, K] vocabulary indices 1..N, -1 where there is none.
        score: [Q, K] float.
        source: [Q, K] number of the retriever.
        item_ids: ids of the vocabulary, entry i is index i + 1.
        source_names: name of each source number.
        moment: UTC time without zone that the rows hold from.
        generation: id of the bundle.

    Raises:
        DataError: the shapes disagree, or an index or a source number is out of range.
    """
    shape = (len(user_ids), item_index.shape[-1])
    for name, array in (("item_index", item_index), ("score", score), ("source", source)):
        if array.shape != shape:
            raise DataError(f"{name} must be [Q, K] = {list(shape)}, got {list(array.shape)}")
    row, place = np.nonzero(item_index > 0)
    chosen, number = item_index[row, place] - 1, source[row, place]
    for name, values, count in (("item_index", chosen, item_ids), ("source", number, source_names)):
        if values.size and int(values.max()) >= len(count):
            raise DataError(
                f"{name} must be within the {len(count)} known ones, got {int(values.max())}"
            )
    entries = pl.DataFrame(
        {
            "row": row,
            "item_ids": pl.Series(item_ids, dtype=pl.String)[chosen],
            "scores": score[row, place].astype(np.float32),
            "sources": pl.Series(source_names, dtype=pl.String)[number.astype(np.int64)],
        }
    )
    lists = entries.group_by("row", maintain_order=True).agg(pl.all())
    wanted = pl.DataFrame({"row": np.arange(len(user_ids))})
    lists = wanted.join(lists, on="row", how="left", maintain_order="left").drop("row")
    columns = [column.fill_null([]) for column in lists.get_columns()]
    return _rows(USER, user_ids, moment, generation, columns)


def is_published(
    source: FeatureSource, view: str, key: str, last_id: str, moment: datetime, generation: str
) -> bool:
    """Whether the view has this generation's rows.

    Rows are written in order, so the last one is there only if all are.
    """
    if view not in {description.name for description in source.describe()}:
        return False
    keys = pl.DataFrame(
        {key: [last_id], TIMESTAMP: [moment]}, schema_overrides={TIMESTAMP: pl.Datetime("us")}
    )
    found = source.as_of(view, keys)
    return GENERATION in found.columns and found[GENERATION][0] == generation


def publish_view(
    source: FeatureSource,
    view: str,
    key: str,
    ids: Sequence[str],
    rows: Callable[[slice], pl.DataFrame],
    *,
    moment: datetime,
    generation: str,
    batch_rows: int = BATCH_ROWS,
) -> PublishedView:
    """Write a generation's rows to a view, unless they are there.

    An interrupted call is repeated from its start; rows that were written twice are equal, so
    what holds does not change. A store that cannot keep lists of text (Feast's file store cannot
    append them) may declare such a column as text: it then gets each list as JSON.

    Args:
        source: where to.
        view: the view.
        key: its id column.
        ids: N ids, in the order rows are written.
        rows: (part of the ids) -> their rows; called a batch at a time.
        moment: the rows' time.
        generation: the rows' generation.
        batch_rows: rows a batch.

    Raises:
        DataError: the source refuses the rows, for example because the view has other columns.
    """
    if not ids or is_published(source, view, key, ids[-1], moment, generation):
        return PublishedView(view, len(ids), written=False)
    known = {one.name: one.columns for one in source.describe()}.get(view, {})
    for start in range(0, len(ids), batch_rows):
        part = rows(slice(start, min(start + batch_rows, len(ids))))
        source.write(view, _as_declared(part, known))
    return PublishedView(view, len(ids), written=True)


def append_impressions(
    source: FeatureSource, impressions: pl.DataFrame, *, view: str = "impressions"
) -> WriteReceipt:
    """Append what was shown to the impressions view.

    Nothing is taken out: rows appended twice are there twice, with equal (request_id, position).

    Args:
        source: where to. In a store that is declared by hand the view's keys are user_id, item_id;
            in Feast ``online=False`` keeps it out of the online store (`recsys features declare`).
        impressions: rows with the columns of `IMPRESSION_SCHEMA`, in any order; others are dropped.
        view: the view.

    Raises:
        DataError: a column is missing or of another type, a value but ``propensity`` is null, a
            position is < 1, or a propensity is not in (0, 1].
    """
    for name in IMPRESSION_SCHEMA:
        if name not in impressions.columns:
            raise DataError(
                f"impressions must have the column {name!r}, got "
                f"{', '.join(impressions.columns) or 'none'}"
            )
    try:
        rows = impressions.select(list(IMPRESSION_SCHEMA)).cast(IMPRESSION_SCHEMA)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"impressions must have the types of the view: {error}; cast them"
        ) from error
    for name in IMPRESSION_SCHEMA:
        missing = rows[name].null_count()
        if missing and name != "propensity":
            raise DataError(f"impressions: {name} must not be null: {missing} of {rows.height} are")
    for name, fits, rule in (
        ("position", pl.col("position") >= 1, ">= 1"),
        ("propensity", (pl.col("propensity") > 0) & (pl.col("propensity") <= 1), "in (0, 1]"),
    ):
        wrong = rows.filter(~fits)
        if wrong.height:
            raise DataError(
                f"impressions: {name} must be {rule}, got {wrong[name][0]} in {wrong.height} of "
                f"{rows.height} rows"
            )
    declare = getattr(source, "declare", None)
    if declare is not None and view not in {one.name for one in source.describe()}:
        declare(view, (USER, ITEM))
    return source.write(view, rows)


def _as_declared(rows: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Lists as JSON where the view declares text."""
    lists = [
        name
        for name, dtype in rows.schema.items()
        if isinstance(dtype, pl.List) and columns.get(name) == pl.String
    ]
    return rows.with_columns(
        pl.Series(name, [json.dumps(one) for one in rows[name].to_list()], dtype=pl.String)
        for name in lists
    )


def _rows(
    key: str,
    ids: Sequence[str],
    moment: datetime,
    generation: str,
    values: Sequence[pl.Series],
) -> pl.DataFrame:
    frame = pl.DataFrame([pl.Series(key, ids, dtype=pl.String), *values])
    return frame.select(
        key,
        pl.lit(moment, dtype=pl.Datetime("us")).alias(TIMESTAMP),
        pl.exclude(key),
        pl.lit(generation).alias(GENERATION),
    )
