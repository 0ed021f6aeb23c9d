from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.retrieval.losses import softmax_losses
from recsys.retrieval.sampling.hard_negatives import (
    HardNegatives,
    hard_softmax_losses,
    mine_hard_negatives,
    suspected_positives,
)
from recsys.retrieval.sampling.negatives import KnownPositives

B, C, H, D = 5, 7, 3, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


QUERY, CANDIDATE, NEGATIVE, HARD = (
    drawn(B, D),
    drawn(B, D, seed=1),
    drawn(C, D, seed=2),
    drawn(B, H, D, seed=3),
)
LOG_Q = drawn(C, seed=4)
KNOWN, LEFT_OUT = drawn(B, C, seed=5) > 0.5, drawn(B, H, seed=6) > 0.5
KNOWN[1], LEFT_OUT[1] = True, True  # a query without any negative
LEFT_OUT[2] = True


def world(
    num_users: int = 23, num_items: int = 60
) -> tuple[np.ndarray, np.ndarray, KnownPositives]:
    rng = np.random.default_rng(0)
    query = rng.normal(size=(num_users, 6)).astype(np.float32)
    item = rng.normal(size=(num_items + 1, 6)).astype(np.float32)
    item[0] = 100.0  # the padding must not be mined, whatever it holds
    counts = rng.integers(0, 20, size=num_users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    known = rng.integers(1, num_items + 1, size=int(indptr[-1]))
    return query, item, KnownPositives(indptr, known, num_items)


@pytest.mark.parametrize(("skip", "pool"), [(0, 10), (4, 20), (5, 80)])
def test_mined_items_are_the_ranks_asked_for(skip: int, pool: int) -> None:
    query, item, known = world()
    mined = mine_hard_negatives(query, item, known, skip=skip, pool=pool)
    assert mined.dtype == np.int32
    assert mined.shape == (len(query), pool - skip)
    for row, vector in enumerate(query):
        everything = torch.arange(1, len(item))
        unknown = everything[~known.contains(torch.full_like(everything, row), everything)]
        score = item[unknown.numpy()] @ vector
        ranked = unknown.numpy()[np.argsort(-score, kind="stable")][skip:pool]
        wanted = np.zeros(pool - skip, dtype=np.int64)
        wanted[: len(ranked)] = ranked
        np.testing.assert_array_equal(mined[row], wanted)


def test_blocks_change_nothing() -> None:
    query, item, known = world(num_users=9, num_items=200_000)
    whole = mine_hard_negatives(query, item, known, skip=2, pool=12, memory_mb=64)
    np.testing.assert_array_equal(
        whole, mine_hard_negatives(query, item, known, skip=2, pool=12, memory_mb=2)
    )


def test_mining_refuses() -> None:
    query, item, known = world()
    with pytest.raises(ValueError, match="skip must be >= 0"):
        mine_hard_negatives(query, item, known, skip=-1)
    with pytest.raises(ValueError, match="pool must be > skip = 7, got 7"):
        mine_hard_negatives(query, item, known, skip=7, pool=7)
    with pytest.raises(ValueError, match="memory_mb must be >= 1"):
        mine_hard_negatives(query, item, known, memory_mb=0)
    with pytest.raises(ValueError, match=r"query_vectors must be \[U, 6\]"):
        mine_hard_negatives(query[:, :5], item, known)
    with pytest.raises(ValueError, match="item_vectors must have one row an item"):
        mine_hard_negatives(query, item[:-1], known)


def test_draws_are_even_over_the_pool() -> None:
    pool = np.array([[9, 4, 7, 2, 0], [0, 0, 0, 0, 0], [3, 8, 0, 0, 0]], dtype=np.int32)
    hard = HardNegatives(pool)
    assert hard.counts.tolist() == [4, 0, 2]
    repeats = 3_000
    found = hard.draw(torch.zeros(repeats, dtype=torch.int64), 3, generator=generator())
    assert found.shape == (repeats, 3)
    assert all(len(set(row)) == 3 for row in found.tolist())
    share = np.bincount(found.flatten().numpy(), minlength=10)[[9, 4, 7, 2]] / repeats
    np.testing.assert_allclose(share, 0.75, atol=4 * math.sqrt(0.75 * 0.25 / repeats))
    mixed = hard.draw(torch.tensor([1, 2, 2]), 3, generator=generator())
    assert mixed[0].tolist() == [0, 0, 0]
    assert set(mixed[1:].flatten().tolist()) == {3, 8}
    again = hard.draw(torch.tensor([1, 2, 2]), 3, generator=generator())
    assert torch.equal(mixed, again)


def test_holder_refuses() -> None:
    with pytest.raises(ValueError, match=r"\[U, W\] with W >= 1"):
        HardNegatives(np.zeros((3, 0), dtype=np.int32))
    with pytest.raises(ValueError, match="zeros of a row behind its items"):
        HardNegatives(np.array([[0, 3]], dtype=np.int32))
    with pytest.raises(ValueError, match="size must be >= 1"):
        HardNegatives(np.ones((1, 1), dtype=np.int32)).draw(
            torch.tensor([0]), 0, generator=generator()
        )


@pytest.mark.parametrize("known", [None, KNOWN])
@pytest.mark.parametrize("left_out", [None, LEFT_OUT])
@pytest.mark.parametrize("log_q", [None, LOG_Q])
@pytest.mark.parametrize(("temperature", "hard_weight"), [(1.0, 1.0), (0.3, 4.0), (0.3, 0.0)])
def test_the_loss_is_the_plain_loop(
    reference: ModuleType,
    known: Tensor | None,
    left_out: Tensor | None,
    log_q: Tensor | None,
    temperature: float,
    hard_weight: float,
) -> None:
    found = hard_softmax_losses(
        QUERY,
        CANDIDATE,
        NEGATIVE,
        HARD,
        temperature=temperature,
        hard_weight=hard_weight,
        log_q=log_q,
        known_positive=known,
        left_out=left_out,
    )
    for row in range(B):
        query = QUERY[row].tolist()
        positive = math.exp(reference.dot(query, CANDIDATE[row].tolist()) / temperature)
        total = positive
        for count, vector in reference.kept_negatives(
            NEGATIVE.tolist(),
            None if log_q is None else log_q.tolist(),
            None if known is None else known.tolist(),
            row,
        ):
            total += count * math.exp(reference.dot(query, vector) / temperature)
        for place in range(H):
            if left_out is None or not left_out[row, place]:
                logit = reference.dot(query, HARD[row, place].tolist()) / temperature
                total += hard_weight * math.exp(logit)
        assert float(found[row]) == pytest.approx(math.log(total / positive), abs=1e-12)


@pytest.mark.parametrize("hard_weight", [0.0, 2.0])
def test_the_loss_has_its_slope(hard_weight: float) -> None:
    vectors = [value.clone().requires_grad_() for value in (QUERY, CANDIDATE, NEGATIVE, HARD)]

    def loss(*v: Tensor) -> Tensor:
        return hard_softmax_losses(
            *v,
            temperature=0.5,
            hard_weight=hard_weight,
            log_q=LOG_Q,
            known_positive=KNOWN,
            left_out=LEFT_OUT,
        )

    assert torch.autograd.gradcheck(loss, vectors)


def test_no_weight_and_nothing_left_are_the_sampled_softmax() -> None:
    plain = softmax_losses(QUERY, CANDIDATE, NEGATIVE, temperature=0.2, log_q=LOG_Q)
    vectors = (QUERY, CANDIDATE, NEGATIVE, HARD)
    shared = {"temperature": 0.2, "log_q": LOG_Q}
    torch.testing.assert_close(hard_softmax_losses(*vectors, hard_weight=0.0, **shared), plain)
    nothing = torch.ones(B, H, dtype=torch.bool)
    torch.testing.assert_close(hard_softmax_losses(*vectors, left_out=nothing, **shared), plain)


def test_zero_vectors_count_the_negatives() -> None:
    zeros = [torch.zeros_like(value) for value in (QUERY, CANDIDATE, NEGATIVE, HARD)]
    found = hard_softmax_losses(*zeros, hard_weight=2.5)
    torch.testing.assert_close(found, torch.full_like(found, math.log(1 + C + 2.5 * H)))


def test_shared_items_given_as_hard_ones_are_the_same_softmax() -> None:
    """What is hard for everybody alike may as well be shared."""
    first, rest = NEGATIVE[:H], NEGATIVE[H:]
    found = hard_softmax_losses(QUERY, CANDIDATE, rest, first.expand(B, H, D), temperature=0.4)
    wanted = softmax_losses(QUERY, CANDIDATE, NEGATIVE, temperature=0.4)
    torch.testing.assert_close(found, wanted)


def test_the_loss_refuses() -> None:
    with pytest.raises(ValueError, match=r"hard must be \[5, H, 4\]"):
        hard_softmax_losses(QUERY, CANDIDATE, NEGATIVE, HARD[:-1])
    with pytest.raises(ValueError, match="H >= 1"):
        hard_softmax_losses(QUERY, CANDIDATE, NEGATIVE, HARD[:, :0])
    with pytest.raises(ValueError, match=r"left_out must have shape \(5, 3\)"):
        hard_softmax_losses(QUERY, CANDIDATE, NEGATIVE, HARD, left_out=LEFT_OUT[:-1])
    with pytest.raises(ValueError, match="hard_weight must be >= 0"):
        hard_softmax_losses(QUERY, CANDIDATE, NEGATIVE, HARD, hard_weight=-1.0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        hard_softmax_losses(QUERY, CANDIDATE, NEGATIVE, HARD, temperature=0.0)


def test_hard_negatives_near_the_positive_are_suspected() -> None:
    positive = torch.tensor([1.0, -1.0])
    hard = torch.tensor([[0.94, 0.96, 1.2, -3.0], [-1.06, -1.04, -0.5, 2.0]])
    by_share = suspected_positives(positive, hard)
    assert by_share.tolist() == [[False, True, True, False], [False, True, True, True]]
    by_gap = suspected_positives(positive, hard, share=1.0, gap=0.3)
    assert by_gap.tolist() == [[True, True, True, False], [True, True, True, True]]
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        suspected_positives(positive, hard, share=0.0)
    with pytest.raises(ValueError, match="gap must be >= 0"):
        suspected_positives(positive, hard, gap=-0.1)
    with pytest.raises(ValueError, match=r"positive_score \[B\]"):
        suspected_positives(positive[:1], hard)


def planted_world() -> tuple[Tensor, Tensor, KnownPositives, Tensor]:
    """100 users who like the 10 items of one of 20 groups, and have met 7 of them.

    Returns user vectors [100, 24], item vectors [201, 24], what they met, and the [100, 3] items
    they will like next.
    """
    rng = np.random.default_rng(0)
    liked = np.stack([1 + 10 * (user % 20) + rng.permutation(10) for user in range(100)])
    item = 0.2 * torch.randn(201, 24, generator=generator(1))
    item[1:] += torch.eye(24)[torch.arange(200) // 10]
    item[0] = 0.0
    user = item[torch.from_numpy(liked[:, :7])].mean(dim=1)
    known = KnownPositives(np.arange(0, 701, 7), liked[:, :7].ravel(), 200)
    return user, item, known, torch.from_numpy(liked[:, 7:])


def hits(mined: np.ndarray, future: Tensor) -> Tensor:
    """[U, W] bool: which mined items are among the user's ``future`` ones."""
    return (torch.from_numpy(mined)[:, :, None] == future[:, None, :]).any(dim=2)


def test_the_best_ranks_are_the_positives_to_come() -> None:
    user, item, known, future = planted_world()
    found = hits(mine_hard_negatives(user.numpy(), item.numpy(), known, skip=0, pool=150), future)
    assert float(found[:, :3].float().mean()) > 0.9
    assert float(found[:, 6:].float().mean()) < 0.01


def tuned_recall(*, skip: int = 0, pool: int = 4, hard_weight: float = 4.0) -> float:
    """Share of the items to come in the users' top 3, once users were tuned to frozen items."""
    user, item, known, future = planted_world()
    hard = HardNegatives(
        mine_hard_negatives(user.numpy(), item.numpy(), known, skip=skip, pool=pool)
    )
    everybody, rng = torch.arange(100), generator()
    met = known.mask(everybody, torch.arange(201)).float()
    query = user.clone().requires_grad_()
    adam = torch.optim.Adam([query], lr=0.05)
    for _ in range(30):
        positive = item[torch.multinomial(met, 1, generator=rng)[:, 0]]
        negative = torch.randint(1, 201, (32,), generator=rng)
        loss = hard_softmax_losses(
            query,
            positive,
            item[negative],
            item[hard.draw(everybody, 4, generator=rng)],
            temperature=0.3,
            hard_weight=hard_weight,
            known_positive=known.mask(everybody, negative),
        ).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    best = mine_hard_negatives(query.detach().numpy(), item.numpy(), known, skip=0, pool=3)
    return float(hits(best, future).float().mean())


def test_a_narrow_pool_costs_recall_and_a_wide_one_does_not() -> None:
    """Why there is a guard at all: against the same tuning without hard negatives."""
    without = tuned_recall(hard_weight=0.0)
    assert without > 0.7
    assert tuned_recall(pool=4) < 0.5 * without
    assert tuned_recall(pool=150) > 0.97 * without
    assert tuned_recall(skip=6, pool=150) > 0.97 * without
