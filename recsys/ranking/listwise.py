"""The second ranking stage: a small network that sees the best candidates together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from recsys.files.model_files import read_model, write_model
from recsys.ranking.light_encoder import LightEncoder
from recsys.ranking.options import ListwiseOptions

__all__ = ["ListwiseRanker", "listnet"]


def listnet(score: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy between the labels' and the scores' distribution over a list.

    ``-sum_i (y_i / sum y) log softmax(s)_i``; lists without a positive do not count.

    Args:
        score: [B, C] float.
        label: [B, C] float >= 0.
        mask: [B, C] bool, False in the padding.

    Returns:
        Scalar, in nats; 0 when no list has a positive.

    Source: Cao et al., Learning to Rank: From Pairwise to Listwise, ICML 2007, top-one ListNet in
    its binary form.
    """
    label = label * mask
    total = label.sum(dim=1, keepdim=True)
    log_p = torch.log_softmax(score.masked_fill(~mask, -torch.inf), dim=1).masked_fill(~mask, 0.0)
    per_list = -(label / total.clamp_min(1e-12) * log_p).sum(dim=1)
    has_positive = total[:, 0] > 0
    if not bool(has_positive.any()):
        return score.sum() * 0.0
    return per_list[has_positive].mean()


class _Encoder(nn.Module):
    """Residual on the first stage: score = first + correction, the correction starting at 0."""

    def __init__(self, num_features: int, options: ListwiseOptions) -> None:
        super().__init__()
        self.project = nn.Linear(num_features + 1, options.dim)
        self.mix = nn.TransformerEncoderLayer(
            options.dim,
            options.num_heads,
            2 * options.dim,
            options.dropout,
            batch_first=True,
            norm_first=False,
        )
        self.out = nn.Linear(options.dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, first: Tensor, mask: Tensor) -> Tensor:
        hidden = self.project(torch.cat([features, first[..., None]], dim=-1))  # [B, C, dim]
        hidden = self.mix(hidden, src_key_padding_mask=~mask)
        correction: Tensor = self.out(hidden).squeeze(-1)  # [B, C]
        return correction


