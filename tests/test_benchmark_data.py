"""The data that the retrieval benchmarks stand on: what is held out stays held out."""

from __future__ import annotations

import numpy as np
import pytest
import retrieval_data
from retrieval_data import (
    Measured,
    add_false_interactions,
    average,
    carve,
    histories_of,
    load_split,
    measure,
    merge,
    topk_lists,
)
from retrieval_exposure import ExposureWorld, relevance_error, semi_synthetic_exposure

from features.tables import Histories

needs_ml_1m = pytest.mark.skipif(
    not (retrieval_data.DATA / "ml-1m-lcfn").is_dir(),
    reason=f"no ml-1m-lcfn in {retrieval_data.DATA}; set RECSYS_DATA",
)


def keys(histories: Histories) -> set[tuple[int, int]]:
    return set(zip(histories.rows.tolist(), histories.item_index.tolist(), strict=True))


def random_histories(num_users: int, num_items: int, share: float, seed: int) -> Histories:
    met = np.random.default_rng(seed).random((num_users, num_items)) < share
    row, item = np.nonzero(met)
    return histories_of(row, item + 1, num_users)


def test_carve_holds_out_a_rounded_share_and_spares_short_rows() -> None:
    counts = [0, 1, 2, 3, 14, 16, 40]
    row = np.repeat(np.arange(7), counts)
    whole = histories_of(row, np.concatenate([np.arange(n) + 1 for n in counts]), 7)
    rest, held = carve(whole, 0.1, rng=np.random.default_rng(0))
    assert held.counts.tolist() == [0, 0, 0, 1, 1, 2, 4]
    assert keys(merge(rest, held)) == keys(whole)
    assert not keys(rest) & keys(held)
    again = carve(whole, 0.1, rng=np.random.default_rng(0))[1]
    np.testing.assert_array_equal(again.item_index, held.item_index)
    other = carve(whole, 0.1, rng=np.random.default_rng(1))[1]
    assert keys(other) != keys(held)


def test_lists_equal_a_full_sort_without_the_seen() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((37, 8)), rng.standard_normal((3001, 8))
    seen = random_histories(37, 3000, 0.1, seed=1)
    score = (users.astype(np.float32) @ items.astype(np.float32).T)[:, 1:]
    score[seen.rows, seen.item_index - 1] = -np.inf
    expected = np.argsort(-score, axis=1)[:, :20] + 1
    found = topk_lists(users, items, seen, block_bytes=200_000)  # 15 rows a block
    np.testing.assert_array_equal(found, expected)


def test_lists_end_where_the_catalogue_does() -> None:
    seen = histories_of(np.array([0, 0, 1]), np.array([1, 3, 2]), 2)
    found = topk_lists(np.ones((2, 1)), np.array([[9.0], [3.0], [2.0], [1.0]]), seen, k=4)
    assert found.tolist() == [[2, -1, -1, -1], [1, 3, -1, -1]]


def test_measure_by_hand() -> None:
    # Items 1..4 by popularity: 1 and 2 are the popular half.
    popularity = np.array([0, 9, 5, 2, 1])
    test = histories_of(np.array([0, 0, 0, 2]), np.array([1, 3, 4, 2]), 3)
    lists = np.array([[1, 3], [1, 2], [1, 2]])
    found = measure(lists, test, popularity)
    np.testing.assert_allclose(found.recall, [2 / 3, 1.0])  # row 1 has no test item
    np.testing.assert_allclose(found.ndcg, [1.0, 1 / np.log2(3)])  # ideal cut at 2 places
    np.testing.assert_allclose(found.tail_recall, [0.5])
    assert found.head_share == pytest.approx(0.5)
    assert found.coverage == pytest.approx(3 / 4)
    mean = average([found, Measured(found.recall * 0, found.ndcg * 0, found.tail_recall, 0.0, 0.0)])
    np.testing.assert_allclose(mean.recall, found.recall / 2)
    assert mean.head_share == pytest.approx(0.25)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.5])
def test_false_interactions_are_never_the_users_own(share: float) -> None:
    train = random_histories(30, 60, 0.2, seed=0)
    held = random_histories(30, 60, 0.1, seed=1)
    noisy = add_false_interactions(
        train, share, forbidden=[held], num_items=60, rng=np.random.default_rng(2)
    )
    total = round(share * train.item_index.size)
    assert noisy.is_false.sum() == total
    assert noisy.histories.item_index.size == train.item_index.size + total
    pairs = list(zip(noisy.histories.rows, noisy.histories.item_index, strict=True))
    assert len(set(pairs)) == len(pairs)
    false = {pair for pair, made_up in zip(pairs, noisy.is_false, strict=True) if made_up}
    assert not false & (keys(train) | keys(held))
    assert keys(noisy.histories) - false == keys(train)
    assert noisy.histories.item_index.max() <= 60


