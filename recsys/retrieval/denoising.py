"""Training less on clicks that were noise: personalised resampling, and truncation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_pool", "keep_small_losses", "resample"]


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
    point = torch.rand(len(count), size, dtype=torch.float64, generator=generator)
    repeated = (point * count[:, None]).long()
    chosen = torch.empty(len(count), size, dtype=torch.int64)
    for step in range(size):
        last = count - size + step  # the newly allowed position, also the fallback
        drawn = (point[:, step] * (last + 1)).long()
        taken = (chosen[:, :step] == drawn[:, None]).any(dim=1)
        chosen[:, step] = torch.where(taken, last, drawn)
    return torch.where((count >= size)[:, None], chosen, repeated)


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
        (PLD), WWW 2025; k = 5, temperature 0.1, after 5 epochs of warm-up.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    if not bool(torch.isfinite(loss).all()):
        raise ValueError("loss must be finite; the model has diverged")
    probability = torch.softmax(-loss.detach() / temperature, dim=1)
    return torch.multinomial(probability, 1, generator=generator)[:, 0]


def keep_small_losses(loss: Tensor, drop_rate: float) -> Tensor:
    """[B] weights: 0 for the ``floor(drop_rate * B)`` largest losses, 1 for the others.

    The baseline that looks at the pooled distribution of losses instead of each user's own.

    Args:
        loss: [B] loss of each example; no gradient flows.
        drop_rate: in [0, 1); ramp it up over the first epochs.

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
