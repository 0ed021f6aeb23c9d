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
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.computation.declarations import dump_definitions
from features.tables import TIMESTAMP, Histories, Interactions
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Cut, Dataset, cut_histories, read_dataset
from recsys.errors import ConfigError
from recsys.evaluation import Truth, judge
from recsys.evaluation.metrics import ndcg
from recsys.files.provenance import fingerprint
from recsys.index.choices import make_index
from recsys.pipeline.calibration import fit_map, write_map
from recsys.pipeline.item_stages import item_stages, load_content, load_item_inputs
from recsys.pipeline.lineage import Lineage
from recsys.pipeline.measuring import MEASURED_AT
from recsys.pipeline.ranker_features import RankerFeatures
from recsys.pipeline.retrievers import fit_sources
from recsys.pipeline.stages import Stage, run_stages
from recsys.pipeline.towers import Plan, plan_of_past, write_curve
from recsys.pipeline.writing import TOWERS, write_bundle, write_noise
from recsys.progress import Progress
from recsys.ranking.leakage import check_feature_leakage, check_time_leakage
from recsys.ranking.options import ListwiseOptions
from recsys.ranking.ranker import RankingRows, fit_ranker, lists_of
from recsys.recommender.features import FeatureInputs
from recsys.recommender.pool import pool_candidates
from recsys.retrieval.choices import load_sources
from recsys.retrieval.finishing.extras import FinishedTowers
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
    changed run again.

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
        DataError: the files break a rule, or definitions do not fit them.
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
    run = _Run(config, lineage.continued(read_dataset(config)), work, workers, lineage)
    stages = run.stages()
    if explain_noise:
        stages.append(Stage("noise", "of every training event", run.noise, ("retrieval",)))
    run_stages(stages, work, progress=progress, fresh=fresh)
    with Bundle.create(
        config.output.directory,
        config=config.as_used(),
        data_fingerprint=run.data_fingerprint,
        lineage=lineage.record(),
    ) as draft:
        run.assemble(draft.path, noise=explain_noise)
        draft.metrics = {"validation": json.loads((work / "ranking/validation.json").read_text())}
    return draft.finished()


