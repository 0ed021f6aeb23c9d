"""What a catalogue says of its items as tokens of one id table: a field a column."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import polars as pl

from features.tables import ItemTable, Vocabulary
from recsys.files.model_files import read_model, write_model

__all__ = ["FieldColumn", "FieldVocabulary", "ItemFields", "item_fields"]

_KIND = "item_fields"


@dataclass(frozen=True)
class FieldColumn:
    """One column as a field.

    Attributes:
        name: of the column.
        kind: "category"; "list", whose field is the first value; "number", whose field is a bin.
        values: the known values of a category or list, the most frequent first.
        edges: rising; bin b of a number holds ``edges[b - 1] < x <= edges[b]``.
    """

    name: str
    kind: Literal["category", "list", "number"]
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that the field takes up."""
        return len(self.edges) + 1 if self.kind == "number" else len(self.values)

    def encode(self, frame: pl.DataFrame) -> np.ndarray:
        """[M] int64 from 1 on for each row of ``frame``; 0: missing or never seen.

        Raises:
            ValueError: the column is not there or cannot play its part.
        """
        column = _column(frame, self.name, self.kind)
        if self.kind != "number":
            return Vocabulary.from_ids(self.values).index(column)
        value = column.to_numpy()
        bins = np.searchsorted(np.array(self.edges), value, side="left") + 1
        return np.where(np.isfinite(value), bins, 0).astype(np.int64)


@dataclass(frozen=True)
class FieldVocabulary:
    """The columns that are fields, and what their tokens stand for.

    Tokens are numbered field after field from 1, so that all fields share one table.

    Attributes:
        columns: F columns.
    """

    columns: tuple[FieldColumn, ...]

    @classmethod
    def fit(cls, items: ItemTable, *, max_values: int = 1_000, num_bins: int = 10) -> Self:
        """Learn the fields of a catalogue: its category, list and number columns, in that order.

        Columns with fewer than two different values say nothing and are left out.

        Args:
            items: the catalogue.
            max_values: only this many of the most frequent values of a column get a token; of
                equally frequent ones those that come first in the alphabet.
            num_bins: bins of about equally many items a number column is cut into. A column with
                no more different values than that has a bin for each.

        Raises:
            ValueError: ``max_values`` < 1 or ``num_bins`` < 2.
        """
        if max_values < 1 or num_bins < 2:
            raise ValueError(
                f"max_values must be >= 1 and num_bins >= 2, got {max_values} and {num_bins}"
            )
        frame = items.frame
        found = [
            FieldColumn(
                name, "category", values=_values(_column(frame, name, "category"), max_values)
            )
            for name in items.category_columns
        ]
        found += [
            FieldColumn(name, "list", values=_values(_column(frame, name, "list"), max_values))
            for name in items.list_columns
        ]
        found += [
            FieldColumn(name, "number", edges=_edges(_column(frame, name, "number"), num_bins))
            for name in items.number_columns
        ]
        return cls(tuple(column for column in found if column.num_tokens > 1))

    @property
    def names(self) -> tuple[str, ...]:
        """[F] names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def num_tokens(self) -> int:
        """Largest token that the table must hold."""
        return sum(column.num_tokens for column in self.columns)

    def encode(self, items: ItemTable) -> np.ndarray:
        """Tokens of a catalogue, new items included, in the order of its frame.

        Returns:
            [M, F] int64; 0 = missing, or a value without a token.

        Raises:
            ValueError: a column is not there or of another kind.
        """
        tokens = np.zeros((len(items), len(self.columns)), dtype=np.int64)
        offset = 0
        for field, column in enumerate(self.columns):
            found = column.encode(items.frame)
            tokens[:, field] = np.where(found > 0, found + offset, 0)
            offset += column.num_tokens
        return tokens

    def save(self, directory: Path) -> None:
        """Write the columns into ``directory``."""
        write_model(directory, _KIND, {"columns": [asdict(each) for each in self.columns]}, {})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: see `recsys.files.model_files.read_model`.
        """
        settings, _ = read_model(directory, _KIND)
        return cls(tuple(_column_from(each) for each in settings["columns"]))


class ItemFields(NamedTuple):
    """The fields of the items of a vocabulary.

    Attributes:
        tokens: [N + 1, F] int64, row 0 zero; 0 = missing.
        vocabulary: what the tokens stand for; encodes new items.
    """

    tokens: np.ndarray
    vocabulary: FieldVocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """[F] names of the columns."""
        return self.vocabulary.names

    @property
    def num_tokens(self) -> int:
        """Largest token that the table must hold."""
        return self.vocabulary.num_tokens


def item_fields(
    items: ItemTable, item_ids: Vocabulary, *, max_values: int = 1_000, num_bins: int = 10
) -> ItemFields:
    """Fields of the items of ``item_ids``; one that is not in ``items`` has none.

    Args:
        items: the catalogue.
        item_ids: N items.
        max_values: see `FieldVocabulary.fit`.
        num_bins: see `FieldVocabulary.fit`.

    Raises:
        ValueError: see `FieldVocabulary.fit`.
    """
    vocabulary = FieldVocabulary.fit(items, max_values=max_values, num_bins=num_bins)
    tokens = np.zeros((item_ids.size, len(vocabulary.columns)), dtype=np.int64)
    tokens[item_ids.index(items.ids)] = vocabulary.encode(items)
    tokens[0] = 0  # where items went that are not in the vocabulary
    return ItemFields(tokens, vocabulary)


def _column(frame: pl.DataFrame, name: str, kind: str) -> pl.Series:
    """The column as Float64 with NaN for nulls, or as String with nulls."""
    if name not in frame.columns:
        raise ValueError(
            f"items must have the column {name!r} that the fields were made from, got "
            f"{', '.join(frame.columns)}"
        )
    column = frame[name]
    if (column.dtype == pl.List) != (kind == "list") or (
        kind == "number" and not column.dtype.is_numeric()
    ):
        raise ValueError(
            f"column {name!r} must be a {kind} column, got {column.dtype}; name it in "
            f"{kind}_columns when reading the items, or cast it"
        )
    if kind == "number":
        return column.cast(pl.Float64).fill_null(float("nan"))
    text = (column.list.first() if kind == "list" else column).cast(pl.String)
    return text.set(text == "", None)


def _values(column: pl.Series, max_values: int) -> tuple[str, ...]:
    counted = column.rename("value").drop_nulls().value_counts()
    kept = counted.sort("count", "value", descending=[True, False]).head(max_values)
    return tuple(kept["value"].to_list())


def _edges(column: pl.Series, num_bins: int) -> tuple[float, ...]:
    value = column.to_numpy()
    value = value[np.isfinite(value)]
    distinct = np.unique(value)
    if distinct.size <= num_bins:
        return tuple(distinct[:-1].tolist())
    edges = np.unique(np.quantile(value, np.arange(1, num_bins) / num_bins))
    edges = edges[edges < distinct[-1]]
    return tuple((edges if edges.size else distinct[-2:-1]).tolist())


def _column_from(saved: dict[str, Any]) -> FieldColumn:
    return FieldColumn(saved["name"], saved["kind"], tuple(saved["values"]), tuple(saved["edges"]))
