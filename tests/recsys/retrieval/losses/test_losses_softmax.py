"""Softmax losses against plain loops, at their limits and in what log-q correction promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.errors import ConfigError
from recsys.retrieval.losses import (
    PSL_SIGMAS,
    bpr,
    bsl,
    focal_weight,
    in_batch_softmax,
    psl,
    sampled_softmax,
    sl_at_k,
    softmax_losses,
    top_k_threshold,
)

B, C, D = 6, 9, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(value: Tensor | None) -> object:
    return None if value is None else value.tolist()


QUERY, CANDIDATE, NEGATIVE = drawn(B, D), drawn(B, D, seed=1), drawn(C, D, seed=2)
WEIGHT, LOG_Q = drawn(B, seed=3).abs(), drawn(C, seed=4)
KNOWN = drawn(B, C, seed=5) > 0.5
KNOWN[2] = True  # a query without any negative
ITEM = torch.tensor([3, 1, 3, 2, 1, 5, 3, 8, 9])
VECTORS = (QUERY, CANDIDATE, NEGATIVE)
LISTS = tuple(vectors.tolist() for vectors in VECTORS)

masks = pytest.mark.parametrize("mask", [None, KNOWN])
log_qs = pytest.mark.parametrize("log_q", [None, LOG_Q])
weights = pytest.mark.parametrize("weight", [None, WEIGHT])


@masks
@log_qs
@weights
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_softmaxes_are_the_reference(
    reference: ModuleType,
    mask: Tensor | None,
    log_q: Tensor | None,
    weight: Tensor | None,
    temperature: float,
) -> None:
    shared = {"temperature": temperature, "log_q": log_q, "known_positive": mask, "weight": weight}
    listed = shared | {
        "log_q": plain(log_q),
        "known_positive": plain(mask),
        "weight": plain(weight),
    }
    for own in ({}, {"include_positive": False}, {"focal_gamma": 0.5}):
        wanted = reference.sampled_softmax(*LISTS, **listed, **own)
        assert float(sampled_softmax(*VECTORS, **shared, **own)) == pytest.approx(wanted)
    for item in (None, ITEM):
        found = in_batch_softmax(QUERY, NEGATIVE, candidate_index=item, **shared)
        wanted = reference.in_batch_softmax(
            LISTS[0], LISTS[2], candidate_index=plain(item), **listed
        )
        assert float(found) == pytest.approx(wanted)


@masks
@log_qs
@weights
def test_variants_are_the_reference(
    reference: ModuleType, mask: Tensor | None, log_q: Tensor | None, weight: Tensor | None
) -> None:
    shared = {"temperature": 0.4, "log_q": log_q, "known_positive": mask, "weight": weight}
    listed = shared | {
        "log_q": plain(log_q),
        "known_positive": plain(mask),
        "weight": plain(weight),
    }
    for reduction in ("mean", "sum"):
        for users in (None, torch.tensor([4, 1, 4, 2, 1, 4])):
            own = {"negative_weight": 1.3, "reduction": reduction}
            found = bsl(*VECTORS, query_index=users, **own, **shared)
            wanted = reference.bsl(*LISTS, query_index=plain(users), **own, **listed)
            assert float(found) == pytest.approx(wanted)
    for sigma in PSL_SIGMAS:
        own = {"sigma": sigma, "inner_temperature": 3.0}
        wanted = reference.psl(*LISTS, **own, **listed)
        assert float(psl(*VECTORS, **own, **shared)) == pytest.approx(wanted, rel=1e-5)
    threshold = drawn(B, seed=6)
    own = {"threshold_temperature": 0.7}
    wanted = reference.sl_at_k(*LISTS, threshold=threshold.tolist(), **own, **listed)
    found = sl_at_k(*VECTORS, threshold=threshold, **own, **shared)
    assert float(found) == pytest.approx(wanted)


@pytest.mark.parametrize("sigma", PSL_SIGMAS)
def test_every_surrogate_has_its_slope(sigma: str) -> None:
    vectors = [value.clone().requires_grad_() for value in VECTORS]
    assert torch.autograd.gradcheck(lambda *v: psl(*v, sigma=sigma), vectors)


def test_bsl_of_unit_weight_is_the_softmax_loss() -> None:
    shared = {"temperature": 0.2, "log_q": LOG_Q, "known_positive": KNOWN, "weight": WEIGHT}
    softmax = float(sampled_softmax(*VECTORS, include_positive=False, **shared))
    assert float(bsl(*VECTORS, **shared)) == pytest.approx(softmax, abs=1e-12)
    # Users with one row each have nothing to share.
    alone = bsl(*VECTORS, query_index=torch.arange(B), **shared)
    assert float(alone) == pytest.approx(softmax, abs=1e-12)


def test_bsl_of_a_mean_has_the_gradient_of_a_sum() -> None:
    gradients = []
    for reduction in ("mean", "sum"):
        vectors = [value.clone().requires_grad_() for value in VECTORS]
        loss = bsl(*vectors, negative_weight=1.3, reduction=reduction)
        gradients.append(torch.autograd.grad(loss, vectors))
    for mean, total in zip(*gradients, strict=True):
        torch.testing.assert_close(mean, total)


@given(
    sizes=st.tuples(*(st.integers(1, 6) for _ in range(3))),
    temperature=st.floats(0.02, 2.0),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_psl_of_exp_is_the_softmax_loss(
    sizes: tuple[int, int, int], temperature: float, seed: int
) -> None:
    rows, negatives, dim = sizes
    vectors = drawn(rows, dim, seed=seed), drawn(rows, dim, seed=seed + 1)
    negative = drawn(negatives, dim, seed=seed + 2)
    found = psl(*vectors, negative, sigma="exp", temperature=temperature)
    wanted = sampled_softmax(
        *vectors, negative, temperature=2.0 * temperature, include_positive=False
    )
    assert float(found) == pytest.approx(float(wanted), rel=1e-6, abs=1e-6)


def test_psl_weighs_false_negatives_less_than_a_softmax() -> None:
    """A negative far above the positive: the slope of the relu stops growing, that of exp not."""
    query, candidate = torch.tensor([[1.0, 0.0]]), torch.tensor([[-0.8, 0.6]])
    negative = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    share = {}
    for sigma in ("exp", "relu", "tanh", "atan"):
        scored = negative.clone().requires_grad_()
        psl(query, candidate, scored, sigma=sigma, temperature=0.5).backward()
        assert scored.grad is not None
        share[sigma] = float(scored.grad[0, 0] / scored.grad[:, 0].sum())
    assert max(share["relu"], share["tanh"], share["atan"]) < share["exp"]


def test_psl_with_nothing_above_the_surrogates_end_is_flat() -> None:
    query = torch.tensor([[1.0]], requires_grad=True)
    loss = psl(query, torch.tensor([[9.0]]), torch.tensor([[-9.0]]))
    loss.backward()
    assert query.grad is not None
    assert float(query.grad) == 0.0


def test_sl_at_k_of_low_thresholds_is_the_softmax_loss() -> None:
    softmax = sampled_softmax(*VECTORS, include_positive=False, weight=WEIGHT)
    unknown = torch.full((B,), -torch.inf, dtype=torch.float64)
    query = QUERY.clone().requires_grad_()
    found = sl_at_k(query, CANDIDATE, NEGATIVE, threshold=unknown, weight=WEIGHT)
    assert float(found.detach()) == pytest.approx(float(softmax))
    found.backward()
    assert query.grad is not None
    assert bool(torch.isfinite(query.grad).all())


@masks
def test_thresholds_are_places_in_the_sorted_negatives(
    reference: ModuleType, mask: Tensor | None
) -> None:
    for k, num_items, place in (
        (3, None, 3),
        (20, 45, 4),
        (20, 60, 3),
        (20, 40_000, 1),
        (20, 15, C),
    ):
        found = top_k_threshold(QUERY, NEGATIVE, k=k, num_items=num_items, known_positive=mask)
        wanted = reference.top_k_threshold(LISTS[0], LISTS[2], place, plain(mask))
        assert found.tolist() == pytest.approx(wanted)
    assert not top_k_threshold(QUERY.clone().requires_grad_(), NEGATIVE, k=1).requires_grad


def test_the_threshold_estimates_the_catalogues_quantile() -> None:
    """Scores uniform on [0, 1]: the k-th best of N items stands near 1 - k / N."""
    item = torch.rand(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = top_k_threshold(torch.ones(1, 1, dtype=torch.float64), item, k=20, num_items=200)
    assert float(found) == pytest.approx(0.9, abs=4 * math.sqrt(0.1 * 0.9 / 500))


def test_focal_weights_by_hand() -> None:
    loss = torch.tensor([0.0, math.log(2), math.log(4), -0.3], requires_grad=True)
    assert focal_weight(loss, 2.0).tolist() == pytest.approx([0.0, 0.25, 0.5625, 0.0])
    assert not focal_weight(loss, 2.0).requires_grad
    assert focal_weight(loss, 0.0).tolist() == [1.0] * 4
    with_gamma_0 = sampled_softmax(*VECTORS, focal_gamma=0.0)
    assert float(with_gamma_0) == float(sampled_softmax(*VECTORS))


def test_one_negative_is_bpr() -> None:
    losses = softmax_losses(QUERY, CANDIDATE, NEGATIVE[:1])
    one = bpr((QUERY * CANDIDATE).sum(1), QUERY @ NEGATIVE[0])
    assert float(losses.mean()) == pytest.approx(float(one))


def test_in_batch_only_differences_of_log_q_matter() -> None:
    at, shifted = (float(in_batch_softmax(QUERY, NEGATIVE, log_q=q)) for q in (LOG_Q, LOG_Q + 3.0))
    assert at == pytest.approx(shifted)
    constant = float(in_batch_softmax(QUERY, NEGATIVE, log_q=torch.full((C,), -2.0)))
    assert constant == pytest.approx(float(in_batch_softmax(QUERY, NEGATIVE)))


def test_known_positives_of_the_batch_are_left_out_but_for_the_own_one() -> None:
    everything = torch.ones(B, C, dtype=torch.bool)
    assert float(in_batch_softmax(QUERY, NEGATIVE, known_positive=everything)) == 0.0
    kept = KNOWN.clone()
    in_batch_softmax(QUERY, NEGATIVE, known_positive=kept)
    assert torch.equal(kept, KNOWN)  # the mask is the caller's


def negative_side_error(batch: int, *, corrected: bool, rounds: int) -> float:
    """Relative distance of the averaged in-batch gradient from the full softmax's.

    50 items with N(0, 1) scores, drawn into batches with log-normal frequencies.
    """
    generator = torch.Generator().manual_seed(1)
    score = torch.randn(50, generator=generator)
    log_q = torch.log_softmax(torch.randn(50, generator=generator), 0)
    query = torch.ones(1, 1)
    total = torch.zeros(50)
    for _ in range(rounds):
        item = torch.multinomial(log_q.exp(), batch, replacement=True, generator=generator)
        candidate = score[item, None].requires_grad_()
        loss = in_batch_softmax(query, candidate, log_q=log_q[item] if corrected else None)
        (gradient,) = torch.autograd.grad(loss, candidate)
        gradient[0] += 1.0  # the positive's own pull
        total.index_add_(0, item, gradient[:, 0] / rounds)
    wanted = torch.softmax(score, 0)
    return float((total - wanted).norm() / wanted.norm())


def test_log_q_undoes_the_sampler() -> None:
    small = negative_side_error(256, corrected=True, rounds=2000)
    large = negative_side_error(1024, corrected=True, rounds=2000)
    assert small <= 0.08
    assert large <= 0.03
    assert large < 0.6 * small  # the bias of self-normalising falls with the batch
    assert negative_side_error(1024, corrected=False, rounds=100) > 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sampled_softmax(*VECTORS, temperature=0.0), ValueError, "temperature must be > 0"),
        (lambda: sampled_softmax(*VECTORS, log_q=LOG_Q[:2]), ValueError, "log_q must have shape"),
        (lambda: sampled_softmax(*VECTORS, focal_gamma=-1.0), ValueError, "gamma must be >= 0"),
        (lambda: in_batch_softmax(QUERY, QUERY[:2]), ValueError, "C >= B"),
        (lambda: in_batch_softmax(QUERY, QUERY, temperature=-1.0), ValueError, "temperature must"),
        (lambda: in_batch_softmax(QUERY, QUERY, log_q=LOG_Q), ValueError, "log_q must have shape"),
        (
            lambda: in_batch_softmax(QUERY, QUERY, candidate_index=ITEM),
            ValueError,
            "candidate_index must have shape",
        ),
        (
            lambda: in_batch_softmax(QUERY, QUERY, known_positive=KNOWN),
            ValueError,
            "known_positive must have shape",
        ),
        (lambda: bsl(*VECTORS, temperature=0.0), ValueError, "temperature must be > 0"),
        (lambda: bsl(*VECTORS, negative_weight=0.0), ValueError, "negative_weight must be > 0"),
        (lambda: bsl(*VECTORS, reduction="max"), ValueError, "reduction must be 'mean' or 'sum'"),
        (lambda: bsl(*VECTORS, query_index=ITEM), ValueError, "query_index must have shape"),
        (lambda: psl(*VECTORS, sigma="softplus"), ConfigError, "unknown sigma 'softplus'"),
        (lambda: psl(*VECTORS, inner_temperature=0.0), ValueError, "inner_temperature must be > 0"),
        (lambda: psl(*VECTORS, log_q=LOG_Q[:2]), ValueError, "log_q must have shape"),
        (lambda: sl_at_k(*VECTORS, threshold=WEIGHT[:2]), ValueError, "threshold must have shape"),
        (
            lambda: sl_at_k(*VECTORS, threshold=WEIGHT, threshold_temperature=0.0),
            ValueError,
            "threshold_temperature must be > 0",
        ),
        (lambda: top_k_threshold(QUERY, NEGATIVE, k=C + 1), ValueError, "pass num_items"),
        (lambda: top_k_threshold(QUERY, NEGATIVE, k=0, num_items=9), ValueError, "k must be >= 1"),
        (lambda: top_k_threshold(QUERY, NEGATIVE[:, :2], k=1), ValueError, "negative must be"),
    ],
)
def test_wrong_arguments_are_named(
    call: Callable[[], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
