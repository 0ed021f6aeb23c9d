from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import Histories, Interactions, Vocabulary
from features.tables.hashing import drawn_place

START = datetime(2020, 1, 1)
START_US = int(START.timestamp() - datetime(1970, 1, 1).timestamp()) * 1_000_000
EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), max_size=25, unique=True
)


def interactions(events: list[tuple[int, int, int]]) -> Interactions:
    """Events (user, item, second); users "u0".., items "i0"..; weight = second + 1."""
    return Interactions.from_frame(
        pl.DataFrame(
            {
                "user_id": [f"u{user}" for user, _, _ in events],
                "item_id": [f"i{item}" for _, item, _ in events],
                "timestamp": [START + timedelta(seconds=second) for _, _, second in events],
                "weight": [float(second + 1) for _, _, second in events],
            },
            schema_overrides={
                "user_id": pl.String,
                "item_id": pl.String,
                "timestamp": pl.Datetime("us"),
                "weight": pl.Float32,
            },
        )
    )


@pytest.fixture
def three() -> Histories:
    """Rows: items 4 1 4, nothing, 2 7."""
    return Histories(
        indptr=np.array([0, 3, 3, 5]),
        item_index=np.array([4, 1, 4, 2, 7]),
        timestamp=np.array([5, 6, 9, 1, 1]),
        weight=np.array([1, 2, 3, 4, 5], dtype=np.float32),
    )


def test_from_interactions() -> None:
    log = interactions([(1, 0, 3), (0, 1, 2), (1, 2, 1), (1, 1, 3), (2, 2, 0)])
    items = Vocabulary.from_ids(["i1", "i0"])
    histories = Histories.from_interactions(log, ["u1", "nobody", "u0", "u1"], items)
    assert histories.indptr.tolist() == [0, 2, 2, 3, 5]
    # u1: i2 is not in the vocabulary; i0 and i1 at the same second come in an order that is drawn
    assert histories.item_index.tolist() == [1, 2, 1, 1, 2]
    assert (histories.timestamp - START_US).tolist() == [3e6, 3e6, 2e6, 3e6, 3e6]
    assert histories.weight.tolist() == [4, 4, 3, 4, 4]
    assert len(Histories.from_interactions(log, [], items)) == 0


def cut_of(seconds: list[int], fraction: float) -> int:
    """Events before the cut, which divides no second."""
    cut = int(fraction * len(seconds))
    if cut in (0, len(seconds)):
        return cut
    begin = seconds.index(seconds[cut])
    return begin if begin else seconds.count(seconds[0])


@given(EVENTS, st.lists(st.integers(0, 7), min_size=4, max_size=4), st.integers(0, 4))
def test_cuts_match_plain_loops(
    events: list[tuple[int, int, int]], moments: list[int], n: int
) -> None:
    users = [f"u{user}" for user in range(4)]
    items = Vocabulary.from_ids([f"i{item}" for item in range(5)])
    histories = Histories.from_interactions(interactions(events), users, items)
    rows = [
        sorted(
            ((second, item + 1) for user, item, second in events if user == row),
            key=lambda event: (
                event[0],
                drawn_place(f"u{row}", f"i{event[1] - 1}", START_US + event[0] * 1_000_000),
            ),
        )
        for row in range(4)
    ]

    def content(result: Histories) -> list[list[int]]:
        return [
            result.item_index[result.indptr[row] : result.indptr[row + 1]].tolist()
            for row in range(len(result))
        ]

    moment_us = START_US + np.array(moments) * 1_000_000
    before = [
        [item for second, item in row if second < moment]
        for row, moment in zip(rows, moments, strict=True)
    ]
    assert content(histories.before(moment_us)) == before
    last = [[item for _, item in row[max(len(row) - n, 0) :]] for row in rows]
    assert content(histories.last(n)) == last
    head, tail = histories.head_fraction(n / 4)
    whole = [[item for _, item in row] for row in rows]
    cuts = [cut_of([second for second, _ in row], n / 4) for row in rows]
    if any(len({second for second, _ in row}) > 1 for row in rows) or n in (0, 4):
        assert content(head) == [row[:cut] for row, cut in zip(whole, cuts, strict=True)]
        assert content(tail) == [row[cut:] for row, cut in zip(whole, cuts, strict=True)]
    assert content(histories.take([3, 1, 3])) == [whole[3], whole[1], whole[3]]
    padded, _ = histories.padded(n + 1)
    assert padded.tolist() == [[0] * (n + 1 - len(row[-n - 1 :])) + row[-n - 1 :] for row in whole]
    dense = histories.to_csr(5).toarray()
    assert ((dense > 0) == histories.seen_mask(5)).all()
    assert dense.sum(axis=1).tolist() == [len(set(row)) for row in whole]


