"""One trial of the towers: train them on the past of the training part, ask about its rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from features.tables import Histories
from recsys.config import Config, RetrievalConfig
from recsys.dataset import Dataset
from recsys.errors import ConfigError
from recsys.evaluation import Truth, judge
from recsys.evaluation.metrics import recall
from recsys.pipeline.item_stages import item_stages, load_item_inputs
from recsys.pipeline.retrievers import fit_sources
from recsys.pipeline.stages import run_stages
from recsys.pipeline.towers import ONE_TRAINING, ItemInputs
from recsys.progress import Progress
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.settings import explain

__all__ = ["MEASURED_AT", "TrialData", "changed_settings", "recall_of_towers", "trial_data"]

MEASURED_AT = 20
"""Cutoff of the recall that trials are compared by, the one that training validates with."""

_USERS_AT_ONCE = 4096
_OF_A_TRIAL = {**ONE_TRAINING, "sources": ("two_tower",)}
"""What a trial does without: it is about one training of the full towers."""


@dataclass(frozen=True)
class TrialData:
    """What trials learn from and are judged on; made without the test part.

    Attributes:
        past: U rows of training events.
        future: the same rows' later training events.
        items: content and Semantic IDs.
    """

    past: Histories
    future: Histories
    items: ItemInputs


def trial_data(config: Config, data: Dataset, *, progress: Progress | None = None) -> TrialData:
    """Cut the test part off and the rest in two; run the items' stages unless they are done.

    Raises:
        ConfigError: nobody has events to learn from, or to validate on.
    """
    train = data.split(config).train
    _, past, future = data.past_and_future(train, data.histories(train), config.split)
    future = future.targets()
    if not past.item_index.size or not future.item_index.size:
        raise ConfigError(
            f"split.fraction {config.split.fraction:g} leaves {past.item_index.size} events to "
            f"learn from and {future.item_index.size} to validate on; give more events, or "
            "another fraction"
        )
    work = config.output.directory / "work"
    run_stages(item_stages(config, data, work), work, progress=progress)
    return TrialData(past, future, load_item_inputs(work))


def changed_settings(settings: RetrievalConfig, changes: Mapping[str, Any]) -> RetrievalConfig:
    """The section with other values, checked as a configuration file is.

    Raises:
        ConfigError: values that the section refuses, or refuses together.
    """
    try:
        return type(settings).model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError(explain(error, type(settings))) from error


def recall_of_towers(
    trial: TrialData,
    settings: RetrievalConfig,
    *,
    seed: int,
    progress: Progress | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> np.ndarray:
    """Train the towers and judge their best epoch.

    Args:
        trial: the data.
        settings: of the towers; other retrievers in it are not fitted.
        seed: of the training.
        progress: shows a bar.
        on_epoch: called after each epoch; what it raises ends the training.

    Returns:
        [V] float64 recall@20 of each user with validation events, without what was met and must not
            be shown again.

    Raises:
        ConfigError: settings that do not fit the catalogue.
        CollapseError: the vectors use too few of their dimensions.
        FloatingPointError: the loss is no longer finite.
    """
    fitted = fit_sources(
        trial.past,
        trial.items,
        settings.model_copy(update=_OF_A_TRIAL),
        seed=seed,
        validation=trial.future,
        progress=progress,
        on_epoch=on_epoch,
    )
    towers = cast(FinishedTowers, fitted.towers).retriever
    asked = np.flatnonzero(trial.future.counts)
    parts = []
    for start in range(0, asked.size, _USERS_AT_ONCE):
        users = asked[start : start + _USERS_AT_ONCE]
        seen = trial.past.take(users)
        lists = towers.retrieve(
            seen, MEASURED_AT, excluded=seen.hidden_mask(towers.num_items), user_index=users + 1
        )
        truth = Truth.from_histories(trial.future.take(users))
        parts.append(recall(judge(lists, truth), MEASURED_AT))
    return np.concatenate(parts)
