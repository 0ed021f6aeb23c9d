"""Training the two-tower retriever, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.histories import Histories
from recsys.retrieval.launch import train_in_processes
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training_inputs import TrainingInputs
from recsys.retrieval.training_options import EpochReport, TrainingOptions
from recsys.retrieval.training_run import run_training
from recsys.retrieval.two_tower import TwoTowerRetriever

__all__ = ["EpochReport", "TowerOptions", "TrainingOptions", "train_two_tower"]


def train_two_tower(
    histories: Histories,
    *,
    num_items: int,
    content: np.ndarray | None = None,
    prefix_tokens: np.ndarray | None = None,
    num_prefix_tokens: int | None = None,
    validation: Histories | None = None,
    towers: TowerOptions | None = None,
    training: TrainingOptions | None = None,
    seed: int = 0,
    workers: int = 1,
    timeout_s: float | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TwoTowerRetriever:
    """Train the two towers and return the retriever of the best epoch.

    Each training event is a positive; its query is what the same user did strictly before it, so
    no example can see its own target.

    Args:
        histories: training events of U users, items 1..``num_items``.
        num_items: N.
        content: [N + 1, content_dim] float32 content vectors, row 0 zero. None: no content.
        prefix_tokens: [N + 1, L] int64 Semantic-ID prefix tokens, row 0 zero. None: none.
        num_prefix_tokens: largest token the table must hold. None: the largest given.
        validation: later events of the same users, row by row; the epoch with the best recall@20
            on them is returned, and training stops when it no longer rises. None: the last epoch.
        towers: the shape of the model. None: the defaults of `TowerOptions`.
        training: how it is trained. None: the defaults of `TrainingOptions`.
        seed: same seed and same ``workers``, same weights to the bit on CPU.
        workers: processes; above 1 the id tables are sharded over them with TorchRec, and each
            takes its share of every batch.
        timeout_s: seconds after which several processes are stopped. None: no limit.
        on_epoch: called in this process after each epoch.

    Raises:
        ValueError: an argument does not fit the others, or ``workers`` < 1.
        ConfigError: the loss is unknown.
        FloatingPointError: the loss is no longer finite; names step and loss.
        ImportError: ``workers`` > 1 without torchrec.
        RuntimeError: a training process died.
        TimeoutError: ``timeout_s`` passed.
    """
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    if num_prefix_tokens is None:
        num_prefix_tokens = 0 if prefix_tokens is None else int(prefix_tokens.max())
    inputs = TrainingInputs(
        histories, num_items, content, prefix_tokens, num_prefix_tokens, validation
    )
    towers, training = towers or TowerOptions(), training or TrainingOptions()
    if workers > 1:
        return train_in_processes(
            inputs,
            towers=towers,
            training=training,
            seed=seed,
            workers=workers,
            timeout_s=timeout_s,
            on_epoch=on_epoch,
        )
    retriever = run_training(inputs, towers=towers, training=training, seed=seed, on_epoch=on_epoch)
    if retriever is None:
        raise RuntimeError("train_two_tower must not run inside a process group; use run_training")
    return retriever
