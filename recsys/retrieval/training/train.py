"""Training the two-tower retriever, in this process or in several."""

from __future__ import annotations

import numpy as np

from features.tables import Histories
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.launch import train_in_processes
from recsys.retrieval.training.objectives import refused_by
from recsys.retrieval.training.options import TrainingOptions, unfit
from recsys.retrieval.training.run import OnEpoch, Watch, run_training

__all__ = ["EpochReport", "TowerOptions", "TrainingOptions", "train_two_tower"]


def train_two_tower(
    histories: Histories,
    *,
    num_items: int,
    content: np.ndarray | None = None,
    prefix_tokens: np.ndarray | None = None,
    num_prefix_tokens: int | None = None,
    fields: np.ndarray | None = None,
    num_field_tokens: int | None = None,
    validation: Histories | None = None,
    towers: TowerOptions | None = None,
    training: TrainingOptions | None = None,
    start: TwoTowerRetriever | None = None,
    frozen_items: bool = False,
    old: TwoTowerRetriever | None = None,
    seed: int = 0,
    workers: int = 1,
    timeout_s: float | None = None,
    on_epoch: OnEpoch | None = None,
    watch: Watch | None = None,
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
        fields: [N + 1, F] int64 tokens of the items' categorical fields, row 0 zero. None: none.
        num_field_tokens: largest token the table must hold. None: the largest given.
        validation: later events of the same users, row by row; the epoch with the best recall@20
            on them is returned, and training stops when it no longer rises. None: the last epoch.
        towers: the shape of the model. None: the defaults of `TowerOptions`.
        training: how it is trained. None: the defaults of `TrainingOptions`.
        start: begin from this model's weights; its items and users are the first rows of these.
            None: fresh weights.
        frozen_items: leave the item vectors as ``start`` has them, to the bit, and train the query
            side alone.
        old: keep the vectors comparable with this older model's, whose items and users are the
            first rows of these; weighed by ``training.compatibility_weight``. None: free.
        seed: same seed and same ``workers``, same weights to the bit on CPU.
        workers: processes; above 1 the id tables are sharded over them with TorchRec, and each
            takes its share of every batch.
        timeout_s: seconds after which several processes are stopped. None: no limit.
        on_epoch: called in this process after each epoch.
        watch: called after each epoch with the model as it stands; True ends the training. One
            process only.

    Raises:
        ValueError: an argument does not fit the others, or ``workers`` < 1.
        CollapseError: the vectors use too few of their dimensions, two epochs in a row.
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
    if num_field_tokens is None:
        num_field_tokens = 0 if fields is None else int(fields.max())
    if watch is not None and workers > 1:
        raise ValueError(f"watch needs workers=1, got {workers}; use on_epoch")
    inputs = TrainingInputs(
        histories,
        num_items,
        content,
        prefix_tokens,
        num_prefix_tokens,
        validation,
        fields,
        num_field_tokens,
        start,
        frozen_items,
        old,
    )
    towers, training = towers or TowerOptions(), training or TrainingOptions()
    if problem := unfit(towers, training):
        raise ValueError(problem)
    if workers > 1:
        if problem := refused_by(training, workers):
            raise ValueError(f"{problem}; use workers=1")
        return train_in_processes(
            inputs,
            towers=towers,
            training=training,
            seed=seed,
            workers=workers,
            timeout_s=timeout_s,
            on_epoch=on_epoch,
        )
    retriever = run_training(
        inputs, towers=towers, training=training, seed=seed, on_epoch=on_epoch, watch=watch
    )
    if retriever is None:
        raise RuntimeError("train_two_tower must not run inside a process group; use run_training")
    return retriever
