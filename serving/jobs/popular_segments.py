"""What is popular within each segment of the users: people of one age, one country, one plan."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from features.tables import ITEM, TIMESTAMP, USER, WEIGHT, Interactions, UserTable, Vocabulary
from recsys.errors import ArtifactError, ConfigError
from serving.store.publication import MAX_SEGMENTS

__all__ = [
    "POPULAR_SEGMENTS",
    "popular_by_segment",
    "read_segments",
    "segments_of",
    "write_segments",
]

POPULAR_SEGMENTS = "popular_segments.parquet"
MIN_USERS = 20
"""A segment of fewer users gets no list of its own; it would tell what they did."""

_SEGMENT, _INDEX, _SCORE = "segment", "item_index", "score"
_SCHEMA: Mapping[str, pl.DataType] = {
    _SEGMENT: pl.String(),
    _INDEX: pl.List(pl.Int64),
    _SCORE: pl.List(pl.Float32),
}


def segments_of(users: UserTable | None, column: str) -> pl.DataFrame:
    """User id and segment, as text, of every user who has one.

    Raises:
        ConfigError: there is no user table or no such column in it, or it holds lists.
    """
    names = [] if users is None else [name for name in users.frame.columns if name != USER]
    if users is None or column not in names:
        raise ConfigError(
            f"candidates.popular_segment must be a column of the user table, got {column!r}; "
            f"there: {', '.join(names) or 'no user table'}"
        )
    if users.frame.schema[column].is_nested():
        raise ConfigError(
            f"candidates.popular_segment must be a column of single values, got {column!r} with "
            "lists; choose another"
        )
    segment = pl.col(column).cast(pl.String).alias(_SEGMENT)
    return users.frame.select(pl.col(USER), segment).drop_nulls()


def popular_by_segment(
    events: Interactions,
    segments: pl.DataFrame,
    item_ids: Vocabulary,
    overall: tuple[np.ndarray, np.ndarray],
    *,
    as_of: datetime,
    window_days: float,
    min_users: int = MIN_USERS,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The most frequent items of each segment, filled up with what is popular overall.

    Counted is the weight of events of the segment's users in the ``window_days`` before ``as_of``;
    equal ones are ordered as overall, then by item index. Scores are shares of the segment's first
    item; those of items that fill up are below its last.

    Args:
        events: the log.
        segments: from `segments_of`.
        item_ids: the vocabulary.
        overall: (item_index [P], score [P] within 0 and 1), best first; each list has as many
            entries.
        as_of: later events do not count.
        window_days: length of the window, > 0.
        min_users: a segment of fewer users in the log gets no list.

    Returns:
        Segment -> (item_index [P], score [P] float32), best first; the 1,000 segments of the most
        users at most.
    """
    own = events.frame.select(USER, ITEM, TIMESTAMP, WEIGHT).join(segments, on=USER)
    sizes = own.group_by(_SEGMENT).agg(pl.col(USER).n_unique().alias("users"))
    sizes = sizes.filter(pl.col("users") >= min_users)
    kept = sizes.sort(["users", _SEGMENT], descending=[True, False]).head(MAX_SEGMENTS)
    recent = pl.col(TIMESTAMP).is_between(as_of - timedelta(days=window_days), as_of, closed="left")
    recent_events = own.filter(recent).join(kept, on=_SEGMENT, how="semi")
    counts = recent_events.group_by(_SEGMENT, ITEM).agg(
        pl.col(WEIGHT).cast(pl.Float64).sum().alias("count")
    )
    counts = counts.with_columns(pl.Series(_INDEX, item_ids.index(counts[ITEM]), dtype=pl.Int64))
    overall_index, overall_score = overall
    places = pl.DataFrame({_INDEX: overall_index, "place": np.arange(len(overall_index))})
    ranked = (
        counts.filter(pl.col(_INDEX) > 0)
        .join(places.cast({_INDEX: pl.Int64}), on=_INDEX, how="left")
        .sort(
            [_SEGMENT, "count", "place", _INDEX],
            descending=[False, True, False, False],
            nulls_last=True,
        )
        .group_by(_SEGMENT, maintain_order=True)
        .agg(pl.col(_INDEX).head(len(overall_index)), pl.col("count").head(len(overall_index)))
    )
    first = {
        name: (np.asarray(index), np.asarray(count)) for name, index, count in ranked.iter_rows()
    }
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    return {
        name: _filled(*first.get(name, nothing), overall_index, overall_score)
        for name in sorted(kept[_SEGMENT])
    }


def write_segments(path: Path, lists: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write what `popular_by_segment` returned."""
    rows = [
        {_SEGMENT: name, _INDEX: index.tolist(), _SCORE: score.tolist()}
        for name, (index, score) in lists.items()
    ]
    pl.DataFrame(rows, schema=_SCHEMA).write_parquet(path)


def read_segments(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read what `write_segments` wrote; empty where the file is not there.

    Raises:
        ArtifactError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        frame = pl.read_parquet(path).cast(pl.Schema(_SCHEMA)).select(*_SCHEMA)
    except (PolarsError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run `recsys candidates`") from error
    return {
        name: (np.asarray(index, np.int64), np.asarray(score, np.float32))
        for name, index, score in frame.iter_rows()
    }


def _filled(
    index: np.ndarray, count: np.ndarray, overall_index: np.ndarray, overall_score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    own = count / count[0] if len(count) else np.zeros(0)
    new = ~np.isin(overall_index, index)
    below = 0.5 * own[-1] if len(own) else 1.0
    items = np.concatenate([index, overall_index[new]])[: len(overall_index)]
    score = np.concatenate([own, below * overall_score[new]])[: len(overall_index)]
    return items.astype(np.int64), score.astype(np.float32)
