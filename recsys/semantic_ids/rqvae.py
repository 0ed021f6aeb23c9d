"""RQ-VAE: an auto-encoder whose latent is a sum of one code a level, learned together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from recsys.errors import ArtifactError, NotFittedError
from recsys.semantic_ids.codebook import (
    draw_seed,
    fingerprint_arrays,
    kmeans_codebook,
    nearest_codes,
    squared_distances,
)
from recsys.semantic_ids.diagnostics import perplexity
from recsys.semantic_ids.headers import read_header, write_header
from recsys.semantic_ids.options import SemanticIdOptions
from recsys.semantic_ids.quantizer import check_codes, check_vectors
from recsys.semantic_ids.rqvae_network import EpochLosses, Network, Scaling
from recsys.threads import torch_threads

__all__ = ["RQVAE"]

log = logging.getLogger(__name__)
_KIND = "rqvae"


class RQVAE:
    """Residual-quantised variational auto-encoder for content vectors.

    Inputs are scaled to unit variance: on unit-norm vectors the squared error is so small that
    training settles on one code. Codebooks start as k-means of the latents of (a sample of) the
    whole catalogue, after ``warm_up_epochs`` without quantisation. Codes that hold too few vectors
    are moved onto random residuals after each epoch of the first three quarters; that is the
    remedy against dead codes that works every time. Watch perplexity, not usage.

    Args:
        num_levels: L, >= 1.
        num_codes: V, codes a level, >= 2.
        latent_dim: width of the quantised latent.
        scaling: ``"global"``: one standard deviation for all dimensions. ``"dimension"``: each its
            own, for encoders whose dimensions differ in scale without meaning. Vectors that come
            from a PCA (`ContentEncoder`) want "global": per dimension it would whiten them, and
            the codes would describe the noise of the last components.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        epochs: passes over the data, warm-up included.
        warm_up_epochs: of these, passes without quantisation.
        batch_size: vectors a step.
        learning_rate: AdamW's.
        weight_decay: of the layers' weights; codebooks are not decayed.
        commitment: beta, weight of the commitment loss.
        dead_share: a code is dead when it held less than this share of the mean load, averaged
            over epochs.
        buffer_size: vectors at most that the k-means start sees.
        num_threads: torch threads while fitting. Layers this small gain nothing from more, and
            results repeat bit for bit only for an equal number.
        on_epoch: called with each epoch's `EpochLosses` (progress bars, loss logs).

    Attributes:
        losses: one `EpochLosses` per epoch of the last `fit`.

    Source: Rajput et al., NeurIPS 2023 (TIGER), section 3.1, loss of equation 1-2; standardised
    inputs, AdamW and resets replace its published Adagrad recipe, which collapses on unit-norm
    inputs.
    """

    def __init__(
        self,
        *,
        num_levels: int = SemanticIdOptions.default("levels"),
        num_codes: int = SemanticIdOptions.default("codes"),
        latent_dim: int = 32,
        scaling: Scaling = "global",
        hidden: tuple[int, ...] = (256,),
        epochs: int = SemanticIdOptions.default("epochs"),
        warm_up_epochs: int = 15,
        batch_size: int = SemanticIdOptions.default("batch_size"),
        learning_rate: float = SemanticIdOptions.default("learning_rate"),
        weight_decay: float = 1e-4,
        commitment: float = 0.25,
        dead_share: float = 0.25,
        buffer_size: int = 32768,
        num_threads: int = 1,
        on_epoch: Callable[[EpochLosses], None] | None = None,
    ) -> None:
        for name, value, least in (
            ("num_levels", num_levels, 1),
            ("num_codes", num_codes, 2),
            ("latent_dim", latent_dim, 1),
            ("epochs", epochs, 1),
            ("warm_up_epochs", warm_up_epochs, 0),
            ("batch_size", batch_size, 1),
            ("buffer_size", buffer_size, num_codes),
            ("num_threads", num_threads, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if warm_up_epochs >= epochs:
            raise ValueError(
                f"warm_up_epochs must be < epochs, got {warm_up_epochs} of {epochs}; "
                "codebooks would never train"
            )
        if scaling not in ("global", "dimension"):
            raise ValueError(f"scaling must be 'global' or 'dimension', got {scaling!r}")
        self.num_levels = num_levels
        self.num_codes = num_codes
        self.latent_dim = latent_dim
        self.scaling: Scaling = scaling
        self.hidden = tuple(hidden)
        self.epochs = epochs
        self.warm_up_epochs = warm_up_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.commitment = commitment
        self.dead_share = dead_share
        self.buffer_size = buffer_size
        self.num_threads = num_threads
        self.on_epoch = on_epoch
        self.losses: list[EpochLosses] = []
        self._network: Network | None = None

    @property
    def fingerprint(self) -> str:
        """Sha256 hex digest of all weights and codebooks."""
        return fingerprint_arrays(_as_arrays(self._fitted()))

    def fit(self, vectors: np.ndarray, *, generator: torch.Generator) -> Self:
        """Train encoder, codebooks and decoder.

        Args:
            vectors: [N, D] float, N >= ``num_codes``.
            generator: draws weights, batches, the k-means start and the resets.

        Raises:
            ValueError: ``vectors`` is not a finite [N, D], or N < ``num_codes``.
            FloatingPointError: the loss stopped being finite.
        """
        vectors = check_vectors(vectors)
        if len(vectors) < self.num_codes:
            raise ValueError(
                f"num_codes must be at most the number of vectors: got {self.num_codes} codes "
                f"for {len(vectors)} vectors; lower num_codes"
            )
        started = time.perf_counter()
        network = Network(
            vectors.shape[1], self.hidden, self.latent_dim, self.num_levels, self.num_codes
        )
        network.draw_weights(generator)
        network.standardise_by(torch.from_numpy(vectors), self.scaling)
        inputs = network.standardise(torch.from_numpy(vectors))
        with torch_threads(self.num_threads):
            self._train(network, inputs, generator)
        self._network = network
        last = self.losses[-1]
        log.info(
            "rqvae fitted: %d vectors, %d epochs, reconstruction %.4f, perplexity %s, %.1f s",
            len(vectors), self.epochs, last.reconstruction,
            "/".join(f"{p:.0f}" for p in last.perplexity), time.perf_counter() - started,
        )  # fmt: skip
        return self

    def _train(self, network: Network, inputs: Tensor, generator: torch.Generator) -> None:
        optimizer = torch.optim.AdamW(
            [
                {"params": network.layer_parameters(), "weight_decay": self.weight_decay},
                {"params": [network.codebooks], "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
        )
        num = len(inputs)
        load = torch.full((self.num_levels, self.num_codes), num / self.num_codes)
        last_reset = self.warm_up_epochs + (self.epochs - self.warm_up_epochs) * 3 // 4
        self.losses = []
        for epoch in range(self.epochs):
            quantize = epoch >= self.warm_up_epochs
            if epoch == self.warm_up_epochs:
                self._start_codebooks(network, inputs, generator)
            count = torch.zeros(self.num_levels, self.num_codes)
            totals = torch.zeros(2, dtype=torch.float64)
            order = torch.randperm(num, generator=generator)
            for rows in torch.split(order, self.batch_size):
                step = network.losses(inputs[rows], self.commitment, quantize=quantize)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward([step.reconstruction + step.quantization])
                optimizer.step()
                totals += torch.stack([step.reconstruction, step.quantization]).detach() * len(rows)
                for level, code in enumerate(step.codes):
                    count[level] += torch.bincount(code, minlength=self.num_codes)
            reconstruction, quantization = (totals / num).tolist()
            if not np.isfinite(reconstruction + quantization):
                raise FloatingPointError(
                    f"rqvae loss is not finite in epoch {epoch}: reconstruction "
                    f"{reconstruction}, quantization {quantization}; lower learning_rate"
                )
            num_reset = 0
            if quantize:
                load = 0.5 * load + 0.5 * count
                if epoch < last_reset:
                    num_reset = self._reset_dead(network, inputs, load, optimizer, generator)
            entry = EpochLosses(
                epoch, reconstruction, quantization, num_reset,
                tuple(map(perplexity, count.numpy())) if quantize else (),
            )  # fmt: skip
            self.losses.append(entry)
            log.debug("rqvae %s", entry)
            if self.on_epoch is not None:
                self.on_epoch(entry)

    @torch.no_grad()
    def _start_codebooks(
        self, network: Network, inputs: Tensor, generator: torch.Generator
    ) -> None:
        """K-means of the latents' residuals, level by level."""
        rows = torch.randperm(len(inputs), generator=generator)[: self.buffer_size]
        residual = network.encoder(inputs[rows]).numpy()
        for level in range(self.num_levels):
            centres = kmeans_codebook(residual, self.num_codes, seed=draw_seed(generator))
            network.codebooks[level] = torch.from_numpy(centres)
            residual = residual - centres[nearest_codes(residual, centres)]

    @torch.no_grad()
    def _reset_dead(
        self,
        network: Network,
        inputs: Tensor,
        load: Tensor,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> int:
        """Move codes of small ``load`` [L, V] onto random residuals; returns how many."""
        healthy = len(inputs) / self.num_codes
        dead = load < self.dead_share * healthy  # [L, V]
        if not bool(dead.any()):
            return 0
        sample = torch.randperm(len(inputs), generator=generator)[: self.num_codes]
        residual = network.encoder(inputs[sample])  # [S, latent]
        moments = optimizer.state[network.codebooks]
        for level in range(self.num_levels):
            codes = torch.nonzero(dead[level]).flatten()
            replacement = residual[torch.randperm(len(residual), generator=generator)[: len(codes)]]
            nearest = network.nearest(residual, level)
            residual = residual - network.codebooks[level][nearest]
            network.codebooks[level, codes] = replacement
            moments["exp_avg"][level, codes] = 0
            moments["exp_avg_sq"][level, codes] = 0
            load[level, codes] = healthy
        return int(dead.sum())

    @torch.no_grad()
    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """[N, L] int64 codes of [N, D] float32 vectors.

        Raises:
            NotFittedError: before `fit`.
            ValueError: ``vectors`` is not a finite [N, D].
        """
        return self._descend(vectors, self.num_levels)[0]

    @torch.no_grad()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """[N, D] float32 decoder outputs of the summed codes, in input units.

        Raises:
            NotFittedError: before `fit`.
            ValueError: ``codes`` is not [N, L] integers in ``0..num_codes - 1``.
        """
        network = self._fitted()
        codes = check_codes(codes, num_levels=self.num_levels, num_codes=self.num_codes)
        latent = torch.zeros(len(codes), self.latent_dim)
        for level in range(self.num_levels):
            latent = latent + network.codebooks[level][torch.from_numpy(codes[:, level])]
        decoded: np.ndarray = network.unstandardise(network.decoder(latent)).numpy()
        return decoded

    @torch.no_grad()
    def level_distances(self, vectors: np.ndarray, level: int) -> np.ndarray:
        """[N, V] float32 squared latent distances by which `assign` decides at ``level``.

        Raises:
            NotFittedError: before `fit`.
            ValueError: ``vectors`` is not a finite [N, D], or there is no such level.
        """
        if not 0 <= level < self.num_levels:
            raise ValueError(f"level must lie in 0..{self.num_levels - 1}, got {level}")
        residual = self._descend(vectors, level)[1]
        return squared_distances(residual, self._fitted().codebooks[level].numpy())

    def _descend(self, vectors: np.ndarray, num_levels: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes [N, num_levels] and the residual [N, latent] below them."""
        network = self._fitted()
        vectors = check_vectors(vectors, dim=len(network.mean))
        residual = network.encoder(network.standardise(torch.from_numpy(vectors))).numpy()
        codes = np.empty((len(vectors), num_levels), dtype=np.int64)
        for level in range(num_levels):
            codebook = network.codebooks[level].numpy()
            codes[:, level] = nearest_codes(residual, codebook)
            residual = residual - codebook[codes[:, level]]
        return codes, residual

    def save(self, directory: Path) -> None:
        """Write ``quantizer.safetensors`` and ``quantizer.json`` into ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        network = self._fitted()
        save_file(_as_arrays(network), directory / "quantizer.safetensors")
        settings = {
            name: getattr(self, name)
            for name in (
                "num_levels", "num_codes", "latent_dim", "scaling", "hidden", "epochs",
                "warm_up_epochs", "batch_size", "learning_rate", "weight_decay", "commitment",
                "dead_share", "buffer_size", "num_threads",
            )
        }  # fmt: skip
        write_header(directory, kind=_KIND, fingerprint=self.fingerprint, settings=settings)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: files are missing, of another kind or format, or were changed.
        """
        header = read_header(directory, kind=_KIND)
        quantizer = cls(**header["settings"] | {"hidden": tuple(header["settings"]["hidden"])})
        arrays = load_file(directory / "quantizer.safetensors")
        network = Network(
            len(arrays["mean"]), quantizer.hidden, quantizer.latent_dim,
            quantizer.num_levels, quantizer.num_codes,
        )  # fmt: skip
        network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        quantizer._network = network
        if quantizer.fingerprint != header["fingerprint"]:
            raise ArtifactError(f"{directory}: the weights are not those the header names")
        return quantizer

    def _fitted(self) -> Network:
        if self._network is None:
            raise NotFittedError("RQVAE has no codebooks yet; call fit or load")
        return self._network


def _as_arrays(network: Network) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
