"""The stage that learns to rank: candidates of the past, labelled by what followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.tables import Histories, Interactions
from recsys.bundle.left_out import LeftOut, write_left_out
from recsys.config import Config
from recsys.dataset import Dataset, cut_histories
from recsys.evaluation import Truth
from recsys.pipeline.calibration import fit_map, write_map
from recsys.pipeline.fitness import RANKING
from recsys.pipeline.origins import ask_past, earlier_origins, fit_beside, rows_of_earlier
from recsys.pipeline.ranker_choice import (
    check_rows,
    draw_folds,
    held_out_ndcg,
    write_definitions,
    write_fusion,
    write_validation,
)
from recsys.pipeline.shown_slates import better_with, shown_slates, slate_rows
from recsys.progress import Progress
from recsys.ranking.leakage import check_time_leakage
from recsys.ranking.options import ListwiseOptions
from recsys.ranking.ranker import fit_ranker
from recsys.recommender.features import FeatureInputs
from recsys.retrieval.protocol import Retriever

__all__ = ["Learned", "learn_ranking"]


class Learned(NamedTuple):
    """What is learned from, cut once more.

    Attributes:
        data: the run's, its log the training part.
        trained: U rows of the same.
        past_log: its events before the cut.
        past: U rows of the same.
        future: U rows of what followed.
    """

    data: Dataset
    trained: Histories
    past_log: Interactions
    past: Histories
    future: Histories


def learn_ranking(
    out: Path,
    config: Config,
    learned: Learned,
    inputs: FeatureInputs,
    retrievers: Sequence[Retriever],
    fit_again: Callable[[Histories], Sequence[Retriever]],
    *,
    progress: Progress,
) -> None:
    """Train both ranking stages, chosen on held-out users.

    Args:
        out: directory of the ranker.
        config: the run.
        learned: from what.
        inputs: what features are computed from.
        retrievers: that have seen ``learned.past`` alone.
        fit_again: makes such ones of an earlier past.
        progress: where bars go.

    Raises:
        LeakageError: an example could see its own future.
    """
    settings, data = config.ranking, learned.data
    definitions = inputs.computer.definitions
    cut = cut_histories(learned.past, learned.future, together=config.split.at_once)
    # A user's past may share its last timestamp with the moment's first target.
    check_time_leakage(cut.history, cut.target, learned.past, cut.moment)
    levels = config.data.target_weights()
    ask = partial(
        ask_past,
        data=data,
        inputs=inputs,
        per_source=settings.candidates_per_source,
        levels=None if levels is None else np.array(levels, dtype=np.float32),
    )
    asked = ask(retrievers, cut, log=learned.past_log)
    cut, pool, rows = asked.cut, asked.pool, asked.rows
    folds = draw_folds(rows, asked.users.size, folds=settings.folds, seed=config.seed)
    if folds is None:
        reason = (
            "left out: fewer than two users went on to one of their candidates; these are "
            "ordered by what the retrievers agree on"
        )
        names = [one.name for one in retrievers]
        write_fusion(out, definitions, names, [LeftOut(RANKING, reason)])
        return
    check_rows(rows, definitions)
    truth = Truth.from_histories(cut.target, grades="one" if levels is None else "weight")
    quality = partial(held_out_ndcg, rows, pool.item_index[pool.real], truth)
    # A basket of which something was given back is nothing that was shown.
    baskets = config.data.takes_back
    slates = None if baskets else shown_slates(data, asked.user_ids, cut.moment)
    lists = settings.listwise.only(ListwiseOptions) if settings.listwise.enabled else None
    steps = (settings.folds + 1) * (1 if lists is None else 2) * (1 if slates is None else 2)
    with progress.bar(steps + settings.origins - 1, "train the ranker") as advance:

        def refit(past: Histories) -> Sequence[Retriever]:
            advance(1)
            return fit_again(past)

        fraction, others = config.split.fraction, settings.origins - 1
        earlier = rows_of_earlier(
            earlier_origins(data.interactions, learned.trained, fraction, others),
            refit,
            ask,
            asked.folds_of_users(folds, len(learned.trained), seed=config.seed),
            most=settings.origin_candidates,
            seed=config.seed,
        )
        fit = partial(
            fit_ranker,
            gbdt=settings.gbdt,
            listwise=lists,
            top=settings.listwise.top,
            gains=(1.0,) if levels is None else tuple(one / levels[0] for one in levels),
            seed=config.seed,
            on_step=lambda text: advance(1),
        )
        if earlier is None:
            fitted = fit(rows, folds[rows.request_index], quality)
        else:
            fitted = fit_beside(fit, quality, rows, folds, *earlier)
        if slates is not None:
            shown = slate_rows(
                slates,
                retrievers,
                inputs,
                cut.history.take(slates.row),
                asked.user_ids,
                asked.users + 1,
                learned.past_log,
            )
            fitted = better_with(fitted, fit, quality, rows, folds, shown, slates)
    fitted.ranker.save(out)
    if lists is not None and fitted.ranker.listwise is None:
        reason = "left out: the best candidates of fewer than two users hold one they went on to"
        write_left_out(out, [LeftOut("listwise", reason)])
    rates = fit_map(fitted.held_out, rows.label)
    if rates is not None:
        write_map(out, rates)
    write_validation(out, fitted, pool, quality, asked.users.size)
    write_definitions(out, definitions)
