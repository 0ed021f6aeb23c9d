"""Any loss over [B, C] scores in strips of rows, so that no [B, C] matrix outlives its strip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.retrieval.losses.inputs import check_negative, check_pair, check_shape

__all__ = ["StripLoss", "in_strips"]

StripLoss = Callable[[slice, Tensor, Tensor, Tensor, Tensor], Tensor]
"""``loss(rows, query[rows], candidate[rows], negative, weight[rows])``: their weighted mean."""

_STRIP_ENTRIES = 2**18  # scores at a time: 1 MiB in float32


def in_strips(
    loss: StripLoss,
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """The weighted mean of ``loss`` over the rows, computed and differentiated strip by strip.

    Memory is that of one strip, whatever the loss makes of its scores.
    The loss must be a weighted mean over rows that do not see one another.

    Args:
        loss: of a strip of rows; see `StripLoss`.
        query: [B, D] float.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        negative: [C, D] float, used by every query.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar; 0 when all weights are. Differentiable once.

    Raises:
        ValueError: shapes disagree.
    """
    check_pair(query, candidate)
    check_negative(query, negative, None)
    weight = query.new_ones(len(query)) if weight is None else weight
    check_shape("weight", weight, (len(query),))
    found: Tensor = _Strips.apply(loss, query, candidate, negative, weight)  # type: ignore[no-untyped-call]
    return found


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: StripLoss,
        query: Tensor,
        candidate: Tensor,
        negative: Tensor,
        weight: Tensor,
    ) -> Tensor:
        needed = any(ctx.needs_input_grad)
        rows = max(16, _STRIP_ENTRIES // max(1, len(negative)))
        whole = weight.sum()
        share = weight / torch.where(whole > 0, whole, torch.ones_like(whole))
        shared = negative.detach().requires_grad_(needed)
        gradients: list[Tensor] = [torch.zeros_like(query), torch.zeros_like(candidate)]
        total = torch.zeros((), dtype=query.dtype, device=query.device)
        for first in range(0, len(query), rows):
            strip = slice(first, first + rows)
            leaves = [side[strip].detach().requires_grad_(needed) for side in (query, candidate)]
            with torch.set_grad_enabled(needed):
                part = loss(strip, leaves[0], leaves[1], shared, weight[strip])
                part = part * share[strip].sum()
            if needed:
                part.backward()  # type: ignore[no-untyped-call]
                for gradient, leaf in zip(gradients, leaves, strict=True):
                    if leaf.grad is not None:
                        gradient[strip] = leaf.grad
            total += part.detach()
        of_negative = torch.zeros_like(negative) if shared.grad is None else shared.grad
        ctx.save_for_backward(*gradients, of_negative)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, candidate, negative = ctx.saved_tensors
        return None, grad * query, grad * candidate, grad * negative, None
