"""How far a table describes those whom the log holds, where that is less than it seems meant to.

A table that matches nobody is no broken rule: a run does without what it says. But it is nearly
always a mistake in the ids, so it is told with those of both sides.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

__all__ = ["described_note"]

_FEW_DESCRIBED, _FEW_MET = 0.5, 0.1
_EXAMPLES = 3
_CHANGES: Mapping[str, pl.Expr] = {
    "white space around them": pl.col("id").str.strip_chars(),
    "capital letters": pl.col("id").str.to_lowercase(),
    "leading zeros": pl.col("id").str.replace(r"^0+(.)", "$1"),
    "the end '.0'": pl.col("id").str.replace(r"\.0+$", ""),
    "what stands before the number": pl.col("id").str.extract(r"(\d+)$"),
    "what stands around the number": pl.col("id").str.extract(r"(\d+)"),
}
"""In what ids of one thing are often written in two ways -> what is left without it."""


def described_note(
    table: pl.Series, log: pl.Series, *, source: str, log_source: str, noun: str
) -> str | None:
    """A sentence where a table describes less than half of the log, or is nine tenths unused.

    Args:
        table: ids of the table, text or whole numbers.
        log: those of the log's rows.
        source: what the table is called.
        log_source: what the log is called.
        noun: what one of them is, such as "user".

    Returns:
        The sentence, with counts and examples of both sides; None: nothing is to be said.
    """
    ours, theirs = _ids(table), _ids(log)
    if ours.is_empty() or theirs.is_empty():
        return None
    both = ours.join(theirs, on="id", how="semi").height
    if both == 0:
        return (
            f"{source} describes none of the {theirs.height:,} {noun}s of {log_source}: ids are "
            f"{_examples(ours)} there and {_examples(theirs)} in the log{_hint(ours, theirs)}"
        )
    if both < _FEW_DESCRIBED * theirs.height:
        missing = theirs.join(ours, on="id", how="anti")
        return (
            f"{source} describes {both:,} of the {theirs.height:,} {noun}s of {log_source}; not "
            f"described are {_examples(missing)}{_hint(ours, missing)}"
        )
    if both < _FEW_MET * ours.height:
        unmet = ours.join(theirs, on="id", how="anti")
        return (
            f"{source} describes {ours.height:,} {noun}s, of whom {both:,} have events in "
            f"{log_source}; none have {_examples(unmet)}"
        )
    return None


def _ids(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"id": ids.unique().cast(pl.String).drop_nulls().unique().sort()})


def _examples(ids: pl.DataFrame) -> str:
    shown = [repr(one) for one in ids["id"].head(_EXAMPLES)]
    return ", ".join([*shown, *(["..."] if ids.height > _EXAMPLES else [])])


def _hint(ours: pl.DataFrame, theirs: pl.DataFrame) -> str:
    """What the ids differ in, where most match without it."""
    for what, change in _CHANGES.items():
        changed = [one.select(change).drop_nulls().unique() for one in (ours, theirs)]
        both = changed[0].join(changed[1], on="id", how="semi").height
        if 2 * both > min(ours.height, theirs.height):
            return f"; they differ in {what}, write them in one way"
    return ""
