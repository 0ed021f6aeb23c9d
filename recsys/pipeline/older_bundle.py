"""Measuring a bundle on newer data than it was trained on, as it would serve them today."""

from __future__ import annotations

import numpy as np

from features.errors import DataError
from features.tables import ITEM, Histories, Interactions
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Dataset, cut_histories, read_dataset
from recsys.errors import ArtifactError
from recsys.evaluation import Truth
from recsys.evaluation import evaluate as measure
from recsys.pipeline.evaluation import MEASURED_AT
from recsys.pipeline.evidence import Measured, calibration_of, find_leakage, make_evidence
from recsys.pipeline.lineage import numbered_as, trained_until
from recsys.recommender import Recommender
from recsys.simulation.gate.evidence import Evidence
from recsys.topk import TopK

__all__ = ["measure_as"]


def measure_as(
    config: Config, older: Bundle, newer: Bundle, *, data: Dataset | None = None
) -> Evidence:
    """Measure ``older`` on the data and the split that ``newer`` was trained with.

    It is asked with today's histories, less what it does not know; items that came later count as
    missed, and users that came later are unknown to it. Nothing is written. Events that it was
    trained on and that are held out now are named in the evidence's ``leakage``.

    Args:
        config: the data; its split must be that of ``newer``.
        older: what is measured.
        newer: what it will be compared with.
        data: of the configuration, where it is read already.

    Raises:
        ArtifactError: the data are not those of ``newer``, the split differs, or an item that
            ``older`` knows is gone.
    """
    data = data or read_dataset(config)
    try:
        same = numbered_as(newer, data).fingerprint() == newer.manifest.data_fingerprint
    except DataError:  # items of the bundle are gone
        same = False
    if not same:
        raise ArtifactError(
            f"bundle {newer.id} was trained on other data than {config.data.shown} hold now; judge "
            "it with its own data"
        )
    if newer.manifest.config["split"] != config.as_used()["split"]:
        raise ArtifactError(
            f"bundle {newer.id} was trained with the split {newer.manifest.config['split']}, "
            f"got {config.as_used()['split']}; judge it with its own split"
        )
    try:
        data = numbered_as(older, data)
    except DataError as error:
        raise ArtifactError(
            f"bundle {older.id} cannot be measured on today's data: {error}"
        ) from error
    recommender = Recommender.load(older.path)
    known = len(recommender.item_ids)
    split = data.split(config)
    cut = cut_histories(data.histories(split.train), data.histories(split.test))
    asked = _only(cut.history, known)
    users = data.user_list
    pool = recommender.pool(
        asked, moment=cut.moment, excluded=asked.seen_mask(known), user_ids=users
    )
    label = cut.target.seen_mask(data.num_items)[:, : known + 1]
    log = _known_events(split.train, data, known)
    rows = recommender.features.rows(pool, users, cut.moment, log, label=label)
    both = recommender.ranker.score(rows.features, rows.request_index)
    ranked = recommender.order(pool, both, max(*config.evaluation.ks, MEASURED_AT))
    lists, truth = TopK(ranked.item_index, ranked.score), Truth.from_histories(cut.target)
    evaluation = measure(
        lists,
        truth,
        popularity=np.bincount(cut.history.item_index, minlength=data.num_items + 1),
        rng=np.random.default_rng(config.seed),
        ks=config.evaluation.ks,
        history_length=cut.history.counts,
        user_ids=users,
        resamples=config.evaluation.bootstrap_samples,
    )
    leakage = find_leakage(cut, rows, trained_until(older, data))
    item_ids = data.item_ids.to_series().to_list()
    calibration = calibration_of(older, both, rows, seed=config.seed)
    measured = Measured(
        evaluation, lists, truth, cut.history, users, item_ids, leakage, calibration
    )
    return make_evidence(older, measured, newer)


def _only(histories: Histories, known: int) -> Histories:
    """The same rows without items above ``known``."""
    kept = histories.item_index <= known
    counts = np.bincount(histories.rows[kept], minlength=len(histories))
    return Histories(
        np.concatenate([[0], np.cumsum(counts)]).astype(histories.indptr.dtype),
        histories.item_index[kept],
        histories.timestamp[kept],
        histories.weight[kept],
    )


def _known_events(log: Interactions, data: Dataset, known: int) -> Interactions:
    ids = data.item_ids.to_series().head(known)
    return Interactions(log.frame.filter(log.frame[ITEM].is_in(ids.implode())))
