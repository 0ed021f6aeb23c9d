"""Measuring a bundle on newer data than it was trained on, as it would serve them today."""

from __future__ import annotations

import numpy as np

from features.errors import DataError
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Dataset, read_dataset
from recsys.errors import ArtifactError
from recsys.pipeline.evidence import make_evidence
from recsys.pipeline.lineage import numbered_as
from recsys.pipeline.measuring import ask_funnel, own_data
from recsys.simulation.gate.evidence import Evidence

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
    own_data(config, newer, data, remedy="judge it")
    try:
        numbered = numbered_as(older, data)
    except DataError as error:
        raise ArtifactError(
            f"bundle {older.id} cannot be measured on today's data: {error}"
        ) from error
    answer = ask_funnel(config, older, numbered)
    lists = answer.lists(answer.score)
    evaluation = answer.judge(lists, np.random.default_rng(config.seed))
    return make_evidence(older, answer.measured(lists, evaluation), newer)
