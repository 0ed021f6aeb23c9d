"""Whole numbers that name something, which are categories, and those that measure something."""

from __future__ import annotations

import polars as pl

from features.tables.roles.names import ATTRIBUTES, MEASURES, rank, words

__all__ = ["find_codes"]

_CODE = ("no", "code", "id", "type", "nr", "cd", "key", "class", "flag", "is", "has")
_FEW, _SHARE = 50, 0.05


def find_codes(frame: pl.DataFrame, key: str, most: int) -> dict[str, str]:
    """Whole-number columns that are categories, with the reason.

    Args:
        frame: the table of items or users.
        key: its id column.
        most: a column of more different values is left a number.
    """
    found = {}
    for name, dtype in frame.schema.items():
        if name == key or not dtype.is_integer():
            continue
        parts = words(name)
        different = frame[name].drop_nulls().n_unique()
        if not 1 <= different <= most:
            continue
        ends = bool(parts) and (parts[-1] in _CODE or parts[-1].endswith("id") or parts[0] in _CODE)
        measured = rank(name, MEASURES) is not None
        described = rank(name, ATTRIBUTES) is not None and not measured
        if (ends or described) and different < frame.height:
            found[name] = f"{name}: {different:,} numbers that are codes, by its name"
        elif not measured and different <= min(_FEW, _SHARE * frame.height):
            found[name] = f"{name}: {different:,} numbers that repeat, so they are taken for codes"
    return found
