"""Residual k-means: the quantiser without training, and the default."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from recsys.errors import ArtifactError, NotFittedError
from recsys.semantic_ids.codebook import (
    draw_seed,
    fingerprint_arrays,
    kmeans_codebook,
    nearest_codes,
    squared_distances,
)
from recsys.semantic_ids.headers import read_header, write_header
from recsys.semantic_ids.options import SemanticIdOptions
from recsys.semantic_ids.quantizer import check_codes, check_vectors

__all__ = ["ResidualKMeans"]

log = logging.getLogger(__name__)
_KIND = "residual_kmeans"


class ResidualKMeans:
    """K-means per level on what the levels before leave, after a PCA to a few dimensions.

    A code of level l is a row of a table of means: ``decode`` adds one mean a level and turns the
    PCA back. Because each table holds the means of what its codes hold, the mean residual never
    grows from level to level.

    Plain k-means on residuals in high dimension ends as one giant cluster beside the origin and
    many singletons: usage 1 with perplexity 1. Two remedies, both on by default: fewer dimensions
    (``reduced_dim``), and deciding the code by the residual's *direction*
    (``by_direction``; level 0 is by position). Directions decide only which code a residual takes;
    what the code stands for is the mean of the raw residuals, so codes stay additive.

    Args:
        num_levels: L, >= 1.
        num_codes: V, codes a level, >= 2.
        reduced_dim: dimensions kept by the PCA; None or >= D: all of them.
        by_direction: from level 1 on, cluster residuals divided by their length.
        num_init: k-means restarts a level.

    Source: residual k-means as a tokenizer, with normalised residuals, is in GRID
    (``configs/experiment/rkmeans_*``); directions to decide and raw means to decode is ours.
    """

    def __init__(
        self,
        *,
        num_levels: int = SemanticIdOptions.default("levels"),
        num_codes: int = SemanticIdOptions.default("codes"),
        reduced_dim: int | None = 64,
        by_direction: bool = True,
        num_init: int = 1,
    ) -> None:
        if num_levels < 1:
            raise ValueError(f"num_levels must be >= 1, got {num_levels}")
        if num_codes < 2:
            raise ValueError(f"num_codes must be >= 2, got {num_codes}")
        if reduced_dim is not None and reduced_dim < 1:
            raise ValueError(f"reduced_dim must be >= 1 or None, got {reduced_dim}")
        self.num_levels = num_levels
        self.num_codes = num_codes
        self.reduced_dim = reduced_dim
        self.by_direction = by_direction
        self.num_init = num_init
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        """Sha256 hex digest of the codebooks."""
        return fingerprint_arrays(self._fitted())

    def fit(self, vectors: np.ndarray, *, generator: torch.Generator) -> Self:
        """Learn projection and codebooks.

        Args:
            vectors: [N, D] float, N >= ``num_codes``.
            generator: seeds every k-means.

        Raises:
            ValueError: ``vectors`` is not a finite [N, D], or N < ``num_codes``.
        """
        vectors = check_vectors(vectors)
        if len(vectors) < self.num_codes:
            raise ValueError(
                f"num_codes must be at most the number of vectors: got {self.num_codes} codes "
                f"for {len(vectors)} vectors; lower num_codes"
            )
        started = time.perf_counter()
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        basis = _principal_axes(vectors - mean, self.reduced_dim)  # [D, R]
        arrays = {"mean": mean, "basis": basis}
        residual = (vectors - mean) @ basis  # [N, R]
        for level in range(self.num_levels):
            keys = self._keys(residual, level)
            centres = kmeans_codebook(
                keys, self.num_codes, seed=draw_seed(generator), num_init=self.num_init
            )
            code = nearest_codes(keys, centres)
            table = _means(residual, code, self.num_codes)
            arrays[f"centres_{level}"], arrays[f"table_{level}"] = centres, table
            residual = residual - table[code]
        self._arrays = arrays
        log.info(
            "residual k-means fitted: %d vectors, %d levels of %d codes, %.1f s",
            len(vectors), self.num_levels, self.num_codes, time.perf_counter() - started,
        )  # fmt: skip
        return self

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """[N, L] int64 codes of [N, D] float32 vectors.

        Raises:
            NotFittedError: before `fit`.
            ValueError: ``vectors`` is not a finite [N, D].
        """
        residual = self._project(vectors)
        codes = np.empty((len(residual), self.num_levels), dtype=np.int64)
        for level in range(self.num_levels):
            code = nearest_codes(self._keys(residual, level), self._arrays[f"centres_{level}"])
            residual = residual - self._arrays[f"table_{level}"][code]
            codes[:, level] = code
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """[N, D] float32 sums of the codes' means, turned back to the input space.

        Raises:
            NotFittedError: before `fit`.
            ValueError: ``codes`` is not [N, L] integers in ``0..num_codes - 1``.
        """
        arrays = self._fitted()
        codes = check_codes(codes, num_levels=self.num_levels, num_codes=self.num_codes)
        reduced = arrays["table_0"][codes[:, 0]]
        for level in range(1, self.num_levels):
            reduced = reduced + arrays[f"table_{level}"][codes[:, level]]
        decoded: np.ndarray = reduced @ arrays["basis"].T + arrays["mean"]
        return decoded

    def level_distances(self, vectors: np.ndarray, level: int) -> np.ndarray:
        """[N, V] float32 squared distances by which `assign` decides at ``level``.

        Raises:
            NotFittedError: before `fit`.
            ValueError: ``vectors`` is not a finite [N, D], or there is no such level.
        """
        if not 0 <= level < self.num_levels:
            raise ValueError(f"level must lie in 0..{self.num_levels - 1}, got {level}")
        residual = self._project(vectors)
        for before in range(level):
            code = nearest_codes(self._keys(residual, before), self._arrays[f"centres_{before}"])
            residual = residual - self._arrays[f"table_{before}"][code]
        return squared_distances(self._keys(residual, level), self._arrays[f"centres_{level}"])

    def save(self, directory: Path) -> None:
        """Write ``quantizer.safetensors`` and ``quantizer.json`` into ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        save_file(self._fitted(), directory / "quantizer.safetensors")
        settings = {
            "num_levels": self.num_levels,
            "num_codes": self.num_codes,
            "reduced_dim": self.reduced_dim,
            "by_direction": self.by_direction,
            "num_init": self.num_init,
        }
        write_header(directory, kind=_KIND, fingerprint=self.fingerprint, settings=settings)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: files are missing, of another kind or format, or were changed.
        """
        header = read_header(directory, kind=_KIND)
        quantizer = cls(**header["settings"])
        quantizer._arrays = load_file(directory / "quantizer.safetensors")
        if quantizer.fingerprint != header["fingerprint"]:
            raise ArtifactError(f"{directory}: the codebooks are not those the header names")
        return quantizer

    def _fitted(self) -> dict[str, np.ndarray]:
        if not self._arrays:
            raise NotFittedError("ResidualKMeans has no codebooks yet; call fit or load")
        return self._arrays

    def _project(self, vectors: np.ndarray) -> np.ndarray:
        arrays = self._fitted()
        vectors = check_vectors(vectors, dim=len(arrays["mean"]))
        reduced: np.ndarray = (vectors - arrays["mean"]) @ arrays["basis"]
        return reduced

    def _keys(self, residual: np.ndarray, level: int) -> np.ndarray:
        """What k-means sees: residuals, or their directions from level 1 on."""
        if level == 0 or not self.by_direction:
            return residual
        length = np.linalg.norm(residual, axis=1, keepdims=True)
        direction: np.ndarray = residual / np.maximum(length, 1e-12)
        return direction


def _principal_axes(centred: np.ndarray, reduced_dim: int | None) -> np.ndarray:
    """[D, R] float32 orthonormal axes of largest variance; the identity when nothing is cut."""
    dim = centred.shape[1]
    if reduced_dim is None or reduced_dim >= dim:
        return np.eye(dim, dtype=np.float32)
    covariance = centred.astype(np.float64).T @ centred.astype(np.float64)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :reduced_dim]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(reduced_dim)])
    return np.ascontiguousarray(axes, dtype=np.float32)


def _means(vectors: np.ndarray, code: np.ndarray, num_codes: int) -> np.ndarray:
    """[V, R] float32 mean of the vectors of each code; zeros where a code has none."""
    sums = np.zeros((num_codes, vectors.shape[1]))
    np.add.at(sums, code, vectors)
    count = np.bincount(code, minlength=num_codes)[:, None]
    return (sums / np.maximum(count, 1)).astype(np.float32)
