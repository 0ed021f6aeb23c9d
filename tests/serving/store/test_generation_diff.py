from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from serving.errors import NoGeneration
from serving.store.generation_diff import _drawn, compare_generations

A = {"ann": [1, 2, 3], "bob": [5], "new": [], "gone": [4]}
B = {"ann": [2, 1, 9], "bob": [5], "new": [], "zoe": [6]}


def compare(store, a="a", b="b", **options):
    return compare_generations(store, a, b, rng=np.random.default_rng(0), **options)


def series(lists):
    return pl.Series("user_id", list(lists), dtype=pl.String)


def test_what_differs_by_hand(any_store, make):
    make.publish(any_store, "a", A)
    make.publish(any_store, "b", B)
    found = compare(any_store, users=(series(A), series(B)), k=2)
    assert found.num_users == (4, 4)
    assert (found.only_a.value, found.only_b.value, found.num_compared) == (0.25, 0.25, 3)
    assert found.changed.value == pytest.approx(1 / 3)
    assert found.top_changed.value == pytest.approx(1 / 3)
    assert found.overlap.value == 1.0  # the first two of ann are the same in another order
    assert found.overlap.low == found.overlap.high  # everybody was compared
    three = compare(any_store, users=(series(A), series(B)), k=3)
    assert three.overlap.value == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert (three.shown_gained, three.shown_lost) == (1, 1)
    assert (three.items_gained, three.items_lost) == (0, 0)
    assert three.scores[0] == three.scores[1] == (0.75, 1.0)


def test_without_bundles_users_are_found_by_a_scan(any_store, make):
    make.publish(any_store, "a", A)
    make.publish(any_store, "b", B)
    assert compare(any_store, k=3) == compare(any_store, users=(series(A), series(B)), k=3)


@pytest.mark.parametrize("scanned", [True, False])
def test_a_sample_has_an_interval(store, make, scanned):
    lists = {f"u{row}": [1 + row % 5] for row in range(600)}
    make.publish(store, "a", lists)
    make.publish(store, "b", {**lists, **{f"u{row}": [7] for row in range(0, 600, 2)}})
    users = None if scanned else (series(lists), series(lists))
    found = compare(store, users=users, sample=200)
    assert (found.num_compared, found.changed.size) == (200, 200)
    assert found.changed.low < 0.5 < found.changed.high
    assert found.overlap.value == pytest.approx(1 - found.changed.value)
    assert found.top_changed == found.changed
    assert (found.only_a.value, found.only_b.value) == (0, 0)
    assert (found.only_a.high > 0) == scanned
    assert compare(store, users=users, sample=200) == found


def test_who_is_drawn_does_not_depend_on_the_order_of_the_scan() -> None:
    users = [f"u{row}" for row in range(5000)]
    rng = np.random.default_rng(0)
    drawn = [_drawn(rng.permutation(users).tolist(), 200, b"key") for _ in range(3)]
    assert drawn[0] == drawn[1] == drawn[2]
    found, total = drawn[0]
    assert (len(set(found)), total) == (200, 5000)
    other, _ = _drawn(users, 200, b"another")
    assert len(set(found) & set(other)) < 50  # 8 are expected
    # Each place is as likely as another: the mean row is within four standard errors.
    rows = [int(user[1:]) for user in found]
    assert abs(np.mean(rows) - 2499.5) < 4 * 1443.4 / np.sqrt(200)
    assert _drawn([*users[:150], *users[:20]], 200, b"key")[1] == 150  # some were met twice
    assert _drawn([], 200, b"key") == ([], 0)
    assert sorted(_drawn(users[:200], 200, b"key")[0]) == sorted(users[:200])


def test_items_are_told_by_their_ids(store, make):
    make.publish(store, "a", {"ann": [1, 2]})
    ids = ["new", *make.item_ids[:-1]]  # one more in front, the last one gone
    make.publish(store, "b", {"ann": [2, 1]}, item_ids=ids, vocabulary_sha256="v2")
    found = compare(store)
    assert (found.items_gained, found.items_lost) == (1, 1)
    assert (found.shown_gained, found.shown_lost) == (1, 1)
    assert found.top_changed.value == 0  # index 2 of b is i1, as index 1 of a
    assert found.overlap.value == 0.5


def test_users_without_anything_in_common(store, make):
    make.publish(store, "a", {"ann": []})
    make.publish(store, "b", {"bob": []})
    found = compare(store, users=(series({"ann": 0}), series({"bob": 0})))
    assert (found.changed, found.overlap, found.num_compared) == (None, None, 0)
    assert (found.only_a.value, found.only_b.value) == (1, 1)
    assert found.scores[0] == (None, None)


def test_bad_questions_are_refused(store, make):
    make.publish(store, "a", A)
    with pytest.raises(NoGeneration, match=r"'b' is not in the store .* see `recsys generations`"):
        compare(store)
    with pytest.raises(ValueError, match="k and sample must be >= 1, got 0 and 10000"):
        compare(store, k=0)
    with pytest.raises(ValueError, match="k and sample must be >= 1, got 10 and 0"):
        compare(store, sample=0)
