"""A Feast repository as a `FeatureSource`.

What Feast does otherwise and is put right here: rows are kept, and their order (see
`features.feast.offline`); a creation time is heeded; a view's ttl holds online too (Feast issue
6821); and an id that the online store does not know is absent (with Redis, Feast calls it PRESENT).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from features.errors import DataError
from features.feast.offline import StoreTable, file_table, selected, store_batches
from features.feast.online import read_online
from features.feast.plan import PlannedView, all_views, plan_of
from features.feast.writing import Destination, push_rows, write_rows
from features.moments import utc
from features.packing.schema import FeatureBlock
from features.sources.parquet_batches import parquet_batches
from features.sources.point_in_time import (
    PointInTimeTable,
    feature_block,
    join_as_of,
    known_at,
)
from features.sources.protocol import (
    BATCH_ROWS,
    Id,
    ViewDescription,
    WriteReceipt,
    check_batch_rows,
)

__all__ = ["FeastSource"]


class FeastSource:
    """A `FeatureSource` over a Feast repository.

    A view is named as Feast names it, ``view@v2`` pins a version, and the name of a feature service
    stands for all of its views with the features it selects. Names are resolved once; `refresh`
    forgets what they stood for.

    ``latest`` reads what the online store holds, which is one row a key: at an earlier ``moment``
    a key is absent when its row is younger.

    Args:
        repository: the path of a repository (with ``feature_store.yaml``) or a ``FeatureStore``.
        through_feast: read history through Feast even where its Parquet file could be read.

    Raises:
        DataError: Feast is not installed, or there is no repository.
    """

    def __init__(self, repository: Path | str | Any, *, through_feast: bool = False) -> None:
        self.store = open_store(repository)
        self._through_feast = through_feast
        self._plans: dict[str, tuple[PlannedView, ...]] = {}

    def refresh(self) -> None:
        """Read the registry again: views applied since are seen."""
        self.store.refresh_registry()
        self._plans.clear()

    def plan(self, name: str) -> tuple[PlannedView, ...]:
        """The views that a name stands for, resolved once.

        Raises:
            DataError: there is nothing of that name.
        """
        if name not in self._plans:
            self._plans[name] = plan_of(self.store, name)
        return self._plans[name]

    def describe(self) -> list[ViewDescription]:
        """The stored views, sorted by name; rows are counted where a Parquet file can be read."""
        return [planned.description for planned in all_views(self.store)]

    def feature_sets(self) -> dict[str, tuple[str, ...]]:
        """The feature services and the views they take features from."""
        services = sorted(self.store.list_feature_services(), key=lambda service: str(service.name))
        return {
            str(service.name): tuple(
                str(projection.name) for projection in service.feature_view_projections
            )
            for service in services
        }

    def as_of(
        self, views: str | Sequence[str], keys: pl.DataFrame, *, full_names: bool = False
    ) -> pl.DataFrame:
        """Values as they stood at each row's own moment; see `FeatureSource.as_of`.

        Raises:
            DataError: there is no such view or service, ``keys`` lacks an id column or the
                timestamp, a value column would have a name that is taken, or the offline store
                does not answer every row.
        """
        names = [views] if isinstance(views, str) else views
        tables = [self._table(planned) for name in names for planned in self.plan(name)]
        return join_as_of(tables, keys, full_names=full_names)

    def latest(
        self,
        view: str,
        ids: Sequence[Id] | Sequence[tuple[Id, ...]],
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """What the online store holds for each id; see `FeatureSource.latest`.

        Raises:
            DataError: there is no such view or service, its views have different keys, one of them
                is not online, or the store cannot be read.
        """
        plan = self.plan(view)
        if len({planned.description.keys for planned in plan}) > 1:
            shown = "; ".join(
                f"{one.description.name}: {', '.join(one.description.keys)}" for one in plan
            )
            raise DataError(f"views of {view!r} must have one key to be read together, got {shown}")
        now = utc(moment or datetime.now(UTC))
        return feature_block([read_online(self.store, one, ids, now) for one in plan], now)

    def scan(
        self, view: str, *, as_of: datetime | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pl.DataFrame]:
        """All rows of a view from the offline store.

        A Parquet file is read a batch at a time. Any other store gives Feast all its rows at once.

        Raises:
            DataError: there is no such view, it is a service of several, or ``batch_rows`` is < 1.
        """
        check_batch_rows(batch_rows)
        planned = self._one(view)
        path = self._path(planned)
        batches = (
            store_batches(planned, self.store, utc(as_of) if as_of else None, batch_rows)
            if path is None
            else _file_batches(path, planned, batch_rows)
        )
        if as_of is None:
            return batches
        return known_at(batches, as_of, created=planned.description.created)

    def write(self, view: str, rows: pl.DataFrame, *, to: Destination = "both") -> WriteReceipt:
        """Write rows of a view to the online store, the offline store or both.

        An online store keeps a newer row that it already has. A local offline store writes its
        whole file anew.

        Args:
            view: a view.
            rows: its id columns, ``timestamp``, ``created`` where the view has it, and every
                feature.
            to: "online", "offline" or "both"; both is offline alone for a view that is declared
                with ``online=False``.

        Raises:
            DataError: a column is missing or of another type, an id or a time is null, no feature
                has a value, the view is not served online, or Feast refused.
        """
        return write_rows(self.store, self._one(view), rows, to)

    def push(self, source: str, rows: pl.DataFrame, *, to: Destination = "online") -> WriteReceipt:
        """Push rows to a push source, and so to every view it feeds.

        Args:
            source: the push source.
            rows: what `write` takes for the views it feeds.
            to: "online", "offline" or "both".

        Raises:
            DataError: there is no such push source, a column is missing, or Feast refused.
        """
        fed = [
            planned
            for planned in all_views(self.store)
            if getattr(planned.feast.stream_source, "name", None) == source
        ]
        return push_rows(self.store, source, fed, rows, to)

    def _one(self, view: str) -> PlannedView:
        plan = self.plan(view)
        if len(plan) > 1:
            shown = ", ".join(planned.description.name for planned in plan)
            raise DataError(f"{view!r} must be one view here, got a service of {shown}; name one")
        return plan[0]

    def _path(self, planned: PlannedView) -> Path | None:
        """The file to read the view's history from; None: through Feast."""
        return None if self._through_feast else planned.path

    def _table(self, planned: PlannedView) -> PointInTimeTable:
        path = self._path(planned)
        return StoreTable(planned, self.store) if path is None else file_table(path, planned)


def open_store(repository: Path | str | Any) -> Any:
    """The ``FeatureStore`` of a repository's path; a store is given back as it is.

    Raises:
        DataError: Feast is not installed, there is no ``feature_store.yaml``, or it is broken.
    """
    try:
        from feast import FeatureStore
    except ImportError as error:
        raise DataError(
            "feast must be installed to read a Feast repository; "
            "`pip install recsys-plugin[feast]` installs it"
        ) from error
    if isinstance(repository, FeatureStore):
        return repository
    if not isinstance(repository, Path | str):
        raise DataError(
            f"repository must be a path or a FeatureStore, got {type(repository).__name__}"
        )
    path = Path(repository)
    if not (path / "feature_store.yaml").is_file():
        raise DataError(f"{path} must be a Feast repository, but has no feature_store.yaml")
    try:
        return FeatureStore(repo_path=str(path))
    except Exception as error:
        raise DataError(f"{path / 'feature_store.yaml'} cannot be used: {error}") from error


def _file_batches(path: Path, planned: PlannedView, batch_rows: int) -> Iterator[pl.DataFrame]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    for batch in parquet_batches(files, batch_rows):
        yield batch.select(selected(planned, dict(batch.schema)))
