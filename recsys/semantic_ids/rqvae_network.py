"""The RQ-VAE's layers and losses; training and assignment are in `rqvae`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["EpochLosses", "Network", "Scaling", "Step", "straight_through"]

Scaling = Literal["global", "dimension"]


@dataclass(frozen=True)
class EpochLosses:
    """Means over one epoch's steps.

    Attributes:
        epoch: from 0; the first ``warm_up_epochs`` train the auto-encoder alone.
        reconstruction: mean squared error of the standardised inputs (1 = predicting the mean).
        quantization: codebook plus ``commitment`` times commitment loss, summed over levels.
        num_reset: codes replaced at the end of the epoch.
        perplexity: per level, of the codes the epoch drew; empty during the warm-up.
    """

    epoch: int
    reconstruction: float
    quantization: float
    num_reset: int
    perplexity: tuple[float, ...]


def straight_through(latent: Tensor, quantized: Tensor) -> Tensor:
    """The value of ``quantized`` with the gradient of ``latent`` (van den Oord et al. 2017)."""
    return latent + (quantized - latent).detach()


@dataclass(frozen=True)
class Step:
    """One step's losses (scalars) and the codes it drew ([B] per level)."""

    reconstruction: Tensor
    quantization: Tensor
    codes: list[Tensor]


class Network(nn.Module):
    """Standardisation (buffers), encoder, [L, V, latent] codebooks and decoder."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, dim: int, hidden: tuple[int, ...], latent_dim: int, num_levels: int, num_codes: int
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.encoder = _perceptron([dim, *hidden, latent_dim])
        self.decoder = _perceptron([latent_dim, *reversed(hidden), dim])
        self.codebooks = nn.Parameter(torch.zeros(num_levels, num_codes, latent_dim))

    def layer_parameters(self) -> list[nn.Parameter]:
        """Everything but the codebooks."""
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    @torch.no_grad()
    def draw_weights(self, generator: torch.Generator) -> None:
        """Initialise the layers from ``generator``; codebooks stay zero until they are started."""
        for layer in [*self.encoder, *self.decoder]:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)

    def standardise_by(self, vectors: Tensor, scaling: Scaling) -> None:
        """Take mean and standard deviation from [N, D] vectors."""
        self.mean.copy_(vectors.double().mean(dim=0))
        std = vectors.double().std(dim=0, correction=0)
        if scaling == "global":
            std = std.square().mean().sqrt().expand_as(std)
        # A dimension a thousand times quieter than the loudest is rounding noise: keep it quiet.
        floor = 1e-3 * std.max()
        self.std.copy_(torch.where(floor > 0, std.clamp(min=floor), torch.ones_like(std)))

    def standardise(self, vectors: Tensor) -> Tensor:
        """Input units to zero mean and unit variance."""
        return (vectors - self.mean) / self.std

    def unstandardise(self, vectors: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return vectors * self.std + self.mean

    def nearest(self, residual: Tensor, level: int) -> Tensor:
        """[B] nearest codes of [B, latent] residuals at ``level``."""
        codebook = self.codebooks[level]
        half_squares = codebook.square().sum(dim=1) / 2
        return (residual @ codebook.T - half_squares).argmax(dim=1)

    def losses(self, inputs: Tensor, commitment: float, *, quantize: bool) -> Step:
        """Losses of standardised inputs [B, D]; without ``quantize`` those of a plain auto-encoder.

        ``quantization`` sums over levels mean((sg[r] - q)^2) + commitment * mean((r - sg[q])^2).
        The straight-through value is given once, to the decoder: residuals carry no gradient from
        one level's code to the next.
        """
        latent = self.encoder(inputs)  # [B, latent]
        zero = latent.new_zeros(())
        if not quantize:
            return Step((self.decoder(latent) - inputs).square().mean(), zero, [])
        residual, quantized, loss, codes = latent, torch.zeros_like(latent), zero, []
        for level in range(self.codebooks.shape[0]):
            code = self.nearest(residual.detach(), level)
            chosen = self.codebooks[level][code]  # [B, latent]
            # The codebook follows the residual; beta times as hard, the residual the codebook.
            loss = loss + (residual.detach() - chosen).square().mean()
            loss = loss + commitment * (residual - chosen.detach()).square().mean()
            quantized = quantized + chosen.detach()
            residual = residual - chosen.detach()
            codes.append(code)
        decoded = self.decoder(straight_through(latent, quantized))
        return Step((decoded - inputs).square().mean(), loss, codes)


def _perceptron(widths: list[int]) -> nn.Sequential:
    # On "meta" nothing is drawn: the weights come from the caller's generator, not the global one.
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after, device="meta").to_empty(device="cpu")
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
