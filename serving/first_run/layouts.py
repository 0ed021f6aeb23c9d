"""What a first configuration says of a file in which a row is not one event, or not one item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from features.tables.layouts import (
    FoundLayout,
    find_item_layout,
    find_layout,
    read_described,
    read_rows,
)
from serving.first_run.setting import Setting

__all__ = ["find_layouts", "layout_settings", "plain_rows", "unfold_settings", "with_kinds"]

_SECTIONS = {"events": ("layout", "data.unfold"), "items": ("item_layout", "data.item_unfold")}


def find_layouts(given: Mapping[str, Path | str]) -> dict[str, FoundLayout]:
    """The layouts of the files of the log, "events", and of the items, where rows are not plain.

    Raises:
        DataError: a file cannot be read, or its layout is not read.
    """
    found = {"events": find_layout(given["events"], orders=given.get("orders"))}
    if "items" in given:
        found["items"] = find_item_layout(given["items"])
    return {role: layout for role, layout in found.items() if layout is not None}


def plain_rows(path: Path | str, found: FoundLayout | None) -> pl.DataFrame:
    """A file as rows of one event or one item each."""
    if found is None:
        return read_rows(path).frame
    if found.unfolding.layout == "properties":
        return read_described(path, None, found.unfolding)[0].frame
    return read_rows(path, None, found.unfolding).frame


def layout_settings(layouts: Mapping[str, FoundLayout]) -> Iterator[Setting]:
    """Which layouts the files have."""
    for role, found in layouts.items():
        yield Setting("data", _SECTIONS[role][0], found.unfolding.layout, found.evidence)


def unfold_settings(layouts: Mapping[str, FoundLayout]) -> Iterator[Setting]:
    """What the layouts are unfolded from."""
    for role, found in layouts.items():
        section = _SECTIONS[role][1]
        settings = found.settings
        columns = settings.pop("columns", {})
        for name, value in settings.items():
            yield Setting(section, name, value, "")
        for plain, column in columns.items():
            yield Setting(f"{section}.columns", plain, column, "")


def with_kinds(settings: Iterable[Setting], found: FoundLayout | None) -> Iterator[Setting]:
    """The settings of kinds and rules, as the layout knows its own kinds."""
    if found is None or not found.kinds:
        yield from settings
        return
    settings = list(settings)
    for one in settings:
        if one.section == "data.kinds" and one.name in found.kinds:
            yield replace(one, value=found.kinds[one.name], note=one.note.partition(", ")[0])
        elif (one.section, one.name) != ("data.rules", "targets"):
            yield one
    if found.targets:
        reason = "what is to be predicted"
        yield Setting("data.rules", "targets", list(found.targets), reason)
