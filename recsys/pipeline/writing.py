"""What the stages of a run left, put together as a bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from features.tables import Histories
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Dataset
from recsys.dataset.definitions import describe_definitions
from recsys.files.headers import write_header
from recsys.pipeline.lineage import Lineage, write_trained_until
from recsys.pipeline.ranker_features import RankerFeatures
from recsys.pipeline.towers import CURVE
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training.noise_scores import event_losses, noise_scores
from recsys.threads import torch_threads

__all__ = ["NOISE", "TOWERS", "index_of", "write_bundle", "write_noise"]

NOISE = "noise.parquet"
"""File of a bundle's ``retrieval`` directory with the noise scores, if they were asked for."""
TOWERS = f"retrieval/{TwoTowerRetriever.name}"
"""Where the served towers are, in the workspace and in the bundle."""

_PARTS = ("content", "semantic-ids", "fields", "retrieval", "ranking", "index", "features")


def write_bundle(
    out: Path,
    work: Path,
    config: Config,
    features: RankerFeatures,
    trained: Histories,
    lineage: Lineage,
    *,
    noise: bool = False,
) -> None:
    """Everything a recommender needs, and what a run that continues the bundle needs besides.

    Args:
        out: an existing directory.
        work: the outputs of the stages.
        config: the run.
        features: the run's, with its data.
        trained: U rows, the training part.
        lineage: what the run continues.
        noise: also what `write_noise` made.
    """
    data = features.data
    for name in _PARTS:
        shutil.copytree(work / name, out / name, ignore=shutil.ignore_patterns("stage.json"))
    if not lineage.frozen_items:  # the curve that was validated says more
        shutil.copy(work / "retrieval-past" / CURVE, out / "retrieval" / CURVE)
    if noise:
        shutil.copy(work / "noise" / NOISE, out / "retrieval")
    (out / "data").mkdir()
    data.item_ids.save(out / "data/items.parquet")
    data.user_ids.save(out / "data/users.parquet")
    data.items.frame.write_parquet(out / "data/catalogue.parquet")
    write_trained_until(out, data, trained, lineage)
    columns = asdict(data.items)
    columns.pop("frame")
    has_towers = TwoTowerRetriever.name in config.retrieval.sources
    header = {
        "items_sha256": data.item_ids.sha256,
        "item_columns": columns,
        "title_column": config.data.item_columns.title,
        "sources": list(config.retrieval.sources),
        "towers": TwoTowerRetriever.load(out / TOWERS).settings if has_towers else None,
        "index": config.retrieval.index,
        "features": describe_definitions(config, features.definitions),
        "candidates_per_source": config.ranking.candidates_per_source,
        "diversity": config.ranking.diversity,
        # What an event means that comes after the log.
        "rules": {
            "kinds": config.data.kinds,
            "positive": config.data.rules.positive,
            "negative": config.data.rules.negative,
        },
        "repeats": {"general": config.slate.repeats, "kinds": config.slate.kinds},
        "told": list(data.told),
    }
    write_header(out / "recommender.json", 1, header)


def index_of(bundle: Bundle) -> str:
    """Kind of the index that a bundle has over its item vectors."""
    kind: str = json.loads(bundle.file("recommender.json").read_text())["index"]
    return kind


def write_noise(out: Path, work: Path, config: Config, data: Dataset, histories: Histories) -> None:
    """How much each training event looks like noise to the served towers, a row an event.

    `recsys.retrieval.training.noise_scores.NoiseScores.to_frame` says what the columns are; sorted
    by falling ``noise`` the table is read from the top.
    """
    settings = config.retrieval
    towers = TwoTowerRetriever.load(work / TOWERS)
    with torch_threads(settings.num_threads):
        loss = event_losses(
            towers,
            histories,
            temperature=settings.temperature,
            generator=torch.Generator().manual_seed(config.seed),
            user_index=np.arange(1, len(histories) + 1),
        )
    found = noise_scores(loss, histories.indptr)
    out.mkdir(parents=True, exist_ok=True)
    found.to_frame(histories, data.user_list, data.item_ids).write_parquet(out / NOISE)
