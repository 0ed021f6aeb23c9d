"""One table from a file or several: delimited text, JSON or Parquet, as it is found.

What is not said in `ReadOptions` is found from the first block of the first file. Text is read as
text; ids stay as they are written, and the types of the other columns are decided over all rows.

Imports of `features` only the errors; may be imported from everywhere.
"""

from __future__ import annotations

from features.tables.reading.column_types import typed
from features.tables.reading.options import BadRows, Compression, FileFormat, ReadOptions
from features.tables.reading.places import Places
from features.tables.reading.remote import is_url, location
from features.tables.reading.tables import (
    Reading,
    damaged_parquet,
    find_options,
    read_frame,
    read_table,
)

__all__ = [
    "BadRows",
    "Compression",
    "FileFormat",
    "Places",
    "ReadOptions",
    "Reading",
    "damaged_parquet",
    "find_options",
    "is_url",
    "location",
    "read_frame",
    "read_table",
    "typed",
]
