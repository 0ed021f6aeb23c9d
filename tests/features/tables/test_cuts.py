from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from features.tables.cuts import rest_of_rows
from features.tables.hashing import drawn_order, drawn_place, stable_hash

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1)


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=6), st.data())
def test_a_cut_divides_no_moment(rows: list[list[int]], data: st.DataObject) -> None:
    rows = [sorted(row) for row in rows]
    cut = np.array([data.draw(st.integers(0, len(row))) for row in rows])
    row = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    time = np.array([at for one in rows for at in one], dtype=np.int64)
    late = rest_of_rows(row, time, cut, np.arange(len(rows), dtype=np.uint64))
    wanted = []
    for times, before in zip(rows, cut.tolist(), strict=True):
        begin = before
        if 0 < before < len(times):
            begin = times.index(times[before]) or times.count(times[0])
        wanted += [place >= begin for place in range(len(times))]
    if any(wanted) or all(len(set(one)) < 2 for one in rows) is False:
        assert late.tolist() == wanted
    else:  # whole rows alone, and never all of them
        for number in range(len(rows)):
            assert late[row == number].all() or not late[row == number].any()
        assert not late.any() or not late.all()


@given(TEXTS)
def test_the_hash_of_many_is_that_of_each(texts: list[str]) -> None:
    assert stable_hash(pl.Series(texts)).tolist() == [zlib.crc32(one.encode()) for one in texts]


@given(TEXTS, st.integers(-(2**62), 2**62))
def test_a_place_drawn_alone_is_that_drawn_among_many(texts: list[str], time: int) -> None:
    users, items = pl.Series(texts), pl.Series(texts[::-1])
    many = drawn_order(users, items, np.full(len(texts), time))
    assert many.tolist() == [
        drawn_place(user, item, time) for user, item in zip(users, items, strict=True)
    ]
