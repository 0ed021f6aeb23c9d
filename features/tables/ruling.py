"""Rules at work on a log whose columns are known: what counts, what does not, and how many rows.

Every row that a rule takes away or changes is in the `RuleCount` of that rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from features.tables.hashing import drawn_order
from features.tables.rules import DISLIKE, RETURN, EventRules, fulfils
from features.tables.schema import CREATED, EVENT, ITEM, TIMESTAMP, USER, WEIGHT

__all__ = ["ORDER", "QUANTITY", "RuleCount", "Ruled", "ruled", "sort_events"]

ORDER = "__order"
"""Column of the ids of orders while rules are at work."""
QUANTITY = "__quantity"
"""Column of quantities while rules are at work."""

_DRAWN = "__drawn"


class RuleCount(NamedTuple):
    """What one rule did.

    Attributes:
        rule: the setting, such as "data.rules.repeats".
        rows: rows of the log that it took away or changed.
        told: a sentence with the number.
    """

    rule: str
    rows: int
    told: str


@dataclass(frozen=True)
class Ruled:
    """A log after its rules.

    Attributes:
        likes: rows of weight above 0, sorted.
        dislikes: rows of weight below 0, sorted, their weight above 0; None: there is none.
        neutral: rows of weight 0, sorted; None: there is none.
        counts: of the rules that did something.
    """

    likes: pl.DataFrame
    dislikes: pl.DataFrame | None
    neutral: pl.DataFrame | None
    counts: tuple[RuleCount, ...]


def ruled(
    frame: pl.DataFrame, rules: EventRules, *, rated: bool = False, known: pl.Series | None = None
) -> Ruled:
    """Apply all rules but those on missing values.

    Args:
        frame: columns as of `features.tables.interactions.Interactions`, the weight as it is in the
            file, and `ORDER` and `QUANTITY` where there are such.
        rules: what rows mean.
        rated: the weight is a column of the file.
        known: ids of the catalogue; None: every item is known.
    """
    counts: list[RuleCount] = []

    def kept(rule: str, keep: pl.Expr, told: str) -> None:
        nonlocal frame
        before = frame.height
        frame = frame.filter(keep)
        gone = before - frame.height
        if gone:
            counts.append(RuleCount(rule, gone, f"{gone:,} {_rows(gone)} {told}"))

    if known is not None and rules.undescribed == "drop":
        kept(
            "data.rules.undescribed",
            pl.col(ITEM).is_in(known.implode()),
            "of items that no row describes left out",
        )
    if ORDER in frame.columns:
        together = pl.col(TIMESTAMP).min().over(USER, ORDER)
        moved = frame.select(together.alias("at"), TIMESTAMP, ORDER)
        moved = moved.with_columns(
            at=pl.when(pl.col(ORDER).is_null()).then(TIMESTAMP).otherwise(pl.col("at"))
        )
        many = int((moved["at"] != moved[TIMESTAMP]).sum())
        if many:
            frame = frame.with_columns(moved["at"].alias(TIMESTAMP))
            told = f"{many:,} {_rows(many)} dated as the first of their order"
            counts.append(RuleCount("data.columns.order", many, told))
        frame = frame.drop(ORDER)
    frame = frame.with_columns(_signed(rules, rated).alias(WEIGHT))
    named = [kind for kind, weight in rules.kinds.items() if weight < 0]
    by_weight = (pl.col(WEIGHT) < 0) & ~pl.col(EVENT).is_in(named)
    frame = frame.with_columns(
        pl.when(by_weight).then(pl.lit(DISLIKE)).otherwise(EVENT).alias(EVENT)
    )
    if QUANTITY in frame.columns:
        frame = _returned(frame, rules, counts).drop(QUANTITY)
    if rules.repeats in ("sum", "first"):
        frame = _merged(frame, rules, counts)
    if rules.same_time == "shuffle":
        frame = _spread(frame, counts)
    frame = sort_events(frame)
    dislikes = _apart(frame, pl.col(WEIGHT) < 0, "taken as dislikes", counts)
    neutral = _apart(frame, pl.col(WEIGHT) == 0, "counted for nothing", counts)
    if dislikes is not None or neutral is not None:
        frame = frame.filter(pl.col(WEIGHT) > 0)
    return Ruled(frame, dislikes, neutral, tuple(counts))


def sort_events(frame: pl.DataFrame) -> pl.DataFrame:
    """By time and user; what a user did at one time in an order that is drawn, not the ids'.

    The draw depends on nothing but the rows themselves: the same log is in the same order whatever
    the order of its file, and more rows do not change that of others.
    """
    drawn = pl.Series(_DRAWN, _drawn(frame))
    # By positions: to sort the frame itself holds the keys and two copies at once.
    by = pl.arg_sort_by(TIMESTAMP, USER, drawn, ITEM, EVENT, WEIGHT, maintain_order=True)
    return frame[frame.select(by).to_series()]


def _drawn(frame: pl.DataFrame) -> np.ndarray:
    """[n] uint64: drawn for each row that shares user and time with others, 0 for the rest."""
    drawn = np.zeros(frame.height, dtype=np.uint64)
    shared = frame.select(pl.struct(TIMESTAMP, USER).is_duplicated()).to_series().to_numpy()
    if shared.any():
        rows = frame.filter(shared)
        time = rows[TIMESTAMP].to_physical().to_numpy()
        drawn[shared] = drawn_order(rows[USER], rows[ITEM], time)
    return drawn


def _apart(
    frame: pl.DataFrame, chosen: pl.Expr, told: str, counts: list[RuleCount]
) -> pl.DataFrame | None:
    """The chosen rows, their weight without its sign; None: there is none."""
    part = frame.filter(chosen)
    if part.is_empty():
        return None
    counts.append(
        RuleCount("data.kinds", part.height, f"{part.height:,} {_rows(part.height)} {told}")
    )
    return part.with_columns(pl.col(WEIGHT).abs())


def _signed(rules: EventRules, rated: bool) -> pl.Expr:
    """The weight of each row: of its kind, times its own, and below 0 where it is a dislike."""
    own = pl.col(WEIGHT)
    sign = pl.when(own > 0).then(1.0).otherwise(0.0)
    if rated:
        if rules.positive is not None:
            sign = pl.when(fulfils(rules.positive, own)).then(1.0).otherwise(0.0)
        if rules.negative is not None:
            sign = pl.when(fulfils(rules.negative, own)).then(-1.0).otherwise(sign)
        # A dislike of weight 0 is one all the same, and so is a like of a scale around 0.
        own = pl.when(own == 0).then(1.0).otherwise(own.abs())
    value = sign * own
    if rules.kinds:
        of_kind = pl.col(EVENT).replace_strict(
            dict(rules.kinds), default=0.0, return_dtype=pl.Float64
        )
        # What is disliked either way is disliked.
        value = (
            pl.when((of_kind < 0) | (value < 0))
            .then(-(of_kind * value).abs())
            .otherwise(of_kind * value)
        )
    return value.cast(pl.Float32)


def _returned(frame: pl.DataFrame, rules: EventRules, counts: list[RuleCount]) -> pl.DataFrame:
    """Purchases without those that were given back, and the returns that leave nothing.

    A return takes back the latest purchases of its user and item before it, as many as it says;
    what is kept of any counts. Where nothing is kept the return itself is a dislike, else nothing.
    """
    many = pl.col(QUANTITY).fill_null(1).cast(pl.Float64)
    returns = frame.filter(many < 0).height
    none = frame.filter(many == 0).height
    if none:
        frame = frame.with_columns(pl.when(many == 0).then(0.0).otherwise(WEIGHT).alias(WEIGHT))
        told = f"{none:,} {_rows(none)} of quantity 0 count for nothing"
        counts.append(RuleCount("data.columns.quantity", none, told))
    if not returns:
        return frame
    rule = "data.rules.negative_quantity"
    if rules.negative_quantity == "drop":
        told = f"{returns:,} {_rows(returns)} of a quantity below 0 left out"
        counts.append(RuleCount(rule, returns, told))
        return frame.filter(many >= 0)
    # Purchases come before returns of the same time.
    order = frame.select(pl.arg_sort_by(TIMESTAMP, many < 0, maintain_order=True)).to_series()
    pair = [USER, ITEM]
    sold = pl.col("__sold")
    frame = frame[order].with_columns(many.alias("__sold"))
    frame = frame.with_columns(sold.cum_sum().over(pair).alias("__sum"))
    lowest = pl.min_horizontal(pl.col("__sum").cum_min(), 0.0).over(pair)
    frame = frame.with_columns((pl.col("__sum") - lowest).alias("__held"))
    held = pl.col("__held")
    frame = frame.with_columns(
        held.cum_min(reverse=True).over(pair).alias("__least"),
        held.shift(1, fill_value=0.0).over(pair).alias("__before"),
    )
    kept = (sold > 0) & (pl.col("__least") > pl.col("__before"))
    taken = frame.filter((sold > 0) & ~kept).height
    told = (
        f"{returns:,} {_rows(returns)} of a quantity below 0 took back {taken:,} "
        f"purchase{'s' if taken != 1 else ''}"
    )
    counts.append(RuleCount(rule, returns + taken, told))
    empty = (sold < 0) & (held <= 0)
    weight = (
        pl.when(kept | (sold == 0))
        .then(WEIGHT)
        .otherwise(pl.when(empty).then(-pl.col(WEIGHT).abs()).otherwise(0.0))
    )
    kind = pl.when(empty).then(pl.lit(RETURN)).otherwise(EVENT)
    return frame.with_columns(weight.cast(pl.Float32).alias(WEIGHT), kind.alias(EVENT)).drop(
        "__sold", "__sum", "__held", "__least", "__before"
    )


def _merged(frame: pl.DataFrame, rules: EventRules, counts: list[RuleCount]) -> pl.DataFrame:
    """One row for each user, item, time and kind."""
    key = [USER, ITEM, TIMESTAMP, EVENT]
    before = frame.height
    if frame.select(key).hash_rows().n_unique() == before:
        return frame
    rest = [name for name in frame.columns if name not in (*key, WEIGHT)]
    weight = pl.col(WEIGHT).sum() if rules.repeats == "sum" else pl.col(WEIGHT).first()
    merged = frame.group_by(key, maintain_order=True).agg(weight, *(pl.col(rest).first(),))
    gone = before - merged.height
    if gone:
        how = "added up" if rules.repeats == "sum" else "left out"
        told = f"{gone:,} {_rows(gone)} that repeat user, item, time and kind {how}"
        counts.append(RuleCount("data.rules.repeats", gone, told))
    return merged.select(frame.columns)


def _spread(frame: pl.DataFrame, counts: list[RuleCount]) -> pl.DataFrame:
    """Events of one user and time a microsecond apart, in the order that is drawn."""
    frame = sort_events(frame)
    place = pl.int_range(pl.len(), dtype=pl.Int64).over(TIMESTAMP, USER)
    later = frame.select(place.alias("place")).to_series()
    moved = int((later > 0).sum())
    if not moved:
        return frame
    told = f"{moved:,} {_rows(moved)} at the time of another put in an order that is drawn"
    counts.append(RuleCount("data.rules.same_time", moved, told))
    time = pl.col(TIMESTAMP) + pl.duration(microseconds=pl.lit(later))
    frame = frame.with_columns(time.cast(pl.Datetime("us")).alias(TIMESTAMP))
    if CREATED in frame.columns:
        frame = frame.with_columns(pl.max_horizontal(CREATED, TIMESTAMP).alias(CREATED))
    return frame


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"
