"""The tables that features are computed from, with what is worked out of them once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from features.computation.attributes import AttributeValues
from features.computation.text_match import TextMatcher
from features.tables.entities import ItemTable, UserTable
from features.tables.schema import ITEM, USER
from features.tables.vocabulary import Vocabulary

__all__ = ["FeatureTables", "Vectors"]

Vectors = Mapping[str, tuple[Vocabulary, np.ndarray]]


class FeatureTables:
    """Items, users and vectors, shared by many computations.

    Attributes:
        item_ids: ids of the item table, index 1..N.
        item_frame: the item table.
        users: ids of the user table and the table itself, or None.
        vectors: by name, a vocabulary of N ids and the [N + 1, D] vectors of their indices.
    """

    def __init__(self, items: ItemTable, users: UserTable | None, vectors: Vectors) -> None:
        self.item_ids = Vocabulary.from_ids(items.frame[ITEM])
        self.item_frame = items.frame
        self.users: tuple[Vocabulary, pl.DataFrame] | None = None
        if users is not None:
            self.users = (Vocabulary.from_ids(users.frame[USER]), users.frame)
        self.vectors = dict(vectors)
        self._attributes: dict[str, AttributeValues] = {}
        self._matchers: dict[str, TextMatcher] = {}
        self._norms: dict[str, np.ndarray] = {}

    def attribute(self, column: str) -> AttributeValues:
        """The values of an item column."""
        if column not in self._attributes:
            self._attributes[column] = AttributeValues(self.item_frame[column])
        return self._attributes[column]

    def matcher(self, column: str) -> TextMatcher:
        """The words of a text column."""
        if column not in self._matchers:
            self._matchers[column] = TextMatcher(self.item_frame[column])
        return self._matchers[column]

    def norms(self, name: str) -> np.ndarray:
        """[N + 1] float64 lengths of named vectors; 0 for the row of nothing."""
        if name not in self._norms:
            _, vectors = self.vectors[name]
            parts = [
                np.sqrt((part.astype(np.float64) ** 2).sum(axis=1))
                for part in np.array_split(vectors, max(1, vectors.size // 4_000_000))
            ]
            norms = np.concatenate(parts)
            norms[:1] = 0.0
            self._norms[name] = norms
        return self._norms[name]
