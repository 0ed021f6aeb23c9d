"""Cells that hold several values."""

from __future__ import annotations

import polars as pl

__all__ = ["MARKS", "list_separator", "lists_of", "words"]

MARKS = ("|", ";", ",", " ")
_CODE = r"^[A-Za-z]{0,4}[-_:]?\d[\w.:-]*$"
_BRACKETED = r"^\s*[\[({].*[\])}]\s*$"
_ENOUGH = 0.5


def list_separator(values: pl.Series) -> str | None:
    """What stands between the values of the cells of text; None: they do not hold several.

    Of text without brackets white space and commas separate codes alone, not words; "json" is a
    list of JSON.
    """
    there = values.drop_nulls()
    there = there.filter(there.str.strip_chars() != "")
    if there.is_empty():
        return None
    if bool(there.str.contains(_BRACKETED).all()):
        if bool(there.str.contains(r'^\s*\[\s*(?:"|\])').all()):
            return "json"
        inner = there.str.strip_chars(" []{}()\t")
        return "," if bool(inner.str.contains(",", literal=True).any()) else " "
    for mark in MARKS:
        several = there.str.strip_chars().str.contains(
            r"\s" if mark == " " else mark, literal=mark != " "
        )
        if int(several.sum()) < _ENOUGH * len(there):
            continue
        parts = _split(there.head(1_000), mark).explode().drop_nulls()
        if mark in "|;" or bool(parts.str.contains(_CODE).all()):
            return mark
    return None


def lists_of(values: pl.Series, separator: str | None) -> pl.Series:
    """The cells as lists; an empty cell is an empty list.

    Args:
        values: text, or lists already.
        separator: of `list_separator`.
    """
    if isinstance(values.dtype, pl.List):
        return values.fill_null([])
    if isinstance(values.dtype, pl.Array):
        return values.arr.to_list().fill_null([])
    text = values.cast(pl.String)
    if separator == "json":
        return text.str.json_decode(pl.List(pl.String)).fill_null([])
    return _split(text, separator or " ").fill_null([])


def words(values: pl.Series) -> pl.Series:
    """The parts of text between white space."""
    return _split(values, " ").fill_null([])


def _split(text: pl.Series, separator: str) -> pl.Series:
    inner = text.str.strip_chars().str.strip_chars("[](){}").str.strip_chars()
    if separator == " ":
        inner, separator = inner.str.replace_all(r"\s+", " "), " "
    parts = pl.element().str.strip_chars().str.strip_chars("'\"")
    split = inner.str.split(separator).to_frame("cell")
    kept = split.select(pl.col("cell").list.eval(parts.filter(parts != "")))
    return kept["cell"].rename(text.name)
