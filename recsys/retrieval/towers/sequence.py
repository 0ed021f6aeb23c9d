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
_CACHED = 2**18  # logits at a time: 1 MiB in float32, half of a core's second-level cache


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
        self,
        vector: Tensor,
        real: Tensor,
        time: Tensor,
        *,
        noise: Noise | None = None,
        row: Tensor | None = None,
    ) -> Tensor:
        """Queries.

        Args:
            vector: [B, T + 1, D] float32, the start and then the events, oldest first; what lies
                behind a history's end is not read.
            real: [B, T + 1] bool, what later rows may read.
            time: [B, T + 1] int64 microseconds of the events; that of the start is not read.
            noise: of a step in training. None: none.
            row: [B] int64, the one row of each history that is wanted; the last block then computes
                that alone. None: all.

        Returns:
            [B, T + 1, D] float32, or [B, D] of one row each.
        """
        seen = self._seen(real, time)
        low = noise is not None and noise.low_precision
        x = _dropped(vector, noise)
        biases = zip(self.position_bias, self.time_bias, strict=True)
        with torch.autocast(vector.device.type, torch.bfloat16, enabled=low):
            for block, own in zip(self.blocks, biases, strict=True):
                x = block(x, *own, seen, noise, row if block is self.blocks[-1] else None)
        return F.linear(F.rms_norm(x, x.shape[-1:], self.norm), self.output_weight)

    def _seen(self, real: Tensor, time: Tensor) -> _Seen:
        length = real.shape[1]
        place = torch.arange(length, device=real.device)
        oldest = self.position_bias.shape[2] - 1
        gap = (time[:, :, None] - time[:, None, :]).clamp_(min=0)
        gap[:, :, 0] = 0
        exponent = torch.frexp(gap.float().div_(_SECOND)).exponent
        bucket = exponent.clamp_(min=0, max=_TIME_BUCKETS - 1).int()
        unseen = ~real[:, None, :] | (place[:, None] < place)
        unseen.diagonal(dim1=1, dim2=2).fill_(False)
        age = (place[:, None] - place).clamp_(min=0, max=oldest)
        return _Seen(age, bucket.masked_fill_(unseen, _TIME_BUCKETS))


class _Seen(NamedTuple):
    """What lies between the rows of B histories.

    Attributes:
        age: [T, T] int64 how many events.
        bucket: [B, T, T] int32 how much time; `_TIME_BUCKETS` where a row must not see another.
    """

    age: Tensor
    bucket: Tensor


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

    def forward(
        self,
        x: Tensor,
        by_age: Tensor,
        by_time: Tensor,
        seen: _Seen,
        noise: Noise | None,
        row: Tensor | None,
    ) -> Tensor:
        """[B, T, D] of ``x`` [B, T, D], or row ``row`` [B] of each history alone, [B, D].

        The logits' biases are [H, A] and [H, K].
        """
        if row is not None:
            return self._of_row(x, by_age, by_time, seen, noise, row)
        dim = x.shape[2]
        normed = F.rms_norm(x, (dim,), self.attention_norm)
        *parts, gate = F.linear(normed, self.attention_in).chunk(4, dim=2)
        kept = torch.is_grad_enabled()
        read: Tensor = _Attention.apply(*parts, by_age, by_time, seen, kept)  # type: ignore[no-untyped-call]
        return self._mixed(x, gate, read, noise)

    def _of_row(
        self,
        x: Tensor,
        by_age: Tensor,
        by_time: Tensor,
        seen: _Seen,
        noise: Noise | None,
        row: Tensor,
    ) -> Tensor:
        rows, _, dim = x.shape
        history = torch.arange(rows, device=x.device)
        normed = F.rms_norm(x, (dim,), self.attention_norm)
        weight = self.attention_in
        key, value = F.linear(normed, weight[dim : 3 * dim]).chunk(2, dim=2)
        own = normed[history, row]
        query = F.linear(own, weight[:dim])[:, None]
        query, key, value = (_by_head(part, self.heads) for part in (query, key, value))
        logit = (query @ key.transpose(2, 3)).float() * query.shape[3] ** -0.5  # [H, B, 1, T]
        of_time = F.pad(by_time, (0, 1), value=_UNSEEN)
        bias = of_time[:, seen.bucket[history, row]] + by_age[:, seen.age[row]]  # [H, B, T]
        share = torch.softmax(logit + bias[:, :, None], dim=3).to(value.dtype)
        read = (share @ value).permute(1, 2, 0, 3).reshape(rows, dim)
        return self._mixed(x[history, row], F.linear(own, weight[3 * dim :]), read, noise)

    def _mixed(self, x: Tensor, gate: Tensor, read: Tensor, noise: Noise | None) -> Tensor:
        """``x`` with what was read added to it, and then what the hidden units make of it."""
        dim = x.shape[-1]
        x = x + _dropped(torch.sigmoid(gate) * F.linear(read, self.attention_out), noise).float()
        normed = F.rms_norm(x, (dim,), self.hidden_norm)
        wide = _EXPANSION * dim
        left, right, gate = torch.split(F.linear(normed, self.hidden_in), [wide, wide, dim], dim=-1)
        hidden = F.linear(F.silu(left) * right, self.hidden_out)
        return x + _dropped(torch.sigmoid(gate) * hidden, noise).float()


