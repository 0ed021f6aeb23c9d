from __future__ import annotations

from datetime import UTC, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError
from features.tables import Histories, Vocabulary
from recsys.config import Config
from recsys.dataset import Dataset, cut_histories, read_dataset

DAY = 86_400
START = 1_000_000_000  # 2001, in seconds


def write(directory: Path, events: dict[str, Any] | None = None, **items: Any) -> Config:
    """Six events of three users on a catalogue of four films."""
    pl.DataFrame(
        events
        or {
            "user_id": [3, 1, 1, 2, 3, 1],
            "item_id": [10, 10, 20, 20, 30, 30],
            "timestamp": [START + DAY * n for n in range(6)],
        }
    ).write_parquet(directory / "events.parquet")
    pl.DataFrame(
        {
            "item_id": [20, 10, 30, 40],
            "title": ["B", "A", "C", "D"],
            "genres": ["x|y", "x", "y", None],
            **items,
        }
    ).write_parquet(directory / "items.parquet")
    return Config.model_validate(
        {
            "data": {
                "events": directory / "events.parquet",
                "items": directory / "items.parquet",
                "item_columns": {"title": "title", "text": ("title",), "list": ("genres",)},
            }
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return read_dataset(write(tmp_path))


def test_items_keep_the_order_of_the_catalogue_and_users_that_of_their_first_event(
    data: Dataset,
) -> None:
    assert data.item_ids.to_series().to_list() == ["20", "10", "30", "40"]
    assert data.num_items == 4  # also the film that nobody met
    assert data.user_list == ["3", "1", "2"]
    histories = data.histories()
    assert [histories.take([row]).item_index.tolist() for row in range(3)] == [
        [2, 3],
        [2, 1, 3],
        [1],
    ]


def test_the_user_table_is_optional(tmp_path: Path) -> None:
    config = write(tmp_path)
    pl.DataFrame({"user_id": [1, 2, 3], "age": [20, 30, 40]}).write_parquet(
        tmp_path / "users.parquet"
    )
    with_users = config.data.model_copy(update={"users": tmp_path / "users.parquet"})
    assert read_dataset(config).users is None
    users = read_dataset(config.model_copy(update={"data": with_users})).users
    assert users is not None
    assert users.ids == ["1", "2", "3"]


def test_split_keeps_each_users_first_events(data: Dataset, tmp_path: Path) -> None:
    config = write(tmp_path)
    half = config.model_copy(update={"split": config.split.model_copy(update={"fraction": 0.5})})
    train, test = data.split(half)
    assert train.frame["user_id"].to_list() == ["3", "1", "2"]
    assert test.frame["user_id"].to_list() == ["1", "3", "1"]


def test_split_by_time_has_one_moment_for_all(data: Dataset, tmp_path: Path) -> None:
    config = write(tmp_path)
    split = config.split.model_copy(update={"kind": "time", "fraction": 0.5})
    train, test = data.split(config.model_copy(update={"split": split}))
    assert len(train) == len(test) == 3
    assert train.frame["timestamp"].max() < test.frame["timestamp"].min()  # type: ignore[operator]


def test_a_moment_splits_in_place_of_a_share(data: Dataset, tmp_path: Path) -> None:
    config, times = write(tmp_path), data.interactions.frame["timestamp"]
    moment = times.sort()[2]
    split = config.split.but(kind="time", moment=moment.replace(tzinfo=UTC))
    train, test = data.split(config.model_copy(update={"split": split}))
    assert train.frame["timestamp"].to_list() == [time for time in times if time < moment]
    assert test.frame["timestamp"].to_list() == [time for time in times if time >= moment]
    past, *_ = data.past_and_future(train, data.histories(train), split.but(fraction=0.5))
    assert past.frame["timestamp"].to_list() == times.sort()[:1].to_list()


def test_every_problem_of_every_file_is_named(tmp_path: Path) -> None:
    events = {
        "user_id": [1, None, 2, 2],
        "item_id": [10, 10, 99, 20],
        "timestamp": [START, START + 1, START + 2, -5],
        "rating": [1.0, 2.0, 3.0, -1.0],
    }
    config = write(tmp_path, events, item_id=[10, 10, 20, 30])
    columns = config.data.columns.model_copy(update={"weight": "rating"})
    data = config.data.model_copy(update={"columns": columns})
    with pytest.raises(DataError) as caught:
        read_dataset(config.model_copy(update={"data": data}))
    problems = caught.value.problems
    about = {(Path(problem.source).name, problem.column) for problem in problems}
    assert {
        ("events.parquet", "user_id"),
        ("events.parquet", "item_id"),
        ("events.parquet", "timestamp"),
        ("events.parquet", "rating"),
        ("items.parquet", "item_id"),
    } <= about
    assert all(str(problem) in str(caught.value) for problem in problems)


def test_the_fingerprint_is_that_of_the_contents(tmp_path: Path) -> None:
    before = read_dataset(write(tmp_path)).fingerprint()
    assert read_dataset(write(tmp_path)).fingerprint() == before
    assert read_dataset(write(tmp_path, title=["B", "A", "C", "E"])).fingerprint() != before
    assert read_dataset(write(tmp_path, item_id=[10, 20, 30, 40])).fingerprint() != before


def test_the_fingerprint_knows_which_columns_play_which_role(tmp_path: Path) -> None:
    """Content vectors are made from the roles; a finished stage must not be reused without them."""
    config = write(tmp_path)
    columns = config.data.item_columns.model_copy(update={"text": (), "category": ("title",)})
    data = config.data.model_copy(update={"item_columns": columns})
    other = read_dataset(config.model_copy(update={"data": data}))
    assert other.items.frame.equals(read_dataset(config).items.frame)
    assert other.fingerprint() != read_dataset(config).fingerprint()


# -- ids that go on from older ones ---------------------------------------------------------------


def test_ids_go_on_from_older_ones(data: Dataset) -> None:
    items, users = Vocabulary.from_ids(["10", "40"]), Vocabulary.from_ids(["gone", "2", "3"])
    on = data.continuing(items, users)
    assert on.item_ids.to_series().to_list() == ["10", "40", "20", "30"]
    assert on.items.ids == on.item_ids.to_series().to_list(), "rows are where their numbers say"
    assert on.items.frame["title"].to_list() == ["A", "D", "B", "C"]
    assert on.user_list == ["gone", "2", "3", "1"]
    assert on.histories().counts.tolist() == [0, 1, 2, 3]
    for row, user in enumerate(on.user_list[1:], start=1):
        before = data.histories().take([data.user_list.index(user)]).item_index
        after = on.histories().take([row]).item_index
        assert on.item_ids.ids(after) == data.item_ids.ids(before)
    again = on.continuing(on.item_ids, on.user_ids)
    assert again.items.frame.equals(on.items.frame)
    assert again.fingerprint() == on.fingerprint()


def test_older_items_must_be_in_the_catalogue(data: Dataset) -> None:
    items = Vocabulary.from_ids(["10", "50", "60"])
    with pytest.raises(DataError, match=r"2 of 3 are not there, first '50'; put their rows back"):
        data.continuing(items, data.user_ids)


# -- the moment a question is asked at ------------------------------------------------------------


def histories(rows: list[list[int]]) -> Histories:
    times = [time for row in rows for time in row]
    return Histories(
        np.cumsum([0, *map(len, rows)]).astype(np.int64),
        np.ones(len(times), dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.ones(len(times), dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("history", "target", "moment"),
    [
        ([1, 5], [9, 12], 9),  # when the target begins
        ([1, 5], [5, 12], 6),  # the two share a time: after the history
        ([1, 5], [], 6),  # nothing followed: just after the history
        ([], [9], 9),
        ([], [], 0),
    ],
)
def test_moment_of_a_question(history: list[int], target: list[int], moment: int) -> None:
    # A neighbour on either side, so that a row never reads another's events.
    cut = cut_histories(histories([[3], history, [100]]), histories([[4], target, []]))
    assert cut.moment.tolist() == [4, moment, 101]
    assert cut.moment.dtype == np.int64


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 9), max_size=5), st.integers(0, 5)),
        min_size=1,
        max_size=6,
    )
)
def test_the_whole_history_is_before_the_moment_and_no_target_is(
    users: list[tuple[list[int], int]],
) -> None:
    ordered = [(sorted(times), size) for times, size in users]
    cut = cut_histories(
        histories([times[:size] for times, size in ordered]),
        histories([times[size:] for times, size in ordered]),
    )
    for row, (times, size) in enumerate(ordered):
        past, future, moment = times[:size], times[size:], cut.moment[row]
        assert all(time < moment for time in past)
        tie = bool(past) and bool(future) and past[-1] == future[0]
        assert all(time >= moment - tie for time in future)


