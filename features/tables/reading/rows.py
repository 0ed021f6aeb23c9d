"""Rows of delimited text with the lines that they stand in."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

__all__ = ["JOINED", "csv_rows"]

JOINED = "\x1f"
"""Stands for "::", as readers take separators of one character."""


def csv_rows(
    lines: Iterable[str], separator: str, quote: str
) -> Iterator[tuple[int, int, list[str] | str]]:
    """First and last line of each row, and its cells or what is wrong with it; no blank lines.

    This is slower than Polars but knows lines: it reads what is short, or what Polars refused.
    """
    if separator == "::":
        lines, separator = (line.replace("::", JOINED) for line in lines), JOINED
    reader = csv.reader(
        lines,
        delimiter=separator,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begin, reader.line_num, str(error)
        else:
            if row:
                yield begin, reader.line_num, row
