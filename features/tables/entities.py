"""Tables that describe items and users: one row per id, columns that know what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from features.errors import DataError, Problem
from features.tables.float_ids import with_whole_ids
from features.tables.reading import ReadOptions, location, read_table
from features.tables.schema import ITEM, USER
from features.tables.validation import entity_problems

__all__ = ["ItemTable", "UserTable", "read_items", "read_users"]

_LIST_SHARE = 0.1
_MOST_CATEGORIES = 1_000
_WIDE = (pl.Int128, pl.UInt128)


@dataclass(frozen=True)
class _DescribedIds:
    """One row an id, and the roles of the columns; see `ItemTable`."""

    frame: pl.DataFrame
    text_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    list_columns: tuple[str, ...] = ()
    number_columns: tuple[str, ...] = ()

    _id: ClassVar[str]
    _source: ClassVar[str]

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        *,
        id_column: str | None = None,
        source: str | None = None,
        text_columns: Sequence[str] | None = None,
        category_columns: Sequence[str] | None = None,
        list_columns: Sequence[str] | None = None,
        list_separator: str = "|",
        changing: Sequence[str] = (),
        problems: Sequence[Problem] | None = None,
    ) -> Self:
        """Check a raw table and find out what its columns are.

        A column named in one of the arguments is what the argument says. Of the others, numbers
        are number columns, booleans categories, lists of strings list columns; a string column
        is a list column if a tenth of its values contain ``list_separator``, a category if
        its values repeat (distinct values at most half of the values and at most 1,000), else
        text. Columns of other types stay in the frame without a role, and so do the numbers and
        categories of ``changing`` that no argument names. Decimals are read as floats; integers
        of more than 64 bits are no quantities and become text without a role. An infinite number
        and a blank category are missing.

        Args:
            frame: the raw table.
            id_column: column of the id; becomes "item_id" or "user_id", and None is that.
            source: what to call the table in messages; None: "items" or "users".
            text_columns: columns that are text whatever they look like.
            category_columns: columns that are categories whatever they look like.
            list_columns: string or list columns that hold several values.
            list_separator: what separates the values of a list column of strings.
            changing: columns whose values were other at other times.
            problems: of the ids, where they are checked already. None: they are checked here.

        Raises:
            DataError: the id column is missing, null or not unique, or a named column is missing
                or of a type that cannot play the role.
        """
        id_column, source = id_column or cls._id, source or cls._source
        frame = with_whole_ids(frame, (id_column,))
        if problems is None:
            problems = entity_problems(frame, id_column, source=source)
        kinds = {"text": text_columns, "category": category_columns, "list": list_columns}
        role_of = {name: kind for kind, names in kinds.items() for name in names or ()}
        problems = [*problems, *_role_problems(frame, role_of, source)]
        if cls._id != id_column and cls._id in frame.columns:
            rule = f"must be the id if it exists (the id column given is {id_column!r})"
            remedy = "Rename or drop one of them."
            problems.append(Problem(source, cls._id, rule, 0, "both columns exist", remedy))
        if problems:
            raise DataError(problems=problems)
        table, roles = _with_roles(frame, id_column, cls._id, role_of, list_separator)
        gone = set(changing) - set(role_of)
        for kind in ("category", "number"):
            roles[kind] = tuple(name for name in roles[kind] if name not in gone)
        return cls(table, *(roles[kind] for kind in ("text", "category", "list", "number")))

    def __len__(self) -> int:
        return self.frame.height

    @property
    def ids(self) -> list[str]:
        """The ids in the order of the frame."""
        return self.frame[self._id].to_list()


@dataclass(frozen=True)
class ItemTable(_DescribedIds):
    """What is known of each item. Make one with `from_frame` or `read_items`.

    Attributes:
        frame: item_id String first (unique, no nulls), then the columns of the file. List columns
            are List(String) without nulls; the others may hold nulls.
        text_columns: free text (titles, descriptions).
        category_columns: one value of a small set (strings or booleans).
        list_columns: several values of a set (genres).
        number_columns: integers and floats.
    """

    _id = ITEM
    _source = "items"


@dataclass(frozen=True)
class UserTable(_DescribedIds):
    """What is known of each user; the same as `ItemTable` with user_id first."""

    _id = USER
    _source = "users"


def read_items(path: Path | str, *, read: ReadOptions | None = None, **options: Any) -> ItemTable:
    """Read and check an item table; options as `ItemTable.from_frame`.

    Raises:
        DataError: as `ItemTable.from_frame`, or the file cannot be read.
        FileNotFoundError: there is no such file.
    """
    return ItemTable.from_frame(**_checked(path, read, {"id_column": ITEM, **options}))


def read_users(path: Path | str, *, read: ReadOptions | None = None, **options: Any) -> UserTable:
    """Read and check a user table; options as `UserTable.from_frame`.

    Raises:
        DataError: as `UserTable.from_frame`, or the file cannot be read.
        FileNotFoundError: there is no such file.
    """
    return UserTable.from_frame(**_checked(path, read, {"id_column": USER, **options}))


def _checked(path: Path | str, read: ReadOptions | None, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `from_frame` for a file, with the problems of its ids."""
    key, source = options["id_column"], options.get("source", str(location(path)))
    reading = read_table(path, read, ids=(key,))
    problems = reading.places.named(entity_problems(reading.frame, key, source=source))
    return {"frame": reading.frame, "problems": problems, "source": source, **options}