def test_false_interactions_are_uniform_over_unmet_items() -> None:
    train = histories_of(np.zeros(5, dtype=np.int64), np.array([1, 2, 5, 9, 10]), 1)
    count = np.zeros(11)
    for seed in range(600):
        noisy = add_false_interactions(
            train, 0.4, forbidden=[], num_items=10, rng=np.random.default_rng(seed)
        )
        count[noisy.histories.item_index[noisy.is_false]] += 1
    unmet = np.array([3, 4, 6, 7, 8])
    assert count.sum() == count[unmet].sum() == 1200
    # 1200 draws over 5 items: 240 each, standard error below sqrt(240 * .8)
    assert np.abs(count[unmet] - 240).max() < 4 * np.sqrt(240 * 0.8)


def test_false_interactions_refuse_what_cannot_be() -> None:
    train = histories_of(np.zeros(4, dtype=np.int64), np.arange(1, 5), 1)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"share must be >= 0, got -0\.1"):
        add_false_interactions(train, -0.1, forbidden=[], num_items=9, rng=rng)
    with pytest.raises(ValueError, match=r"2 false events in row 0, which has only 1 unmet"):
        add_false_interactions(train, 0.5, forbidden=[], num_items=5, rng=rng)


@pytest.fixture(scope="module")
def popular() -> Histories:
    """200 users; item i is met with a chance that falls from .6 to .02."""
    chance = np.geomspace(0.6, 0.02, 80)
    row, item = np.nonzero(np.random.default_rng(3).random((200, 80)) < chance)
    return histories_of(row, item + 1, 200)


def world_of(popular: Histories, power: float, seed: int = 0) -> ExposureWorld:
    return semi_synthetic_exposure(popular, 80, power=power, clicks_per_user=4.0, rank=8, seed=seed)


def test_clicks_are_exposure_times_relevance(popular: Histories) -> None:
    world = world_of(popular, 1.0)
    chance = world.relevance * world.exposure  # [U, N + 1]
    assert world.relevance[:, 1:].mean() == pytest.approx(0.2, abs=0.01)
    assert chance.sum() == pytest.approx(800, rel=1e-4)
    clicked = world.clicks.to_csr(80).toarray()
    error = np.sqrt((chance * (1 - chance)).sum(axis=0))
    assert (np.abs(clicked.sum(axis=0) - chance.sum(axis=0)) <= 4 * error + 1e-9).all()
    counts = np.bincount(popular.item_index, minlength=81)[1:]
    np.testing.assert_allclose(
        world.exposure[1:] / world.exposure[1:].max(), counts / counts.max(), rtol=1e-9
    )


def test_power_zero_exposes_alike_and_taste_stays(popular: Histories) -> None:
    skewed, even = world_of(popular, 1.0), world_of(popular, 0.0)
    assert np.ptp(even.exposure[1:]) == 0.0
    np.testing.assert_array_equal(even.relevance, skewed.relevance)
    assert keys(world_of(popular, 1.0).clicks) == keys(skewed.clicks)
    assert keys(world_of(popular, 1.0, seed=1).clicks) != keys(skewed.clicks)


def test_only_exposure_stands_between_clicks_and_relevance(popular: Histories) -> None:
    world = world_of(popular, 1.0)
    items = np.eye(81)
    rng = np.random.default_rng
    right = relevance_error(world.relevance, items, world, rng=rng(0))
    biased = relevance_error(world.relevance * world.exposure, items, world, rng=rng(0))
    wrong = relevance_error(-world.relevance, items, world, rng=rng(0))
    np.testing.assert_allclose(right.top, 0.0, atol=1e-6)
    np.testing.assert_allclose(right.pairs, 0.0, atol=1e-9)
    assert biased.top.mean() > 0.1
    assert 0.1 < biased.pairs.mean() < 0.5
    np.testing.assert_allclose(wrong.pairs, 1.0, atol=1e-9)


def test_too_many_clicks_are_refused(popular: Histories) -> None:
    with pytest.raises(ValueError, match=r"clicks_per_user must be at most .* got 50"):
        semi_synthetic_exposure(popular, 80, power=1.0, clicks_per_user=50, rank=8)


def test_missing_data_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"set RECSYS_DATA to the folder of nowhere"):
        load_split("nowhere")


@needs_ml_1m
def test_the_split_is_the_published_one() -> None:
    split = load_split("ml-1m-lcfn")
    assert (len(split.train), split.num_items) == (6022, 3043)
    assert split.whole_train.item_index.size == 796_244
    assert split.test.item_index.size == 99_455
    lists = topk_lists(np.ones((6022, 1)), split.popularity[:, None], split.whole_train)
    found = measure(lists, split.test, split.popularity)
    # popularity on this split, measured by others: .1160 / .1176
    assert found.recall.mean() == pytest.approx(0.1160, abs=2e-4)
    assert found.ndcg.mean() == pytest.approx(0.1176, abs=2e-4)