class ListwiseRanker:
    """Corrects the first stage's scores of up to C candidates that compete on one slate.

    One self-attention layer without positions (the order of the input does not matter) over the
    standardised features and the first stage's score; trained with `listnet`. The result is
    ``first + strength * correction``, in units of the first stage's spread within the list.
    ``strength`` is set by the caller on validation data and may be 0: a stage that does not pay is
    switched off by measurement.

    Source: Pei et al., Personalized Re-ranking for Recommendation, RecSys 2019 (the encoder);
    allRank (Pobrotyn et al., 2020) for the context-aware scorer without positions.
    """

    def __init__(
        self,
        encoder: _Encoder,
        *,
        options: ListwiseOptions,
        mean: np.ndarray,
        spread: np.ndarray,
        strength: float = 1.0,
    ) -> None:
        self.strength = strength
        self.options = options
        self._encoder = encoder.eval()
        self._light: LightEncoder | None = None
        self._mean = mean
        self._spread = spread

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        first: np.ndarray,
        label: np.ndarray,
        mask: np.ndarray,
        *,
        options: ListwiseOptions | None = None,
        generator: torch.Generator,
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Train on lists whose first-stage scores the trees did *not* see in their own training.

        Args:
            features: [Q, C, F] float32; NaN = missing.
            first: [Q, C] float32 first-stage scores, out of fold.
            label: [Q, C] float32 >= 0.
            mask: [Q, C] bool, False in the padding.
            options: None: the defaults.
            generator: initial weights, dropout and the order of the lists.
            on_epoch: called with the epoch, from 1, and its mean loss.

        Raises:
            ValueError: shapes disagree or no list has a positive.
            FloatingPointError: the loss is not finite.
        """
        options = options or ListwiseOptions()
        if features.ndim != 3 or not first.shape == label.shape == mask.shape == features.shape[:2]:
            raise ValueError(
                f"features must be [Q, C, F] and first, label, mask [Q, C], got {features.shape}, "
                f"{first.shape}, {label.shape}, {mask.shape}"
            )
        useful = (label * mask).sum(axis=1) > 0
        if not bool(useful.any()):
            raise ValueError("label must have a positive in some list, got none")
        flat = np.where(np.isfinite(features), features, np.nan)[mask]
        known = np.isfinite(flat)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, flat, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, flat - mean, 0.0) ** 2).sum(axis=0) / count)
        # The layers draw their initial weights and dropout from torch's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=generator)))
            encoder = _Encoder(features.shape[2], options)
            ranker = cls(
                encoder,
                options=options,
                mean=mean.astype(np.float32),
                spread=np.maximum(spread, 1e-6).astype(np.float32),
            )
            x, g, keep = map(
                torch.from_numpy, ranker._inputs(features[useful], first[useful], mask[useful])
            )
            y = torch.from_numpy(np.ascontiguousarray(label[useful], dtype=np.float32))
            ranker._train(x, g, y, keep, generator, on_epoch)
        return ranker

    def _train(
        self,
        features: Tensor,
        first: Tensor,
        label: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        on_epoch: Callable[[int, float], None] | None,
    ) -> None:
        optimizer = torch.optim.AdamW(
            self._encoder.parameters(),
            lr=self.options.learning_rate,
            weight_decay=self.options.weight_decay,
        )
        self._encoder.train()
        for epoch in range(1, self.options.epochs + 1):
            losses = []
            order = torch.randperm(len(features), generator=generator)
            for batch in torch.split(order, self.options.batch_size):
                score = first[batch] + self._encoder(features[batch], first[batch], mask[batch])
                loss = listnet(score, label[batch], mask[batch])
                if not bool(torch.isfinite(loss)):
                    raise FloatingPointError(
                        f"listwise loss is {float(loss)} in epoch {epoch}; lower learning_rate"
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(float(loss.detach()))
            if on_epoch is not None:
                on_epoch(epoch, float(np.mean(losses)))
        self._encoder.eval()

    @torch.no_grad()
    def predict(
        self,
        features: np.ndarray,
        first: np.ndarray,
        mask: np.ndarray,
        *,
        strength: float | None = None,
    ) -> np.ndarray:
        """[Q, C] float32 scores, -inf in the padding.

        Args:
            features: [Q, C, F] float32.
            first: [Q, C] first-stage scores.
            mask: [Q, C] bool, False in the padding.
            strength: instead of the ranker's own.
        """
        if first.size == 0:
            return np.empty(first.shape, dtype=np.float32)
        x, g, keep = self._inputs(features, first, mask)
        weight = self.strength if strength is None else strength
        if len(x) == 1 and bool(mask.all()):
            if self._light is None:
                self._light = LightEncoder.of(self._encoder, self._encoder.mix)
            return (g + weight * self._light(x[0], g[0])).astype(np.float32)
        score = g + weight * self._encoder(*map(torch.from_numpy, (x, g, keep))).numpy()
        return np.where(mask, score, -np.inf).astype(np.float32)

    def _inputs(
        self, features: np.ndarray, first: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scaled = np.clip((features - self._mean) / self._spread, -4.0, 4.0)
        scaled = np.where(np.isfinite(scaled) & mask[..., None], scaled, 0.0)
        count = np.maximum(mask.sum(axis=1, keepdims=True), 1)
        centred = np.where(mask, first, 0.0)
        centred = np.where(mask, centred - centred.sum(axis=1, keepdims=True) / count, 0.0)
        deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
        relative = centred / np.maximum(deviation, 1e-6)
        return (
            np.ascontiguousarray(scaled, dtype=np.float32),
            np.ascontiguousarray(relative, dtype=np.float32),
            np.ascontiguousarray(mask),
        )

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        tensors = {
            f"encoder.{name}": tensor.detach().numpy()
            for name, tensor in self._encoder.state_dict().items()
        }
        settings = {"strength": self.strength, "options": dict(self.options)}
        write_model(
            directory,
            "listwise",
            settings,
            {**tensors, "mean": self._mean, "spread": self._spread},
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: see `recsys.files.model_files.read_model`.
        """
        settings, tensors = read_model(directory, "listwise")
        options = ListwiseOptions(**settings["options"])
        mean = tensors.pop("mean")
        spread = tensors.pop("spread")
        encoder = _Encoder(mean.size, options)
        encoder.load_state_dict(
            {
                name.removeprefix("encoder."): torch.from_numpy(array)
                for name, array in tensors.items()
            }
        )
        return cls(
            encoder, options=options, mean=mean, spread=spread, strength=settings["strength"]
        )
