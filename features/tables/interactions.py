"""The event log as one checked table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import polars as pl

from features.errors import DataError, Problem
from features.tables.entities import ItemTable
from features.tables.float_ids import with_whole_ids
from features.tables.hashing import update_with_series
from features.tables.reading import ReadOptions, location, read_table
from features.tables.rules import EventRules
from features.tables.ruling import ORDER, QUANTITY, RuleCount, ruled, sort_events
from features.tables.schema import (
    CREATED,
    EVENT,
    EVENT_ID,
    INTERACTION_SCHEMA,
    ITEM,
    TIMESTAMP,
    USER,
    WEIGHT,
    EventColumns,
)
from features.tables.validation import catalogue_problems, event_problems, numbered

__all__ = ["Interactions", "read_interactions", "without_missing"]


@dataclass(frozen=True)
class Interactions:
    """Who did what with which item, when, and how much it counts.

    Make one with `from_frame` or `read_interactions`, which check every rule; the constructor
    trusts its rows and checks only the schema.

    Attributes:
        frame: columns user_id String, item_id String, timestamp Datetime("us") (UTC, no zone),
            event String, weight Float32 above 0; sorted by timestamp and user_id, and what a user
            did at one time in an order that is drawn: no event of one time came before another. A
            log that knows when its events arrived has a sixth column, created Datetime("us"), at
            or after the timestamp: what happened is seen from then on.
        dislikes: such rows of what users did not want: no likes, and nothing that they are shown
            again. None: the log knows none.
        neutral: such rows of weight 0: what users met and neither liked nor disliked, which counts
            for nothing. None: there are none.
        counts: what the rules of the log did, in words; no part of the log.

    Raises:
        DataError: ``frame`` has other columns or types.
    """

    frame: pl.DataFrame
    dislikes: pl.DataFrame | None = None
    neutral: pl.DataFrame | None = None
    counts: tuple[RuleCount, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("frame", "dislikes", "neutral"):
            frame = getattr(self, name)
            if frame is not None:
                _check_schema(name, dict(frame.schema))

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        *,
        columns: EventColumns | None = None,
        source: str = "interactions",
        items: ItemTable | None = None,
        now: datetime | None = None,
        problems: Sequence[Problem] | None = None,
        rules: EventRules | None = None,
        known: pl.Series | None = None,
    ) -> Self:
        """Check a raw log and bring it into the one form used inside.

        Rows of weight 0 count for nothing and are kept beside the others.

        Where the log says when events arrived or has ids of events, an event that arrived twice
        (same user and id, or without an id same user, item, time and kind) counts from its first
        arrival. One without a time of arrival arrived when it happened, and one dated later than
        its arrival happened at its arrival.

        Args:
            frame: the raw log; other columns than the roles are dropped.
            columns: roles of the columns; None: the names of `features.tables.schema`.
            source: what to call the log in messages.
            items: the catalogue; an event of an item it does not hold is then a problem.
            now: UTC time without zone for the check of units; None: the clock.
            problems: of the log, where it is checked already. None: it is checked here.
            rules: what its rows mean. None: that all are likes.
            known: ids of the catalogue, for a rule that leaves out what it does not hold. None:
                those of ``items``, if given.

        Raises:
            DataError: with one `Problem` for every rule that is broken.
        """
        columns, rules = columns or EventColumns(), rules or EventRules()
        frame = with_whole_ids(frame, columns.ids)
        known = items.frame[ITEM] if known is None and items is not None else known
        if problems is None:
            frame, _ = without_missing(frame, columns, rules)
            problems = event_problems(frame, columns, source=source, now=now, rules=rules)
            if items is not None and rules.undescribed == "refuse":
                problems += catalogue_problems(
                    frame, columns.item, items.frame[ITEM], source=source
                )
        if problems:
            raise DataError(problems=problems)
        event = columns.optional("event", frame.columns)
        weight = columns.optional("weight", frame.columns)
        time = columns.time(columns.timestamp, frame.schema.get(columns.timestamp, pl.Null()))
        kind = pl.lit(columns.default_event) if event is None else pl.col(event)
        amount = pl.lit(1.0) if weight is None else pl.col(weight)
        checked = frame.select(
            pl.col(columns.user).cast(pl.String).alias(USER),
            pl.col(columns.item).cast(pl.String).alias(ITEM),
            time.alias(TIMESTAMP),
            kind.cast(pl.String).alias(EVENT),
            amount.cast(pl.Float32).alias(WEIGHT),
        )
        created = columns.optional("created", frame.columns)
        event_id = columns.optional("event_id", frame.columns)
        if created is not None:
            arrival = columns.time(created, frame.schema[created])
            arrived = frame.select(arrival.alias(CREATED))[CREATED]
            checked = checked.with_columns(arrived.fill_null(checked[TIMESTAMP]))
        for name, of in ((ORDER, columns.order), (QUANTITY, columns.quantity)):
            if of:
                checked = checked.with_columns(frame[of].alias(name))
        if created is not None or event_id is not None:
            ids = pl.lit(None, dtype=pl.String) if event_id is None else frame[event_id]
            checked = _once(checked.with_columns(ids.cast(pl.String).alias(EVENT_ID)))
        found = ruled(checked, rules, rated=weight is not None, known=known)
        return cls(found.likes, found.dislikes, found.neutral, found.counts)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def num_users(self) -> int:
        """Number of different users."""
        return self.frame[USER].n_unique()

    @property
    def num_items(self) -> int:
        """Number of different items."""
        return self.frame[ITEM].n_unique()

    @property
    def whole(self) -> pl.DataFrame:
        """Likes and dislikes in one frame as `frame`; dislikes weigh less than 0."""
        if self.dislikes is None:
            return self.frame
        return sort_events(
            pl.concat([self.frame, self.dislikes.with_columns(pl.col(WEIGHT) * -1.0)])
        )

    @classmethod
    def of_whole(cls, frame: pl.DataFrame) -> Self:
        """The log of a frame as `whole` gives it."""
        disliked = frame.filter(pl.col(WEIGHT) < 0)
        if disliked.is_empty():
            return cls(frame)
        return cls(frame.filter(pl.col(WEIGHT) > 0), disliked.with_columns(pl.col(WEIGHT) * -1.0))

    def only(self, rows: pl.Expr) -> Interactions:
        """The rows of each sign that fulfil a condition."""
        dislikes, neutral = (
            None if part is None else part.filter(rows) for part in (self.dislikes, self.neutral)
        )
        return Interactions(self.frame.filter(rows), dislikes, neutral)

    def before(self, moment: datetime) -> Interactions:
        """The events that happened, and had arrived, strictly before ``moment`` (UTC, no zone)."""
        seen = CREATED if CREATED in self.frame.columns else TIMESTAMP
        return self.only(pl.col(seen) < moment)

    def filter_users(self, ids: Sequence[str] | pl.Series) -> Interactions:
        """The events of these users; ids without events are allowed."""
        wanted = pl.Series(USER, ids, dtype=pl.String)
        return self.only(pl.col(USER).is_in(wanted.implode()))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content; equal logs have equal fingerprints in any input order."""
        digest = hashlib.sha256()
        for frame in (self.frame, self.dislikes, self.neutral):
            if frame is not None:
                by = pl.arg_sort_by(TIMESTAMP, USER, ITEM, EVENT, maintain_order=True)
                order = frame.select(by).to_series()
                for name in frame.columns:
                    update_with_series(digest, frame[name][order])
        return digest.hexdigest()