def test_no_users() -> None:
    assert cut_histories(histories([]), histories([])).moment.shape == (0,)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (pl.Series([[1.0, 2.0]] * 4, dtype=pl.Array(pl.Float32, 2)), [[1.0, 3.0]] * 4),
        (pl.Series([b"\xff", b"", None, b"a"]), [b"\xfe", b"", None, b"a"]),
        (pl.Series([timedelta(minutes=n) for n in range(4)]), [timedelta(0)] * 4),
        (pl.Series([time(n) for n in range(4)]), [time(0)] * 4),
        (pl.Series([[["a"]], [["b"], None], None, []]), [[["a"]], [["b"]], None, []]),
        (pl.Series([[["a"], ["b"]], [], [], []]), [[["a", "b"]], [], [], []]),
        (pl.Series([[1], [], None, []]), [[1], None, None, []]),
        (pl.Series([{"a": 1, "b": "x"}] * 4), [{"a": 1, "b": "y"}] * 4),
        (pl.Series([Decimal("1.25")] * 4), [Decimal("1.26")] * 4),
        (pl.Series([2**70, 1, 2, None], dtype=pl.Int128), [2**70 + 1, 1, 2, None]),
    ],
    ids=lambda values: str(values.dtype) if isinstance(values, pl.Series) else "",
)
def test_the_fingerprint_sees_values_of_every_type(
    tmp_path: Path, first: pl.Series, other: list[Any]
) -> None:
    known = read_dataset(write(tmp_path, extra=first)).fingerprint()
    assert read_dataset(write(tmp_path, extra=first)).fingerprint() == known
    changed = pl.Series(other, dtype=first.dtype)
    assert read_dataset(write(tmp_path, extra=changed)).fingerprint() != known
