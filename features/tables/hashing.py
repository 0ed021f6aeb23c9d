"""SHA-256 of columns, independent of chunking, platform and library version."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

__all__ = ["update_with_series"]

_ROWS_AT_ONCE = 1_000_000


def update_with_series(digest: hashlib._Hash, series: pl.Series) -> None:
    """Feed a string or numeric column without nulls to ``digest``.

    Strings go in as their lengths and then their bytes, so ``["ab", "c"]`` and ``["a", "bc"]``
    differ; numbers as their little-endian bytes.
    """
    digest.update(f"{series.name}:{len(series)};".encode())
    for start in range(0, len(series), _ROWS_AT_ONCE):
        part = series.slice(start, _ROWS_AT_ONCE)
        if part.dtype == pl.String:
            lengths = part.str.len_bytes().to_numpy().astype("<u4")
            digest.update(lengths.tobytes())
            digest.update(str(part.str.join("").item()).encode())
        else:
            values = part.to_physical().to_numpy()
            little = values.dtype.newbyteorder("<")
            digest.update(np.ascontiguousarray(values, dtype=little).tobytes())
