"""Matrix factorisation with our trainer, for the benchmarks that compare ways to train it.

One row a user, one row an item, nothing else: a query is the user's row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from reporting import say
from retrieval_data import Measured, measure, topk_lists

from features.tables import Histories
from recsys.retrieval.sampling.denoising import (
    draw_pool,
    keep_small_losses,
    resample,
    reweight_small_losses,
)
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training import TrainingOptions, train_two_tower
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.retrieval.training.noise_scores import event_losses

TOWERS = TowerOptions(use_user_id=True, pooling="none", id_dropout=0.0)
_COMMON = {"patience": 0, "final_learning_rate": 0.01, "negative_power": 0.0}


def train_matrix(
    name: str,
    train: Histories,
    num_items: int,
    *,
    seed: int = 0,
    validation: Histories | None = None,
    start: TwoTowerRetriever | None = None,
    old: TwoTowerRetriever | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    **options: Any,
) -> TwoTowerRetriever:
    """Train for all epochs asked for and return the last one's model; ``name`` is for progress.

    ``options`` are `TrainingOptions`. Unless they say otherwise the learning rates fall to a
    hundredth along a half cosine, and negatives are drawn uniformly.
    """

    def after(report: EpochReport) -> None:
        say(f"{name}: epoch {report.epoch}, loss {report.loss:.4f}, {report.seconds:.1f} s")
        if on_epoch is not None:
            on_epoch(report)

    return train_two_tower(
        train,
        num_items=num_items,
        towers=TOWERS,
        training=TrainingOptions(**{**_COMMON, **options}),
        validation=validation,
        start=start,
        old=old,
        seed=seed,
        on_epoch=after,
    )


def rows_of_users(retriever: TwoTowerRetriever, users: Histories) -> np.ndarray:
    """[U, D] the users' vectors as they are compared with `TwoTowerRetriever.item_vectors`."""
    return retriever.user_vectors(users, user_index=np.arange(1, len(users) + 1))


def judged(
    retriever: TwoTowerRetriever, seen: Histories, test: Histories, popularity: np.ndarray
) -> Measured:
    """What the model's lists without ``seen`` are worth on ``test``."""
    lists = topk_lists(rows_of_users(retriever, seen), retriever.item_vectors, seen)
    return measure(lists, test, popularity)


def false_picks(
    retriever: TwoTowerRetriever,
    noisy: Histories,
    is_false: np.ndarray,
    training: TrainingOptions,
    *,
    rounds: int = 20,
    seed: int = 0,
) -> tuple[float, float]:
    """The share of false events among what ``training`` would train on next.

    By the losses of the model at the end, against one sample of uniform negatives.

    Args:
        retriever: trained on ``noisy``.
        noisy: U rows, E events.
        is_false: [E] bool.
        training: how.
        rounds: picks of each user that are looked at ("pld").
        seed: of the draws.

    Returns:
        With the denoising, and with the same sampling of users and events but none.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = np.arange(1, len(noisy) + 1)
    loss = torch.from_numpy(
        event_losses(
            retriever,
            noisy,
            temperature=training.temperature,
            generator=generator,
            user_index=rows,
        )
    )
    false = torch.from_numpy(is_false)
    active = np.flatnonzero(noisy.counts)
    first, count = (torch.from_numpy(of[active]) for of in (noisy.indptr, noisy.counts))
    pools = [
        first[:, None] + draw_pool(count, training.pool_size, generator=generator)  # [U, k]
        for _ in range(rounds)
    ]
    by_user = float(torch.stack([false[pool].float().mean() for pool in pools]).mean())
    if training.denoising == "pld":
        picked = []
        for pool in pools:
            column = resample(
                loss[pool], temperature=training.denoise_temperature, generator=generator
            )
            picked.append(false[pool[torch.arange(len(pool)), column]].float().mean())
        return float(torch.stack(picked).mean()), by_user
    if training.users == "alike":
        return by_user, by_user
    weight = torch.ones(len(loss))
    if training.denoising == "truncated":
        weight = keep_small_losses(loss, training.drop_rate)
    elif training.denoising == "reweighted":
        weight = reweight_small_losses(loss, training.reweight_power)
    return float((weight * false).sum() / weight.sum()), float(false.float().mean())


def are_among(events: Histories, some: Histories) -> np.ndarray:
    """[E] bool: which of ``events`` are also in ``some``, which has the same users."""
    width = 1 + max(int(of.item_index.max(initial=0)) for of in (events, some))
    keys = [of.rows * width + of.item_index for of in (events, some)]
    return np.isin(*keys)


def numbers(text: str) -> list[int]:
    """What ``1,2,9`` says."""
    return [int(part) for part in text.split(",")]