def without_missing(
    frame: pl.DataFrame, columns: EventColumns, rules: EventRules
) -> tuple[pl.DataFrame, tuple[RuleCount, ...]]:
    """A raw log without the rows that lack an id, a time, a kind or a weight, if a rule says so."""
    if rules.missing == "refuse":
        return frame, ()
    names = list(columns.required)
    names += [
        name
        for role in ("event", "weight")
        if (name := columns.optional(role, frame.columns)) is not None
    ]
    present = [name for name in names if name in frame.columns]
    lacks = pl.any_horizontal(
        pl.col(name).is_null()
        | (
            (pl.col(name).str.strip_chars() == "")
            if frame.schema[name] == pl.String
            else pl.col(name).is_nan()
            if frame.schema[name].is_float()
            else pl.lit(False)
        )
        for name in present
    )
    kept = numbered(frame).filter(~lacks)
    gone = frame.height - kept.height
    if not gone:
        return frame, ()
    many = f"{gone:,} row{'s' if gone != 1 else ''}"
    told = f"{many} without {', '.join(present[:-1])} or {present[-1]} left out"
    return kept, (RuleCount("data.rules.missing", gone, told),)


def _check_schema(name: str, schema: dict[str, pl.DataType]) -> None:
    if schema not in (INTERACTION_SCHEMA, INTERACTION_SCHEMA | {CREATED: pl.Datetime("us")}):
        wanted = ", ".join(f"{name} {dtype}" for name, dtype in INTERACTION_SCHEMA.items())
        got = ", ".join(f"{name} {dtype}" for name, dtype in schema.items())
        raise DataError(
            f"{name} must have exactly the columns {wanted}; got {got or 'none'}; "
            "make it with Interactions.from_frame"
        )


def _once(frame: pl.DataFrame) -> pl.DataFrame:
    """The first arrival of every event, without the column of ids."""
    order = [CREATED] if CREATED in frame.columns else [TIMESTAMP]
    without = pl.col(EVENT_ID).is_null()
    parts = [pl.when(without).then(pl.col(name)) for name in (ITEM, TIMESTAMP, EVENT)]
    identity = pl.struct(USER, EVENT_ID, *parts)
    frame = frame.sort(order, maintain_order=True).filter(identity.is_first_distinct())
    if CREATED in frame.columns:
        frame = frame.with_columns(pl.min_horizontal(TIMESTAMP, CREATED).alias(TIMESTAMP))
    return frame.drop(EVENT_ID)


def read_interactions(
    path: Path | str,
    *,
    columns: EventColumns | None = None,
    items: ItemTable | None = None,
    now: datetime | None = None,
    read: ReadOptions | None = None,
    rules: EventRules | None = None,
) -> Interactions:
    """Read and check an event log; see `Interactions.from_frame`.

    Args:
        path: as `features.tables.reading.read_table` takes it.
        columns: roles of the columns; None: the names of `features.tables.schema`.
        items: the catalogue; an event of an item it does not hold is then a problem.
        now: UTC time without zone for the check of units; None: the clock.
        read: how the file is written; None: found.
        rules: what its rows mean; None: that all are likes.

    Raises:
        DataError: a rule is broken, or the file cannot be read.
        FileNotFoundError: there is no such file.
    """
    columns, rules = columns or EventColumns(), rules or EventRules()
    source = str(location(path))
    reading = read_table(path, read, ids=columns.ids)
    frame, _ = without_missing(reading.frame, columns, rules)
    problems = event_problems(frame, columns, source=source, now=now, rules=rules)
    if items is not None and rules.undescribed == "refuse":
        problems += catalogue_problems(frame, columns.item, items.frame[ITEM], source=source)
    return Interactions.from_frame(
        frame,
        columns=columns,
        source=source,
        items=items,
        problems=reading.places.named(problems),
        rules=rules,
    )
