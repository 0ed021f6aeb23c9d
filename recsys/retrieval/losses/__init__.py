"""Training losses of a retriever: tensors in, one scalar out.

Every loss takes ``weight`` [B] >= 0, one number per example: the mean becomes
``sum(weight * loss) / sum(weight)``. Masks are boolean and mean "leave this one out".
Scores are dot products: normalise the vectors first for a cosine.

Plain functions of tensors, which import nothing else; may be imported by `sampling` and `training`.
"""

from __future__ import annotations

from recsys.retrieval.losses.alignment import (
    calibrated_uniformity,
    cm3,
    directau,
    mawu,
    uniformity,
)
from recsys.retrieval.losses.fused import fused_softmax, fused_uniformity, unit_rows
from recsys.retrieval.losses.inputs import weighted_mean
from recsys.retrieval.losses.pairwise import bpr, ccl, mann_whitney
from recsys.retrieval.losses.softmax import (
    focal_weight,
    in_batch_softmax,
    sampled_softmax,
    softmax_losses,
)
from recsys.retrieval.losses.softmax_variants import (
    PSL_SIGMAS,
    bsl,
    psl,
    sl_at_k,
    top_k_threshold,
)
from recsys.retrieval.losses.strips import in_strips

__all__ = [
    "PSL_SIGMAS",
    "bpr",
    "bsl",
    "calibrated_uniformity",
    "ccl",
    "cm3",
    "directau",
    "focal_weight",
    "fused_softmax",
    "fused_uniformity",
    "in_batch_softmax",
    "in_strips",
    "mann_whitney",
    "mawu",
    "psl",
    "sampled_softmax",
    "sl_at_k",
    "softmax_losses",
    "top_k_threshold",
    "uniformity",
    "unit_rows",
    "weighted_mean",
]