class _Attention(torch.autograd.Function):
    """[B, T, D] what the heads read; a few histories at a time, whose [T, T] stay in the cache."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        by_age: Tensor,
        by_time: Tensor,
        seen: _Seen,
        kept: bool,
    ) -> Tensor:
        heads, (rows, length, dim) = len(by_age), query.shape
        query, key, value = (_by_head(part, heads) for part in (query, key, value))
        of_age = by_age[:, seen.age][:, None]  # [H, 1, T, T]
        of_time = F.pad(by_time, (0, 1), value=_UNSEEN)
        share = query.new_empty(heads, rows if kept else 0, length, length)
        read = query.new_empty(rows, length, dim)
        read_by_head = _by_head(read, heads)
        for part in _parts(query):
            logit = (query[:, part] @ key[:, part].transpose(2, 3)).to(by_age.dtype)
            bias = of_time.index_select(1, seen.bucket[part].flatten()).view(logit.shape)
            bias.add_(of_age).add_(logit, alpha=query.shape[3] ** -0.5)
            some = torch.softmax(bias, dim=3).to(query.dtype)
            read_by_head[:, part] = some @ value[:, part]
            if kept:
                share[:, part] = some
        ctx.save_for_backward(query, key, value, by_age, by_time, *seen, share, read)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, by_age, by_time, age, bucket, share, read = ctx.saved_tensors
        heads, scale = len(by_age), query.shape[3] ** -0.5
        mean = _by_head((grad * read).to(by_age.dtype), heads).sum(dim=3, keepdim=True)
        grad = _by_head(grad, heads)
        grads = [torch.empty_like(read) for _ in range(3)]
        of_query, of_key, of_value = (_by_head(one, heads) for one in grads)
        of_age = by_age.new_zeros(heads, *age.shape)
        of_time = by_time.new_zeros(heads, by_time.shape[1] + 1)
        for part in _parts(query):
            some = share[:, part]
            of_value[:, part] = some.transpose(2, 3) @ grad[:, part]
            push = (grad[:, part] @ value[:, part].transpose(2, 3)).to(by_age.dtype)
            push.sub_(mean[:, part]).mul_(some)
            of_age += push.sum(dim=1)
            place = bucket[part].flatten()
            for total, one in zip(of_time, push, strict=True):
                total += _counted(place, one, len(total))
            push = push.mul_(scale).to(query.dtype)
            of_query[:, part] = push @ key[:, part]
            of_key[:, part] = push.transpose(2, 3) @ query[:, part]
        by_place = torch.stack([_counted(age, one, by_age.shape[1]) for one in of_age])
        return *grads, by_place, of_time[:, :-1], None, None


def _by_head(vector: Tensor, heads: int) -> Tensor:
    """[H, B, T, D / H] view of [B, T, D]."""
    return vector.view(*vector.shape[:2], heads, -1).permute(2, 0, 1, 3)


def _parts(query: Tensor) -> list[slice]:
    """The histories of ``query`` [H, B, T, E], as many at a time as the cache holds logits of."""
    heads, rows, length, _ = query.shape
    step = rows if query.is_cuda else max(1, _CACHED // (heads * length * length))
    return [slice(first, first + step) for first in range(0, rows, step)]


def _counted(place: Tensor, value: Tensor, size: int) -> Tensor:
    """[size] sums of ``value`` by ``place``."""
    return torch.bincount(place.flatten(), weights=value.flatten(), minlength=size).to(value)


def _drawn(
    rows: int, columns: int, generator: torch.Generator, *, scale: float = 1.0
) -> nn.Parameter:
    drawn = torch.randn(rows, columns, generator=generator)
    return nn.Parameter(drawn * (scale / math.sqrt(columns)))


def _dropped(value: Tensor, noise: Noise | None) -> Tensor:
    """Some of the numbers, drawn by 16 bits each, as 0, and the rest by as much larger."""
    dropped = 0 if noise is None else round(noise.dropout * 2**16)
    if noise is None or not dropped:
        return value
    bits = torch.empty(-(-value.numel() // 4), dtype=torch.int64)
    drawn = bits.random_(-(2**63), None, generator=noise.generator).view(torch.int16)
    kept = (drawn[: value.numel()] >= dropped - 2**15).view(value.shape).to(value)
    return value * kept.div_(1.0 - dropped / 2**16)
