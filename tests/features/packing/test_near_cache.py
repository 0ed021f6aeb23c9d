from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import DataError, PackedField, PackedSchema
from features.packing.near_cache import NearCache
from features.packing.reader import PackedReader

SCHEMA = PackedSchema((PackedField("x", "int32"), PackedField("v", "float16", 2)))


class Shop:
    """Rows 0..99 of each generation; remembers what was asked for."""

    def __init__(self, offset: int = 0, schema: PackedSchema = SCHEMA, count: int = 100) -> None:
        x = np.arange(count) + offset
        rows = schema.pack({"x": x, "v": np.stack([x, -x], axis=1)})
        self.rows = {f"i{place}": row for place, row in enumerate(rows)}
        self.asked: list[list[str]] = []

    def __call__(self, ids: Sequence[str]) -> list[bytes | None]:
        self.asked.append(list(ids))
        return [self.rows.get(item_id) for item_id in ids]


def entry_bytes(cache: NearCache, shop: Shop) -> int:
    cache.get_many("measure", ["i10"], shop, schema=SCHEMA)
    size = cache.stats().bytes
    cache.drop("measure")
    return size


def test_what_is_held_is_not_fetched_again() -> None:
    cache, shop = NearCache(10_000), Shop()
    first = cache.get_many("g", ["i3", "i1"], shop, schema=SCHEMA)
    again = cache.get_many("g", ["i1", "i2", "i3"], shop, schema=SCHEMA)
    assert first.values["x"].tolist() == [3, 1]
    assert again.values["x"].tolist() == [1, 2, 3]
    assert again.values["v"].tolist() == [[1, -1], [2, -2], [3, -3]]
    assert again.present.all()
    assert shop.asked == [["i3", "i1"], ["i2"]]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evicted, stats.rows) == (2, 3, 0, 3)
    cache.get_many("g", ["i2", "i3"], shop, schema=SCHEMA)
    assert len(shop.asked) == 2


def test_absent_items_are_remembered_and_repeats_allowed() -> None:
    cache, shop = NearCache(10_000), Shop()
    for _ in range(2):
        block = cache.get_many("g", ["nobody", "i1", "nobody", "i1"], shop, schema=SCHEMA)
        assert block.present.tolist() == [False, True, False, True]
        assert block.values["x"].tolist() == [0, 1, 0, 1]
        assert block.values["v"].tolist() == [[0, 0], [1, -1]] * 2
    assert shop.asked == [["nobody", "i1"]]
    assert cache.get_many("g", [], shop, schema=SCHEMA).present.tolist() == []
    assert shop.asked == [["nobody", "i1"]]


def test_generations_do_not_mix_and_the_oldest_goes_whole() -> None:
    cache, shops = NearCache(10_000), {name: Shop(1000 * place) for place, name in enumerate("abc")}
    for name in ("a", "b", "a", "c", "a", "b"):
        block = cache.get_many(name, ["i5", "i6"], shops[name], schema=SCHEMA)
        assert block.values["x"].tolist() == [1000 * "abc".index(name) + 5 + at for at in (0, 1)]
    # "c" pushed out "b", which had not been read for longest; then "b" pushed out "c"
    assert [len(shops[name].asked) for name in "abc"] == [1, 2, 1]
    assert cache.stats().evicted == 4
    assert cache.stats().rows == 4
    cache.drop("a")
    assert cache.stats().rows == 2
    cache.get_many("a", ["i5"], shops["a"], schema=SCHEMA)
    assert shops["a"].asked[-1] == ["i5"]


def test_room_is_taken_from_other_generations_first() -> None:
    shop = Shop()
    cache = NearCache(10 * entry_bytes(NearCache(10_000), shop))
    cache.get_many("old", [f"i{at}" for at in range(10, 16)], shop, schema=SCHEMA)
    cache.get_many("new", [f"i{at}" for at in range(10, 14)], shop, schema=SCHEMA)
    assert cache.stats().rows == 10
    cache.get_many("new", ["i20"], shop, schema=SCHEMA)
    assert cache.stats().rows == 5
    assert cache.stats().evicted == 6


def test_rows_that_are_read_again_stay() -> None:
    shop = Shop()
    cache = NearCache(20 * entry_bytes(NearCache(10_000), shop))
    hot = ["i10", "i11", "i12"]
    cache.get_many("g", hot, shop, schema=SCHEMA)
    for at in range(20, 100, 4):  # a scan of items that are asked for once
        shop.asked.clear()
        scan = [f"i{place}" for place in range(at, at + 4)]
        cache.get_many("g", [*hot, *scan], shop, schema=SCHEMA)
        assert shop.asked == [scan]
    assert cache.stats().rows == 20
    assert cache.stats().evicted == 63


