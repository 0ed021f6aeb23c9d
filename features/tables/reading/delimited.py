"""Rows of delimited text, all cells as text."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from features.errors import DataError
from features.tables.reading.files import as_utf8, open_text
from features.tables.reading.options import ReadOptions
from features.tables.reading.remote import File
from features.tables.reading.rows import JOINED, csv_rows

__all__ = ["Dropped", "good_lines", "read_delimited"]

_CHUNK = 1 << 22
_ROWS = 50_000
_SHOWN = 60


@dataclass(frozen=True)
class Dropped:
    """Rows of one file that could not be read and were left out.

    Attributes:
        path: the file.
        rows: how many; of a quote that is never closed, the lines that it swallowed.
        first: line and fault of the first; None: they repeat the header.
    """

    path: File
    rows: int
    first: str | None

    def __str__(self) -> str:
        many = f"{self.rows:,} row{'s' if self.rows != 1 else ''}"
        if self.first is None:
            return f"{self.path}: {many} dropped, in which the header stands once more"
        return f"{self.path}: {many} dropped that cannot be read; first: {self.first}"


def read_delimited(path: File, found: ReadOptions) -> tuple[pl.DataFrame, Dropped | None]:
    """Every row of one file; a row of empty cells alone is none.

    Args:
        path: the file.
        found: with nothing left to find.

    Raises:
        DataError: a row cannot be read and ``bad_rows`` is "refuse".
    """
    try:
        frame = _parsed(_source(path, found), found)
    except (pl.exceptions.PolarsError, UnicodeError):
        frame = None
    return _row_by_row(path, found) if frame is None else (frame, None)


def _source(path: File, found: ReadOptions) -> Path | io.BytesIO:
    """What Polars takes: the file itself where it is UTF-8, its text otherwise."""
    if found.separator == "::":
        return io.BytesIO(as_utf8(path, found).getvalue().replace(b"::", JOINED.encode()))
    plain = found.encoding == "utf-8" and found.compression == "none" and not found.skip_lines
    if plain and isinstance(path, Path):
        return path
    return as_utf8(path, found)


def _parsed(source: Path | io.BytesIO, found: ReadOptions) -> pl.DataFrame | None:
    """The rows as Polars reads them; None: not all have the same number of cells."""
    separator = JOINED if found.separator == "::" else str(found.separator)
    marks, old_ends = _count(source, separator, found.quote or "")
    if isinstance(source, io.BytesIO):
        source.seek(0)
    frame = pl.read_csv(
        source,
        separator=separator,
        quote_char=found.quote or None,
        has_header=bool(found.header),
        infer_schema=False,
        glob=False,
        eol_char="\r" if old_ends else "\n",
    )
    if not found.header:
        frame.columns = _by_position(frame.width)
    full = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    # Polars fills up short rows without a word, but separators do not lie: those of the file are
    # between cells or in them.
    between = (full.height + bool(found.header)) * (frame.width - 1)
    blank = (frame.height - full.height) * (frame.width - 1)
    within = 0
    if marks[found.quote or ""]:
        count = pl.all().str.count_matches(separator, literal=True).sum()
        within = sum(full.select(count).row(0)) if full.height else 0
        within += sum(name.count(separator) for name in frame.columns) if found.header else 0
    return full if marks[separator] - within in (between, between + blank) else None


def _count(source: Path | io.BytesIO, *wanted: str) -> tuple[Counter[str], bool]:
    """How often each character is there, and whether lines end by a carriage return alone."""
    found: Counter[str] = Counter()
    line_feeds = returns = 0
    with ExitStack() as stack:
        file = (
            stack.enter_context(source.open("rb"))
            if isinstance(source, Path)
            else cast("BinaryIO", source)
        )
        while chunk := file.read(_CHUNK):
            for one in filter(None, wanted):
                found[one] += chunk.count(one.encode())
            if not line_feeds:
                line_feeds, returns = chunk.count(b"\n"), returns + chunk.count(b"\r")
    return found, bool(returns and not line_feeds)


def _row_by_row(path: File, found: ReadOptions) -> tuple[pl.DataFrame, Dropped | None]:
    """The same by a reader that knows lines; what Polars alone refused is read."""
    parts: list[pl.DataFrame] = []
    kept: list[list[str]] = []
    names: list[str] = []
    bad, first = 0, ""
    for begin, end, row in _lines(path, found):
        if not names and not isinstance(row, str):
            names = _distinct(row) if found.header else _by_position(len(row))
            if found.header:
                continue
        fault = _fault(row, len(names), found)
        if fault is None:
            kept.append(cast("list[str]", row))
        else:
            told, remedy = fault
            if found.bad_rows == "refuse":
                raise DataError(
                    f"{path}: line {begin} {told}; {remedy}, or set bad_rows = 'drop' in "
                    "[data.read]"
                )
            bad += end - begin + 1
            first = first or f"line {begin} {told}"
        if len(kept) == _ROWS:
            parts.append(_frame(kept, names))
            kept = []
    parts.append(_frame(kept, names))
    frame = pl.concat(parts)
    full = frame.filter(~pl.all_horizontal(pl.all().is_null())) if frame.width else frame
    return full, Dropped(path, bad, first) if bad else None


def good_lines(path: File, found: ReadOptions) -> Iterator[int]:
    """The line that each row of `read_delimited` begins in, headers that come again aside."""
    width, head = 0, None
    for begin, _, row in _lines(path, found):
        if not width and not isinstance(row, str):
            width = len(row)
            if found.header:
                head = row if width > 1 else None
                continue
        if _fault(row, width, found) is None and any(row) and row != head:
            yield begin


def _lines(path: File, found: ReadOptions) -> Iterator[tuple[int, int, list[str] | str]]:
    skipped = found.skip_lines or 0
    with open_text(path, found) as text:
        for begin, end, row in csv_rows(text, str(found.separator), found.quote or ""):
            yield begin + skipped, end + skipped, row


def _frame(rows: list[list[str]], names: list[str]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return frame.with_columns(pl.all().replace("", None))


def _by_position(width: int) -> list[str]:
    return [f"column_{number}" for number in range(1, width + 1)]


def _distinct(head: list[str]) -> list[str]:
    """Names as Polars makes them of a header that repeats one."""
    seen: Counter[str] = Counter()
    names = []
    for name in head:
        names.append(f"{name}_duplicated_{seen[name] - 1}" if seen[name] else name)
        seen[name] += 1
    return names


def _fault(row: list[str] | str, width: int, found: ReadOptions) -> tuple[str, str] | None:
    """What is wrong with a row, and the remedy."""
    if isinstance(row, str):
        if "expected after" in row:
            return f"has text behind a closing quote ({row})", 'double the quote, or set quote = ""'
        return "opens a quote that is never closed", 'close it, or set quote = ""'
    shown = str(found.separator).join(row)
    if _is_not_text(shown, found):
        remedy = f"repair it, set another encoding than {found.encoding!r}"
        return f"holds bytes that are no {found.encoding} text", remedy
    if len(row) != width:
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        return f"must have {width} cells like the first, got {len(row)}: {shown!r}", "repair it"
    return None


def _is_not_text(text: str, found: ReadOptions) -> bool:
    if found.encoding == "utf-8":
        return any("\udc80" <= char <= "\udcff" for char in text)
    return "\ufffd" in text
