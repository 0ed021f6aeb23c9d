"""Tables in which a row is not one event, or not one item: what they are, and their plain rows.

`find_layout` says what a file is, and `read_rows` reads it as one row an event. Layouts that hold
no log are refused with the reason. Imports of `features` the errors, the moments and the reader;
may be imported from everywhere.
"""

from __future__ import annotations

from features.tables.layouts.files import find_item_layout, find_layout, read_described, read_rows
from features.tables.layouts.layout import FoundLayout, Layout, Unfolding
from features.tables.layouts.properties import DescribedItems, unfold_properties
from features.tables.layouts.unfolding import detect_layout, unfold

__all__ = [
    "DescribedItems",
    "FoundLayout",
    "Layout",
    "Unfolding",
    "detect_layout",
    "find_item_layout",
    "find_layout",
    "read_described",
    "read_rows",
    "unfold",
    "unfold_properties",
]
