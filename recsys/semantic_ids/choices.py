"""The quantisers by name."""

from __future__ import annotations

from pathlib import Path

from recsys.files.damage import telling_damage
from recsys.lookup import lookup
from recsys.semantic_ids.headers import read_header
from recsys.semantic_ids.quantizer import Quantizer
from recsys.semantic_ids.residual_kmeans import ResidualKMeans
from recsys.semantic_ids.rqvae import RQVAE

__all__ = ["QUANTIZERS", "load_quantizer"]

QUANTIZERS: dict[str, type[ResidualKMeans] | type[RQVAE]] = {
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