def test_a_request_larger_than_the_cache_is_answered() -> None:
    shop = Shop()
    cache = NearCache(3 * entry_bytes(NearCache(10_000), shop))
    ids = [f"i{at}" for at in range(10, 90)]
    for _ in range(2):
        block = cache.get_many("g", ids, shop, schema=SCHEMA)
        assert block.values["x"].tolist() == list(range(10, 90))
    assert 1 <= cache.stats().rows <= 3
    tiny = NearCache(1)
    assert tiny.get_many("g", ["i1"], shop, schema=SCHEMA).values["x"].tolist() == [1]
    assert tiny.stats()[2:] == (0, 0, 0)


def test_long_ids_count() -> None:
    cache = NearCache(5_000)
    cache.get_many("g", ["x" * 4_000], lambda ids: [None], schema=SCHEMA)
    assert cache.stats().bytes > 4_000
    cache.get_many("g", ["y" * 4_000], lambda ids: [None], schema=SCHEMA)
    assert cache.stats().rows == 1
    cache.get_many("g", ["z" * 6_000], lambda ids: [None], schema=SCHEMA)
    assert cache.stats().rows == 1


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 40), max_size=12)), max_size=25
    ),
    st.integers(1, 6_000),
)
def test_any_requests_read_right_within_the_bound(
    requests: list[tuple[str, list[int]]], max_bytes: int
) -> None:
    shops = {name: Shop(1000 * place, count=30) for place, name in enumerate("ab")}
    cache = NearCache(max_bytes)
    for name, places in requests:
        block = cache.get_many(name, [f"i{at}" for at in places], shops[name], schema=SCHEMA)
        there = [at < 30 for at in places]
        offset = 1000 * "ab".index(name)
        assert block.present.tolist() == there
        assert block.values["x"].tolist() == [
            at + offset if here else 0 for at, here in zip(places, there, strict=True)
        ]
        assert cache.stats().bytes <= max_bytes
    stats = cache.stats()
    assert stats.hits + stats.misses == sum(len(places) for _, places in requests)


def test_the_bound_is_of_real_memory() -> None:
    rows = [SCHEMA.pack({"x": [at], "v": [[0.0, 0.0]]})[0] for at in range(50)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = NearCache(1_000_000)
        for start in range(0, 20_000, 50):
            ids = [f"item-{at}" for at in range(start, start + 50)]
            cache.get_many("g", ids, lambda ids: rows, schema=SCHEMA)
        del ids
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.stats().evicted > 10_000
    assert 300_000 < taken <= 1_000_000


def test_nothing_of_a_damaged_answer_is_kept() -> None:
    cache, shop = NearCache(10_000), Shop()
    good = shop.rows["i1"]
    with pytest.raises(DataError, match="row 1 must have 12 bytes, got 11"):
        cache.get_many("g", ["i1", "i2"], lambda ids: [good, good[:-1]], schema=SCHEMA)
    with pytest.raises(DataError, match="got 1 rows for 2 ids"):
        cache.get_many("g", ["i1", "i2"], lambda ids: [good], schema=SCHEMA)
    with pytest.raises(OSError, match="gone"):
        cache.get_many("g", ["i1"], raising, schema=SCHEMA)
    assert cache.stats().rows == 0
    assert cache.get_many("g", ["i1"], shop, schema=SCHEMA).values["x"].tolist() == [1]


def raising(ids: Sequence[str]) -> list[bytes | None]:
    raise OSError("gone")


def test_older_rows_are_held_as_new_ones() -> None:
    new = PackedSchema((*SCHEMA.fields, PackedField("y", default=7)), event_time=True)
    cache, shop = NearCache(10_000), Shop()
    reader = PackedReader(new, [SCHEMA])
    for _ in range(2):
        block = cache.get_many(
            "g", ["i4"], shop, schema=reader, fields=["y", "x"], moment=datetime(2024, 1, 1)
        )
        assert {name: column.tolist() for name, column in block.values.items()} == {
            "y": [7.0],
            "x": [4],
        }
        assert block.age_s is not None
        assert np.isnan(block.age_s).tolist() == [True]
    assert len(shop.asked) == 1
    # the same generation read with another schema is held apart
    assert cache.get_many("g", ["i4"], shop, schema=SCHEMA).values["x"].tolist() == [4]
    assert len(shop.asked) == 2


def test_threads_share_it() -> None:
    shop = Shop()
    cache = NearCache(15 * entry_bytes(NearCache(10_000), shop))
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            places = rng.integers(0, 120, 8).tolist()
            name = "ab"[seed % 2]
            block = cache.get_many(name, [f"i{at}" for at in places], shop, schema=SCHEMA)
            if block.values["x"].tolist() != [at if at < 100 else 0 for at in places]:
                wrong.append(places)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = cache.stats()
    assert stats.bytes <= cache.max_bytes
    assert stats.hits + stats.misses == 4 * 150 * 8


def test_bounds_are_checked() -> None:
    with pytest.raises(DataError, match="max_bytes must be >= 1, got 0; leave the cache out"):
        NearCache(0)
    with pytest.raises(DataError, match="generations must be >= 1, got 0"):
        NearCache(10, generations=0)