class _Run:
    """One training run; each public method is a stage and writes into its directory."""

    def __init__(
        self,
        config: Config,
        data: Dataset,
        work: Path,
        workers: int,
        lineage: Lineage | None = None,
    ) -> None:
        lineage = lineage or Lineage()
        self.data_fingerprint = data.fingerprint()
        learned, held_out = data.split(config)
        lineage.check(config, data, held_out)
        self._config = config
        self._work = work
        self._workers = workers
        self._lineage = lineage
        self._item_stages = item_stages(config, data, work, lineage)
        # From here on the log is the training part; nothing holds the rest in memory.
        self._data = replace(data, interactions=learned)
        self._features = RankerFeatures.of_run(config, self._data, lineage)

    @cached_property
    def _trained(self) -> Histories:
        """U rows, the training part."""
        return self._data.histories()

    @cached_property
    def _past_and_future(self) -> tuple[Histories, Histories]:
        """U rows each: what the retrievers of the past see, and what they are asked about."""
        return self._cut[1:]

    @cached_property
    def _cut(self) -> tuple[Interactions, Histories, Histories]:
        """The training part cut once more; see `Dataset.past_and_future`."""
        data = self._data
        return data.past_and_future(data.interactions, self._trained, self._config.split)

    def stages(self) -> list[Stage]:
        """What is to be done, in order."""
        config, lineage = self._config, self._lineage
        # Another index searches the same vectors: nothing is trained again for it.
        towers = config.retrieval.model_dump(mode="json", exclude={"index"})
        parent = lineage.fingerprint()
        split = config.split.fingerprint()
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
                    fingerprint(config.ranking.fingerprint(), features),
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
        fitted = fit_sources(
            past,
            load_item_inputs(self._work),
            self._config.retrieval,
            seed=self._config.seed,
            validation=future.targets(),
            workers=self._workers,
            progress=progress,
            on_epoch=curve.append,
        )
        fitted.save(out)
        write_curve(curve, out)

    def old_ranking(self, out: Path, progress: Progress) -> None:
        """The ranker of the bundle, with the definitions of its features."""
        if self._lineage.start is not None:
            shutil.copytree(self._lineage.start.file("ranking"), out, dirs_exist_ok=True)

    def ranking(self, out: Path, progress: Progress) -> None:
        """Both ranking stages, chosen on held-out users."""
        config, data = self._config.ranking, self._data
        past, future = self._past_and_future
        cut = cut_histories(past, future)
        # A user's past may share its last timestamp with the moment's first target.
        check_time_leakage(cut.history, cut.target, past, cut.moment)
        names = self._config.retrieval.sources
        retrievers = load_sources(self._work / "retrieval-past", names)
        asked = np.nonzero(cut.target.counts > 0)[0]
        cut = Cut(cut.history.take(asked), cut.target.take(asked), cut.moment[asked])
        inputs = FeatureInputs(self._features.computer(load_content(self._work)), data.item_ids)
        pool = pool_candidates(
            retrievers,
            cut.history,
            config.candidates_per_source,
            num_items=data.num_items,
            moment=cut.moment,
            excluded=cut.history.seen_mask(data.num_items),
            user_index=asked + 1,
        )
        wanted = cut.target.seen_mask(data.num_items)
        user_ids = [data.user_list[row] for row in asked]
        rows = inputs.rows(pool, user_ids, cut.moment, self._cut[0], label=wanted)
        check_feature_leakage(rows)
        truth = Truth.from_histories(cut.target)
        quality = partial(_held_out_ndcg, rows, pool.item_index[pool.real], truth)
        folds = np.random.default_rng(self._config.seed).integers(0, config.folds, asked.size)
        steps = config.folds * (1 + int(config.listwise.enabled)) + 1 + int(config.listwise.enabled)
        with progress.bar(steps, "train the ranker", unit="model") as advance:
            fitted = fit_ranker(
                rows,
                folds[rows.request_index],
                quality,
                gbdt=config.gbdt,
                listwise=config.listwise.only(ListwiseOptions) if config.listwise.enabled else None,
                top=config.listwise.top,
                seed=self._config.seed,
                on_step=lambda text: advance(1),
            )
        fitted.ranker.save(out)
        rates = fit_map(fitted.held_out, rows.label)
        if rates is not None:
            write_map(out, rates)
        validation = {
            f"ndcg@{MEASURED_AT}": {
                "trees": quality(fitted.held_out_first),
                "trees and listwise": quality(fitted.held_out),
                **{name: quality(pool.score[name][pool.real]) for name in pool.names},
            },
            "users": int(asked.size),
            "num_trees": fitted.num_trees,
            "listwise_strength": fitted.strength,
            "by_num_trees": fitted.first_value,
            "by_listwise_strength": fitted.listwise_value,
            "importance": fitted.ranker.gbdt.importance(),
        }
        (out / "validation.json").write_text(json.dumps(validation, indent=2) + "\n")
        (out / "definitions.json").write_text(
            json.dumps(dump_definitions(self._features.definitions), indent=2) + "\n"
        )

    def retrieval(self, out: Path, progress: Progress) -> None:
        """The retrievers that are served, on the whole training part."""
        curve: list[EpochReport] = []
        settings = self._config.retrieval
        fitted = fit_sources(
            self._trained,
            load_item_inputs(self._work),
            settings,
            seed=self._config.seed,
            plan=self._plan() if TwoTowerRetriever.name in settings.sources else None,
            workers=self._workers,
            progress=progress,
            on_epoch=curve.append,
        )
        fitted.save(out)
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
        if kind == "exact" or TwoTowerRetriever.name not in self._config.retrieval.sources:
            return
        start = self._lineage.start
        if self._lineage.frozen_items and start is not None and _index_of(start) == kind:
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


def _index_of(bundle: Bundle) -> str:
    """Kind of the index that a bundle has over its item vectors."""
    kind: str = json.loads(bundle.file("recommender.json").read_text())["index"]
    return kind


def _held_out_ndcg(
    rows: RankingRows, item_index: np.ndarray, truth: Truth, score: np.ndarray
) -> float:
    lists = lists_of(score, rows.request_index, MEASURED_AT)
    items = np.where(lists >= 0, item_index[np.maximum(lists, 0)], -1)
    return float(ndcg(judge(items, truth), MEASURED_AT).mean())
