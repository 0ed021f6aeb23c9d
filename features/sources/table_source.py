"""Reads of sources whose views Polars can read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from features.packing.schema import FeatureBlock
from features.sources.point_in_time import ViewTable, join_as_of, newest
from features.sources.protocol import Id

__all__ = ["TableSource"]


class TableSource(ABC):
    """The part of a `FeatureSource` that follows from its tables."""

    @abstractmethod
    def _table(self, view: str) -> ViewTable:
        """A view's rows.

        Raises:
            DataError: there is no such view.
        """

    def as_of(
        self, views: str | Sequence[str], keys: pl.DataFrame, *, full_names: bool = False
    ) -> pl.DataFrame:
        """Values as they stood at each row's own moment; see `FeatureSource.as_of`.

        Raises:
            DataError: there is no such view, ``keys`` lacks an id column or the timestamp, or a
                value column would have a name that is taken.
        """
        names = [views] if isinstance(views, str) else views
        return join_as_of([self._table(name) for name in names], keys, full_names=full_names)

    def latest(
        self,
        view: str,
        ids: Sequence[Id] | Sequence[tuple[Id, ...]],
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """What holds for each id at one moment; see `FeatureSource.latest`.

        Raises:
            DataError: there is no such view, or its ids must be tuples.
        """
        return newest(self._table(view), ids, moment)
