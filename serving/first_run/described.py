"""The settings of the columns that describe items and users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from features.tables import ItemTable, UserTable
from serving.first_run.setting import Setting

__all__ = ["described_settings"]

_TITLES = (
    "title", "name", "headline", "label", "product_name", "item_name", "product_title",
    "movie_title", "description",
)  # fmt: skip


def described_settings(
    section: str,
    table: ItemTable | UserTable,
    *,
    key: str | None = None,
    codes: Mapping[str, str] | None = None,
    changing: Sequence[str] = (),
) -> Iterator[Setting]:
    """Roles of the columns of items or users.

    Args:
        section: "item_columns" or "user_columns".
        table: the checked table.
        key: the column of its id, to be written. None: it is known otherwise.
        codes: columns of numbers that are categories, and why.
        changing: columns that change with time.
    """
    full = f"data.{section}"
    codes = codes or {}
    if key is not None:
        yield Setting(full, "id", key, "")
    if section == "item_columns":
        yield from _title(full, table)
    kinds = {
        "text": table.text_columns,
        "category": table.category_columns,
        "list": table.list_columns,
    }
    for kind, names in kinds.items():
        if names:
            reason = "; ".join(codes.get(name) or _why(table, kind, name) for name in names)
            yield Setting(full, kind, list(names), reason)
    if table.number_columns:
        shown = ", ".join(table.number_columns)
        yield Setting(full, "numbers", None, f"numbers need no line: {shown}")
    described = (*table.text_columns, *table.list_columns)
    gone = [name for name in changing if name not in described]
    if gone:
        reason = (
            f"{', '.join(gone)}: changing with time, so not used by itself; name it in "
            "'category' or in a [[features]] to take it as it is when the training part ends"
        )
        yield Setting(full, "changing", None, reason)


def _title(section: str, table: ItemTable | UserTable) -> Iterator[Setting]:
    names = {name.lower(): name for name in table.text_columns}
    for wanted in _TITLES:
        if wanted in names:
            yield Setting(section, "title", names[wanted], "shown with recommendations")
            return
    if len(table.text_columns) == 1:
        reason = "shown with recommendations: the one column of text"
        yield Setting(section, "title", table.text_columns[0], reason)


def _why(table: ItemTable | UserTable, kind: str, name: str) -> str:
    if kind == "list":
        return f"{name}: several values a row"
    values = table.frame[name].drop_nulls()
    if kind == "category":
        return f"{name}: {values.n_unique():,} values that repeat"
    return f"{name}: {values.n_unique():,} different texts in {table.frame.height:,} rows"
