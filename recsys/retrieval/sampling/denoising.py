"""Training less on clicks that were noise: personalised resampling, truncation, re-weighting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.retrieval.losses.inputs import check_at_least

__all__ = [
    "draw_pool",
    "keep_small_losses",
    "ramped_drop_rate",
    "resample",
    "reweight_small_losses",
]


def draw_pool(count: Tensor, size: int, *, generator: torch.Generator) -> Tensor:
    """``size`` positions out of ``0..count - 1`` for each row.

    Without replacement where the row is long enough, with replacement where it is shorter.

    Args:
        count: [R] int64 positives of each row, >= 1.
        size: k, >= 1.
        generator: source of randomness.

    Returns:
        [R, k] int64.

    Raises:
        ValueError: ``size`` < 1 or a row has no positive.

    Source: Floyd's subset algorithm (Bentley & Floyd, CACM 1987), all rows at once.
    """
    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")
    if len(count) and int(count.min()) < 1:
        raise ValueError(f"count must be >= 1 in every row, got {int(count.min())}")
    positives = count.numpy()
    last = positives + np.arange(-size, 0)[:, None]  # [k, R] newly allowed, and the fallback
    short = positives < size
    point = torch.rand(size, len(count), dtype=torch.float64, generator=generator).numpy()
    drawn = (point * np.where(short, positives, last + 1)).astype(np.int64)  # [k, R]
    fallback = np.where(short, drawn, last)
    for step in range(1, size):
        taken = (drawn[:step] == drawn[step]).any(axis=0)
        np.copyto(drawn[step], fallback[step], where=taken)
    return torch.from_numpy(drawn.T)


def resample(loss: Tensor, *, temperature: float, generator: torch.Generator) -> Tensor:
    """One candidate a row, drawn with probability ``softmax(-loss / temperature)``.

    Within one user a noisy positive has a visibly higher loss, so it is picked less often; low
    temperatures pick the smallest loss, high ones uniformly. Genuine but unusual tastes are
    filtered too: watch the recall of rare items.

    Args:
        loss: [R, k] loss of each candidate of the pool; no gradient flows.
        temperature: > 0.
        generator: source of randomness.

    Returns:
        [R] int64 columns of ``loss``.

    Raises:
        ValueError: temperature <= 0 or ``loss`` is not finite.

    Source: Zhang et al., "Personalized denoising implicit feedback for robust recommender system"
        (PLD), WWW 2025; k = 5, temperature 0.1, after 5 epochs of warm-up, users drawn uniformly.
        Published gains are with BPR on id tables; with a graph encoder it lost.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    if not bool(torch.isfinite(loss).all()):
        raise ValueError("loss must be finite; the model has diverged")
    # The first of k exponential clocks of rate exp(-loss / temperature) to ring.
    point = torch.rand(loss.shape, dtype=torch.float64, generator=generator)
    waiting = (-torch.log1p(-point)).log_().to(loss.device)
    return (waiting + loss.detach() / temperature).argmin(dim=1)


def keep_small_losses(loss: Tensor, drop_rate: float) -> Tensor:
    """[B] weights: 0 for the ``floor(drop_rate * B)`` largest losses, 1 for the others.

    The baseline that looks at the pooled distribution of losses instead of each user's own.

    Args:
        loss: [B] loss of each example; no gradient flows.
        drop_rate: in [0, 1); see `ramped_drop_rate`.

    Raises:
        ValueError: ``drop_rate`` outside [0, 1).

    Source: Wang et al., "Denoising implicit feedback for recommendation", WSDM 2021 (T-CE).
    """
    if not 0.0 <= drop_rate < 1.0:
        raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate}")
    weight = torch.ones_like(loss)
    dropped = int(drop_rate * len(loss))
    weight[torch.argsort(loss.detach(), stable=True)[len(loss) - dropped :]] = 0.0
    return weight


def ramped_drop_rate(step: int, *, drop_rate: float, ramp: int) -> float:
    """The ``drop_rate`` of `keep_small_losses` at ``step``: rising evenly, then constant.

    A fresh model has large losses on clean and noisy events alike, so nothing is dropped at first.

    >>> [ramped_drop_rate(step, drop_rate=0.2, ramp=4) for step in (0, 1, 4, 9)]
    [0.0, 0.05, 0.2, 0.2]

    Args:
        step: from 0; steps or epochs, as ``ramp`` is.
        drop_rate: share dropped in the end, in [0, 1).
        ramp: steps until then; 0: from the start.

    Raises:
        ValueError: ``drop_rate`` is outside [0, 1), or ``step`` or ``ramp`` is < 0.

    Source: Wang et al., WSDM 2021 (T-CE), and the authors' code: 0.2 over 30,000 steps.
    """
    if not 0.0 <= drop_rate < 1.0:
        raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate}")
    check_at_least(0, step=step, ramp=ramp)
    return drop_rate if step >= ramp else drop_rate * step / ramp


def reweight_small_losses(loss: Tensor, beta: float) -> Tensor:
    """[B] weights ``p ** beta`` of mean 1, with ``p = exp(-loss)`` what the model gives a positive.

    The softer baseline: an event the model disbelieves counts less, none is dropped. Ill-ranked
    genuine events count less too, so watch the recall of rare items. It is the opposite of
    `recsys.retrieval.losses.focal_weight`.

    Args:
        loss: [B] loss of each example, minus a log probability: a softmax's cross-entropy or
            `bpr`'s softplus; below 0 counts as 0. No gradient flows.
        beta: >= 0; 0 gives ones.

    Raises:
        ValueError: beta < 0.

    Source: Wang et al., "Denoising implicit feedback for recommendation", WSDM 2021 (R-CE), for
        the positives; beta 0.2 in the authors' code. The mean of 1 keeps the step its size.
    """
    check_at_least(0, beta=beta)
    return torch.softmax(-beta * loss.detach().clamp(min=0.0), dim=0) * len(loss)
