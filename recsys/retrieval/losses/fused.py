"""The softmax and uniformity losses in one pass over blocks that stay in the cache.

Loss and gradient come out of the same pass: a block of logits is computed, turned into its
gradient in place and multiplied back before the next one is begun, so that no [B, C] matrix is
ever written to memory. The results are those of `sampled_softmax`, `bsl` and `uniformity`, to
rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.retrieval.losses.inputs import check_at_least, check_negative, check_pair, check_shape
from recsys.retrieval.losses.shared_negatives import log_counts

__all__ = ["fused_softmax", "fused_uniformity", "unit_rows"]

_PAIR_ROWS = 256  # rows of a block of pairs; in bfloat16 four times as many
_LARGEST_EXPONENT = 40.0  # exp of it, times a million rows, is a float32
_SHORTEST = 1e-12  # rows are divided by no less, as torch does
_BLOCK_ENTRIES = 2**18  # logits at a time: 1 MiB in float32, half of a core's second-level cache
_STRIP_ROWS = 512  # in bfloat16, rows whose share of the negatives' gradient is one product


def fused_softmax(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    known: tuple[Tensor, Tensor] | None = None,
    include_positive: bool = True,
    negative_weight: float = 1.0,
    weight: Tensor | None = None,
    query_of: Tensor | None = None,
    low_precision: bool = False,
) -> Tensor:
    """`sampled_softmax`, and with ``include_positive=False`` `bsl`, without a [B, C] matrix.

    Several candidates of one query may share its row of logits: give each query once, and say
    with ``query_of`` whose each candidate is.

    Args:
        query: [Q, D] float; Q = B without ``query_of``.
        candidate: [B, D] float; row i is the positive of row i of ``query``, or of its query.
        negative: [C, D] float, used by every query.
        temperature: logits are divided by it; > 0.
        log_q: [C] log probability that the sampler drew each negative. None: equal.
        known: the pairs (row of ``query``, row of ``negative``) to leave out, two int64 vectors
            of one length, rows ascending. None: nothing is left out.
        include_positive: whether the positive stands in its own denominator.
        negative_weight: of the negative side, > 0 (`bsl`); 1 with ``include_positive``.
        weight: [B] weights of the examples, >= 0. None: all equal.
        query_of: [B] int64 rows of ``query``, ascending. None: each candidate has its own.
        low_precision: multiply in bfloat16 and add in float32; about 2 % off in each weight of
            a negative.

    Returns:
        Scalar, in nats. Differentiable once.

    Raises:
        ValueError: shapes disagree, temperature or negative_weight <= 0, or a negative_weight
            other than 1 with ``include_positive``.
    """
    if query_of is None:
        check_pair(query, candidate)
    else:
        check_shape("query_of", query_of, (len(candidate),))
    check_negative(query, negative, None)
    check_at_least(0, above=True, temperature=temperature, negative_weight=negative_weight)
    if include_positive and negative_weight != 1.0:
        raise ValueError(
            f"negative_weight must be 1 with include_positive, got {negative_weight}; set "
            "include_positive=False"
        )
    bias = None if log_q is None else log_counts(log_q).to(query)
    share = _shares(candidate, weight)
    loss: Tensor = _Softmax.apply(
        query,
        candidate,
        negative,
        bias,
        known,
        share,
        query_of,
        (temperature, negative_weight, include_positive, low_precision),
    )  # type: ignore[no-untyped-call]
    return loss


def fused_uniformity(
    unit: Tensor, *, t: float = 2.0, weight: Tensor | None = None, low_precision: bool = False
) -> Tensor:
    """`uniformity` of rows that are unit vectors already, without a [B, B] matrix.

    Args:
        unit: [B, D] float, B >= 2, rows of length 1.
        t: sharpness, > 0.
        weight: [B] >= 0: pair (a, b) counts weight_a * weight_b. None: all equal.
        low_precision: multiply and take ``exp`` in bfloat16; the gradient is about .3 % off.

    Returns:
        Scalar in [-4 t, 0]; 0 when fewer than two rows have a weight above 0. Differentiable
        once.

    Raises:
        ValueError: fewer than two rows, or t <= 0.
    """
    if unit.ndim != 2 or unit.shape[0] < 2:
        raise ValueError(f"unit must be [B >= 2, D], got shape {tuple(unit.shape)}")
    check_at_least(0, above=True, t=t)
    if weight is not None:
        check_shape("weight", weight, (len(unit),))
    loss: Tensor = _Uniformity.apply(unit, weight, t, low_precision)  # type: ignore[no-untyped-call]
    return loss


def unit_rows(vector: Tensor) -> Tensor:
    """[B, D] rows of ``vector`` [B, D] scaled to length 1; rows of zeros stay zero.

    ``torch.nn.functional.normalize`` with a gradient in three operations instead of a dozen.
    Differentiable once.
    """
    unit: Tensor = _Unit.apply(vector)  # type: ignore[no-untyped-call]
    return unit


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vector: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        inverse = inverse.clamp_(min=_SHORTEST).reciprocal_()
        unit: Tensor = vector * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, unit)[:, None]
        return torch.addcmul(grad, unit, along, value=-1.0).mul_(inverse)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        candidate: Tensor,
        negative: Tensor,
        bias: Tensor | None,
        known: tuple[Tensor, Tensor] | None,
        share: Tensor,
        query_of: Tensor | None,
        settings: tuple[float, float, bool, bool],
    ) -> Tensor:
        temperature, negative_weight, include_positive, low_precision = settings
        exact = query.dtype
        kind = torch.bfloat16 if low_precision else exact
        left, right = query.to(kind), (negative / temperature).to(kind)
        own_query = query if query_of is None else query[query_of]  # [B, D]
        positive = (own_query * candidate).sum(dim=1) / temperature  # [B]
        rows = max(16, _BLOCK_ENTRIES // max(1, len(negative)))
        grad_query = torch.empty_like(query)
        grad_negative = torch.zeros_like(negative)
        grad_positive = torch.empty_like(positive)
        loss = torch.empty_like(positive)
        edges = torch.arange(0, len(query) + rows, rows, device=query.device)
        strip = None
        if low_precision and rows < _STRIP_ROWS:
            strip = left.new_empty(_STRIP_ROWS // rows * rows, len(negative))
        pairs_of = _bounds(None if known is None else known[0], edges)
        examples_of = _bounds(query_of, edges)
        for number, first in enumerate(range(0, len(query), rows)):
            block = slice(first, first + rows)
            logit = (left[block] @ right.T).to(exact)
            if bias is not None:
                logit += bias
            if known is not None:
                pairs = slice(pairs_of[number], pairs_of[number + 1])
                logit[known[0][pairs] - first, known[1][pairs]] = -torch.inf
            top = logit.amax(dim=1).clamp_(min=torch.finfo(exact).min / 4)
            total = logit.sub_(top[:, None]).exp_().sum(dim=1)  # 0 where nothing is left
            safe = total.clamp(min=torch.finfo(exact).tiny)
            log_total = safe.log().add_(top)
            examples, place = block, None
            if query_of is not None:
                examples = slice(examples_of[number], examples_of[number + 1])
                place = query_of[examples] - first
            of_example = log_total if place is None else log_total[place]
            own, part = positive[examples], share[examples]
            if include_positive:
                both = torch.logaddexp(of_example, own)
                loss[examples] = both - own
                grad_positive[examples] = part * torch.expm1(own - both)
                pull = part * torch.exp(of_example - both)
            else:
                some = (total if place is None else total[place]) > 0
                value = negative_weight * of_example - own
                loss[examples] = torch.where(some, value, torch.zeros_like(value))
                grad_positive[examples] = -part * some
                pull = negative_weight * part * some
            if place is not None:
                pull = torch.zeros_like(total).index_add_(0, place, pull)
            push = logit.mul_((pull / safe)[:, None]).to(kind)
            grad_query[block] = push @ right
            if strip is None:
                _add_product(grad_negative, push.T, left[block])
                continue
            begin = first % len(strip)
            strip[begin : begin + len(push)] = push
            if begin + rows == len(strip) or first + rows >= len(query):
                pushes = strip[: begin + len(push)]
                _add_product(grad_negative, pushes.T, left[first - begin : first + rows])
        grad_positive /= temperature
        if query_of is None:
            grad_query.addcmul_(grad_positive[:, None], candidate)
        else:
            grad_query.index_add_(0, query_of, grad_positive[:, None] * candidate)
        ctx.save_for_backward(
            grad_query, grad_positive[:, None] * own_query, grad_negative.div_(temperature)
        )
        return (loss * share).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, candidate, negative = ctx.saved_tensors
        return grad * query, grad * candidate, grad * negative, None, None, None, None, None


class _Uniformity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, unit: Tensor, weight: Tensor | None, t: float, low_precision: bool
    ) -> Tensor:
        # -t |x - y|^2 = 2t x.y - 2t; the last term is added to the logarithm of the sum, where it
        # costs no rounding, but for what would overflow
        offset = max(0.0, 2.0 * t - _LARGEST_EXPONENT)
        kind = torch.bfloat16 if low_precision else unit.dtype
        rows = 4 * _PAIR_ROWS if low_precision else _PAIR_ROWS
        factor = unit.to(kind)
        scaled = factor * (2.0 * t)
        grad = torch.zeros_like(unit)
        mass = torch.zeros((), dtype=unit.dtype, device=unit.device)
        for first in range(0, len(unit), rows):
            left = slice(first, first + rows)
            rest = slice(first, None)  # the pairs with earlier rows are in earlier blocks
            near = scaled[left] @ factor[rest].T
            near = (near.sub_(offset) if offset else near).exp_()
            near.diagonal().zero_()
            if weight is not None:
                near.mul_(weight[rest].to(near)).mul_(weight[left, None].to(near))
            for part, times in ((near[:, :rows], 1.0), (near[:, rows:], 2.0)):
                mass += part.sum(dim=1).sum(dtype=mass.dtype) * times
            _add_product(grad[left], near, factor[rest])
            if first + rows < len(unit):
                _add_product(grad[first + rows :], near[:, rows:].T, factor[left])
        if weight is None:
            pairs = mass.new_full((), float(len(unit) * (len(unit) - 1)))
        else:
            pairs = (weight * (weight.sum() - weight)).sum()
        some = mass > 0
        one = torch.ones_like(mass)
        ctx.save_for_backward(grad.mul_(4.0 * t / torch.where(some, mass, one)))
        mean = torch.where(some, mass, one) / torch.where(some, pairs.to(mass), one)
        return torch.where(some, torch.log(mean) + (offset - 2.0 * t), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (unit,) = ctx.saved_tensors
        return grad * unit, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, whose kind may be a smaller one."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _shares(query: Tensor, weight: Tensor | None) -> Tensor:
    """[B] weights that sum to 1; all 0 when the weights are."""
    if weight is None:
        return torch.full((len(query),), 1.0 / len(query), dtype=query.dtype, device=query.device)
    check_shape("weight", weight, (len(query),))
    total = weight.sum()
    return (weight / torch.where(total > 0, total, torch.ones_like(total))).to(query)


def _bounds(row: Tensor | None, edges: Tensor) -> list[int]:
    """Where the entries of each block of rows begin in the ascending ``row``."""
    return [] if row is None else torch.searchsorted(row, edges).cpu().tolist()
