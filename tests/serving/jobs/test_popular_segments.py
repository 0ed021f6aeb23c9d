from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features.tables import Interactions, UserTable, Vocabulary
from recsys.errors import ArtifactError, ConfigError
from serving.jobs.popular_segments import (
    popular_by_segment,
    read_segments,
    segments_of,
    write_segments,
)

NOW = datetime(2026, 5, 1)
ITEMS = Vocabulary.from_ids(pl.Series(["a", "b", "c", "d", "e"]))  # indices 1 to 5
OVERALL = (np.array([1, 2, 3, 4]), np.array([1.0, 0.8, 0.5, 0.25]))


def log(*events: tuple[str, str, int]) -> Interactions:
    """Events as (user, item, days before now)."""
    users, items, days = zip(*events, strict=True)
    return Interactions.from_frame(
        pl.DataFrame(
            {
                "user_id": users,
                "item_id": items,
                "timestamp": [NOW - timedelta(days=one) for one in days],
            }
        )
    )


def people(**segments: object) -> pl.DataFrame:
    table = UserTable.from_frame(
        pl.DataFrame({"user_id": list(segments), "plan": list(segments.values())})
    )
    return segments_of(table, "plan")


def popular(events: Interactions, segments: pl.DataFrame, **options: object):
    options.setdefault("min_users", 1)
    return popular_by_segment(
        events, segments, ITEMS, OVERALL, as_of=NOW, window_days=30, **options
    )


def test_lists_by_hand() -> None:
    events = log(
        ("ann", "e", 1),
        ("ann", "e", 2),
        ("bob", "c", 1),
        ("bob", "e", 3),
        ("ann", "b", 4),
        ("zoe", "d", 1),
        ("kim", "a", 1),
        ("ann", "a", 40),  # before the window
    )
    found = popular(events, people(ann="free", bob="free", zoe="paid", kim=None))
    assert sorted(found) == ["free", "paid"]
    index, score = found["free"]
    # e 3 times; b and c once, b before c as overall; then a, which is popular overall.
    assert index.tolist() == [5, 2, 3, 1]
    assert score.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0.5 / 3])
    index, score = found["paid"]
    assert index.tolist() == [4, 1, 2, 3]
    assert score.tolist() == pytest.approx([1, 0.5, 0.4, 0.25])
    for index, score in found.values():
        assert len(set(index.tolist())) == len(index) == 4
        assert (np.diff(score) <= 0).all()
        assert score.dtype == np.float32


def test_a_segment_without_recent_events_gets_what_is_popular() -> None:
    found = popular(log(("ann", "e", 100), ("bob", "a", 1)), people(ann="old", bob="new"))
    assert found["old"][0].tolist() == OVERALL[0].tolist()
    assert found["old"][1].tolist() == pytest.approx(OVERALL[1].tolist())


def test_the_moment_itself_does_not_count() -> None:
    found = popular(log(("ann", "e", 0), ("ann", "d", 30)), people(ann="x"))
    assert found["x"][0].tolist() == [4, 1, 2, 3]


def test_small_segments_get_no_list() -> None:
    events = log(*((f"u{row}", "a", 1) for row in range(5)), ("zoe", "b", 1))
    table = people(**{f"u{row}": 1 for row in range(5)}, zoe=2, away=1)
    assert sorted(popular(events, table, min_users=2)) == ["1"]
    assert popular(events, table, min_users=6) == {}


def test_the_largest_segments_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.jobs.popular_segments.MAX_SEGMENTS", 2)
    events = log(*((user, "a", 1) for user in ("x1", "y1", "y2", "z1", "z2", "z3")))
    table = people(x1="x", y1="y", y2="y", z1="z", z2="z", z3="z")
    assert sorted(popular(events, table)) == ["y", "z"]


def test_files_keep_the_lists(tmp_path) -> None:
    lists = popular(log(("ann", "e", 1)), people(ann="a b:{x}"))
    path = tmp_path / "popular_segments.parquet"
    assert read_segments(path) == {}
    write_segments(path, lists)
    again = read_segments(path)
    assert list(again) == ["a b:{x}"]
    for one, other in zip(again["a b:{x}"], lists["a b:{x}"], strict=True):
        np.testing.assert_array_equal(one, other)
    write_segments(path, {})
    assert read_segments(path) == {}
    pl.DataFrame({"segment": ["x"]}).write_parquet(path)
    with pytest.raises(ArtifactError, match=r"is damaged .*run `recsys candidates`"):
        read_segments(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_segments(path)


def test_columns_that_cannot_be_used() -> None:
    table = UserTable.from_frame(
        pl.DataFrame({"user_id": ["ann"], "plan": ["x"], "likes": [["a", "b"]]})
    )
    with pytest.raises(ConfigError, match=r"must be a column of the user table, got 'age'; there"):
        segments_of(table, "age")
    with pytest.raises(ConfigError, match="got 'user_id'"):
        segments_of(table, "user_id")
    with pytest.raises(ConfigError, match="got 'plan'; there: no user table"):
        segments_of(None, "plan")
    with pytest.raises(ConfigError, match="column of single values, got 'likes' with lists"):
        segments_of(table, "likes")
