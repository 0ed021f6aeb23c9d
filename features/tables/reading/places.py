"""Where the rows of a table stand in the files that it was read from, for messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from features.errors import Problem
from features.tables.reading.delimited import good_lines
from features.tables.reading.files import open_text
from features.tables.reading.options import ReadOptions
from features.tables.reading.remote import File

__all__ = ["Places"]

_CHARACTERS = 1 << 22
_ROW = re.compile(r"\(row (\d+)\)$")  # at the end of `Problem.first`


@dataclass(frozen=True)
class Places:
    """Where rows stand.

    Nothing is kept of each row: a file in which every row takes one line needs no more than that,
    and the others are gone through again, up to the row that is asked for.

    Attributes:
        files: files and their numbers of rows, in the order of the table.
        found: how they are written.
    """

    files: tuple[tuple[File, int], ...]
    found: ReadOptions

    def named(self, problems: Sequence[Problem]) -> list[Problem]:
        """Problems with places in the file, in place of rows of the table."""
        return [
            replace(one, first=_ROW.sub(lambda found: f"({self.of(int(found[1]))})", one.first))
            for one in problems
        ]

    def of(self, row: int) -> str:
        """The line of a row of a file of text, and which file where there are several.

        Args:
            row: of the table, from 0.

        Returns:
            Such as "line 3" or "line 3 of part-2.csv"; "row 1" where a file has no lines.
        """
        if self.found.format not in ("delimited", "json_lines"):
            return f"row {row}"
        below = row
        for file, height in self.files:
            if below < height:
                line = self._line(file, below, height)
                return f"line {line}" + (f" of {file.name}" if len(self.files) > 1 else "")
            below -= height
        return f"row {row}"

    def _line(self, file: File, row: int, height: int) -> int:
        header = int(bool(self.found.header))
        if _number_of_lines(file, self.found) == height + header:
            return (self.found.skip_lines or 0) + header + row + 1
        delimited = self.found.format == "delimited"
        lines = good_lines(file, self.found) if delimited else _objects(file, self.found)
        return next(islice(lines, row, None), header + row + 1)


def _number_of_lines(file: File, found: ReadOptions) -> int:
    count, last = 0, "\n"
    with open_text(file, found) as text:
        while part := text.read(_CHARACTERS):
            count, last = count + part.count("\n"), part[-1]
    return count + (last != "\n")


def _objects(file: File, found: ReadOptions) -> Iterator[int]:
    """The lines that are objects of JSON."""
    with open_text(file, found) as text:
        for number, line in enumerate(text, start=1):
            if line.strip() and (found.bad_rows == "refuse" or _is_object(line)):
                yield number


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
