"""A run's data: its tables, its split into past and future, the ranker's definitions.

Imports `config`; may be imported by `recommender`, `pipeline` and `simulation.trial`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.dataset.run_data import (
        Cut,
        Dataset,
        cut_histories,
        dataset_of,
        passed_over,
        read_dataset,
    )

__all__ = ["Cut", "Dataset", "cut_histories", "dataset_of", "passed_over", "read_dataset"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
