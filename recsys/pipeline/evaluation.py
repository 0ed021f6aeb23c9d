"""Measuring a bundle on the held-out part, stage by stage, into a report and its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from features.errors import DataError
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Dataset, cut_histories, read_dataset
from recsys.errors import ArtifactError
from recsys.evaluation import Evaluation, Interval, Truth, compare, write_html
from recsys.evaluation import evaluate as measure
from recsys.pipeline.evidence import Measured, calibration_of, find_leakage, write_evidence
from recsys.pipeline.lineage import numbered_as, trained_until
from recsys.progress import Progress
from recsys.recommender import Ranked, Recommender
from recsys.topk import TopK

__all__ = ["MEASURED_AT", "evaluate"]

MEASURED_AT = 20
"""Cutoff at which models are chosen on held-out users, and which every report shows."""


def evaluate(
    config: Config,
    bundle: Bundle,
    *,
    data: Dataset | None = None,
    progress: Progress | None = None,
) -> Mapping[str, Evaluation]:
    """Measure a bundle on the held-out part, stage by stage.

    Histories end where the training part ends; seen items are masked; the full catalogue is
    ranked. Writes ``report.html``, ``evaluation.json`` and ``evidence`` (for the gate) into the
    bundle and the metric table into its manifest.

    Args:
        config: the run.
        bundle: what is measured.
        data: the run's, where it is read already.
        progress: shows a bar.

    Returns:
        The whole funnel first, then the trees alone, then each retriever alone.

    Raises:
        ArtifactError: the data or the split are not those the bundle was trained with.
    """
    progress = progress or Progress()
    data = data or read_dataset(config)
    try:
        data = numbered_as(bundle, data)
        same = data.fingerprint() == bundle.manifest.data_fingerprint
    except DataError:  # items of the bundle are gone
        same = False
    if not same:
        raise ArtifactError(
            f"bundle {bundle.id} was trained on other data than {config.data.shown} hold now; "
            "train again, or evaluate with its own data"
        )
    used, wanted = bundle.manifest.config["split"], config.as_used()["split"]
    if used != wanted:
        raise ArtifactError(
            f"bundle {bundle.id} was trained with the split {used}, so it may have learned from "
            f"what {wanted} holds out; train again, or evaluate with its own split"
        )
    split = data.split(config)
    cut = cut_histories(data.histories(split.train), data.histories(split.test))
    recommender = Recommender.load(bundle.path)
    k = max(*config.evaluation.ks, MEASURED_AT)
    systems = {}
    with progress.bar(3, "measure the funnel") as advance:
        seen = cut.history.seen_mask(data.num_items)
        users = data.user_list
        pool = recommender.pool(cut.history, moment=cut.moment, excluded=seen, user_ids=users)
        advance(1)
        wanted_items = cut.target.seen_mask(data.num_items)
        rows = recommender.features.rows(pool, users, cut.moment, split.train, label=wanted_items)
        first = recommender.ranker.gbdt.predict(rows.features)
        both = recommender.ranker.reorder(rows.features, first, rows.request_index)
        systems["funnel"] = _top(recommender.order(pool, both, k))
        systems["retrieval + trees"] = _top(recommender.order(pool, first, k))
        advance(1)
        for retriever in recommender.retrievers:
            question = retriever.ask(
                cut.history, moment=cut.moment, user_index=recommender.user_index(users)
            )
            systems[retriever.name] = question.retrieve(k, excluded=seen)
        advance(1)
    truth = Truth.from_histories(cut.target)
    popularity = np.bincount(cut.history.item_index, minlength=data.num_items + 1)
    rng = np.random.default_rng(config.seed)
    found = {
        name: measure(
            lists,
            truth,
            popularity=popularity,
            rng=rng,
            ks=config.evaluation.ks,
            history_length=cut.history.counts,
            user_ids=data.user_list,
            resamples=config.evaluation.bootstrap_samples,
        )
        for name, lists in systems.items()
    }
    calibration = calibration_of(bundle, both, rows, seed=config.seed)
    _write_report(bundle, found, rng, calibration)
    measured = Measured(
        found["funnel"],
        systems["funnel"],
        truth,
        cut.history,
        users,
        data.item_ids.to_series().to_list(),
        find_leakage(cut, rows, trained_until(bundle, data)),
        calibration,
    )
    write_evidence(bundle, measured)
    return found


def _top(ranked: Ranked) -> TopK:
    return TopK(ranked.item_index, ranked.score)


def _write_report(
    bundle: Bundle,
    found: dict[str, Evaluation],
    rng: np.random.Generator,
    calibration: Interval | None,
) -> None:
    funnel = found["funnel"]
    metric = f"ndcg@{funnel.headline_k}"
    comparisons = {
        f"{metric}: funnel minus {name}": compare(funnel, other, metric, rng=rng)
        for name, other in found.items()
        if name != "funnel"
    }
    curve = json.loads((bundle.path / "retrieval/curve.json").read_text())
    with bundle.adding("report.html") as path:
        write_html(path, found, comparisons=comparisons, training=curve)
    with bundle.adding("evaluation.json") as path:
        tables = {name: json.loads(result.to_json()) for name, result in found.items()}
        path.write_text(json.dumps(tables) + "\n")
    numbers = {
        name: {key: interval._asdict() for key, interval in result.metrics.items()}
        for name, result in found.items()
    }
    kept = Bundle.load(bundle.path).manifest.metrics
    table = {**kept, "test": numbers, "users": funnel.users}
    if calibration is not None:
        table["calibration"] = calibration._asdict()
    bundle.record_metrics(table)
