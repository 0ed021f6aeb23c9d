"""Our two-tower retriever as a contender, and every option value it is benchmarked with.

Id tables only: one row a user, one row an item, no features, no content, no history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from retrieval_peers import OnEpoch, Peer

from features.tables import Histories
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training import TrainingOptions, train_two_tower
from recsys.retrieval.training.epoch_report import EpochReport

Options = Mapping[str, Any]

TOWERS: Options = {
    "dim": 64,
    "use_user_id": True,
    "pooling": "none",
    "id_dropout": 0.0,
}
COMMON: Options = {
    "batch_size": 1024,
    "negatives": 1024,
    "negative_power": 0.0,
    "patience": 0,
    "final_learning_rate": 0.01,
}

# Chosen on validation events. Row -> data -> `TrainingOptions`.
_ML_1M: Options = {
    "temperature": 0.15,
    "negatives": 4096,  # more than there are items: the exact softmax
    "batch_size": 8192,
    "events_per_user": 256,
    "table_learning_rate": 0.2,
    "final_learning_rate": 0.1,
    "user_power": 0.5,
    "smoothing": 0.05,
    "epochs": 80,
}
_GOWALLA: Options = {
    "temperature": 0.08,
    "negatives": 4096,
    "batch_size": 4096,
    "events_per_user": 1024,
    "table_learning_rate": 0.2,
    "user_power": 0.25,
    "epochs": 40,
}
QUALITY: Mapping[str, Mapping[str, Options]] = {
    "ours: softmax": {
        "ml-1m-lcfn": {**_ML_1M, "loss": "sampled_softmax"},
        "gowalla": {**_GOWALLA, "loss": "sampled_softmax", "smoothing": 0.25},
    },
    "ours: BSL": {
        "ml-1m-lcfn": {**_ML_1M, "loss": "bsl", "bsl_weight": 1.03},
        "gowalla": {
            **_GOWALLA,
            "loss": "bsl",
            "bsl_weight": 1.05,
            "smoothing": 0.2,
        },
    },
}

# What is timed on Gowalla against the same loss in the plain loop, and the epochs of a run that
# is followed to a target.
CONSTANT: Options = {"final_learning_rate": 1.0, "table_learning_rate": 0.2, "temperature": 0.1}
SPEED: Mapping[str, Options] = {
    "ours: BSL": {
        **CONSTANT,
        "loss": "bsl",
        "bsl_weight": 1.22,
        "events_per_user": 4,
        "smoothing": 0.1,
    },
    "ours: DirectAU": {**CONSTANT, "loss": "directau", "gamma": 5.0, "low_precision": True},
    "ours: softmax 256": {**CONSTANT, "loss": "sampled_softmax", "negatives": 256},
    "ours: softmax 800": {**CONSTANT, "loss": "sampled_softmax", "negatives": 800},
    "ours: BPR": {**CONSTANT, "loss": "bpr", "score": "dot", "temperature": 1.0},
}


class Ours(Peer):
    """`train_two_tower` on ids alone.

    Args:
        train: events.
        num_items: N.
        options: of `TrainingOptions`, on top of `COMMON`.
        seed: of everything random.
    """

    def __init__(
        self,
        train: Histories,
        num_items: int,
        options: Options,
        *,
        seed: int = 0,
    ) -> None:
        self._train, self._num_items = train, num_items
        self._options = {**COMMON, **options}
        self._seed = seed
        self._retriever: TwoTowerRetriever | None = None

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Run ``epochs`` epochs, fewer when ``on_epoch`` says so."""

        def after(report: EpochReport, retriever: TwoTowerRetriever) -> bool:
            self._retriever = retriever
            return on_epoch(report.epoch, report.training_seconds)

        self._retriever = train_two_tower(
            self._train,
            num_items=self._num_items,
            towers=TowerOptions(**TOWERS),
            training=TrainingOptions(**{**self._options, "epochs": epochs}),
            seed=self._seed,
            watch=after,
        )

    @property
    def retriever(self) -> TwoTowerRetriever:
        """What `fit` trained.

        Raises:
            RuntimeError: it has not.
        """
        if self._retriever is None:
            raise RuntimeError("call fit first")
        return self._retriever

    @property
    def user_vectors(self) -> np.ndarray:
        """[U, D] from the user table alone."""
        nothing = self._train.last(0)
        rows = np.arange(1, len(nothing) + 1)
        return self.retriever.user_vectors(nothing, user_index=rows)

    @property
    def item_vectors(self) -> np.ndarray:
        """[N + 1, D]."""
        return self.retriever.item_vectors
