"""A bundle as feature views: vectors, semantic ids and candidate lists, into a feature store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from features.moments import utc
from features.sources.protocol import FeatureSource
from features.sources.publishing import (
    PublishedView,
    candidate_rows,
    publish_view,
    semantic_id_rows,
    vector_rows,
)
from features.tables import ITEM, USER, Histories
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.progress import Progress

if TYPE_CHECKING:
    from recsys.recommender import Recommender

__all__ = ["FeatureViewsReport", "open_source", "publish_features", "view_schemas"]

DEFAULT_PREFIX = "recsys_"
_FEAST = "feast:"
_PARQUET = "parquet:"


@dataclass(frozen=True)
class FeatureViewsReport:
    """What `publish_features` did.

    Attributes:
        generation: id of the bundle.
        moment: the rows' time, UTC without zone.
        views: what was written, or was there.
        skipped: view to why it was not written.
    """

    generation: str
    moment: datetime
    views: tuple[PublishedView, ...]
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    name: str
    key: str
    ids: Sequence[str]
    rows: Callable[[slice], pl.DataFrame]


def open_source(name: str) -> FeatureSource:
    """The feature store that a person named.

    Args:
        name: ``feast:PATH`` or a directory with ``feature_store.yaml``: a Feast repository;
            ``parquet:PATH`` or any other path: a directory of Parquet files.

    Raises:
        DataError: the repository cannot be opened.
    """
    scheme, path = "", name
    for one in (_FEAST, _PARQUET):
        if name.startswith(one):
            scheme, path = one, name.removeprefix(one)
    if scheme == _FEAST or (not scheme and (Path(path) / "feature_store.yaml").is_file()):
        from features.feast.source import FeastSource

        return FeastSource(path)
    from features.sources.parquet_directory import ParquetDirectory

    return ParquetDirectory(path)


def publish_features(
    config: Config,
    bundle: Bundle,
    source: FeatureSource,
    *,
    prefix: str = DEFAULT_PREFIX,
    progress: Progress | None = None,
) -> FeatureViewsReport:
    """Write a bundle's vectors, semantic ids and candidates as feature views.

    A view that has the bundle's rows is left alone, so a second call writes nothing.

    Args:
        config: the run; names the log that users' histories are read from.
        bundle: a trained one.
        source: where to.
        prefix: of the views' names.
        progress: shows a bar.

    Raises:
        ArtifactError: the bundle is damaged.
        DataError: the log breaks a rule, or the source refuses the rows.
    """
    bundle.verify()
    progress = progress or Progress()
    moment = _moment(bundle)
    views, skipped = _views(config, bundle, moment, prefix)
    done = []
    with progress.bar(sum(len(view.ids) for view in views), "features", unit="row") as advance:
        for view in views:
            done.append(
                publish_view(
                    source,
                    view.name,
                    view.key,
                    view.ids,
                    view.rows,
                    moment=moment,
                    generation=bundle.id,
                )
            )
            advance(len(view.ids))
    return FeatureViewsReport(bundle.id, moment, tuple(done), skipped)


def view_schemas(
    config: Config, bundle: Bundle, *, prefix: str = DEFAULT_PREFIX
) -> dict[str, dict[str, pl.DataType]]:
    """Columns of each view that `publish_features` would write.

    Raises:
        ArtifactError: the bundle is damaged.
        DataError: the log breaks a rule.
    """
    views, _ = _views(config, bundle, _moment(bundle), prefix)
    return {view.name: dict(view.rows(slice(0, 1)).schema) for view in views}


def _moment(bundle: Bundle) -> datetime:
    return utc(datetime.fromisoformat(bundle.manifest.created_at))


def _views(
    config: Config, bundle: Bundle, moment: datetime, prefix: str
) -> tuple[list[_View], dict[str, str]]:
    from recsys.recommender import Recommender
    from recsys.semantic_ids import SemanticIds

    views, skipped = [], {}
    recommender = Recommender.load(bundle.path)
    item_ids: list[str] = recommender.item_ids.to_series().to_list()
    if recommender.towers is None:
        for name in ("user_vectors", "item_vectors"):
            skipped[f"{prefix}{name}"] = "the bundle has no two-tower retriever"
    else:
        vectors = recommender.towers.retriever.item_vectors[1:]
        views += [
            _user_vectors(config, recommender, bundle.id, moment, f"{prefix}user_vectors"),
            _View(
                f"{prefix}item_vectors",
                ITEM,
                item_ids,
                lambda part: vector_rows(
                    ITEM, item_ids[part], vectors[part], moment=moment, generation=bundle.id
                ),
            ),
        ]
    if (bundle.path / "semantic-ids" / "semantic_ids.json").is_file():
        semantic = SemanticIds.load(bundle.path / "semantic-ids")
        views.append(
            _View(
                f"{prefix}semantic_ids",
                ITEM,
                semantic.item_ids,
                lambda part: semantic_id_rows(
                    semantic.item_ids[part],
                    semantic.codes[1:][part],
                    moment=moment,
                    generation=bundle.id,
                ),
            )
        )
    else:
        skipped[f"{prefix}semantic_ids"] = "the bundle has no semantic ids"
    if (bundle.path / "candidates" / "lists.safetensors").is_file():
        views.append(_candidates(bundle, item_ids, moment, f"{prefix}candidates"))
    else:
        skipped[f"{prefix}candidates"] = "the bundle has no candidates; run `recsys candidates`"
    return views, skipped


def _user_vectors(
    config: Config, recommender: Recommender, generation: str, moment: datetime, name: str
) -> _View:
    """Of every user of the log, with all events, as `build_candidates` sees them."""
    from recsys.dataset import read_dataset

    data = read_dataset(config)
    users = data.user_list

    def rows(part: slice) -> pl.DataFrame:
        if recommender.towers is None:
            raise RuntimeError("user vectors of a bundle without towers were asked for")
        histories = Histories.from_interactions(
            data.interactions.filter_users(users[part]), users[part], recommender.item_ids
        )
        vectors = recommender.towers.retriever.user_vectors(
            histories, user_index=recommender.user_index(users[part])
        )
        return vector_rows(USER, users[part], vectors, moment=moment, generation=generation)

    return _View(name, USER, users, rows)


def _candidates(bundle: Bundle, item_ids: list[str], moment: datetime, name: str) -> _View:
    directory = bundle.path / "candidates"
    header = json.loads((bundle.path / "recommender.json").read_text())
    lists: dict[str, np.ndarray] = load_file(directory / "lists.safetensors")
    users: list[str] = pl.read_parquet(directory / "users.parquet")[USER].to_list()

    def rows(part: slice) -> pl.DataFrame:
        return candidate_rows(
            users[part],
            lists["item_index"][part],
            lists["score"][part],
            lists["source"][part],
            item_ids=item_ids,
            source_names=header["sources"],
            moment=moment,
            generation=bundle.id,
        )

    return _View(name, USER, users, rows)
