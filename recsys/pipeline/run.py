"""Training: the stages in order, from data over content, Semantic IDs and retrieval to a bundle.

The ranker learns from the past asking about its own future. The training part is cut once more:
retrievers fitted on the first part answer with candidates, labels are the events that followed.
Retrievers are then fitted again on the whole training part, and it is those that are served.

A run may continue a bundle; `recsys.pipeline.lineage` says what that changes, and what it must not.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from features.errors import DataError
from features.tables import TIMESTAMP, Histories
from recsys.bundle import Bundle
from recsys.bundle.left_out import read_left_out, write_left_out
from recsys.config import Config
from recsys.config.retrieval import AUTO
from recsys.dataset import read_dataset
from recsys.errors import CollapseError, ConfigError
from recsys.files.provenance import fingerprint
from recsys.index.choices import make_index
from recsys.pipeline.fitness import RANKING, Fitness, find_fitness
from recsys.pipeline.item_stages import item_stages, load_content, load_item_inputs
from recsys.pipeline.lineage import Lineage
from recsys.pipeline.measuring import check_slate
from recsys.pipeline.ranker_choice import write_fusion
from recsys.pipeline.ranker_features import RankerFeatures
from recsys.pipeline.ranking_stage import Learned, learn_ranking
from recsys.pipeline.retrievers import fit_counted, fit_sources
from recsys.pipeline.source_choice import (
    Tried,
    choose_loss,
    choose_sources,
    loss_of,
    read_choices,
    read_tried,
    write_choices,
)
from recsys.pipeline.stages import Stage, run_stages
from recsys.pipeline.towers import Plan, plan_of_past, validation_recall, write_curve
from recsys.pipeline.writing import TOWERS, index_of, write_bundle, write_noise
from recsys.progress import Progress
from recsys.recommender.features import FeatureInputs
from recsys.retrieval.choices import load_sources
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training.epoch_report import EpochReport

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(
    config: Config,
    *,
    workers: int = 1,
    fresh: bool = False,
    lineage: Lineage | None = None,
    explain_noise: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Run every stage and write a bundle.

    Finished stages of an interrupted run are taken over; stages whose settings, data or code
    changed run again. A stage that needs more than the data have is left out, which the bundle
    says; see `recsys.pipeline.fitness`.

    Args:
        config: the run.
        workers: processes that train the towers; above 1 the id tables are sharded (TorchRec).
        fresh: run every stage again.
        lineage: bundles that the run continues. None: none.
        explain_noise: also write ``retrieval/noise.parquet``, how much each training event looks
            like noise to the served towers; see `recsys.retrieval.training.noise_scores`.
        progress: where bars go.

    Raises:
        ConfigError: settings that do not fit the data or the bundles that are continued.
        DataError: the files break a rule, definitions do not fit them, or there is nothing to
            learn.
        CollapseError: towers that continue a bundle, where others would be left out.
        ArtifactError: a bundle that is continued is damaged, or saw what is held out now.
        LeakageError: a ranking example could see its own future.
    """
    progress, lineage = progress or Progress(), lineage or Lineage()
    if explain_noise and TwoTowerRetriever.name not in config.retrieval.sources:
        raise ConfigError(
            "retrieval.sources must include 'two_tower' for --explain-noise, got "
            f"{', '.join(config.retrieval.sources)}"
        )
    work = config.output.directory / "work"
    fitness = find_fitness(config, lineage.continued(read_dataset(config)))
    run = _Run(fitness, work, workers, lineage)
    del fitness  # with all of the log
    for one in run.left_out:
        progress.note(str(one))
    try:
        run.work(progress, fresh=fresh, noise=explain_noise)
    except CollapseError as error:
        if lineage.bundles:
            raise
        reason = str(error)
        run = _Run(find_fitness(config, read_dataset(config)).without_towers(reason), work, workers)
        progress.note(str(run.left_out[-1]))
        run.work(progress, fresh=fresh, noise=explain_noise)
    with Bundle.create(
        config.output.directory,
        config=run.used(config),
        data_fingerprint=run.data_fingerprint,
        lineage=lineage.record(),
    ) as draft:
        run.assemble(draft.path, noise=explain_noise and run.has_towers)
        draft.metrics = {"validation": json.loads((work / "ranking/validation.json").read_text())}
    return draft.finished()


