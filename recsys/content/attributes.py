"""Attributes to vectors: categories and lists of them as weighted multi-hot, numbers scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import polars as pl
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd

__all__ = ["MultiHotEncoder", "NumberEncoder"]

_MAX_DEVIATIONS = 4.0


class MultiHotEncoder:
    """Rows of category lists to idf-weighted multi-hot vectors, cut by an SVD when wide.

    idf of a value in n of N rows is ``log((1 + N) / (1 + n)) + 1``: rare values say more. Values
    never seen by `fit` are ignored. Rows are unit-norm before the SVD.

    Args:
        max_dim: more distinct values than this are projected to ``max_dim`` dimensions by a
            truncated SVD.
        min_count: values in fewer rows are dropped.
    """

    def __init__(self, *, max_dim: int = 128, min_count: int = 1) -> None:
        if max_dim < 1 or min_count < 1:
            raise ValueError(f"max_dim and min_count must be >= 1, got {max_dim} and {min_count}")
        self.max_dim = max_dim
        self.min_count = min_count
        self.values: list[str] = []
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def dim(self) -> int:
        """Width of what `transform` returns."""
        return self._arrays["basis"].shape[1] if "basis" in self._arrays else len(self.values)

    def fit(self, column: pl.Series, *, rng: np.random.Generator) -> Self:
        """Learn the values, their idf and, when there are more than ``max_dim``, the projection.

        Args:
            column: [N] List(String) or String (one value a row); null = no value.
            rng: seeds the SVD's random projection.
        """
        pairs = _pairs(column)
        counted = pairs.group_by("value").agg(pl.len().alias("count"))
        kept = counted.filter(pl.col("count") >= self.min_count).sort("value")
        self.values = kept["value"].to_list()
        idf = np.log((1 + len(column)) / (1 + kept["count"].to_numpy())) + 1
        self._arrays = {"idf": idf.astype(np.float32)}
        if len(self.values) > self.max_dim:
            wide = self._multi_hot(pairs, len(column))
            _, _, axes = randomized_svd(
                wide, self.max_dim, random_state=int(rng.integers(2**31)), flip_sign=True
            )
            self._arrays["basis"] = np.ascontiguousarray(axes.T, dtype=np.float32)
        return self

    def transform(self, column: pl.Series) -> np.ndarray:
        """[N, dim] float32; zero rows where no known value is present."""
        wide = self._multi_hot(_pairs(column), len(column))
        if "basis" in self._arrays:
            return np.asarray(wide @ self._arrays["basis"], dtype=np.float32)
        dense: np.ndarray = wide.toarray()
        return dense

    def _multi_hot(self, pairs: pl.DataFrame, num_rows: int) -> csr_array:
        known = pl.DataFrame(
            {"value": self.values, "column": np.arange(len(self.values), dtype=np.int64)},
            schema={"value": pl.String, "column": pl.Int64},
        )
        hits = pairs.join(known, on="value").sort("row", "column")
        rows, columns = hits["row"].to_numpy(), hits["column"].to_numpy()
        weight = self._arrays["idf"][columns]
        square = np.bincount(rows, weights=weight.astype(np.float64) ** 2, minlength=num_rows)
        weight = weight / np.sqrt(square[rows]).astype(np.float32)
        return csr_array((weight, (rows, columns)), shape=(num_rows, len(self.values)))

    def state(self) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        """JSON part and arrays, for `from_state`."""
        settings = {"max_dim": self.max_dim, "min_count": self.min_count, "values": self.values}
        return dict(settings), dict(self._arrays)

    @classmethod
    def from_state(cls, settings: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Self:
        """The encoder that `state` described."""
        values = settings["values"]
        encoder = cls(max_dim=_whole(settings["max_dim"]), min_count=_whole(settings["min_count"]))
        encoder.values = [str(v) for v in values] if isinstance(values, list) else []
        encoder._arrays = dict(arrays)
        return encoder


class NumberEncoder:
    """A number column to two: the standardised value, and whether it was missing.

    Standardised values are cut at 4 standard deviations; a missing one (null or NaN) is the mean.
    The indicator is standardised as well, and zero when no training row was missing.
    """

    dim = 2

    def __init__(self) -> None:
        self._stats = np.array([0.0, 1.0, 0.0], dtype=np.float64)

    def fit(self, column: pl.Series) -> Self:
        """Learn mean, standard deviation and share of missing values of an [N] number column."""
        values = _numbers(column)
        present = values[~np.isnan(values)]
        if len(present):
            std = float(present.std())
            self._stats = np.array(
                [present.mean(), std if std > 0 else 1.0, 1 - len(present) / len(values)]
            )
        return self

    def transform(self, column: pl.Series) -> np.ndarray:
        """[N, 2] float32: standardised value, standardised missing indicator."""
        mean, std, share = self._stats
        values = _numbers(column)
        missing = np.isnan(values)
        scaled = np.where(missing, 0.0, (values - mean) / std)
        spread = np.sqrt(share * (1 - share))
        flag = (missing - share) / spread if spread > 0 else np.zeros(len(values))
        both = np.stack([np.clip(scaled, -_MAX_DEVIATIONS, _MAX_DEVIATIONS), flag], axis=1)
        return both.astype(np.float32)

    def state(self) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        """JSON part and arrays, for `from_state`."""
        return {}, {"stats": self._stats}

    @classmethod
    def from_state(cls, settings: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Self:
        """The encoder that `state` described."""
        encoder = cls()
        encoder._stats = arrays["stats"]
        return encoder


def _pairs(column: pl.Series) -> pl.DataFrame:
    """Distinct (row, value) pairs of a List(String) or String column, blanks left out."""
    frame = pl.DataFrame({"value": column}).with_row_index("row")
    if isinstance(column.dtype, pl.List):
        frame = frame.explode("value", empty_as_null=True, keep_nulls=True)
    frame = frame.with_columns(
        pl.col("row").cast(pl.Int64), pl.col("value").cast(pl.String).str.strip_chars()
    )
    present = frame.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
    return present.unique(maintain_order=True)


def _numbers(column: pl.Series) -> np.ndarray:
    """[N] float64, NaN where missing."""
    if not column.dtype.is_numeric() and column.dtype != pl.Null and column.dtype != pl.Boolean:
        raise ValueError(
            f"number column {column.name!r} must be numeric, got {column.dtype}; cast it first"
        )
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"number column {column.name!r} must be finite: {int(infinite.sum())} rows are "
            f"infinite, the first is row {int(np.argmax(infinite))}"
        )
    return values


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {value!r}")
    return value
