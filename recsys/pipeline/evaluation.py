"""Measuring a bundle on the held-out part, stage by stage, into a report and its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import numpy as np

from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Dataset, read_dataset
from recsys.evaluation import Evaluation, Interval, compare, write_html
from recsys.pipeline.evidence import write_evidence
from recsys.pipeline.measuring import ask_funnel, measured_on, own_data
from recsys.pipeline.source_choice import tried_losses
from recsys.progress import Progress

__all__ = ["evaluate"]


def evaluate(
    config: Config,
    bundle: Bundle,
    *,
    data: Dataset | None = None,
    progress: Progress | None = None,
) -> Mapping[str, Evaluation]:
    """Measure a bundle on the held-out part, stage by stage.

    Histories end where the training part ends; what must not be shown again is masked; the full
    catalogue is ranked. Writes ``report.html``, ``evaluation.json`` and ``evidence`` (for the gate)
    into the bundle and the metric table into its manifest.

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
    data = own_data(config, bundle, data or read_dataset(config), remedy="train again, or evaluate")
    with progress.bar(3, "measure the funnel") as advance:
        answer = ask_funnel(config, bundle, data)
        advance(1)
        systems = {
            "funnel": answer.lists(answer.score),
            "retrieval + trees": answer.lists(answer.trees),
        }
        advance(1)
        systems |= answer.alone()
        advance(1)
    rng = np.random.default_rng(config.seed)
    new_lists = {
        "funnel": partial(answer.new_lists, answer.score),
        "retrieval + trees": partial(answer.new_lists, answer.trees),
    }
    evaluations = {
        name: answer.judge(lists, rng, new_lists=new_lists.get(name))
        for name, lists in systems.items()
    }
    measured = answer.measured(systems["funnel"], evaluations["funnel"])
    notes = measured_on(data, config.split)
    _write_report(bundle, evaluations, rng, measured.calibration, notes)
    write_evidence(bundle, measured)
    return evaluations


def _write_report(
    bundle: Bundle,
    evaluations: dict[str, Evaluation],
    rng: np.random.Generator,
    calibration: Interval | None,
    notes: list[str],
) -> None:
    funnel = evaluations["funnel"]
    metric = f"ndcg@{funnel.headline_k}"
    comparisons = {
        f"{metric}: funnel minus {name}": compare(funnel, other, metric, rng=rng)
        for name, other in evaluations.items()
        if name != "funnel"
    }
    curve = json.loads((bundle.path / "retrieval/curve.json").read_text())
    with bundle.adding("report.html") as path:
        left_out = (str(one) for one in bundle.left_out())
        told = [*notes, *tried_losses(bundle.path / "retrieval"), *left_out]
        write_html(path, evaluations, comparisons=comparisons, training=curve, notes=told)
    with bundle.adding("evaluation.json") as path:
        tables = {name: json.loads(result.to_json()) for name, result in evaluations.items()}
        path.write_text(json.dumps(tables) + "\n")
    numbers = {
        name: {key: interval._asdict() for key, interval in result.metrics.items()}
        for name, result in evaluations.items()
    }
    kept = Bundle.load(bundle.path).manifest.metrics
    table = {**kept, "test": numbers, "users": funnel.users, "notes": notes}
    if calibration is not None:
        table["calibration"] = calibration._asdict()
    bundle.record_metrics(table)
