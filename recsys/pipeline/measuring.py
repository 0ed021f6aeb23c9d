"""Asking a bundle about the held-out part: the data it must be, the funnel's answer, its worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.errors import DataError
from features.tables import ITEM, Histories, Interactions
from features.tables.preview import tied_share
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Cut, Dataset, cut_histories
from recsys.dataset.tables import held_out_from
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation import Evaluation, Truth
from recsys.evaluation import evaluate as measure
from recsys.evaluation.options import SplitOptions
from recsys.evaluation.splits import Split
from recsys.pipeline.evidence import Measured, calibration_of, find_leakage
from recsys.pipeline.lineage import numbered_as, trained_until
from recsys.ranking.ranker import RankingRows
from recsys.recommender import Recommender
from recsys.recommender.pool import CandidatePool
from recsys.topk import TopK

__all__ = ["MEASURED_AT", "Answer", "ask_funnel", "check_slate", "measured_on", "own_data"]

MEASURED_AT = 20
"""Cutoff at which models are chosen on held-out users, and which every report shows."""


def own_data(config: Config, bundle: Bundle, data: Dataset, *, remedy: str) -> Dataset:
    """``data`` numbered as the bundle's, which they must be, split as it was trained.

    Args:
        config: of the data and their split.
        bundle: what was trained.
        data: as read.
        remedy: what to do instead, before "with its own data" and "with its own split".

    Raises:
        ArtifactError: the data or the split are not those the bundle was trained with.
        ConfigError: nor is what its slates may show.
    """
    try:
        numbered = numbered_as(bundle, data)
        same = numbered.fingerprint() == bundle.manifest.data_fingerprint
    except DataError:  # items of the bundle are gone
        same = False
    if not same:
        raise ArtifactError(
            f"bundle {bundle.id} was trained on other data than {config.data.shown} hold now; "
            f"{remedy} with its own data"
        )
    check_slate(config, bundle)
    used, wanted = bundle.manifest.config["split"], config.as_used()["split"]
    if SplitOptions(**used) != config.split:
        raise ArtifactError(
            f"bundle {bundle.id} was trained with the split {used}, so it may have learned from "
            f"what {wanted} holds out; {remedy} with its own split"
        )
    return numbered


def check_slate(config: Config, bundle: Bundle) -> None:
    """Refuse a bundle that learned to show other repeats than the configuration says.

    Raises:
        ConfigError: it did.
    """
    wanted = config.slate
    used = type(wanted)(**bundle.manifest.config.get("slate", {}))
    if used.to_rule() != wanted.to_rule():
        raise ConfigError(
            f"slate must be as bundle {bundle.id} was trained with, repeats = {used.repeats!r} and "
            f"kinds = {used.kinds}, got {wanted.repeats!r} and {wanted.kinds}; change it, or train "
            "again"
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """What a bundle's funnel makes of the held-out part.

    Attributes:
        config: cutoffs, resamples and seed of the measuring.
        bundle: what is asked.
        recommender: of the bundle.
        data: numbered as the bundle's, newer ids after its own.
        cut: Q histories and what followed.
        asked: Q histories, of the items the bundle knows.
        truth: Q rows, also of items the bundle does not know.
        users: Q ids.
        pool: candidates of Q users.
        rows: R candidates of the pool, labelled.
        trees: [R] scores of the first ranking stage.
        score: [R] of both stages.
    """

    config: Config
    bundle: Bundle
    recommender: Recommender
    data: Dataset
    cut: Cut
    asked: Histories
    truth: Truth
    users: Sequence[str]
    pool: CandidatePool
    rows: RankingRows
    trees: np.ndarray
    score: np.ndarray

    @property
    def k(self) -> int:
        """Places of the lists that are measured."""
        return max(*self.config.evaluation.ks, MEASURED_AT)

    def new_lists(self, score: np.ndarray) -> TopK:
        """The same without what users had met."""
        query, column = np.nonzero(self.pool.real)
        index = self.pool.item_index[query, column]
        met = self.asked.seen_mask(len(self.recommender.item_ids))[query, index]
        return self.lists(np.where(met, -np.inf, score))

    def lists(self, score: np.ndarray) -> TopK:
        """The lists of Q users from scores [R] of their candidates."""
        ranked = self.recommender.order(self.pool, score, self.k)
        return TopK(ranked.item_index, ranked.score)

    def alone(self) -> Iterator[tuple[str, TopK]]:
        """The lists of each retriever by itself, with its name."""
        recommender = self.recommender
        hidden = self.asked.hidden_mask(len(recommender.item_ids), self.cut.moment)
        for retriever in recommender.retrievers:
            question = retriever.ask(
                self.asked,
                moment=self.cut.moment,
                user_index=recommender.user_index(self.users),
            )
            yield retriever.name, question.retrieve(self.k, excluded=hidden)

    def judge(
        self, lists: TopK, rng: np.random.Generator, *, new_lists: Callable[[], TopK] | None = None
    ) -> Evaluation:
        """What lists of the Q users, however made, are worth.

        Args:
            lists: Q rows.
            rng: draws the resamples.
            new_lists: see `recsys.evaluation.evaluate`.
        """
        history = self.cut.history
        return measure(
            lists,
            self.truth,
            popularity=np.bincount(history.item_index, minlength=self.data.num_items + 1),
            rng=rng,
            ks=self.config.evaluation.ks,
            history_length=history.counts,
            met=history,
            new_lists=new_lists,
            user_ids=self.users,
            resamples=self.config.evaluation.bootstrap_samples,
        )

    def measured(self, lists: TopK, evaluation: Evaluation) -> Measured:
        """All that evidence is made of, from the funnel's ``lists`` and their ``evaluation``."""
        return Measured(
            evaluation,
            lists,
            self.truth,
            self.cut.history,
            self.users,
            self.data.item_ids.to_series().to_list(),
            find_leakage(self.cut, self.rows, trained_until(self.bundle, self.data)),
            calibration_of(self.bundle, self.score, self.rows, seed=self.config.seed),
        )


