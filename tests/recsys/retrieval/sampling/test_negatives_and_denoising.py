from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.retrieval.losses import focal_weight
from recsys.retrieval.sampling.denoising import (
    draw_pool,
    keep_small_losses,
    ramped_drop_rate,
    resample,
    reweight_small_losses,
)
from recsys.retrieval.sampling.negatives import KnownPositives, NegativeSampler


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_items_are_drawn_as_often_as_log_q_says(power: float) -> None:
    counts = np.array([99, 0, 1, 4, 16, 64])  # entry 0 is ignored, a count of 0 counts 1
    sampler = NegativeSampler(counts, power=power)
    mass = np.array([1, 1, 4, 16, 64]) ** power
    share = sampler.log_q.exp().numpy()
    assert share[0] == 0.0
    np.testing.assert_allclose(share[1:], mass / mass.sum(), rtol=1e-5)
    size = 20_000
    drawn = sampler.sample(size, generator=generator())
    assert int(drawn.min()) >= 1
    found = np.bincount(drawn.numpy(), minlength=6) / size
    assert (np.abs(found - share) <= 4 * np.sqrt(share * (1 - share) / size) + 1e-12).all()
    assert torch.equal(drawn, sampler.sample(size, generator=generator()))


@pytest.mark.parametrize(
    ("counts", "power", "message"),
    [
        (np.array([1]), 0.0, "N >= 1"),
        (np.array([0, -1]), 0.0, "counts must be >= 0"),
        (np.array([0, 1]), -1.0, "power must be >= 0"),
    ],
)
def test_sampler_refuses(counts: np.ndarray, power: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NegativeSampler(counts, power=power)


def test_known_positives_are_the_set_of_pairs() -> None:
    rng = np.random.default_rng(0)
    num_items = 12
    rows = [list(rng.integers(1, num_items + 1, size=n)) for n in (0, 5, 9, 0, 3)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    flat = np.array([item for row in rows for item in row], dtype=np.int64)
    known = KnownPositives(indptr, flat, num_items)
    row = torch.tensor([4, 1, 1, 0, 2, 3])
    item = torch.tensor([1, 5, 5, 12, 7])
    mask = known.mask(row, item)
    for b in range(len(row)):
        for c in range(len(item)):
            wanted = int(item[c]) in rows[int(row[b])]
            assert bool(mask[b, c]) == wanted
            assert bool(known.contains(row[b : b + 1], item[c : c + 1])[0]) == wanted


def test_nobody_knows_anything() -> None:
    known = KnownPositives(np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64), 4)
    assert not known.mask(torch.tensor([0, 1]), torch.tensor([1, 4])).any()
    assert not known.contains(torch.tensor([0, 1]), torch.tensor([1, 4])).any()


def test_known_positives_refuse_items_outside_the_catalogue() -> None:
    with pytest.raises(ValueError, match=r"item_index must be 1\.\.4"):
        KnownPositives(np.array([0, 1]), np.array([5]), 4)


def test_pool_is_a_uniform_subset() -> None:
    repeats = 6_000
    pool = draw_pool(torch.full((repeats,), 5), 3, generator=generator())
    assert all(len(set(row)) == 3 for row in pool.tolist())
    share = np.bincount(pool.flatten().numpy(), minlength=5) / repeats
    np.testing.assert_allclose(share, 0.6, atol=4 * np.sqrt(0.24 / repeats))
    subsets = {tuple(sorted(row)) for row in pool.tolist()}
    assert len(subsets) == 10


def test_a_pool_of_all_positives_holds_each_once() -> None:
    pool = draw_pool(torch.full((50,), 7), 7, generator=generator())
    assert pool.sort(dim=1).values.tolist() == [list(range(7))] * 50


def test_pool_of_a_short_row_repeats() -> None:
    pool = draw_pool(torch.tensor([1, 2, 3]), 3, generator=generator())
    assert pool[0].tolist() == [0, 0, 0]
    assert int(pool[1].max()) <= 1
    assert sorted(pool[2].tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="count must be >= 1"):
        draw_pool(torch.tensor([2, 0]), 2, generator=generator())
    with pytest.raises(ValueError, match="size must be >= 1"):
        draw_pool(torch.tensor([2]), 0, generator=generator())


def test_resampling_follows_the_softmax_of_minus_loss() -> None:
    loss = torch.tensor([0.1, 0.3, 2.0]).repeat(8_000, 1)
    column = resample(loss, temperature=0.5, generator=generator())
    wanted = torch.softmax(-loss[0] / 0.5, dim=0).numpy()
    share = np.bincount(column.numpy(), minlength=3) / 8_000
    np.testing.assert_allclose(share, wanted, atol=4 * np.sqrt(0.25 / 8_000))
    cold = resample(loss, temperature=1e-3, generator=generator())
    assert not cold.any()


def test_resampling_avoids_planted_noise() -> None:
    """Noisy positives have a loss one nat higher: far fewer than their share are picked."""
    rng = generator()
    noisy = torch.rand(4_000, 5, generator=rng) < 0.2
    loss = 0.3 * torch.rand(4_000, 5, generator=rng) + noisy
    column = resample(loss, temperature=0.1, generator=rng)
    picked = noisy[torch.arange(4_000), column].float().mean()
    assert float(picked) < 0.7 * 0.2


def test_resampling_refuses() -> None:
    with pytest.raises(ValueError, match="temperature must be > 0"):
        resample(torch.zeros(1, 2), temperature=0.0, generator=generator())
    with pytest.raises(ValueError, match="diverged"):
        resample(torch.tensor([[0.0, torch.nan]]), temperature=1.0, generator=generator())


def test_truncation_drops_the_largest_losses() -> None:
    loss = torch.tensor([3.0, 1.0, 9.0, 2.0])
    assert keep_small_losses(loss, 0.5).tolist() == [0.0, 1.0, 0.0, 1.0]
    assert keep_small_losses(loss, 0.0).tolist() == [1.0] * 4
    with pytest.raises(ValueError, match="drop_rate"):
        keep_small_losses(loss, 1.0)


def test_truncation_of_equal_losses_keeps_the_first() -> None:
    assert keep_small_losses(torch.ones(4), 0.25).tolist() == [1.0, 1.0, 1.0, 0.0]


def test_the_drop_rate_rises_and_stays() -> None:
    rates = [ramped_drop_rate(step, drop_rate=0.3, ramp=3) for step in range(5)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])
    assert ramped_drop_rate(0, drop_rate=0.3, ramp=0) == 0.3
    with pytest.raises(ValueError, match="drop_rate must be in"):
        ramped_drop_rate(0, drop_rate=1.0, ramp=3)
    with pytest.raises(ValueError, match="step must be >= 0"):
        ramped_drop_rate(-1, drop_rate=0.1, ramp=3)
    with pytest.raises(ValueError, match="ramp must be >= 0"):
        ramped_drop_rate(0, drop_rate=0.1, ramp=-3)