def test_counts_and_rows(three: Histories) -> None:
    assert three.counts.tolist() == [3, 0, 2]
    assert three.rows.tolist() == [0, 0, 0, 2, 2]
    assert len(three) == 3


def test_padded_keeps_times_beside_items(three: Histories) -> None:
    item_index, timestamp = three.padded(2)
    assert item_index.tolist() == [[1, 4], [0, 0], [2, 7]]
    assert timestamp.tolist() == [[6, 9], [0, 0], [1, 1]]


def test_matrix_weights(three: Histories) -> None:
    assert three.to_csr(7).toarray()[0].tolist() == [0, 1, 0, 0, 1, 0, 0, 0]
    assert three.to_csr(7, "weight").toarray()[0].tolist() == [0, 2, 0, 0, 4, 0, 0, 0]
    own = three.to_csr(7, np.array([1, 1, 1, 2, 3])).toarray()
    assert own[0].tolist() == [0, 1, 0, 0, 2, 0, 0, 0]
    assert own[2].tolist() == [0, 0, 2, 0, 0, 0, 0, 3]
    assert three.to_csr(9).shape == (3, 10)
    # the matrix is a copy: nothing above changed the histories
    assert three.weight.tolist() == [1, 2, 3, 4, 5]


def test_arguments_are_checked(three: Histories) -> None:
    with pytest.raises(ValueError, match=r"got shape \(2,\) for 3 rows"):
        three.before(np.array([1, 2]))
    with pytest.raises(IndexError, match=r"rows must be 0..2, got 0..3"):
        three.take([0, 3])
    with pytest.raises(ValueError, match="n must be >= 0, got -1"):
        three.last(-1)
    with pytest.raises(ValueError, match=r"fraction must be 0..1, got 1.5"):
        three.head_fraction(1.5)
    with pytest.raises(ValueError, match="length must be >= 1, got 0"):
        three.padded(0)
    with pytest.raises(ValueError, match="at least the largest item index 7, got 6"):
        three.to_csr(6)
    with pytest.raises(ValueError, match="at least the largest item index 7, got 6"):
        three.seen_mask(6)
    with pytest.raises(ValueError, match="weights must be 'one', 'weight' or an array"):
        three.to_csr(7, "two")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one entry per event: got shape \(1,\) for 5"):
        three.to_csr(7, np.ones(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": np.array([0, 3, 3, 5], dtype=np.int32)}, "indptr must be a one-dimensional"),
        ({"item_index": np.ones((5, 1), dtype=np.int64)}, "item_index must be a one-dimensional"),
        ({"weight": np.ones(4, dtype=np.float32)}, r"must have one length, got \(5, 5, 4\)"),
        ({"indptr": np.array([0, 3, 3, 4])}, "indptr must rise from 0 to the number of events 5"),
        ({"indptr": np.array([0, 4, 3, 5])}, "indptr must rise"),
        ({"item_index": np.array([4, 0, 4, 2, 7])}, "item_index must be >= 1, got 0"),
        ({"timestamp": np.array([5, 6, 4, 1, 1])}, "timestamp must not fall within a row"),
    ],
)
def test_broken_arrays_are_refused(
    three: Histories, change: dict[str, np.ndarray], message: str
) -> None:
    arrays = {
        name: getattr(three, name) for name in ("indptr", "item_index", "timestamp", "weight")
    }
    with pytest.raises(ValueError, match=message):
        Histories(**(arrays | change))
