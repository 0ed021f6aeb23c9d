"""Tables that describe items and users: one row per id, columns that know what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import polars as pl

from features.errors import DataError, Problem
from features.tables.reading import read_frame
from features.tables.schema import ITEM, USER
from features.tables.validation import entity_problems

__all__ = ["ItemTable", "UserTable", "read_items", "read_users"]

_LIST_SHARE = 0.1
_MOST_CATEGORIES = 1_000


@dataclass(frozen=True)
class ItemTable:
    """What is known of each item. Make one with `from_frame` or `read_items`.

    Attributes:
        frame: item_id String first (unique, no nulls), then the columns of the file. List columns
            are List(String) without nulls; the others may hold nulls.
        text_columns: free text (titles, descriptions).
        category_columns: one value of a small set (strings or booleans).
        list_columns: several values of a set (genres).
        number_columns: integers and floats.
    """

    frame: pl.DataFrame
    text_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    list_columns: tuple[str, ...] = ()
    number_columns: tuple[str, ...] = ()

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        *,
        id_column: str = ITEM,
        source: str = "items",
        text_columns: Sequence[str] | None = None,
        category_columns: Sequence[str] | None = None,
        list_columns: Sequence[str] | None = None,
        list_separator: str = "|",
    ) -> Self:
        """Check a raw table and find out what its columns are.

        A column named in one of the arguments is what the argument says. Of the others, numbers
        are number columns, booleans categories, lists of strings list columns; a string column
        is a list column if a tenth of its values contain ``list_separator``, a category if
        its values repeat (distinct values at most half of the values and at most 1,000), else
        text. Columns of other types stay in the frame without a role.

        Args:
            frame: the raw table.
            id_column: column of the item's id; becomes "item_id".
            source: what to call the table in messages.
            text_columns: columns that are text whatever they look like.
            category_columns: columns that are categories whatever they look like.
            list_columns: string or list columns that hold several values.
            list_separator: what separates the values of a list column of strings.

        Raises:
            DataError: the id column is missing, null or not unique, or a named column is missing
                or of a type that cannot play the role.
        """
        kinds = {"text": text_columns, "category": category_columns, "list": list_columns}
        table, roles = _checked(frame, id_column, ITEM, source, kinds, list_separator)
        return cls(table, *(roles[kind] for kind in ("text", "category", "list", "number")))

    def __len__(self) -> int:
        return self.frame.height

    @property
    def ids(self) -> list[str]:
        """The item ids in the order of the frame."""
        return self.frame[ITEM].to_list()


@dataclass(frozen=True)
class UserTable:
    """What is known of each user; the same as `ItemTable` with user_id first."""

    frame: pl.DataFrame
    text_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    list_columns: tuple[str, ...] = ()
    number_columns: tuple[str, ...] = ()

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        *,
        id_column: str = USER,
        source: str = "users",
        text_columns: Sequence[str] | None = None,
        category_columns: Sequence[str] | None = None,
        list_columns: Sequence[str] | None = None,
        list_separator: str = "|",
    ) -> Self:
        """Check a raw table and find out what its columns are; see `ItemTable.from_frame`.

        Raises:
            DataError: as `ItemTable.from_frame`.
        """
        kinds = {"text": text_columns, "category": category_columns, "list": list_columns}
        table, roles = _checked(frame, id_column, USER, source, kinds, list_separator)
        return cls(table, *(roles[kind] for kind in ("text", "category", "list", "number")))

    def __len__(self) -> int:
        return self.frame.height

    @property
    def ids(self) -> list[str]:
        """The user ids in the order of the frame."""
        return self.frame[USER].to_list()


def read_items(path: Path | str, **options: object) -> ItemTable:
    """Read and check an item table from Parquet or CSV; options as `ItemTable.from_frame`.

    Raises:
        DataError: as `ItemTable.from_frame`, or the file is of another kind.
        FileNotFoundError: there is no such file.
    """
    return ItemTable.from_frame(read_frame(path), **{"source": str(path), **options})  # type: ignore[arg-type]


def read_users(path: Path | str, **options: object) -> UserTable:
    """Read and check a user table from Parquet or CSV; options as `UserTable.from_frame`.

    Raises:
        DataError: as `UserTable.from_frame`, or the file is of another kind.
        FileNotFoundError: there is no such file.
    """
    return UserTable.from_frame(read_frame(path), **{"source": str(path), **options})  # type: ignore[arg-type]


def _checked(
    frame: pl.DataFrame,
    id_column: str,
    id_name: str,
    source: str,
    declared: dict[str, Sequence[str] | None],
    separator: str,
) -> tuple[pl.DataFrame, dict[str, tuple[str, ...]]]:
    """The frame in its inside form, and the columns of each role in the frame's order."""
    problems = entity_problems(frame, id_column, source=source)
    role_of = {
        name: kind for kind, names in declared.items() if names is not None for name in names
    }
    problems += [
        problem
        for name, kind in role_of.items()
        for problem in _role_problems(frame, name, kind, source)
    ]
    if id_name != id_column and id_name in frame.columns:
        problems.append(
            Problem(
                source,
                id_name,
                f"must be the id if it exists (the id column given is {id_column!r})",
                0,
                "both columns exist",
                "Rename or drop one of them.",
            )
        )
    if problems:
        raise DataError(problems=problems)
    roles: dict[str, list[str]] = {"text": [], "category": [], "list": [], "number": []}
    columns = [pl.col(id_column).cast(pl.String).alias(id_name)]
    for name in frame.columns:
        if name == id_column:
            continue
        kind = role_of.get(name) or _guess(frame[name], separator)
        if kind is not None:
            roles[kind].append(name)
        columns.append(_as_list(frame[name], separator) if kind == "list" else pl.col(name))
    return frame.select(columns), {kind: tuple(names) for kind, names in roles.items()}