def measured_on(data: Dataset, settings: SplitOptions) -> list[str]:
    """What a reader of the numbers must know of what is held out, as sentences.

    Args:
        data: the run's.
        settings: how it was split.
    """
    tied = tied_share(data.interactions.frame)
    if settings.kind == "time":
        first = held_out_from(data.interactions, settings)
        held_out = f"held out: everything from {first} UTC on"
    else:
        held_out = (
            "held out: the last part of each user's events. Retrievers have learned from what "
            "other users did later, which favours those that follow trends; split.kind = 'time' "
            "does not"
        )
    return [
        held_out,
        f"{tied:.1%} of the events are at one time with another of their user; such events come in "
        "no order, and are held out together",
    ]


def ask_funnel(
    config: Config, bundle: Bundle, data: Dataset, *, window: Split | None = None
) -> Answer:
    """Ask a bundle for candidates of every user at the cut, and score them.

    Histories end where the training part ends, less what the bundle does not know; what
    must not be shown again is masked; the full catalogue of the bundle is ranked.

    Args:
        config: of the split.
        bundle: what is asked.
        data: numbered as the bundle's, newer ids after its own.
        window: what came before, and what is to be found, of which only users with something to
            find are asked. None: the parts of the configured split, and every user of the log.

    Raises:
        DataError: nothing is held out.
    """
    recommender = Recommender.load(bundle.path)
    known, users = len(recommender.item_ids), data.user_list
    split = data.split(config) if window is None else window
    if not len(split.test):
        raise DataError(
            f"{config.data.shown} must hold out events to measure bundle {bundle.id} on, got none: "
            "give a longer log, in which users come back"
        )
    cut = cut_histories(
        data.histories(split.train),
        data.histories(split.test),
        together=config.split.at_once,
    )
    if window is not None:
        rows = np.nonzero(cut.target.counts)[0]
        cut = Cut(cut.history.take(rows), cut.target.take(rows), cut.moment[rows])
        users = [users[row] for row in rows]
    asked, log = cut.history, split.train
    if known < data.num_items:
        asked, log = asked.within(known), _known_events(log, data, known)
    pool = recommender.pool(
        asked,
        moment=cut.moment,
        excluded=asked.hidden_mask(known, cut.moment),
        user_ids=users,
    )
    label = cut.target.seen_mask(data.num_items)[:, : known + 1]
    candidates = recommender.features.rows(pool, users, cut.moment, log, label=label)
    trees = recommender.ranker.gbdt.predict(candidates.features)
    score = recommender.ranker.reorder(candidates.features, trees, candidates.request_index)
    return Answer(
        config=config,
        bundle=bundle,
        recommender=recommender,
        data=data,
        cut=cut,
        asked=asked,
        truth=Truth.from_histories(cut.target),
        users=users,
        pool=pool,
        rows=candidates,
        trees=trees,
        score=score,
    )


def _known_events(log: Interactions, data: Dataset, known: int) -> Interactions:
    ids = data.item_ids.to_series().head(known)
    return log.only(pl.col(ITEM).is_in(ids.implode()))
