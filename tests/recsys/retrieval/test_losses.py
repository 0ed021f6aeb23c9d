"""Every loss against plain loops, by hand, by its gradient and by what must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from recsys.retrieval.losses import (
    LOSSES,
    bpr,
    directau,
    in_batch_softmax,
    sampled_softmax,
    softmax_losses,
    uniformity,
    weighted_mean,
)
from recsys.retrieval.objectives import OBJECTIVES

B, C, D = 6, 9, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


QUERY, CANDIDATE, NEGATIVE = drawn(B, D), drawn(B, D, seed=1), drawn(C, D, seed=2)
WEIGHT = drawn(B, seed=3).abs()
LOG_Q = drawn(C, seed=4)
KNOWN = drawn(B, C, seed=5) > 0.5
ITEM = torch.tensor([3, 1, 3, 2, 1, 5, 3, 8, 9])

CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bpr": lambda q, c, n: bpr((q * c).sum(1), (q * n[:B]).sum(1), weight=WEIGHT),
    "directau": lambda q, c, n: directau(q, c, gamma=0.7, weight=WEIGHT),
    "sampled_softmax": lambda q, c, n: sampled_softmax(
        q, c, n, temperature=0.5, log_q=LOG_Q, known_positive=KNOWN, weight=WEIGHT
    ),
    "in_batch_softmax": lambda q, c, n: in_batch_softmax(
        q,
        torch.cat([c, n[B:]]),
        temperature=0.5,
        log_q=LOG_Q,
        candidate_index=ITEM,
        known_positive=KNOWN,
        weight=WEIGHT,
    ),
}


def test_every_loss_has_a_way_to_be_fed() -> None:
    assert set(LOSSES) == set(OBJECTIVES) == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_gradient_is_the_slope(name: str) -> None:
    vectors = [v.clone().requires_grad_() for v in (QUERY, CANDIDATE, NEGATIVE)]
    assert torch.autograd.gradcheck(CALLS[name], vectors)


@pytest.mark.parametrize("weighted", [False, True])
def test_bpr_is_the_reference(reference: ModuleType, weighted: bool) -> None:
    weight = WEIGHT if weighted else None
    wanted = reference.bpr(
        QUERY[:, 0].tolist(), CANDIDATE[:, 0].tolist(), weight.tolist() if weighted else None
    )
    assert float(bpr(QUERY[:, 0], CANDIDATE[:, 0], weight=weight)) == pytest.approx(wanted)


@pytest.mark.parametrize("mask", [None, KNOWN])
@pytest.mark.parametrize("log_q", [None, LOG_Q])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_softmaxes_are_the_reference(
    reference: ModuleType,
    mask: Tensor | None,
    log_q: Tensor | None,
    weight: Tensor | None,
    temperature: float,
) -> None:
    def plain(value: Tensor | None) -> object:
        return None if value is None else value.tolist()

    shared = {"temperature": temperature, "log_q": log_q, "known_positive": mask, "weight": weight}
    listed = {
        "temperature": temperature,
        "log_q": plain(log_q),
        "known_positive": plain(mask),
        "weight": plain(weight),
    }
    wanted = reference.sampled_softmax(
        QUERY.tolist(), CANDIDATE.tolist(), NEGATIVE.tolist(), **listed
    )
    assert float(sampled_softmax(QUERY, CANDIDATE, NEGATIVE, **shared)) == pytest.approx(wanted)
    for item in (None, ITEM):
        found = in_batch_softmax(QUERY, NEGATIVE, candidate_index=item, **shared)
        wanted = reference.in_batch_softmax(
            QUERY.tolist(), NEGATIVE.tolist(), candidate_index=plain(item), **listed
        )
        assert float(found) == pytest.approx(wanted)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_directau_is_the_reference(
    reference: ModuleType, gamma: float, weight: Tensor | None
) -> None:
    wanted = reference.directau(
        QUERY.tolist(), CANDIDATE.tolist(), gamma, None if weight is None else weight.tolist()
    )
    assert float(directau(QUERY, CANDIDATE, gamma=gamma, weight=weight)) == pytest.approx(wanted)


def test_numbers_worked_out_by_hand() -> None:
    zero = torch.zeros(3, 2)
    assert float(bpr(zero[:, 0], zero[:, 0])) == pytest.approx(math.log(2))
    assert float(sampled_softmax(zero, zero, torch.zeros(7, 2))) == pytest.approx(math.log(8))
    assert float(in_batch_softmax(zero, torch.zeros(5, 2))) == pytest.approx(math.log(5))
    # Two orthogonal directions: distance^2 = 2, so exp(-2 * 2).
    assert float(uniformity(torch.eye(2))) == pytest.approx(-4.0)
    assert float(uniformity(torch.eye(2), t=1.0)) == pytest.approx(-2.0)
    assert float(uniformity(torch.ones(4, 3))) == pytest.approx(0.0, abs=1e-6)
    # Aligned pairs, orthogonal to each other: 0 + gamma * (-4 - 4) / 2.
    assert float(directau(torch.eye(2), torch.eye(2), gamma=0.5)) == pytest.approx(-2.0)
    assert float(weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))) == 2.0
    assert float(weighted_mean(torch.tensor([1.0, 5.0]), torch.zeros(2))) == 0.0


def test_isotropic_vectors_have_the_known_uniformity() -> None:
    vectors = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert float(uniformity(vectors)) == pytest.approx(-3.875, abs=0.01)


@pytest.mark.parametrize("name", ["bpr", "directau", "sampled_softmax"])
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    negative = NEGATIVE.clone()
    plain = {
        "bpr": lambda q, c, n: bpr((q * c).sum(1), (q * n[:B]).sum(1)),
        "directau": lambda q, c, n: directau(q, c, gamma=1.0),
        "sampled_softmax": lambda q, c, n: sampled_softmax(q, c, n),
    }[name]
    shuffled = torch.cat([negative[:B][order], negative[B:]])
    before, after = (
        plain(QUERY, CANDIDATE, negative),
        plain(QUERY[order], CANDIDATE[order], shuffled),
    )
    assert float(before) == pytest.approx(float(after))


def test_order_of_the_batch_does_not_matter_in_batch() -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    before = in_batch_softmax(QUERY, CANDIDATE, log_q=LOG_Q[:B])
    after = in_batch_softmax(QUERY[order], CANDIDATE[order], log_q=LOG_Q[:B][order])
    assert float(before) == pytest.approx(float(after))


def test_masked_negatives_and_zero_weights_are_padding() -> None:
    padded = torch.cat([NEGATIVE, 50 * torch.ones(2, D, dtype=torch.float64)])
    mask = torch.zeros(B, C + 2, dtype=torch.bool)
    mask[:, C:] = True
    plain = sampled_softmax(QUERY, CANDIDATE, NEGATIVE)
    assert float(sampled_softmax(QUERY, CANDIDATE, padded, known_positive=mask)) == pytest.approx(
        float(plain)
    )
    more = torch.cat([QUERY, QUERY[:1]]), torch.cat([CANDIDATE, CANDIDATE[1:2]])
    weight = torch.tensor([1.0] * B + [0.0])
    assert float(sampled_softmax(*more, NEGATIVE, weight=weight)) == pytest.approx(float(plain))


def test_only_differences_of_log_q_matter() -> None:
    for loss, candidate in ((sampled_softmax, None), (in_batch_softmax, NEGATIVE)):
        extra = (CANDIDATE, NEGATIVE) if candidate is None else (candidate,)
        at, shifted = (float(loss(QUERY, *extra, log_q=q)) for q in (LOG_Q, LOG_Q + 3.0))
        assert at == pytest.approx(shifted)
        constant = float(loss(QUERY, *extra, log_q=torch.full((C,), -2.0)))
        assert constant == pytest.approx(float(loss(QUERY, *extra)))


def test_one_negative_is_bpr() -> None:
    losses = softmax_losses(QUERY, CANDIDATE, NEGATIVE[:1])
    one = bpr((QUERY * CANDIDATE).sum(1), QUERY @ NEGATIVE[0])
    assert float(losses.mean()) == pytest.approx(float(one))


def negative_side_error(batch: int, *, corrected: bool) -> float:
    """Relative distance of the averaged in-batch gradient from the full softmax's."""
    generator = torch.Generator().manual_seed(0)
    num_items, rounds = 50, 400
    share = 1 / torch.arange(1.0, num_items + 1)
    share = share / share.sum()
    score = torch.randn(num_items, generator=generator)
    wanted = torch.softmax(score, 0)
    total = torch.zeros(num_items)
    for _ in range(rounds):
        item = torch.multinomial(share, batch, replacement=True, generator=generator)
        logit = score[item] - (share.log()[item] if corrected else 0.0)
        total.index_add_(0, item, torch.softmax(logit, 0) / rounds)
    return float((total - wanted).norm() / wanted.norm())


