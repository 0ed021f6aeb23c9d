"""Our two-tower retriever as a contender, and every option value it is benchmarked with.

Id tables only: one row a user, one row an item, no features, no content, no history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from retrieval_peers import OnEpoch, Peer

from features.histories import Histories
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import train_two_tower
from recsys.retrieval.training_options import EpochReport, TrainingOptions
from recsys.retrieval.two_tower import TwoTowerRetriever

Options = Mapping[str, Any]

TOWERS: Options = {
    "embedding_dim": 64,
    "user_table": True,
    "half_lives": (math.inf,),
    "hidden_dim": 0,
    "id_dropout": 0.0,
}
COMMON: Options = {"history_dropout": 0.0, "batch_size": 1024}

# Chosen on validation events. Row -> data -> `TrainingOptions`; QUICK goes on top with --quick.
QUALITY: Mapping[str, Mapping[str, Options]] = {
    "ours: sampled softmax": {
        "ml-1m-lcfn": {
            "loss": "sampled_softmax",
            "temperature": 0.15,
            "num_negatives": 2048,
            "negative_power": 0.0,
            "epochs": 60,
            "patience": 5,
        },
        "gowalla": {
            "loss": "sampled_softmax",
            "temperature": 0.08,
            "num_negatives": 2048,
            "negative_power": 0.0,
            "epochs": 60,
            "patience": 5,
        },
    },
}
QUICK: Mapping[str, Options] = {"ml-1m-lcfn": {"epochs": 20}, "gowalla": {"epochs": 20}}

# What is timed on Gowalla against the same loss in the plain loop, and how many epochs a run has
# that is tried against a target.
SPEED: Mapping[str, Options] = {
    "ours: DirectAU": {"loss": "directau", "gamma": 5.0},
    "ours: softmax 256": {
        "loss": "sampled_softmax",
        "temperature": 0.08,
        "num_negatives": 256,
        "negative_power": 0.0,
    },
    "ours: softmax 800": {
        "loss": "sampled_softmax",
        "temperature": 0.08,
        "num_negatives": 800,
        "negative_power": 0.0,
    },
    "ours: BPR": {"loss": "bpr", "score": "dot", "temperature": 1.0, "negative_power": 0.0},
}
EPOCHS_TRIED = (1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48)


class Ours(Peer):
    """`train_two_tower` on ids alone. Its vectors exist once `fit` is through.

    Args:
        train: events.
        num_items: N.
        options: of `TrainingOptions`, on top of `COMMON`.
        validation: events to stop early by. None: all epochs.
        seed: of everything random.
    """

    def __init__(
        self,
        train: Histories,
        num_items: int,
        options: Options,
        *,
        validation: Histories | None = None,
        seed: int = 0,
    ) -> None:
        self._train, self._num_items, self._validation = train, num_items, validation
        self._options = {**COMMON, **options}
        self._seed = seed
        self._retriever: TwoTowerRetriever | None = None

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Run ``epochs`` epochs; ``on_epoch`` cannot stop them, early stopping can."""

        def after(report: EpochReport) -> None:
            on_epoch(report.epoch, report.seconds)

        self._retriever = train_two_tower(
            self._train,
            num_items=self._num_items,
            validation=self._validation,
            towers=TowerOptions(**TOWERS),
            training=TrainingOptions(**{**self._options, "epochs": epochs}),
            seed=self._seed,
            on_epoch=after,
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
    def best_epoch(self) -> int:
        """The epoch whose weights were kept."""
        return self.retriever.best_epoch

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
