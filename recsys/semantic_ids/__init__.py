"""Semantic ids: content vectors to short code sequences, unique per item.

Imports `files`; may be imported by `pipeline` and `serving.jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recsys.files.damage import telling_damage
from recsys.lookup import lookup
from recsys.semantic_ids.assign import add_tie_digit, assign_unique, move_to_free_codes
from recsys.semantic_ids.diagnostics import Diagnostics, diagnose
from recsys.semantic_ids.headers import read_header
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

QUANTIZERS: Mapping[str, type[ResidualKMeans] | type[RQVAE]] = {
    "residual_kmeans": ResidualKMeans,
    "rqvae": RQVAE,
}


def load_quantizer(directory: Path) -> Quantizer:
    """The saved quantiser of whichever kind ``directory`` holds.

    Raises:
        ArtifactError: there is none, it is damaged, or of another format version.
        ConfigError: its kind is unknown here.
    """
    with telling_damage(directory):
        return lookup(QUANTIZERS, read_header(directory)["kind"], "quantizer").load(directory)
