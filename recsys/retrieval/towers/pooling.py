"""A window of events as a few vectors: weighted sums of their items, by age and by attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from recsys.retrieval.towers.windows import masked_softmax, recency_logits

__all__ = ["AttentionPooling", "pool_events"]


def pool_events(item_vector: Tensor, place: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the events of each window: P pools at once.

    ``pool[p, b] = sum_t weight[p, b, t] * item_vector[place[b, t]]`` over the real events. The
    windows are packed, so padding costs nothing, and the gradient of the item vectors is summed
    item by item instead of being scattered event by event.

    Args:
        item_vector: [M, D] float, row 0 the padding.
        place: [B, T] int64 rows of ``item_vector``, 0 = padding.
        weight: [P, B, T] float.

    Returns:
        [P, B, D] float; zero for an empty window. Row 0 of ``item_vector`` gets no gradient.

    Raises:
        ValueError: ``weight`` does not fit ``place``.
    """
    if place.ndim != 2 or weight.ndim != 3 or weight.shape[1:] != place.shape:
        raise ValueError(
            f"weight must be [P, B, T] for place [B, T]: got {tuple(weight.shape)} for "
            f"{tuple(place.shape)}"
        )
    real = place > 0
    event = real.flatten().nonzero().flatten()  # [E]
    count = real.sum(dim=1)
    packed = weight.flatten(1).index_select(1, event)  # [P, E]
    pools: Tensor = _PackedPools.apply(  # type: ignore[no-untyped-call]
        item_vector, packed, place.flatten()[event], _starts(count), count
    )
    return pools


class _PackedPools(Function):
    """The P weighted sums over the E events of B bags, of ``count`` events each."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, vector: Tensor, weight: Tensor, item: Tensor, start: Tensor, count: Tensor
    ) -> Tensor:
        ctx.save_for_backward(vector, weight, item, start, count)
        return _bags(vector, weight, item, start)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        vector, weight, item, start, count = ctx.saved_tensors  # type: ignore[attr-defined]
        wants_vector, wants_weight = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        vector_grad = weight_grad = None
        if wants_vector:
            # Transposed bags: one an item, holding the queries that met it. The P sums of a query
            # stand side by side in one row of [B * P, D].
            pools = len(weight)
            order = torch.argsort(item.int(), stable=True)
            query = torch.repeat_interleave(count)[order]  # [E]
            row = query[:, None] * pools + torch.arange(pools, device=item.device)  # [E, P]
            rows = grad.transpose(0, 1).reshape(-1, grad.shape[2])  # [B * P, D]
            first = _starts(torch.bincount(item, minlength=len(vector)))
            flat = weight[:, order].T.reshape(1, -1)
            vector_grad = _bags(rows, flat, row.flatten(), first * pools)[0]
        if wants_weight:
            with torch.enable_grad():
                leaf = weight.detach().requires_grad_()
                pooled = _bags(vector.detach(), leaf, item, start)
            (weight_grad,) = torch.autograd.grad(pooled, leaf, grad)
        return vector_grad, weight_grad, None, None, None


def _bags(vector: Tensor, weight: Tensor, row: Tensor, start: Tensor) -> Tensor:
    """[P, bags, D]: for each row of ``weight`` [P, E] the sums of ``vector[row]`` bag by bag."""
    pools, events = weight.shape
    if not events:
        return vector.new_zeros(pools, len(start), vector.shape[1])
    offset = start + events * torch.arange(pools, device=start.device)[:, None]  # [P, bags]
    found = F.embedding_bag(
        row.repeat(pools),
        vector,
        offset.flatten(),
        mode="sum",
        per_sample_weights=weight.flatten(),
    )
    return found.view(pools, len(start), -1)


def _starts(count: Tensor) -> Tensor:
    return count.cumsum(0) - count


class AttentionPooling(nn.Module):
    """Learned weights of the events of each window, one set a head.

        weight_ht = softmax over real events t of
                    ln decay_h(age_t) + bias_h[bucket(age_t)] + v_h . tanh(W item_t)

    ``decay_h`` is a half-life as in `recsys.retrieval.towers.windows.pool_weights` and stays as it
    is; ``v`` and ``bias`` start at zero, so that an untrained head is exactly its recency pool and
    learns what age alone does not say. The score of an event is one of its item: it is computed
    once a distinct item, not once an event.

    Args:
        embedding_dim: D.
        half_lives: of the H heads, in events, > 0 (inf: all ages alike at the start).
        history_length: T; ages fall into the buckets 0, 1, 2-3, 4-7, ... up to T.
        generator: draws W.
    """

    def __init__(
        self,
        embedding_dim: int,
        half_lives: Sequence[float],
        *,
        history_length: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.half_lives = tuple(half_lives)
        self.history_length = history_length
        drawn = torch.randn(embedding_dim, embedding_dim, generator=generator)
        self.key_weight = nn.Parameter(drawn / math.sqrt(embedding_dim))
        self.head = nn.Parameter(torch.zeros(len(half_lives), embedding_dim))
        buckets = 1 + history_length.bit_length()
        self.age_bias = nn.Parameter(torch.zeros(len(half_lives), buckets))

    def forward(self, item_vector: Tensor, place: Tensor) -> Tensor:
        """Weights of the events.

        Args:
            item_vector: [M, D] float32, row 0 the padding.
            place: [B, T] int64 rows of ``item_vector``, newest last, 0 = padding.

        Returns:
            [H, B, T] float32, each head summing to 1 over the real events; 0 at the padding and
            for an empty window.
        """
        if place.numel() < len(item_vector):
            score = self._scores(item_vector[place].flatten(0, 1)).view(
                len(self.head), *place.shape
            )
        else:
            score = self._scores(item_vector)[:, place]
        length = place.shape[1]
        prior = recency_logits(length, self.half_lives).to(score)  # [H, T]
        age = torch.arange(length - 1, -1, -1, device=place.device)
        bucket = torch.frexp(age.float()).exponent  # of the ages 0, 1, 2-3, 4-7, ...
        bias = self.age_bias[:, bucket.clamp(max=self.age_bias.shape[1] - 1).long()]
        return masked_softmax(score + (prior + bias)[:, None, :], place > 0)

    def _scores(self, vector: Tensor) -> Tensor:
        """[H, M] of the vectors [M, D]."""
        return self.head @ torch.tanh(vector @ self.key_weight.T).T