class _Run:
    """One training run; each public method is a stage and writes into its directory."""

    def __init__(
        self,
        fitness: Fitness,
        work: Path,
        workers: int,
        lineage: Lineage | None = None,
    ) -> None:
        if fitness.problems or fitness.parts is None:
            raise DataError(problems=fitness.problems)
        config, data, lineage = fitness.config, fitness.data, lineage or Lineage()
        lineage.check_towers(fitness.left_out)
        self.left_out = fitness.left_out
        self._has_ranking = not fitness.lacks(RANKING)
        self.data_fingerprint = data.fingerprint()
        learned, held_out = fitness.parts.split
        self._trained = fitness.parts.trained
        self._past_log, *self._past_and_future = fitness.parts.again
        if lineage.start is not None and lineage.frozen_items:  # its ranker stays
            check_slate(config, lineage.start)
        lineage.check(config, data, held_out)
        self._config = config
        self._work = work
        self._workers = workers
        self._lineage = lineage
        self._item_stages = item_stages(config, data, work, lineage)
        # From here on the log is the training part; nothing holds the rest in memory.
        self._data = replace(data, interactions=learned)
        self._features = RankerFeatures.of_run(config, self._data, lineage)

    @property
    def has_towers(self) -> bool:
        """Whether there are towers among the retrievers."""
        return TwoTowerRetriever.name in self._config.retrieval.sources

    def used(self, config: Config) -> dict[str, Any]:
        """All settings, with the loss that was chosen where ``config`` leaves it open."""
        values = config.as_used()
        values["retrieval"] |= read_choices(self._work / "retrieval").get(
            TwoTowerRetriever.name, {}
        )
        return values

    def work(self, progress: Progress, *, fresh: bool, noise: bool) -> None:
        """Bring every stage up to date; the noise too, if it is wanted and there are towers."""
        stages = self.stages()
        if noise and self.has_towers:
            stages.append(Stage("noise", "of every training event", self.noise, ("retrieval",)))
        run_stages(stages, self._work, progress=progress, fresh=fresh)

    def stages(self) -> list[Stage]:
        """What is to be done, in order."""
        config, lineage = self._config, self._lineage
        # Another index searches the same vectors: nothing is trained again for it.
        towers = config.retrieval.model_dump(mode="json", exclude={"index"})
        parent = lineage.fingerprint()
        split = fingerprint(config.split.fingerprint(), config.slate.fingerprint())
        features = self._features.fingerprint()
        items = tuple(stage.name for stage in self._item_stages)
        ranking: list[Stage] = (
            [
                Stage(
                    "ranking",
                    fingerprint(config.ranking.fingerprint(), split, parent),
                    self.old_ranking,
                    items,
                )
            ]
            if lineage.frozen_items
            else [
                Stage(
                    "retrieval-past",
                    fingerprint(towers, split, self._workers, parent),
                    self.retrieval_past,
                    items,
                ),
                Stage(
                    "ranking",
                    fingerprint(config.ranking.fingerprint(), features, self._has_ranking),
                    self.ranking,
                    (*items, "retrieval-past"),
                ),
            ]
        )
        past = () if lineage.frozen_items else ("retrieval-past",)
        return [
            *self._item_stages,
            *ranking,
            Stage(
                "retrieval",
                fingerprint(towers, split, self._workers, parent),
                self.retrieval,
                (*items, *past),
            ),
            Stage("index", config.retrieval.index, self.index, ("retrieval",)),
            Stage("features", features, self.features, ("ranking",)),
        ]

    def retrieval_past(self, out: Path, progress: Progress) -> None:
        """Retrievers of the past, asked about the rest of the training part.

        They begin from nothing whatever the run continues: a bundle has seen that rest.
        """
        curve: list[EpochReport] = []
        past, future = self._past_and_future
        items, settings = load_item_inputs(self._work), self._config.retrieval
        tried: Tried = {}
        choices = choose_sources(
            past,
            future,
            settings,
            lambda name, changed: fit_counted(name, past, items, changed, seed=self._config.seed),
            num_items=items.num_items,
            together=self._config.split.at_once,
            seed=self._config.seed,
            progress=progress,
        )
        if self.has_towers and settings.loss == AUTO:
            choices[TwoTowerRetriever.name], tried = choose_loss(
                settings,
                lambda changed: validation_recall(
                    past,
                    items,
                    changed,
                    seed=self._config.seed,
                    validation=future.targets(),
                    workers=self._workers,
                    progress=progress,
                ),
                progress=progress,
            )
        fitted = fit_sources(
            past,
            items,
            settings,
            seed=self._config.seed,
            validation=future.targets(),
            workers=self._workers,
            progress=progress,
            on_epoch=curve.append,
            choices=choices,
        )
        fitted.save(out)
        write_choices(out, choices, tried)
        write_curve(curve, out)

    def old_ranking(self, out: Path, progress: Progress) -> None:
        """The ranker of the bundle, with the definitions of its features."""
        if self._lineage.start is not None:
            shutil.copytree(self._lineage.start.file("ranking"), out, dirs_exist_ok=True)

    def ranking(self, out: Path, progress: Progress) -> None:
        """Both ranking stages, chosen on held-out users."""
        data = self._data
        names, definitions = self._config.retrieval.sources, self._features.definitions
        if not self._has_ranking:
            write_fusion(out, definitions, names)
            return
        learn_ranking(
            out,
            self._config,
            Learned(data, self._trained, self._past_log, *self._past_and_future),
            FeatureInputs(self._features.computer(load_content(self._work)), data.item_ids),
            load_sources(self._work / "retrieval-past", names),
            self._fit_again,
            progress=progress,
        )

    def _fit_again(self, past: Histories) -> list[Retriever]:
        """The retrievers of an earlier past, with the settings and epochs of the later one."""
        directory, settings = self._work / "retrieval-past", self._config.retrieval
        return fit_sources(
            past,
            load_item_inputs(self._work),
            settings,
            seed=self._config.seed,
            plan=plan_of_past(directory, settings) if self.has_towers else None,
            workers=self._workers,
            choices=read_choices(directory),
        ).retrievers

    def retrieval(self, out: Path, progress: Progress) -> None:
        """The retrievers that are served, on the whole training part."""
        curve: list[EpochReport] = []
        settings, start = self._config.retrieval, self._lineage.start
        frozen = start is not None and self._lineage.frozen_items
        past = self._work / "retrieval-past"
        choices, tried = read_choices(past), read_tried(past)
        if start is not None and frozen:
            own = {TwoTowerRetriever.name: loss_of(start, settings)}
            choices, tried = {**read_choices(start.file("retrieval")), **own}, {}
        fitted = fit_sources(
            self._trained,
            load_item_inputs(self._work),
            settings,
            seed=self._config.seed,
            plan=self._plan() if self.has_towers else None,
            workers=self._workers,
            progress=progress,
            on_epoch=curve.append,
            choices=choices,
        )
        fitted.save(out)
        write_choices(out, choices, tried)
        write_left_out(out, fitted.left_out(settings))
        write_curve(curve, out)

    def _plan(self) -> Plan:
        """How the served towers are trained."""
        lineage, warm_epochs = self._lineage, self._config.retrieval.warm_epochs
        start = lineage.start_towers()
        if start is not None and lineage.start is not None and lineage.frozen_items:
            past = FinishedTowers.load(lineage.start.file(TOWERS), start)
            return Plan(
                epochs=warm_epochs or max(1, start.best_epoch),
                hard_epochs=0,
                start=start,
                frozen_items=True,
                past=past,
            )
        plan = plan_of_past(self._work / "retrieval-past", self._config.retrieval)
        if start is not None and warm_epochs:
            plan = replace(plan, epochs=warm_epochs)
        return replace(plan, start=start, old=lineage.old_towers())

    def index(self, out: Path, progress: Progress) -> None:
        """The search structure over the towers' item vectors."""
        out.mkdir(parents=True, exist_ok=True)
        kind = self._config.retrieval.index
        # The exact search reads the tower's own (int8) vectors and needs nothing beside them.
        if kind == "exact" or not self.has_towers:
            return
        start = self._lineage.start
        if self._lineage.frozen_items and start is not None and index_of(start) == kind:
            shutil.copytree(start.file("index"), out, dirs_exist_ok=True)
        else:
            tower = TwoTowerRetriever.load(self._work / TOWERS)
            make_index(kind).build(tower.item_vectors).save(out)

    def features(self, out: Path, progress: Progress) -> None:
        """Definitions, what they read of users, and item values at the end of the training part."""
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._work / "ranking/definitions.json", out)
        self._features.save_users(out)
        learned = self._data.interactions
        newest: Any = learned.frame[TIMESTAMP].max()
        as_of = newest + timedelta(microseconds=1)
        computer = self._features.computer(load_content(self._work))
        values = computer.item_features(learned, as_of)
        values.with_columns(pl.lit(as_of).cast(pl.Datetime("us")).alias("as_of")).write_parquet(
            out / "items.parquet"
        )

    def noise(self, out: Path, progress: Progress) -> None:
        """How much each training event looks like noise to the served towers."""
        write_noise(out, self._work, self._config, self._data, self._trained)

    def assemble(self, out: Path, *, noise: bool = False) -> None:
        """Everything a recommender needs, as one directory."""
        write_bundle(
            out, self._work, self._config, self._features, self._trained, self._lineage, noise=noise
        )
        found = [
            one for name in ("retrieval", "ranking") for one in read_left_out(self._work / name)
        ]
        write_left_out(out, [*self.left_out, *found])
