"""What an id may be, so that every place which names users and items can carry it.

An id stands in bodies and URLs of HTTP, in keys of the store, in logs of one line an event and in
tables that people read. One declaration serves them all: tables are checked by it before anything
is trained, and requests when they come.
"""

from __future__ import annotations

import polars as pl

__all__ = ["ID_PATTERN", "MAX_ID_LENGTH", "has_control", "is_too_long"]

MAX_ID_LENGTH = 1024
"""Most characters of an id; a URL of several hundred is one."""
ID_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"
"""Text without control characters (line breaks and tabs are some), as JSON Schema has it."""

_CONTROL = r"[\x00-\x1f\x7f-\u{9f}]"


def has_control(ids: pl.Expr) -> pl.Expr:
    """Whether ids, as text, hold a control character."""
    return ids.str.contains(_CONTROL)


def is_too_long(ids: pl.Expr) -> pl.Expr:
    """Whether ids, as text, have more than `MAX_ID_LENGTH` characters."""
    return ids.str.len_chars() > MAX_ID_LENGTH
