from __future__ import annotations

import numpy as np
import pytest

from serving.store.keys import Keys
from serving.store.stats import ServerStats, _Group, read_stats


def stats_of(store, **options):
    return read_stats(store._client, store.keys, rng=np.random.default_rng(0), **options)


def test_keys_are_counted_by_kind_and_generation(any_store, make):
    users = {f"u{row}": [1, 2] for row in range(30)}
    make.publish(any_store, "g1", users, neighbours=[make.user_batch({"i1": [2]})], ttl_s=600)
    make.publish(any_store, "g2", {"ann": [1]}, popular_segments={"x": make.popular([1])})
    client, keys = any_store._client, any_store.keys
    client.zadd(keys.session("ann"), {"i1": 1})
    client.set(keys.user("g1", "kept"), b"x")
    pages = []
    found = stats_of(any_store, on_progress=pages.append)
    counted = {(one.kind, one.generation): one for one in found.keys}
    assert {name: one.keys for name, one in counted.items()} == {
        ("head", None): 1,
        ("generations", None): 1,
        ("session", None): 1,
        ("user", "g1"): 31,
        ("neighbours", "g1"): 1,
        **{(kind, "g1"): 1 for kind in ("manifest", "items", "popular", "alive")},
        **{(kind, "g2"): 1 for kind in ("manifest", "items", "popular", "alive", "user")},
        ("popular of a segment", "g2"): 1,
    }
    assert sum(pages) == sum(one.keys for one in found.keys)
    group = counted["user", "g1"]
    assert group.without_expiry == 1
    assert 590 <= group.first_expiry_s <= group.last_expiry_s <= 600
    head = counted["head", None]
    assert (head.without_expiry, head.first_expiry_s, head.last_expiry_s) == (1, None, None)
    assert group.bytes_each.size == 31
    assert 50 < group.bytes_each.value < 300
    assert group.bytes_each.low == group.bytes_each.high  # all were asked


def test_memory_is_asked_of_a_sample(store, make):
    users = {f"u{row}": list(range(1, 1 + 12 * (row % 2))) for row in range(200)}
    make.publish(store, "g1", users)
    every = {(one.kind): one.bytes_each for one in stats_of(store).keys}["user"]
    some = {(one.kind): one.bytes_each for one in stats_of(store, sample=40).keys}["user"]
    assert (every.size, some.size) == (200, 40)
    assert some.low <= every.value <= some.high
    assert some.low < some.high
    with pytest.raises(ValueError, match="sample must be >= 1, got 0"):
        stats_of(store, sample=0)


def test_the_server_counts_reads(any_store, make):
    make.publish(any_store, "g1", {"ann": [1]})
    before = stats_of(any_store).server
    any_store.read_user("g1", "ann")
    for _ in range(3):
        any_store.read_user("g1", "nobody")
    after = stats_of(any_store).server
    # The scan's own questions find their keys.
    assert after.misses - before.misses == 3
    assert after.hits > before.hits
    assert after.servers >= 1
    assert after.used_memory > 100_000
    assert after.policy == "noeviction"


def test_a_rate_needs_reads():
    server = ServerStats(1, 0, 0, "noeviction", 0, 0, 0, 0)
    assert server.hit_rate is None
    assert server._replace(hits=3, misses=1).hit_rate == 0.75


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"shop:head", ("head", None)),
        (b"shop:g:g1:popular:a:b", ("popular of a segment", "g1")),
        (b"shop:g:g1:lock", ("lock", "g1")),
        (b"shop:g:g1:what", ("other", None)),
        (b"shop:g:g1", ("other", None)),
        (b"shop:n:g1:{b000}:x:y", ("neighbours", "g1")),
        (b"shop:alive:g1", ("alive", "g1")),
        (b"shop:s:{b000}:ann", ("session", None)),
        (b"shop:\xff", ("other", None)),
        (b"shop:x:\xff:1", ("other", None)),
    ],
)
def test_kinds_by_hand(key, kind):
    assert Keys("shop").kind_of(key) == kind


def test_every_key_knows_its_kind():
    keys = Keys("shop")
    for kind in ("manifest", "items", "popular", "progress", "lock", "alive"):
        assert keys.kind_of(getattr(keys, kind)("g1").encode()) == (kind, "g1")
    for kind in ("user", "neighbours", "item"):
        assert keys.kind_of(getattr(keys, kind)("g1", "a:{b}:c").encode()) == (kind, "g1")
    for kind in ("head", "generations", "events", "experiments"):
        assert keys.kind_of(getattr(keys, kind).encode()) == (kind, None)


def test_the_sample_does_not_hang_on_the_order_of_the_scan():
    rng = np.random.default_rng(0)
    keys = [(f"k{row}".encode(), int(rng.integers(2**63))) for row in range(500)]
    found = []
    for order in (range(500), rng.permutation(500)):
        group = _Group()
        for place in order:
            group.add(keys[place][0], -1, 40, keys[place][1])
        found.append(sorted(group.sample))
    assert found[0] == found[1]
    assert sorted(key for key, _ in sorted(keys, key=lambda one: one[1])[:40]) == found[0]
