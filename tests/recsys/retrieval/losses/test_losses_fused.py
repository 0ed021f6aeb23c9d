"""The one-pass losses equal the plain ones, value and gradient, block boundaries included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys.retrieval.losses import bsl, fused, sampled_softmax
from recsys.retrieval.losses.fused import fused_softmax, fused_uniformity


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


@pytest.fixture(params=[2**18, 100], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(fused, "_BLOCK_ENTRIES", request.param)
    monkeypatch.setattr(fused, "_PAIR_ROWS", 64 if request.param > 100 else 10)
    return int(request.param)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("variant", ["softmax", "bsl"])
def test_equals_the_plain_loss(
    blocks: int, masked: bool, corrected: bool, weighted: bool, variant: str
) -> None:
    query, candidate, negative = drawn(37, 5, seed=1), drawn(37, 5, seed=2), drawn(11, 5, seed=3)
    generator = torch.Generator().manual_seed(4)
    mask = torch.rand(37, 11, generator=generator) < 0.3
    mask[5] = True  # a query with no negative left
    mask[36] = True
    log_q = torch.rand(11, generator=generator, dtype=torch.float64).log()
    weight = torch.rand(37, generator=generator, dtype=torch.float64)
    shared = {
        "temperature": 0.7,
        "log_q": log_q if corrected else None,
        "weight": weight if weighted else None,
    }
    known_positive = mask if masked else None
    line, column = mask.nonzero(as_tuple=True)
    known = (line, column) if masked else None
    if variant == "softmax":
        plain = sampled_softmax(query, candidate, negative, known_positive=known_positive, **shared)
        ours = fused_softmax(query, candidate, negative, known=known, **shared)
    else:
        plain = bsl(
            query,
            candidate,
            negative,
            negative_weight=1.3,
            known_positive=known_positive,
            **shared,
        )
        ours = fused_softmax(
            query,
            candidate,
            negative,
            known=known,
            include_positive=False,
            negative_weight=1.3,
            **shared,
        )
    torch.testing.assert_close(ours, plain)
    leaves = (query, candidate, negative)
    for got, wanted in zip(
        gradients(3.0 * ours, *leaves), gradients(3.0 * plain, *leaves), strict=True
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("include_positive", [True, False])
def test_candidates_of_one_query_share_its_logits(blocks: int, include_positive: bool) -> None:
    """Giving a query once equals repeating it for each of its candidates."""
    query, candidate, negative = drawn(20, 5, seed=1), drawn(37, 5, seed=2), drawn(11, 5, seed=3)
    generator = torch.Generator().manual_seed(4)
    query_of = torch.sort(torch.randint(20, (37,), generator=generator)).values
    weight = torch.rand(37, generator=generator, dtype=torch.float64)
    mask = torch.rand(20, 11, generator=generator) < 0.3
    mask[query_of[3]] = True
    shared = {"temperature": 0.7, "include_positive": include_positive, "weight": weight}
    line, column = mask.nonzero(as_tuple=True)
    once = fused_softmax(
        query, candidate, negative, known=(line, column), query_of=query_of, **shared
    )
    line, column = mask[query_of].nonzero(as_tuple=True)
    repeated = fused_softmax(query[query_of], candidate, negative, known=(line, column), **shared)
    torch.testing.assert_close(once, repeated)
    leaves = (query, candidate, negative)
    for got, wanted in zip(gradients(once, *leaves), gradients(repeated, *leaves), strict=True):
        torch.testing.assert_close(got, wanted)


def test_uniformity_equals_the_mean_over_pairs(blocks: int) -> None:
    rows = drawn(37, 5, seed=1)
    unit = torch.nn.functional.normalize(rows.detach(), dim=1).requires_grad_()
    weight = torch.rand(37, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one, other = torch.triu_indices(37, 37, offset=1)
    near = torch.exp(3.0 * (unit[one] * unit[other]).sum(dim=1) - 3.0)
    for given in (None, weight):
        share = torch.ones(len(one)) if given is None else given[one] * given[other]
        plain = torch.log((near * share).sum() / share.sum())
        ours = fused_uniformity(unit, t=1.5, weight=given)
        torch.testing.assert_close(ours, plain)
        got, wanted = gradients(ours, unit), torch.autograd.grad(plain, unit, retain_graph=True)
        torch.testing.assert_close(got[0], wanted[0])


@pytest.mark.parametrize("include_positive", [True, False])
def test_gradients_are_those_of_finite_differences(include_positive: bool) -> None:
    inputs = (drawn(6, 4, seed=1), drawn(6, 4, seed=2), drawn(5, 4, seed=3))

    def loss(*given: Tensor) -> Tensor:
        return fused_softmax(*given, temperature=0.5, include_positive=include_positive)

    assert torch.autograd.gradcheck(loss, inputs)
    check: Callable[[Tensor], Tensor] = fused_uniformity
    assert torch.autograd.gradcheck(check, (drawn(6, 4, seed=1),))


def test_low_precision_stays_close() -> None:
    query, candidate, negative = (
        torch.nn.functional.normalize(drawn(rows, 64, seed=rows).detach().float(), dim=1)
        for rows in (64, 64, 128)
    )
    query.requires_grad_()
    exact = fused_softmax(query, candidate, negative, temperature=0.1)
    rough = fused_softmax(query, candidate, negative, temperature=0.1, low_precision=True)
    assert abs(rough.item() - exact.item()) < 0.01 * exact.item()
    (wanted,), (got,) = gradients(exact, query), gradients(rough, query)
    assert (got - wanted).norm().item() < 0.03 * wanted.norm().item()
    exact, rough = fused_uniformity(query), fused_uniformity(query, low_precision=True)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    (wanted,), (got,) = gradients(exact, query), gradients(rough, query)
    assert 0 < (got - wanted).norm().item() < 0.01 * wanted.norm().item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"negative_weight": 0.0}, "negative_weight must be > 0"),
        ({"negative_weight": 2.0}, "negative_weight must be 1 with include_positive"),
        ({"weight": torch.ones(3)}, "weight must have shape"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], message: str) -> None:
    query, negative = torch.ones(4, 2), torch.ones(3, 2)
    with pytest.raises(ValueError, match=message):
        fused_softmax(query, query, negative, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unit must be"):
        fused_uniformity(torch.ones(1, 2))
