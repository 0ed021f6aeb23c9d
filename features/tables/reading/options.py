"""How a file is to be read."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

__all__ = ["BadRows", "Compression", "FileFormat", "ReadOptions"]

FileFormat: TypeAlias = Literal["delimited", "json_lines", "json_array", "parquet"]
Compression: TypeAlias = Literal["none", "gzip", "zstd"]
BadRows: TypeAlias = Literal["refuse", "drop"]


@dataclass(frozen=True)
class ReadOptions:
    r"""How a file is to be read; None: found from its first block.

    Attributes:
        format: how rows are written.
        separator: what stands between the cells of delimited text: one character or "::".
        quote: what stands around a cell that holds a separator; "": nothing does.
        encoding: of text, as Python names it.
        header: whether the first row of delimited text names the columns; otherwise they are
            called column_1, column_2, ...
        compression: of a file of text.
        skip_lines: lines of delimited text before the first row, such as comments.
        missing: cells of text that mean no value, beside empty ones.
        bad_rows: "refuse" the file at the first row that cannot be read, or "drop" such rows and
            count them.

    Raises:
        ValueError: a value is none of those above.
    """

    format: FileFormat | None = None
    separator: str | None = None
    quote: str | None = None
    encoding: str | None = None
    header: bool | None = None
    compression: Compression | None = None
    skip_lines: int | None = None
    missing: tuple[str, ...] = ()
    bad_rows: BadRows = "refuse"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, (None, *get_args(FileFormat))),
            ("compression", self.compression, (None, *get_args(Compression))),
            ("bad_rows", self.bad_rows, get_args(BadRows)),
        ):
            if value not in allowed:
                known = ", ".join(repr(one) for one in allowed if one is not None)
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        if self.skip_lines is not None and self.skip_lines < 0:
            raise ValueError(f"skip_lines must be >= 0, got {self.skip_lines}")
        separator = self.separator
        if separator is not None and separator != "::" and not _is_one_byte(separator):
            raise ValueError(f"separator must be one ASCII character or '::', got {separator!r}")
        if self.quote and (not _is_one_byte(self.quote) or self.quote == separator):
            raise ValueError(
                f"quote must be one ASCII character other than the separator, or '' for none, got "
                f"{self.quote!r}"
            )
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ValueError(
                    f"encoding must be one that Python knows, such as 'utf-8', 'utf-16' or "
                    f"'latin-1', got {self.encoding!r}"
                ) from None


def _is_one_byte(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in "\r\n"