def test_log_q_undoes_the_sampler() -> None:
    small, large = (negative_side_error(batch, corrected=True) for batch in (256, 1024))
    assert large < 0.05
    assert large < 0.6 * small  # the bias of self-normalising falls with the batch
    assert negative_side_error(1024, corrected=False) > 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bpr(QUERY[:, 0], QUERY[:2, 0]), "negative_score must have the shape"),
        (lambda: sampled_softmax(QUERY, QUERY[:2], NEGATIVE), "must both be"),
        (lambda: sampled_softmax(QUERY, QUERY, NEGATIVE[:, :2]), "negative must be"),
        (lambda: sampled_softmax(QUERY, QUERY, NEGATIVE, temperature=0.0), "temperature must be"),
        (lambda: sampled_softmax(QUERY, QUERY, NEGATIVE, log_q=LOG_Q[:2]), "log_q must have"),
        (
            lambda: sampled_softmax(QUERY, QUERY, NEGATIVE, known_positive=KNOWN[:2]),
            "known_positive must have",
        ),
        (lambda: in_batch_softmax(QUERY, QUERY[:2]), "C >= B"),
        (lambda: in_batch_softmax(QUERY, QUERY, candidate_index=ITEM), "candidate_index must"),
        (lambda: directau(QUERY, CANDIDATE, gamma=-1.0), "gamma must be"),
        (lambda: directau(QUERY[:1], CANDIDATE[:1], gamma=1.0), "B >= 2"),
        (lambda: weighted_mean(WEIGHT, WEIGHT[:2]), "weight must have"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
