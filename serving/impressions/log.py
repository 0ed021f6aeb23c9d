"""What was shown and what users did with it: two row logs, and how they are read together.

The propensity of a place is the probability of its item there given the items above it, so the
product over a slate is the propensity of the whole slate, and that of the first ``j`` places the
propensity of its beginning (`recsys.ranking.exploration`). It is 1 where nothing was drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from features.moments import utc
from features.sources.publishing import IMPRESSION_SCHEMA
from features.tables import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from recsys.config.impressions import RowLogLimits
from serving.impressions.row_journal import finished_files
from serving.impressions.row_log import RowLog, RowLogStats
from serving.messages import Event, Recommendations, RecommendRequest

__all__ = [
    "FEEDBACK_COLUMNS",
    "IMPRESSION_COLUMNS",
    "FeedbackLog",
    "ImpressionLog",
    "arm_of",
    "read_feedback",
    "read_impressions",
]

IMPRESSION_COLUMNS: dict[str, pl.DataType] = {
    **IMPRESSION_SCHEMA,
    "arms": pl.String(),
    "stage": pl.String(),
    "source": pl.String(),
    "score": pl.Float32(),
    "degraded": pl.Boolean(),
}
"""Columns of the impression log; those of `features.append_impressions` come first.

``user_id`` is null for a request without a user, ``generation`` where only the bundled list was
there. ``position`` counts from 1 across the pages of one answer. ``arms`` reads
``experiment=arm;experiment=arm`` and is null outside every experiment (`arm_of`). ``stage`` gave
the slate and ``source`` the item; a score compares within one source only. ``degraded``: something
was broken or too slow.
"""
FEEDBACK_COLUMNS: dict[str, pl.DataType] = {
    USER: pl.String(),
    ITEM: pl.String(),
    TIMESTAMP: pl.Datetime("us"),
    EVENT: pl.String(),
    WEIGHT: pl.Float64(),
    "event_id": pl.String(),
    "request_id": pl.String(),
}
"""Columns of the feedback log; those of an event, the last three null where it did not say."""

IMPRESSIONS, FEEDBACK = "impressions", "feedback"


class ImpressionLog:
    """Logs every place of every slate.

    Args:
        directory: of the log; see `RowLog`.
        limits: of memory, files and time.
    """

    def __init__(self, directory: Path | str, limits: RowLogLimits | None = None) -> None:
        self._log = RowLog(directory, IMPRESSION_COLUMNS, name=IMPRESSIONS, limits=limits)

    def record(
        self,
        request: RecommendRequest,
        answer: Recommendations,
        now: float,
        *,
        first_position: int = 1,
    ) -> bool:
        """Log an answer, without waiting.

        Args:
            request: the question.
            answer: the slate that goes out.
            now: when, seconds since the epoch.
            first_position: place of the answer's first item; > 1 on a further page.

        Returns:
            False when it was dropped (and counted) because the log cannot keep up.
        """
        return self._log.append(_Places(request.user_id, answer, now, first_position))

    def stats(self) -> RowLogStats:
        """Counts so far, in places of slates."""
        return self._log.stats()

    def close(self) -> None:
        """Write what is pending and finish the last file."""
        self._log.close()


class _Places:
    """Rows of one answer, made when the writer's thread asks for them."""

    __slots__ = ("_answer", "_first", "_now", "_user_id")

    def __init__(
        self, user_id: str | None, answer: Recommendations, now: float, first_position: int
    ) -> None:
        self._user_id, self._answer = user_id, answer
        self._now, self._first = now, first_position

    def __len__(self) -> int:
        return len(self._answer.items)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        answer, user_id, moment = self._answer, self._user_id, round(self._now * 1e6)
        arms = ";".join(f"{name}={arm}" for name, arm in answer.arms.items()) or None
        for position, item in enumerate(answer.items, self._first):
            yield (
                user_id,
                item.item_id,
                moment,
                answer.request_id,
                position,
                answer.policy,
                item.propensity,
                answer.generation,
                arms,
                answer.source,
                item.source,
                item.score,
                answer.degraded,
            )


class FeedbackLog:
    """Logs what users did.

    Args:
        directory: of the log, that of the impressions or another; see `RowLog`.
        limits: of memory, files and time.
    """

    def __init__(self, directory: Path | str, limits: RowLogLimits | None = None) -> None:
        self._log = RowLog(directory, FEEDBACK_COLUMNS, name=FEEDBACK, limits=limits)

    def record(self, events: Sequence[Event]) -> bool:
        """Log events, without waiting; False when they were dropped and counted."""
        return self._log.append(
            [
                (
                    event.user_id,
                    event.item_id,
                    round(event.timestamp * 1e6),
                    event.event,
                    event.weight,
                    event.event_id,
                    event.request_id,
                )
                for event in events
            ]
        )

    def stats(self) -> RowLogStats:
        """Counts so far, in events."""
        return self._log.stats()

    def close(self) -> None:
        """Write what is pending and finish the last file."""
        self._log.close()


def read_impressions(
    directory: Path | str, *, since: datetime | None = None, until: datetime | None = None
) -> pl.LazyFrame:
    """Finished files of the impression log, oldest row first.

    Of rows with one (request_id, position) the first counts. For `features.append_impressions`
    leave out what has no user or no generation::

        shown = read_impressions(path).drop_nulls(["user_id", "generation"]).collect()
        append_impressions(source, shown)

    Args:
        directory: of the log.
        since: rows from this moment on, UTC where it has no zone. None: all.
        until: rows before this moment. None: all.
    """
    rows = _read(directory, IMPRESSIONS, IMPRESSION_COLUMNS, since, until)
    return rows.unique(["request_id", "position"], keep="first", maintain_order=True)


def read_feedback(
    directory: Path | str, *, since: datetime | None = None, until: datetime | None = None
) -> pl.LazyFrame:
    """Finished files of the feedback log, oldest row first.

    An event that was sent again counts once: those with one ``event_id``, or without one those of
    one user, item, moment and kind.

    Args:
        directory: of the log.
        since: rows from this moment on, UTC where it has no zone. None: all.
        until: rows before this moment. None: all.
    """
    rows = _read(directory, FEEDBACK, FEEDBACK_COLUMNS, since, until)
    moment = pl.struct(USER, ITEM, TIMESTAMP, EVENT, "event_id").is_first_distinct()
    known = pl.col("event_id").is_not_null()
    return rows.filter(
        pl.when(known).then(pl.col("event_id").is_first_distinct()).otherwise(moment)
    )


def arm_of(experiment: str) -> pl.Expr:
    """The arm of an experiment in the column ``arms``; null where a row has none of it.

    >>> shown = pl.DataFrame({"arms": ["price=a;order=noop", "reorder=b", None]})
    >>> shown.select(arm_of("order")).to_series().to_list()
    ['noop', None, None]
    """
    return pl.col("arms").str.extract(rf"(?:^|;){re.escape(experiment)}=([^;]*)").alias(experiment)


def _read(
    directory: Path | str,
    name: str,
    columns: dict[str, pl.DataType],
    since: datetime | None,
    until: datetime | None,
) -> pl.LazyFrame:
    files = finished_files(directory, name)
    if files:
        # An older file may lack a column that came later.
        rows = pl.scan_parquet(
            files, schema=columns, missing_columns="insert", extra_columns="ignore"
        )
    else:
        rows = pl.LazyFrame(schema=columns)
    if since is not None:
        rows = rows.filter(pl.col(TIMESTAMP) >= utc(since))
    if until is not None:
        rows = rows.filter(pl.col(TIMESTAMP) < utc(until))
    return rows.sort(TIMESTAMP, maintain_order=True)