def test_reweighting_is_the_probability_to_a_power() -> None:
    probability = torch.tensor([0.81, 0.16, 0.01], dtype=torch.float64)
    loss = (-probability.log()).requires_grad_()
    weight = reweight_small_losses(loss, 0.5)
    raw = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64)  # square roots
    torch.testing.assert_close(weight, raw / raw.mean())
    assert not weight.requires_grad
    assert reweight_small_losses(loss, 0.0).tolist() == [1.0] * 3
    focal = focal_weight(loss, 0.5)
    assert torch.equal(weight.argsort(), focal.argsort(descending=True))


def test_reweighting_survives_huge_and_negative_losses() -> None:
    weight = reweight_small_losses(torch.tensor([1e6, 2e6, -5.0, 0.0]), 1.0)
    assert weight.tolist() == [0.0, 0.0, 2.0, 2.0]
    assert reweight_small_losses(torch.full((3,), 1e6), 1.0).tolist() == [1.0] * 3
    assert reweight_small_losses(torch.zeros(0), 1.0).shape == (0,)
    with pytest.raises(ValueError, match="beta must be >= 0"):
        reweight_small_losses(torch.zeros(2), -0.1)


def test_denoising_draws_are_a_function_of_the_seed() -> None:
    count = torch.arange(1, 60)
    assert torch.equal(
        draw_pool(count, 5, generator=generator(3)), draw_pool(count, 5, generator=generator(3))
    )
    # The same column whatever a row's losses are shifted by, and without a gradient.
    loss = torch.rand(500, 5, generator=generator(), requires_grad=True)
    column = resample(loss, temperature=0.1, generator=generator(3))
    shifted = resample(loss.detach() + 4.0, temperature=0.1, generator=generator(3))
    assert float((column == shifted).float().mean()) > 0.99  # float32 rounding may move a few
    assert torch.equal(column, resample(loss, temperature=0.1, generator=generator(3)))