def _with_roles(
    frame: pl.DataFrame, id_column: str, id_name: str, role_of: Mapping[str, str], separator: str
) -> tuple[pl.DataFrame, dict[str, tuple[str, ...]]]:
    """The frame in its inside form, and the columns of each role in the frame's order."""
    roles: dict[str, list[str]] = {"text": [], "category": [], "list": [], "number": []}
    columns = [pl.col(id_column).cast(pl.String).alias(id_name)]
    for name in frame.columns:
        if name == id_column or not _can_be_kept(frame.schema[name]):
            continue
        kind = role_of.get(name) or _guess(frame[name], separator)
        if kind is not None:
            roles[kind].append(name)
        columns.append(_inside(frame[name], kind, separator))
    return frame.select(columns), {kind: tuple(names) for kind, names in roles.items()}


def _role_problems(frame: pl.DataFrame, role_of: Mapping[str, str], source: str) -> list[Problem]:
    problems = []
    for name, kind in role_of.items():
        if name not in frame.columns:
            first = f"the columns are {', '.join(frame.columns)}"
            remedy = f"Correct the name in {kind}_columns."
            problems.append(Problem(source, name, "must exist", 0, first, remedy))
            continue
        dtype = frame.schema[name]
        text = dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
        fits = {
            "text": text,
            "category": text or dtype == pl.Boolean or dtype.is_integer(),
            "list": dtype == pl.String or dtype == pl.List(pl.String),
        }[kind]
        if not fits:
            rule, remedy = (
                f"cannot be a {kind} column",
                f"Cast it, or take it out of {kind}_columns.",
            )
            problems.append(Problem(source, name, rule, 0, f"it is {dtype}", remedy))
    return problems


def _guess(series: pl.Series, separator: str) -> str | None:
    if series.dtype in _WIDE:
        return None
    if series.dtype.is_numeric():
        return "number"
    if series.dtype == pl.Boolean or isinstance(series.dtype, pl.Categorical | pl.Enum):
        return "category"
    if series.dtype == pl.List(pl.String):
        return "list"
    if series.dtype != pl.String:
        return None
    values = series.drop_nulls()
    values = values.filter(values.str.strip_chars() != "")
    if len(values) == 0:
        return "text"
    if int(values.str.contains(separator, literal=True).sum()) >= _LIST_SHARE * len(values):
        return "list"
    distinct = values.n_unique()
    return "category" if distinct <= min(len(values) / 2, _MOST_CATEGORIES) else "text"


def _inside(series: pl.Series, kind: str | None, separator: str) -> pl.Expr:
    """The column as its role takes it; a column without one as it can be written."""
    column, dtype = pl.col(series.name), series.dtype
    if kind == "list":
        return _as_list(series, separator)
    if dtype in _WIDE:
        column = column.cast(pl.String)
    if dtype.is_decimal() or dtype == pl.Float16:
        column = column.cast(pl.Float64)
    if kind == "number" and (dtype.is_float() or dtype.is_decimal()):
        return pl.when(column.is_infinite().not_()).then(column).alias(series.name)
    if kind == "category" and not dtype.is_numeric() and dtype != pl.Boolean:
        blank = column.cast(pl.String).str.strip_chars() == ""
        return pl.when(blank.not_()).then(column).alias(series.name)
    return column


def _can_be_kept(dtype: pl.DataType) -> bool:
    """Whether Parquet has the type: no Python objects, and no records without fields."""
    if isinstance(dtype, pl.List | pl.Array):
        return _can_be_kept(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return bool(dtype.fields) and all(_can_be_kept(one.dtype) for one in dtype.fields)  # type: ignore[arg-type]
    return dtype != pl.Object


def _as_list(series: pl.Series, separator: str) -> pl.Expr:
    """Distinct non-empty values in the order of the file; null becomes the empty list."""
    column = pl.col(series.name)
    if series.dtype == pl.String:
        column = column.str.split(separator)
    value = pl.element().str.strip_chars()
    kept = column.list.eval(value.filter(value.is_not_null() & (value != "")))
    return kept.list.unique(maintain_order=True).fill_null([]).alias(series.name)