def _role_problems(frame: pl.DataFrame, name: str, kind: str, source: str) -> list[Problem]:
    if name not in frame.columns:
        first = f"the columns are {', '.join(frame.columns)}"
        remedy = f"Correct the name in {kind}_columns."
        return [Problem(source, name, "must exist", 0, first, remedy)]
    dtype = frame.schema[name]
    text = dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
    fits = {
        "text": text,
        "category": text or dtype == pl.Boolean or dtype.is_integer(),
        "list": dtype == pl.String or dtype == pl.List(pl.String),
    }[kind]
    if fits:
        return []
    remedy = f"Cast it, or take it out of {kind}_columns."
    return [Problem(source, name, f"cannot be a {kind} column", 0, f"it is {dtype}", remedy)]


def _guess(series: pl.Series, separator: str) -> str | None:
    if series.dtype.is_numeric():
        return "number"
    if series.dtype == pl.Boolean or isinstance(series.dtype, pl.Categorical | pl.Enum):
        return "category"
    if series.dtype == pl.List(pl.String):
        return "list"
    if series.dtype != pl.String:
        return None
    values = series.drop_nulls()
    if len(values) == 0:
        return "text"
    if int(values.str.contains(separator, literal=True).sum()) >= _LIST_SHARE * len(values):
        return "list"
    distinct = values.n_unique()
    return "category" if distinct <= min(len(values) / 2, _MOST_CATEGORIES) else "text"


def _as_list(series: pl.Series, separator: str) -> pl.Expr:
    """Distinct non-empty values in the order of the file; null becomes the empty list."""
    column = pl.col(series.name)
    if series.dtype == pl.String:
        column = column.str.split(separator)
    value = pl.element().str.strip_chars()
    kept = column.list.eval(value.filter(value.is_not_null() & (value != "")))
    return kept.list.unique(maintain_order=True).fill_null([]).alias(series.name)
