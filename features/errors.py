"""Errors of the data layer, and the description of one broken rule.

DataError(ValueError)         a log, a table or a definition breaks its rules
UnknownIdError(LookupError)   an id is not in the vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DataError", "Problem", "UnknownIdError"]


@dataclass(frozen=True)
class Problem:
    """One rule that some rows of one column break.

    Attributes:
        source: the file or the table as its reader knows it ("ratings.parquet", "items").
        column: the column at fault, or several joined by ", ".
        rule: what must hold, as a sentence without its subject ("must not be null or empty").
        rows: number of rows that break the rule; 0 when the column as a whole is at fault.
        first: the first offending value and its row, as text.
        remedy: what to do about it.
    """

    source: str
    column: str
    rule: str
    rows: int
    first: str
    remedy: str

    def __str__(self) -> str:
        where = f" in {self.rows} row{'s' if self.rows != 1 else ''}" if self.rows else ""
        return (
            f"{self.source}: column {self.column!r} {self.rule}; broken{where}, "
            f"first: {self.first}. {self.remedy}"
        )


class DataError(ValueError):
    """Data breaks its rules; `problems` lists every broken rule that was found.

    Args:
        message: what is wrong; None: the problems, one a line.
        problems: the broken rules, possibly none when the message says it all.
    """

    def __init__(self, message: str | None = None, *, problems: Sequence[Problem] = ()) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        if message is None:
            message = "\n".join(str(problem) for problem in self.problems)
        super().__init__(message)


class UnknownIdError(LookupError):
    """An id is not in the vocabulary (a `LookupError`: `KeyError` would quote its message)."""
