"""Whole pipelines as arms: what each would show every user of a world, asked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.tables import Histories
from recsys.config import Config
from recsys.config.experiment_design import ArmSettings
from recsys.dataset import Cut, Dataset, cut_histories, read_dataset
from recsys.errors import ConfigError
from recsys.evaluation.splits import Split
from recsys.recommender import Recommender
from recsys.simulation.world.arms import SimulatedArm
from recsys.topk import top_k

__all__ = [
    "Audience",
    "pipeline_arm",
    "popular_arm",
    "read_audience",
    "retrieved_arm",
    "with_settings",
]

_BATCH = 1000
"""Users ranked at a time."""


@dataclass(frozen=True)
class Audience:
    """Whom all arms are asked for, and what they may know: the training part of the data.

    Attributes:
        data: everything there is.
        split: its parts.
        cut: U rows, the question put to a pipeline.
    """

    data: Dataset
    split: Split
    cut: Cut


def read_audience(config: Config) -> Audience:
    """The users of a run's data, at the moment where its training part ends.

    Raises:
        DataError: the files break a rule.
    """
    data = read_dataset(config)
    split = data.split(config)
    cut = cut_histories(
        data.histories(split.train),
        data.histories(split.test),
        together=config.split.at_once,
    )
    return Audience(data, split, cut)


def pipeline_arm(
    name: str, config: Config, bundle: Path, audience: Audience, *, candidates: int = 100
) -> SimulatedArm:
    """What a bundle's funnel answers: retrievers, both ranking stages, slate settings.

    Args:
        name: of the arm.
        config: of its run; the slate settings count.
        bundle: directory.
        audience: whom to ask for. What its slates must not show
            again is left out.
        candidates: M, most for each user; all get as many as the one with the fewest.

    Raises:
        ArtifactError: the bundle is damaged.
        ConfigError: it knows other items than the audience's data.
    """
    recommender = Recommender.load(bundle)
    histories, number = _as_known_to(recommender, name, audience)
    users = audience.data.user_list
    diversity = config.ranking.diversity
    found = []
    for start in range(0, len(users), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(users)))
        found.append(
            recommender.rank(
                histories.take(rows),
                users[start : start + _BATCH],
                audience.cut.moment[rows],
                audience.split.train,
                candidates,
                diversity=diversity,
            )
        )
    item_index = np.concatenate([part.item_index for part in found])
    score = np.concatenate([part.score for part in found])
    if diversity > 0:  # the order is no longer that of the scores
        score = np.tile(-np.arange(score.shape[1], dtype=np.float32), (len(score), 1))
    width = _shortest(item_index, name)
    return SimulatedArm(name, number[item_index[:, :width]], score[:, :width])


def retrieved_arm(
    name: str, bundle: Path, audience: Audience, *, candidates: int = 100
) -> SimulatedArm:
    """What a bundle's retrievers find, in the order of the best rank that any of them gives.

    Arguments and errors are those of `pipeline_arm`.
    """
    recommender = Recommender.load(bundle)
    histories, number = _as_known_to(recommender, name, audience)
    pool = recommender.pool(
        histories,
        moment=audience.cut.moment,
        excluded=histories.hidden_mask(len(recommender.item_ids), audience.cut.moment),
        user_ids=audience.data.user_list,
    )
    best = np.min([pool.rank[source] for source in pool.names], axis=0)
    best = np.where(pool.item_index > 0, best, np.inf)
    order = np.argsort(best, axis=1, kind="stable")[:, :candidates]
    item_index = np.take_along_axis(pool.item_index, order, axis=1)
    width = _shortest(item_index, name)
    score = -np.take_along_axis(best, order, axis=1)[:, :width]
    return SimulatedArm(name, number[item_index[:, :width]], score)


def popular_arm(name: str, audience: Audience, *, candidates: int = 100) -> SimulatedArm:
    """The items met most in the training part, without those a user must not be shown again."""
    num_items = audience.data.num_items
    history, moment = audience.cut.history, audience.cut.moment
    count = np.bincount(history.item_index, minlength=num_items + 1).astype(np.float32)
    found = []
    for start in range(0, len(history), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(history)))
        hidden = history.take(rows).hidden_mask(num_items, moment[rows])
        score = np.broadcast_to(count, hidden.shape)
        found.append(top_k(score, candidates, excluded=hidden).item_index)
    item_index = np.concatenate(found)
    width = int((item_index > 0).sum(axis=1).min())
    if width < 1:
        raise ConfigError(
            f"arm {name!r} must have an item to show to everybody: for somebody all {num_items} "
            "are hidden; set slate.repeats = 'allow', or name another arm"
        )
    item_index = item_index[:, :width]
    return SimulatedArm(name, item_index, count[item_index])


def with_settings(arm: SimulatedArm, name: str, settings: ArmSettings) -> SimulatedArm:
    """The same candidates, drawn in another way."""
    return replace(arm, name=name, settings=settings)


def _as_known_to(
    recommender: Recommender, name: str, audience: Audience
) -> tuple[Histories, np.ndarray]:
    """Histories in a bundle's item numbers, and the world's number of each of its items."""
    data = audience.data
    ids = recommender.item_ids.to_series()
    number = np.concatenate([np.zeros(1, dtype=np.int64), data.item_ids.index(ids)])
    unknown = int((number[1:] == 0).sum())
    if unknown:
        raise ConfigError(
            f"arm {name!r} must recommend items of the world: {unknown:,} of {len(ids):,} items of "
            f"bundle {recommender.generation} are not in its data; train it on the same data"
        )
    return recommender.histories(audience.split.train, data.user_list), number


def _shortest(item_index: np.ndarray, name: str) -> int:
    width = int((item_index > 0).sum(axis=1).min())
    if width < 1:
        raise ConfigError(
            f"arm {name!r} must answer for every user, got nothing for "
            f"{int((item_index[:, 0] < 1).sum())}; raise ranking.candidates_per_source"
        )
    return width
