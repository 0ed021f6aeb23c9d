"""Semantic ids: content vectors to short code sequences, unique per item.

Imports `files`; may be imported by `pipeline` and `serving.jobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.semantic_ids.assign import add_tie_digit, assign_unique, move_to_free_codes
    from recsys.semantic_ids.choices import QUANTIZERS, load_quantizer
    from recsys.semantic_ids.diagnostics import Diagnostics, diagnose
    from recsys.semantic_ids.ids import SemanticIds
    from recsys.semantic_ids.quantizer import Quantizer
    from recsys.semantic_ids.residual_kmeans import ResidualKMeans
    from recsys.semantic_ids.rqvae import RQVAE
    from recsys.semantic_ids.rqvae_network import EpochLosses

__all__ = [
    "QUANTIZERS",
    "RQVAE",
    "Diagnostics",
    "EpochLosses",
    "Quantizer",
    "ResidualKMeans",
    "SemanticIds",
    "add_tie_digit",
    "assign_unique",
    "diagnose",
    "load_quantizer",
    "move_to_free_codes",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
