"""Positives weighted by how unlikely it was that they were seen at all (Rel-MF)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["exposure_propensities", "inverse_propensity_weights", "normalised"]


def exposure_propensities(counts: np.ndarray, *, power: float = 0.5) -> np.ndarray:
    """Relative probability that each item was exposed: ``(n_i / max n) ** power``.

    Popularity to the power .5 stands in for exposure. Where impressions were logged, pass their
    counts with power 1. All are relative to the most exposed item, so one outlier lowers the rest.

    Args:
        counts: [N + 1] training positives (or impressions) of each item, >= 0, items without any
            included; see `recsys.retrieval.sampling.frequency.item_counts`. Entry 0 is ignored.
        power: 0 exposes all items alike, 1 in proportion to their counts; >= 0.

    Returns:
        [N + 1] float64 in [0, 1]; 0 for items that have no count, and for the padding row 0.

    Raises:
        ValueError: no item, a negative count, no count above 0, or a negative power.

    Source: Saito et al., "Unbiased recommender learning from missing-not-at-random implicit
        feedback" (Rel-MF), WSDM 2020, and the official implementation.
    """
    if counts.ndim != 1 or counts.size < 2:
        raise ValueError(f"counts must be [N + 1] with N >= 1, got shape {counts.shape}")
    if not power >= 0:
        raise ValueError(f"power must be >= 0, got {power}")
    item_counts = counts[1:].astype(np.float64)
    if not (item_counts >= 0).all():
        raise ValueError(f"counts must be >= 0, got {item_counts.min()}")
    if not item_counts.max() > 0:
        raise ValueError("counts must be above 0 for at least one item, got only 0")
    relative = np.where(item_counts > 0, (item_counts / item_counts.max()) ** power, 0.0)
    return np.concatenate([[0.0], relative])


def inverse_propensity_weights(propensity: np.ndarray, *, clip: float = 0.1) -> np.ndarray:
    """Weights of positives, ``1 / max(propensity, clip)``.

    The smaller ``clip``, the less bias and the more variance. Take `normalised` of a batch's
    weights where a loss sums them instead of taking a weighted mean. Log-q correction pushes
    towards rare items, too: measure before using both.

    Args:
        propensity: float in [0, 1], of any shape, e.g. of `exposure_propensities`.
        clip: propensities below it count as this, in (0, 1].

    Returns:
        float32 of the same shape, in [1, 1 / clip].

    Raises:
        ValueError: ``clip`` outside (0, 1], or a propensity outside [0, 1].

    Source: see `exposure_propensities`.
    """
    if not 0.0 < clip <= 1.0:
        raise ValueError(f"clip must be in (0, 1], got {clip}")
    if not ((propensity >= 0.0) & (propensity <= 1.0)).all():
        raise ValueError(
            f"propensity must be in [0, 1], got {propensity.min()}..{propensity.max()}"
        )
    weight: np.ndarray = (1.0 / np.maximum(propensity, clip)).astype(np.float32)
    return weight


def normalised(weight: Tensor) -> Tensor:
    """``weight`` [B] >= 0 scaled to mean 1; weights that are all 0 stay 0."""
    mean = weight.mean()
    return weight / torch.where(mean > 0, mean, torch.ones_like(mean))
