"""The files of a bundle as the parts of a recommender."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl

from features.moments import EPOCH
from features.tables import ItemTable, Vocabulary
from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.config.features import CONTENT
from recsys.files.damage import telling_damage
from recsys.index.choices import load_index
from recsys.ranking.ranker import Ranker
from recsys.recommender.computer import read_computer
from recsys.recommender.features import FeatureInputs
from recsys.retrieval.choices import load_sources
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.towers import TwoTowerRetriever

__all__ = ["RecommenderParts", "read_parts"]


class RecommenderParts(TypedDict):
    """What a `recsys.recommender.Recommender` is made of."""

    generation: str
    items: ItemTable
    item_ids: Vocabulary
    user_ids: Vocabulary | None
    retrievers: list[Retriever]
    towers: FinishedTowers | None
    features: FeatureInputs
    ranker: Ranker
    content: np.ndarray
    item_values: pl.DataFrame
    as_of: datetime
    title_column: str | None
    candidates_per_source: int
    diversity: float
    rules: EventRules
    repeats: RepeatRule


def read_parts(bundle: Path) -> RecommenderParts:
    """Read a bundle.

    Raises:
        ArtifactError: a file is missing, damaged, or of another vocabulary.
    """
    with telling_damage(bundle):
        return _parts(bundle)


def _parts(bundle: Path) -> RecommenderParts:
    computer = read_computer(bundle)
    item_ids, content = computer.tables.vectors[CONTENT]
    header = json.loads((bundle / "recommender.json").read_text())
    retrievers = load_sources(bundle / "retrieval", header["sources"])
    towers = _read_towers(bundle, retrievers, header["index"])
    user_ids = None
    if towers is not None and towers.knows_users:
        user_ids = Vocabulary.load(bundle / "data" / "users.parquet")
    published = bundle / "candidates" / "item_features.parquet"
    values = published if published.is_file() else bundle / "features" / "items.parquet"
    item_values = pl.read_parquet(values)
    return {
        "generation": bundle.name,
        "items": computer.items,
        "item_ids": item_ids,
        "user_ids": user_ids,
        "retrievers": retrievers,
        "towers": towers,
        "features": FeatureInputs(computer, item_ids),
        "ranker": Ranker.load(bundle / "ranking"),
        "content": content,
        "item_values": item_values,
        "as_of": item_values["as_of"][0] if "as_of" in item_values.columns else EPOCH,
        "title_column": header["title_column"],
        "candidates_per_source": header["candidates_per_source"],
        "diversity": header["diversity"],
        "rules": EventRules(**header.get("rules", {})),
        "repeats": RepeatRule(**header.get("repeats", {})),
    }


def _read_towers(bundle: Path, retrievers: list[Retriever], index: str) -> FinishedTowers | None:
    for retriever in retrievers:
        if isinstance(retriever, TwoTowerRetriever):
            if index != "exact":
                retriever.index = load_index(bundle / "index")
            return FinishedTowers.load(bundle / "retrieval" / retriever.name, retriever)
    return None
