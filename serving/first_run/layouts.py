"""What a first configuration says of a file in which a row is not one event, or not one item."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.tables.layouts import FoundLayout, find_item_layout, find_layout

__all__ = ["find_layouts", "layout_settings"]


def find_layouts(events: str, items: str, orders: str | None) -> dict[str, FoundLayout]:
    """The layouts of the log, "events", and of the items, "items", that are no plain rows.

    Raises:
        DataError: a file cannot be read, or its layout is not read.
    """
    found = {
        "events": find_layout(events, orders=None if orders is None else Path(orders)),
        "items": find_item_layout(items),
    }
    return {role: layout for role, layout in found.items() if layout is not None}


def layout_settings(
    layouts: dict[str, FoundLayout],
) -> Iterator[tuple[str, str, Any, str]]:
    """Section, name, value and reason of each setting."""
    for role, found in layouts.items():
        name = "layout" if role == "events" else "item_layout"
        section = "data.unfold" if role == "events" else "data.item_unfold"
        yield "data", name, found.unfolding.layout, found.evidence
        columns = found.settings.pop("columns", {})
        for setting, value in found.settings.items():
            if setting != "columns":
                yield section, setting, value, ""
        for plain, column in columns.items():
            yield f"{section}.columns", plain, column, ""
    if "events" in layouts:
        log = layouts["events"]
        for kind, weight in log.kinds.items():
            yield "data.kinds", kind, weight, ""
        if log.targets:
            yield "data.rules", "targets", list(log.targets), "what is to be predicted"
