"""Histories read in their order: causal attention over the events, a query after each of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Noise", "SequenceReader"]

_EXPANSION = 2  # hidden units of a block a dimension
_TIME_BUCKETS = 36  # 0 s, 1 s, 2-3 s, 4-7 s, ... up to a thousand years
_SECOND = 1_000_000  # microseconds
_UNSEEN = -1e9  # logit of what must not be seen; a row always sees itself


class Noise(NamedTuple):
    """What is done to a pass in training.

    Attributes:
        dropout: share of the numbers left out of the inputs and of each block's additions.
        generator: draws them.
        low_precision: multiply in bfloat16.
    """

    dropout: float
    generator: torch.Generator
    low_precision: bool = False


class SequenceReader(nn.Module):
    """What B histories ask for: before their first event, and after each.

        x   = [start, item_1, ..., item_T]
        x  += sigmoid(G norm x) * attention(norm x)                      a block: two gated
        x  += sigmoid(G' norm x) * W (silu(W1 norm x) * W2 norm x)       residuals
        out = W_out norm x

    Attention is causal: row p of ``out`` has read ``start`` and the first p events, so one pass
    gives the queries of every event of a history, and where it ends the question that comes next.
    A head adds to its logits a learned number for how many events lie between two, and one for
    how much time, by powers of two of seconds.

    The gated blocks are LiGR's (arXiv 2502.03417; eSASRec, RecSys 2025), the intervals HSTU's
    (ICML 2024).

    Args:
        dim: D.
        blocks: how many blocks.
        heads: H, a divisor of D.
        history_length: T, the longest history; what lies further apart counts as that far.
        generator: draws the weights.
    """

    def __init__(
        self, dim: int, *, blocks: int, heads: int, history_length: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, heads, generator) for _ in range(blocks))
        self.norm = nn.Parameter(torch.ones(dim))
        self.output_weight = _drawn(dim, dim, generator)
        self.position_bias = nn.Parameter(torch.zeros(blocks, heads, history_length + 1))
        self.time_bias = nn.Parameter(torch.zeros(blocks, heads, _TIME_BUCKETS))

    def forward(
        self, vector: Tensor, real: Tensor, time: Tensor, *, noise: Noise | None = None
    ) -> Tensor:
        """Queries.

        Args:
            vector: [B, T + 1, D] float32, the start and then the events, oldest first; what lies
                behind a history's end is not read.
            real: [B, T + 1] bool, what later rows may read.
            time: [B, T + 1] int64 microseconds of the events; that of the start is not read.
            noise: of a step in training. None: none.

        Returns:
            [B, T + 1, D] float32.
        """
        length = vector.shape[1]
        place = torch.arange(length, device=vector.device)
        oldest = self.position_bias.shape[2] - 1
        age = (place[:, None] - place).clamp_(min=0, max=oldest)  # [T + 1, T + 1]
        gap = (time[:, :, None] - time[:, None, :]).clamp_(min=0)
        gap[:, :, 0] = 0
        exponent = torch.frexp(gap.float().div_(_SECOND)).exponent
        bucket = exponent.clamp_(min=0, max=_TIME_BUCKETS - 1).int()
        unseen = ~real[:, None, :] | (place[:, None] < place)
        unseen.diagonal(dim1=1, dim2=2).fill_(False)
        low = noise is not None and noise.low_precision
        x = _dropped(vector, noise)
        for block, by_age, by_time in zip(
            self.blocks, self.position_bias, self.time_bias, strict=True
        ):
            bias: Tensor = _Bias.apply(by_age, by_time, age, bucket, unseen)  # type: ignore[no-untyped-call]
            with torch.autocast(vector.device.type, torch.bfloat16, enabled=low):
                x = block(x, bias, noise)
        return F.linear(F.rms_norm(x, x.shape[-1:], self.norm), self.output_weight)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        wide = _EXPANSION * dim
        self.attention_norm = nn.Parameter(torch.ones(dim))
        self.attention_in = _drawn(4 * dim, dim, generator)  # queries, keys, values, gate
        self.attention_out = _drawn(dim, dim, generator, scale=0.5)
        self.hidden_norm = nn.Parameter(torch.ones(dim))
        self.hidden_in = _drawn(2 * wide + dim, dim, generator)  # W1, W2, gate
        self.hidden_out = _drawn(dim, wide, generator, scale=0.5)

    def forward(self, x: Tensor, bias: Tensor, noise: Noise | None) -> Tensor:
        """[B, T, D] of ``x`` [B, T, D], with ``bias`` [B, H, T, T] added to the logits."""
        rows, length, dim = x.shape
        normed = F.rms_norm(x, (dim,), self.attention_norm)
        *parts, gate = F.linear(normed, self.attention_in).chunk(4, dim=2)
        query, key, value = (
            part.view(rows, length, self.heads, dim // self.heads).transpose(1, 2) for part in parts
        )
        logit = (query @ key.transpose(2, 3)).float() * (dim // self.heads) ** -0.5
        share = torch.softmax(logit + bias, dim=3).to(value.dtype)
        read = (share @ value).transpose(1, 2).reshape(rows, length, dim)
        x = x + _dropped(torch.sigmoid(gate) * F.linear(read, self.attention_out), noise).float()
        normed = F.rms_norm(x, (dim,), self.hidden_norm)
        wide = _EXPANSION * dim
        left, right, gate = torch.split(F.linear(normed, self.hidden_in), [wide, wide, dim], dim=2)
        hidden = F.linear(F.silu(left) * right, self.hidden_out)
        return x + _dropped(torch.sigmoid(gate) * hidden, noise).float()


class _Bias(torch.autograd.Function):
    """[B, H, T, T]: what heads add to their logits; the gradient is counted, not scattered."""

    @staticmethod
    def forward(
        ctx: Any, by_age: Tensor, by_time: Tensor, age: Tensor, bucket: Tensor, unseen: Tensor
    ) -> Tensor:
        ctx.save_for_backward(by_age, by_time, age, bucket)
        bias = torch.stack([head[bucket] for head in by_time], dim=1)
        bias += by_age[:, age]
        return bias.masked_fill_(unseen[:, None], _UNSEEN)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_age, by_time, age, bucket = ctx.saved_tensors
        of_age = [_counted(age, one, by_age.shape[1]) for one in grad.sum(dim=0)]
        of_time = [_counted(bucket, grad[:, h], by_time.shape[1]) for h in range(len(by_time))]
        return torch.stack(of_age), torch.stack(of_time), None, None, None


def _counted(place: Tensor, value: Tensor, size: int) -> Tensor:
    """[size] sums of ``value`` by ``place``."""
    return torch.bincount(place.flatten(), weights=value.flatten(), minlength=size).to(value)


def _drawn(
    rows: int, columns: int, generator: torch.Generator, *, scale: float = 1.0
) -> nn.Parameter:
    drawn = torch.randn(rows, columns, generator=generator)
    return nn.Parameter(drawn * (scale / math.sqrt(columns)))


def _dropped(value: Tensor, noise: Noise | None) -> Tensor:
    if noise is None or not noise.dropout:
        return value
    kept = 1.0 - noise.dropout
    mask = torch.empty(value.shape, dtype=value.dtype).bernoulli_(kept, generator=noise.generator)
    return value * mask.div_(kept).to(value.device)
