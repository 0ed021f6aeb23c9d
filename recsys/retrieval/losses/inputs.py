"""What every loss shares: the weighted mean, and the checks of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_at_least", "check_negative", "check_pair", "check_shape", "weighted_mean"]


def weighted_mean(value: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of ``value`` [B], weighted by ``weight`` [B] >= 0; weights that are all 0 give 0."""
    if weight is None:
        return value.mean()
    if weight.shape != value.shape:
        raise ValueError(
            f"weight must have one entry per example: got shape {tuple(weight.shape)} for "
            f"{tuple(value.shape)}"
        )
    total = weight.sum()
    return (value * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def check_pair(query: Tensor, candidate: Tensor) -> None:
    """Refuse a query and its candidates unless both are [B, D]."""
    if query.ndim != 2 or query.shape != candidate.shape:
        raise ValueError(
            f"query and candidate must both be [B, D]: got {tuple(query.shape)} and "
            f"{tuple(candidate.shape)}"
        )


def check_negative(query: Tensor, negative: Tensor, known_positive: Tensor | None) -> None:
    """Refuse shared negatives that are not [C, D], or a mask that is not a bool [B, C]."""
    if negative.ndim != 2 or negative.shape[1] != query.shape[1]:
        raise ValueError(
            f"negative must be [C, {query.shape[1]}], got shape {tuple(negative.shape)}"
        )
    if known_positive is not None:
        check_shape("known_positive", known_positive, (query.shape[0], negative.shape[0]))


def check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse ``value`` unless it has exactly ``shape``."""
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")


def check_at_least(bound: float, *, above: bool = False, **values: float) -> None:
    """Refuse the first of ``values`` below ``bound``, or not ``above`` it."""
    for name, value in values.items():
        if not (value > bound if above else value >= bound):
            raise ValueError(f"{name} must be {'>' if above else '>='} {bound:g}, got {value}")
