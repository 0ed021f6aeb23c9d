from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.retrieval.losses import softmax_losses
from recsys.retrieval.sampling.frequency import counted_log_q
from recsys.retrieval.sampling.negative_queue import NegativeQueue, merge_repeats, mixed_negatives
from recsys.retrieval.sampling.negatives import NegativeSampler

NUM_ITEMS = 40
COUNTS = np.concatenate([[0], np.round(2000 / np.arange(1, NUM_ITEMS + 1))]).astype(np.int64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    capacity=st.integers(1, 7),
    batches=st.lists(st.lists(st.integers(1, 9), max_size=9), max_size=6),
)
def test_the_queue_is_a_queue(capacity: int, batches: list[list[int]]) -> None:
    queue, wanted = NegativeQueue(capacity), deque[int](maxlen=capacity)
    for batch in batches:
        queue.push(torch.tensor(batch, dtype=torch.int64))
        wanted.extend(batch)
        assert queue.items().tolist() == list(wanted)
        assert len(queue) == len(wanted)


def test_what_is_pushed_later_does_not_change_what_was_given() -> None:
    queue = NegativeQueue(2)
    queue.push(torch.tensor([1, 2]))
    before = queue.items()
    queue.push(torch.tensor([3]))
    assert before.tolist() == [1, 2]


def test_the_queue_refuses() -> None:
    with pytest.raises(ValueError, match="capacity must be >= 1"):
        NegativeQueue(0)
    queue = NegativeQueue(2)
    with pytest.raises(ValueError, match=r"got shape \(2,\) from 0 on"):
        queue.push(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"must be \[B\] and >= 1, got shape \(1, 2\)"):
        queue.push(torch.tensor([[1, 2]]))


def test_repeats_are_counted_once_each() -> None:
    log_q = torch.tensor([-math.inf, -1.0, -2.0, -3.0])
    item, merged = merge_repeats(torch.tensor([3, 1, 3, 3]), log_q)
    assert item.tolist() == [1, 3]
    torch.testing.assert_close(merged, torch.tensor([-1.0, -3.0 - math.log(3)]))


def test_a_mixture_has_the_mean_of_both_probabilities() -> None:
    sampler = NegativeSampler(COUNTS)
    popular = counted_log_q(COUNTS)
    drawn, recent = torch.tensor([5, 9, 5]), torch.tensor([1, 5, 2, 1, 1])
    item, log_q = mixed_negatives(drawn, sampler.log_q, recent, popular)
    count = Counter(drawn.tolist() + recent.tolist())
    assert item.tolist() == sorted(count)
    for index, found in zip(item.tolist(), log_q.tolist(), strict=True):
        share = COUNTS[index] / COUNTS.sum()
        q = 3 / 8 / NUM_ITEMS + 5 / 8 * share
        assert found == pytest.approx(math.log(q / count[index]), rel=1e-5)


def test_a_mixture_of_one_source_is_that_source() -> None:
    log_q = counted_log_q(COUNTS)
    drawn = torch.tensor([4, 4, 30])
    nothing = torch.zeros(0, dtype=torch.int64)
    item, found = mixed_negatives(drawn, log_q, nothing, NegativeSampler(COUNTS).log_q)
    wanted_item, wanted = merge_repeats(drawn, log_q)
    assert torch.equal(item, wanted_item)
    torch.testing.assert_close(found, wanted)


def test_a_mixture_refuses() -> None:
    log_q = counted_log_q(COUNTS)
    with pytest.raises(ValueError, match="drawn must hold at least one item"):
        mixed_negatives(torch.zeros(0, dtype=torch.int64), log_q, torch.tensor([1]), log_q)
    with pytest.raises(ValueError, match="recent_log_q must have shape"):
        mixed_negatives(torch.tensor([1]), log_q, torch.tensor([1]), log_q[1:])


Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def uniform(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    sampler = NegativeSampler(COUNTS)
    return merge_repeats(sampler.sample(256, generator=rng), sampler.log_q)


def popularity(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    sampler = NegativeSampler(COUNTS, power=0.75)
    return merge_repeats(sampler.sample(256, generator=rng), sampler.log_q)


def queue(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positives of four batches, in the random order of an epoch's events."""
    events = torch.from_numpy(np.repeat(np.arange(NUM_ITEMS + 1), COUNTS))
    order = torch.randperm(len(events), generator=rng)
    recent = NegativeQueue(256)
    for batch in torch.split(events[order[:400]], 100):
        recent.push(batch)
    return merge_repeats(recent.items(), counted_log_q(COUNTS))


def mixed(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    sampler, popular = NegativeSampler(COUNTS), NegativeSampler(COUNTS, power=1.0)
    return mixed_negatives(
        sampler.sample(128, generator=rng),
        sampler.log_q,
        popular.sample(128, generator=rng),
        popular.log_q,
    )


# The more popular an item, the higher its score.
SCORE = torch.randn(NUM_ITEMS + 1, dtype=torch.float64, generator=generator(9))
SCORE = SCORE.sort(descending=True).values
REPEATS = 1_500


@pytest.mark.parametrize("draw", [uniform, popularity, queue, mixed])
def test_the_partition_of_the_full_softmax_is_estimated_without_bias(draw: Draw) -> None:
    rng = generator()
    whole = float(SCORE[1:].exp().sum())
    found = np.empty(REPEATS)
    for repeat in range(REPEATS):
        item, log_q = draw(rng)
        found[repeat] = float((SCORE[item] - log_q).exp().sum()) / 256
    error = found.std() / math.sqrt(REPEATS)
    assert abs(found.mean() - whole) < 4 * error
    assert error < 0.02 * whole  # the line above has power
    assert np.log(found).mean() == pytest.approx(math.log(whole), abs=0.03)


def test_merged_repeats_train_as_the_repeats_do() -> None:
    """The same gradient, and a loss that differs by the number of negatives alone."""
    sampler = NegativeSampler(COUNTS, power=1.0)
    drawn = sampler.sample(256, generator=generator())
    item, merged = merge_repeats(drawn, sampler.log_q)
    table = torch.randn(NUM_ITEMS + 1, 4, dtype=torch.float64, generator=generator(1))
    found = []
    for index, log_q in ((drawn, sampler.log_q[drawn]), (item, merged)):
        vector = table.clone().requires_grad_()
        loss = softmax_losses(
            vector[1:4], vector[4:7], vector[index], log_q=log_q, include_positive=False
        )
        (slope,) = torch.autograd.grad(loss.sum(), vector)
        found.append((loss.detach(), slope))
    (repeated, repeated_slope), (once, once_slope) = found
    torch.testing.assert_close(
        repeated - math.log(256), once - math.log(len(item)), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(repeated_slope, once_slope, rtol=1e-5, atol=1e-5)


def test_positives_taken_for_uniform_draws_are_far_off() -> None:
    whole = float(SCORE[1:].exp().sum())
    recent = NegativeSampler(COUNTS, power=1.0).sample(4_000, generator=generator())
    assert float(NUM_ITEMS * SCORE[recent].exp().mean()) > 1.5 * whole


def test_a_mixture_varies_less_than_positives_alone() -> None:
    """Rare items with a large score: positives alone hardly ever draw them."""
    score = SCORE.flip(0)

    def spread(draw: Draw) -> float:
        rng = generator()
        return float(
            np.std(
                [
                    float((score[item] - log_q).exp().sum())
                    for item, log_q in (draw(rng) for _ in range(300))
                ]
            )
        )

    assert spread(mixed) < 0.8 * spread(queue)
