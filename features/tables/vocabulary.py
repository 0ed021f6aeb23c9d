"""Ids <-> indices, append-only. Index 0 is the unknown id and the padding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from features.errors import DataError, UnknownIdError
from features.tables.hashing import update_with_series

__all__ = ["Vocabulary", "covering"]

_FORMAT = "1"


class Vocabulary:
    """The ids of N things, numbered 1..N in the order they came; 0 is "none of them".

    Immutable: `extend` returns a longer vocabulary in which every old id keeps its index, so a
    table made with the old one stays right. Ids are strings; integers are turned into text.

    >>> items = Vocabulary.from_ids(["b", "a", "b"])
    >>> items.index(["a", "nobody", "b"])
    array([2, 0, 1])
    >>> items.ids([1, 2])
    ['b', 'a']
    """

    def __init__(self, ids: pl.Series) -> None:
        """Use `from_ids`; this trusts ``ids`` to be String, unique and without nulls."""
        self._ids = ids.rename("id")

    @classmethod
    def from_ids(cls, ids: Sequence[str] | Sequence[int] | np.ndarray | pl.Series) -> Vocabulary:
        """Number the distinct ids in order of first appearance.

        Raises:
            DataError: an id is null or empty.
        """
        return cls(_checked(ids).unique(maintain_order=True))

    def extend(self, ids: Sequence[str] | Sequence[int] | np.ndarray | pl.Series) -> Vocabulary:
        """A vocabulary with the new ones among ``ids`` appended; old indices stay.

        Raises:
            DataError: an id is null or empty.
        """
        return Vocabulary(pl.concat([self._ids, _checked(ids)]).unique(maintain_order=True))

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._ids.equals(other._ids)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} ids, sha256 {self.sha256[:8]})"

    @property
    def size(self) -> int:
        """Rows of a table over this vocabulary: N + 1, with row 0 for padding."""
        return len(self._ids) + 1

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the ids in order; two vocabularies agree on all indices iff equal."""
        digest = hashlib.sha256()
        update_with_series(digest, self._ids)
        return digest.hexdigest()

    def index(
        self,
        ids: Sequence[str] | Sequence[int] | np.ndarray | pl.Series,
        missing: Literal["zero", "error"] = "zero",
    ) -> np.ndarray:
        """Indices of ``ids``.

        Args:
            ids: any number of ids, repeats allowed; null is unknown.
            missing: "zero": an unknown id gets index 0; "error": it raises.

        Returns:
            [len(ids)] int64, 1..N, or 0 for unknown ids.

        Raises:
            UnknownIdError: ``missing`` is "error" and an id is unknown.
            ValueError: ``missing`` is something else.
        """
        if missing not in ("zero", "error"):
            raise ValueError(f"missing must be 'zero' or 'error', got {missing!r}")
        wanted = _as_strings(ids)
        if len(self) == 0 or len(wanted) == 0:
            found = np.zeros(len(wanted), dtype=np.int64)
        else:
            found = self._find(wanted)
        if missing == "error" and bool((found == 0).any()):
            unknown = wanted.filter(pl.Series(found == 0))
            raise UnknownIdError(
                f"ids must be in the vocabulary of {len(self):,}: {len(unknown)} are not, "
                f"first: {unknown[0]!r}; extend the vocabulary or ask with missing='zero'"
            )
        return found

    def ids(self, index: np.ndarray | Sequence[int]) -> list[str]:
        """Ids at ``index``.

        Args:
            index: [n] integers, each 1..N.

        Raises:
            IndexError: an index is outside 1..N (0 and -1 stand for no id).
        """
        rows = np.asarray(index, dtype=np.int64)
        if rows.ndim != 1:
            raise ValueError(f"index must be one-dimensional, got shape {rows.shape}")
        outside = (rows < 1) | (rows > len(self))
        if bool(outside.any()):
            raise IndexError(
                f"index must be 1..{len(self)}, got {int(rows[outside][0])}; "
                "mask padding (0) and no-result (-1) first"
            )
        return self._ids.gather(rows - 1).to_list()

    def to_series(self) -> pl.Series:
        """The ids as a String column; position p has index p + 1."""
        return self._ids

    def save(self, path: Path) -> None:
        """Write the ids as one Parquet file whose metadata carries the format and the digest."""
        metadata = {"format": _FORMAT, "sha256": self.sha256}
        self._ids.to_frame().write_parquet(path, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            DataError: the file is no vocabulary, of another format, or its ids were changed.
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such vocabulary; check the path")
        try:
            metadata = pl.read_parquet_metadata(path)
            ids = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise DataError(f"{path}: cannot be read ({error}); restore the file") from error
        if metadata.get("format") != _FORMAT:
            raise DataError(
                f"{path}: must be a vocabulary of format {_FORMAT}, got format "
                f"{metadata.get('format')!r}; write it again with this version"
            )
        if ids.schema.get("id") != pl.String:
            raise DataError(f"{path}: must have text as its ids, got {dict(ids.schema)}")
        vocabulary = cls(ids["id"])
        if vocabulary.sha256 != metadata.get("sha256"):
            raise DataError(
                f"{path}: ids must match the stored sha256 {metadata.get('sha256')}, got "
                f"{vocabulary.sha256}; the file was changed after it was written"
            )
        return vocabulary

    def _find(self, wanted: pl.Series) -> np.ndarray:
        """Binary search in the sorted ids: no hash table of N entries per call."""
        ordered, rows = self._sorted
        if wanted.null_count():
            wanted = wanted.fill_null("")  # no id is empty
        place = np.minimum(ordered.search_sorted(wanted).to_numpy(), len(self) - 1)
        hit = (ordered.gather(place) == wanted).to_numpy()
        return np.where(hit, rows[place], 0).astype(np.int64, copy=False)

    @cached_property
    def _sorted(self) -> tuple[pl.Series, np.ndarray]:
        order = self._ids.arg_sort()
        return self._ids.gather(order).set_sorted(), order.to_numpy().astype(np.int64) + 1


def covering(
    vocabulary: Vocabulary, first: pl.Series, second: pl.Series
) -> tuple[Vocabulary, np.ndarray, np.ndarray]:
    """The vocabulary, extended by what two columns hold beyond it, and their indices in it."""
    found = []
    for ids in (first, second):
        index = vocabulary.index(ids)
        unknown = index == 0
        if bool(unknown.any()):
            vocabulary = vocabulary.extend(ids.filter(pl.Series(unknown)))
            index = vocabulary.index(ids)
        found.append(index)
    return vocabulary, found[0], found[1]


def _as_strings(ids: Sequence[str] | Sequence[int] | np.ndarray | pl.Series) -> pl.Series:
    series = ids if isinstance(ids, pl.Series) else pl.Series("id", ids)
    return series.cast(pl.String).rename("id")


def _checked(ids: Sequence[str] | Sequence[int] | np.ndarray | pl.Series) -> pl.Series:
    series = _as_strings(ids)
    bad = series.is_null() | (series == "")
    if bool(bad.any()):
        raise DataError(
            f"ids must not be null or empty: {int(bad.sum())} of {len(series)} are, first at "
            f"position {bad.arg_true()[0]}; drop them"
        )
    return series
