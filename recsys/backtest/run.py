"""The backtest: every origin trained, every model asked about all windows from its own on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import DataError
from recsys.backtest.ageing import Loss, Pair, Spread, advice, losses, spread
from recsys.backtest.origins import FUNNEL, Measured, config_at, measure, trained
from recsys.backtest.windows import Steps, Window, checked_steps, lay_out
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.evaluation import Interval, bootstrap_means
from recsys.pipeline.fitness import find_fitness
from recsys.progress import Progress

__all__ = ["DIRECTORY", "Backtest", "backtest"]

DIRECTORY = "backtest"
JUDGED_BY = ("ndcg", "recall")
HEADLINE_K = 20


@dataclass(frozen=True, eq=False)
class Backtest:
    """What the models of several origins are worth, and how they age.

    Attributes:
        steps: what was asked for.
        windows: O of them, oldest first.
        bundles: O models, one for each origin.
        taken_over: [O] whether an earlier run had finished the model.
        metrics: names, such as "ndcg@20".
        headline: the two of them that are shown first.
        intervals: numbers of origin and window -> system -> metric -> its mean over the users.
        losses: system -> metric -> by age.
        directory: of the models and the report.
    """

    steps: Steps
    windows: tuple[Window, ...]
    bundles: tuple[Bundle, ...]
    taken_over: tuple[bool, ...]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    intervals: Mapping[Pair, Mapping[str, Mapping[str, Interval]]]
    losses: Mapping[str, Mapping[str, list[Loss]]]
    directory: Path

    @property
    def advice(self) -> str:
        """How often to train again, by the funnel and the first metric, as one sentence."""
        metric = self.headline[0]
        return advice(self.losses[FUNNEL][metric], self.steps.every_us, metric)

    @property
    def systems(self) -> list[str]:
        """Names of all that was judged, the funnel first."""
        own = [self.intervals[n, n] for n in range(len(self.windows))]
        return list(dict.fromkeys(name for one in own for name in one))

    def fresh(self, system: str, metric: str) -> list[Interval | None]:
        """[O] of each origin in its own window; None where its model lacks the system."""
        own = [self.intervals[n, n].get(system) for n in range(len(self.windows))]
        return [None if one is None else one[metric] for one in own]

    def spread(self, system: str, metric: str) -> Spread:
        """Over the origins that have the system."""
        return spread([one.mean for one in self.fresh(system, metric) if one is not None])


def backtest(
    config: Config,
    *,
    origins: int = 4,
    every: str = "7d",
    horizon: str | None = None,
    progress: Progress | None = None,
) -> Backtest:
    """Train a model at each of several past moments and judge it on what followed.

    The newest origin lies one horizon before the end of the log, each earlier one ``every`` before.
    A model learns from what came strictly before its origin, by the run's own settings but for
    ``split``; one that an earlier call finished with the same settings, data and code is taken
    over. It is asked about the window of its own origin and about those of all later ones, with
    what was known when the window began: the model ages, the question does not.

    Args:
        config: the run; models are written below its ``output.directory``.
        origins: how many, 2 or more.
        every: time between two of them, such as "7d".
        horizon: length of a window. None: as ``every``.
        progress: where bars go.

    Raises:
        ConfigError: an argument is out of range, or the log is too short for the origins.
        DataError: the files break a rule, or there is nothing to learn before the oldest origin.
    """
    progress = progress or Progress()
    steps = checked_steps(config, origins, every, horizon)
    directory = config.output.directory / DIRECTORY
    data = read_dataset(config)
    windows = lay_out(data, steps)
    configs = [config_at(config, window.begin, directory / window.name) for window in windows]
    if problems := find_fitness(configs[0], data).problems:
        raise DataError(problems=problems)
    del data
    metrics = tuple(f"{name}@{k}" for name in JUDGED_BY for k in config.evaluation.ks)
    models = []
    measured: dict[Pair, Measured] = {}
    count = len(windows)
    with progress.bar(count + count * (count + 1) // 2, "backtest") as advance:
        for number, at in enumerate(configs):
            model = trained(at, progress=progress)
            advance(1)
            found = measure(at, model.bundle, windows[number:], metrics)
            measured |= {(number, number + age): one for age, one in enumerate(found)}
            advance(len(found))
            models.append(model)
    largest = HEADLINE_K if HEADLINE_K in config.evaluation.ks else config.evaluation.ks[-1]
    return Backtest(
        steps=steps,
        windows=windows,
        bundles=tuple(model.bundle for model in models),
        taken_over=tuple(model.taken_over for model in models),
        metrics=metrics,
        headline=tuple(f"{name}@{largest}" for name in JUDGED_BY),
        intervals=_intervals(config, measured, metrics),
        losses=_losses(config, measured, metrics),
        directory=directory,
    )


def _intervals(
    config: Config, measured: Mapping[Pair, Measured], metrics: tuple[str, ...]
) -> dict[Pair, dict[str, dict[str, Interval]]]:
    rng = np.random.default_rng(config.seed)
    resamples = config.evaluation.bootstrap_samples
    found: dict[Pair, dict[str, dict[str, Interval]]] = {}
    for pair, one in measured.items():
        found[pair] = {}
        for system, values in one.values.items():
            intervals = bootstrap_means(values, rng=rng, resamples=resamples)
            found[pair][system] = dict(zip(metrics, intervals, strict=True))
    return found


def _losses(
    config: Config, measured: Mapping[Pair, Measured], metrics: tuple[str, ...]
) -> dict[str, dict[str, list[Loss]]]:
    rng = np.random.default_rng(config.seed)
    resamples = config.evaluation.bootstrap_samples
    aged = [one for (origin, window), one in measured.items() if origin < window]
    return {
        system: {
            metric: losses(measured, system, column, rng=rng, resamples=resamples)
            for column, metric in enumerate(metrics)
        }
        for system in dict.fromkeys(name for one in aged for name in one.values)
    }
