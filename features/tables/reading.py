"""One table from one file: Parquet or CSV, told apart by the suffix."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.errors import DataError

__all__ = ["read_frame"]


def read_frame(path: Path | str) -> pl.DataFrame:
    """Read a ``.parquet``, ``.csv`` or ``.tsv`` file as it is.

    Raises:
        DataError: the suffix is another one.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".csv", ".tsv"):
        raise DataError(
            f"{path}: the suffix must be .parquet, .csv or .tsv, got {path.suffix!r}; "
            "convert the file or rename it"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    separator = "\t" if path.suffix == ".tsv" else ","
    return pl.read_csv(path, separator=separator, infer_schema_length=10_000)
