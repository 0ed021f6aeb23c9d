"""Layouts that hold no log, or none that can be taken as it is: named, with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from features.errors import DataError

__all__ = ["refuse_columns", "refuse_lines"]

_SVMLIGHT = re.compile(r"[-+]?[\d.]+\s+(?:qid:\S+\s*)?(?:\d+:[-+.\deE]+\s*)*(?:#.*)?")
_PAIR = re.compile(r"(?:^|\s)\d+:[-+.\deE]+")
_NETFLIX_ITEM = re.compile(r"\d+:")
_NETFLIX_ROW = re.compile(r"\d+,[1-5],\d{4}-\d\d-\d\d")
_CRITEO = re.compile(r"[IC]\d+", re.IGNORECASE)
_HASH = re.compile(r"[0-9a-f]{8}")
_CRITEO_WIDTH = 40


def refuse_lines(source: str, lines: Sequence[str]) -> None:
    """Refuse a file by its first lines.

    Raises:
        DataError: it is of SVMlight's layout or of Netflix's.
    """
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        return
    if all(_SVMLIGHT.fullmatch(line) and _PAIR.search(line) for line in lines):
        raise DataError(
            f"{source} is of the layout 'svmlight' (LETOR), which is not read: a row is a judged "
            "pair of a query and a document with numbered features, and names no user, item or "
            "time. Write one row an event with user, item and time; numbers of an item belong in "
            "the file of the items"
        )
    heads = sum(bool(_NETFLIX_ITEM.fullmatch(line)) for line in lines)
    if heads and all(
        _NETFLIX_ITEM.fullmatch(line) or _NETFLIX_ROW.fullmatch(line) for line in lines
    ):
        raise DataError(
            f"{source} is of the layout 'netflix', which is not read: the item stands in a line of "
            "its own ('1:') above its ratings. Write it into every row: awk -F: '/:$/ {i = $1; "
            'next} {print i "," $0}\' FILE > ratings.csv'
        )


def refuse_columns(source: str, columns: Sequence[str], first: Sequence[object]) -> None:
    """Refuse a table by its columns and its first row.

    Raises:
        DataError: it is of Criteo's layout.
    """
    numbered = [name for name in columns if _CRITEO.fullmatch(name)]
    letters = {name[0].upper() for name in numbered}
    named = letters == {"I", "C"} and len(columns) - len(numbered) <= 1
    hashes = sum(bool(_HASH.fullmatch(str(cell))) for cell in first if cell is not None)
    nameless = len(columns) == _CRITEO_WIDTH and columns[0] == "column_1" and hashes > 10
    if named or nameless:
        raise DataError(
            f"{source} is of the layout 'criteo', which is not read: a row is a label with "
            "anonymous numbers (I1..) and hashed categories (C1..), and names no user, item or "
            "time. It is data for predicting clicks; a recommender needs one row an event with "
            "user, item and time"
        )
