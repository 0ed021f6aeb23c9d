"""The listwise network for one list at a time, in NumPy.

For the few dozen rows of a request torch spends more on its bookkeeping than on the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LightEncoder"]


@dataclass(frozen=True, eq=False)
class LightEncoder:
    """One layer of self-attention without dropout, as `recsys.ranking.listwise` trains it.

    Attributes:
        weights: float32 arrays by the name of the parameter.
        num_heads: of the attention.
        epsilon: of both layer norms.
    """

    weights: dict[str, np.ndarray]
    num_heads: int
    epsilon: float

    @classmethod
    def of(cls, encoder: nn.Module, layer: nn.TransformerEncoderLayer) -> Self:
        """Copy the weights of a trained encoder.

        Args:
            encoder: with the parts ``project``, ``mix`` and ``out``.
            layer: its ``mix``.
        """
        weights = {name: tensor.numpy().copy() for name, tensor in encoder.state_dict().items()}
        return cls(weights, layer.self_attn.num_heads, layer.norm1.eps)

    def __call__(self, features: np.ndarray, first: np.ndarray) -> np.ndarray:
        """[C] corrections.

        Args:
            features: [C, F] float32, standardised.
            first: [C] float32, relative scores of the first stage.
        """
        hidden = self._linear("project", np.concatenate([features, first[:, None]], axis=1))
        hidden = self._norm("mix.norm1", hidden + self._attention(hidden))
        inner = np.maximum(self._linear("mix.linear1", hidden), 0.0)
        hidden = self._norm("mix.norm2", hidden + self._linear("mix.linear2", inner))
        corrections: np.ndarray = self._linear("out", hidden)[:, 0]
        return corrections

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + self.epsilon)
        return np.asarray(
            centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        )

    def _attention(self, x: np.ndarray) -> np.ndarray:
        rows, dim = x.shape
        width = dim // self.num_heads
        joined = x @ self.weights["mix.self_attn.in_proj_weight"].T
        joined += self.weights["mix.self_attn.in_proj_bias"]
        query, key, value = (
            part.reshape(rows, self.num_heads, width).transpose(1, 0, 2)
            for part in np.split(joined, 3, axis=1)
        )  # [H, C, dim / H]
        logits = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width))
        share = np.exp(logits - logits.max(axis=2, keepdims=True))
        share /= share.sum(axis=2, keepdims=True)
        mixed = (share @ value).transpose(1, 0, 2).reshape(rows, dim)
        return self._linear("mix.self_attn.out_proj", mixed)
