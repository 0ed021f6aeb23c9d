"""Training the towers that know the items' content alone."""

from __future__ import annotations

import numpy as np
import torch

from features.tables import Histories
from recsys.evaluation import cold_items
from recsys.retrieval.new_items import NewItemsRetriever
from recsys.retrieval.sampling.frequency import item_counts
from recsys.retrieval.source_options import NewItemOptions
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import TrainingOptions, train_two_tower

__all__ = ["fit_new_items"]

_EVENTS_OF_USER = 50  # the newest, so that few users do not decide
_MOST_EPOCHS = 20
_TRAINING = TrainingOptions(
    temperature=0.2,  # items of one content are not told apart: .1 wants too much
    batch_size=256,  # logs are small beside the steps that a projection wants
    example_events=_EVENTS_OF_USER,
    final_learning_rate=0.05,
    patience=0,
    least_rank=0.0,
    device="cpu",
)


def fit_new_items(
    histories: Histories,
    content: np.ndarray,
    *,
    is_new: np.ndarray | None = None,
    options: NewItemOptions | None = None,
    seed: int = 0,
) -> NewItemsRetriever:
    """Learn from who met what to compare contents.

    Args:
        histories: training events of U users.
        content: [N + 1, D] float32 content vectors, row 0 zero.
        is_new: [N + 1] bool, what may be found. None: items without an event in ``histories``.
        options: None: the defaults.
        seed: of the training.
    """
    options = options or NewItemOptions()
    wanted = options.new_items_examples
    examples = int(np.minimum(histories.counts, _EVENTS_OF_USER).sum())
    some, epochs = histories, min(wanted // max(examples, 1), _MOST_EPOCHS)
    if not epochs:
        rng, users = np.random.default_rng(seed), max(1, len(histories) * wanted // examples)
        some = histories.take(np.sort(rng.choice(len(histories), users, replace=False)))
    towers = train_two_tower(
        some,
        num_items=len(content) - 1,
        content=content,
        towers=TowerOptions(dim=options.new_items_dim, id_dropout=1.0),
        training=_TRAINING.but(epochs=max(1, epochs)),
        seed=seed,
    )
    towers.tables["item"] = torch.zeros(1, options.new_items_dim)  # all of its rows are zero
    if is_new is None:
        is_new = cold_items(item_counts(histories.item_index, len(content) - 1))
    return NewItemsRetriever(towers, is_new)
