from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from features import (
    Count,
    DataError,
    Definition,
    LastNOverlap,
    MeanWeight,
    OnlineFeatures,
    Recency,
    UniqueCount,
    arrival,
    check_parity,
    compute_features,
)
from features.online.arrivals import arrivals
from features.online.cells import Cell
from features.online.parity import as_log
from tests.feature_world import (
    DAY,
    EVENTS,
    EVERYTHING,
    HOUR,
    ITEMS,
    LATE_EVENTS,
    ROWS,
    START,
    USERS,
    VECTORS,
    raw_events,
    requests_of,
)


def one_moment_each(rows: list[tuple[int, str, str, datetime]]) -> pl.DataFrame:
    """Requests of which each has a single moment."""
    requests = requests_of(rows)
    number = pl.struct("request_id", "moment").rank("dense").cast(pl.Int64)
    return requests.with_columns(number.alias("request_id"))


@settings(max_examples=20)
@given(EVENTS | LATE_EVENTS, ROWS)
def test_replaying_a_log_gives_what_the_log_gives(events: list[Any], rows: list[Any]) -> None:
    """Late events, duplicates and wrong clocks included, for every kind of definition."""
    requests = one_moment_each(rows)
    report = check_parity(EVERYTHING, requests, raw_events(events), ITEMS, USERS, VECTORS)
    assert report.equal, str(report.first)
    assert report.values == len(rows) * len(EVERYTHING)


@pytest.mark.slow
def test_five_hundred_random_logs() -> None:
    rng = np.random.default_rng(0)
    late = duplicates = 0
    for _ in range(500):
        times = rng.integers(0, 21, (40, 2))
        events = [
            (
                str(rng.choice([*"uvw"])),
                str(rng.choice([*"abcdz"])),
                START + int(happened) * 6 * HOUR,
                str(rng.choice(["view", "buy"])),
                float(rng.choice([0.0, 0.1, 0.7, 1.3, 2.0, 3.0, 4.9])),
                START + int(max(arrived, happened - 1)) * 6 * HOUR,
            )
            for happened, arrived in times
        ]
        rows = [
            (
                int(rng.integers(3)),
                str(rng.choice(["u", "v", "silent"])),
                str(rng.choice([*"abcdz", "unknown"])),
                START + int(step) * 6 * HOUR,
            )
            for step in rng.choice([4, 9, 14, 19, 20], 12)
        ]
        requests = one_moment_each(rows)
        report = check_parity(EVERYTHING, requests, raw_events(events), ITEMS, USERS, VECTORS)
        assert report.equal, str(report.first)
        late += report.update.late
        duplicates += report.update.duplicates
    assert late > 1_000
    assert duplicates > 100


def test_dislikes_count_where_their_kind_is_named() -> None:
    """And nowhere else; what weighs nothing counts nowhere."""
    rng = np.random.default_rng(1)
    definitions: list[Definition] = [
        *EVERYTHING,
        *(Count(name=f"hides_{by}", by=by, event="hide") for by in ("item", "user", "user_item")),  # type: ignore[arg-type]
        Recency(name="since_hide", by="user", event="hide"),
        LastNOverlap(name="hidden", column="genres", last=3, event="hide"),
    ]
    counted = 0.0
    for _ in range(60):
        events = [
            (
                str(rng.choice([*"uvw"])),
                str(rng.choice([*"abcd"])),
                START + int(step) * 6 * HOUR,
                *[("view", 1.0), ("buy", 0.0), ("hide", -1.0), ("hide", -2.0)][rng.integers(4)],
                START + int(step) * 6 * HOUR,
            )
            for step in rng.integers(0, 20, 30)
        ]
        rows = [(0, user, item, START + 5 * DAY) for user in "uv" for item in "abcd"]
        requests = requests_of(rows)
        report = check_parity(definitions, requests, raw_events(events), ITEMS, USERS, VECTORS)
        assert report.equal, str(report.first)
        log = as_log(raw_events(events))
        assert log.dislikes is not None
        table = compute_features(definitions, requests, log, ITEMS, USERS, VECTORS)
        counted += float(table["hides_item"].sum())
    assert counted > 500


def test_a_divergence_is_shown_with_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that forgets its third event is found out, first where it shows first."""
    add = Cell.add
    counted: dict[int, int] = {}

    def forgetful(self: Cell, event: Any, values: Any) -> None:
        counted[id(self)] = counted.get(id(self), 0) + 1
        if counted[id(self)] != 3:
            add(self, event, values)

    monkeypatch.setattr(Cell, "add", forgetful)
    events = raw_events([("u", "a", START + day * DAY, "view", 1.0) for day in range(5)])
    rows = requests_of([(day, "u", "a", START + day * DAY) for day in range(6)])
    definitions: list[Definition] = [Count(name="n"), Recency(name="since", by="user")]
    report = check_parity(definitions, rows, events, ITEMS)
    assert report.differing == {"n": 3, "since": 1}
    assert report.first is not None
    first = report.first
    assert (first.definition.name, first.moment) == ("n", START + 3 * DAY)
    assert (first.offline, first.online) == (3.0, 2.0)
    assert first.events["timestamp"].to_list() == [START, START + DAY, START + 2 * DAY]
    assert "offline 3.0, online 2.0" in str(first)


def test_a_request_has_one_moment() -> None:
    rows = requests_of([(0, "u", "a", START), (0, "u", "a", START + DAY)])
    with pytest.raises(DataError, match="one moment; 1 requests have more, first: 0"):
        check_parity([Count(name="n")], rows, raw_events([]), ITEMS)


def test_state_is_read_at_any_later_moment() -> None:
    definitions: list[Definition] = [
        Count(name="day", by="user", window_days=1),
        UniqueCount(name="items", by="user", of="item", window_days=2),
        MeanWeight(name="mean", prior=0.0, prior_count=1),
    ]
    online = OnlineFeatures(definitions, ITEMS)
    report = online.update(
        raw_events([("u", "a", START, "view", 3.0), ("u", "b", START + 12 * HOUR, "view", 1.0)])
    )
    assert report == (2, 0, 0, 0)
    day, later = START + DAY, START + 2 * DAY
    found = online.request_features("u", ["a", "b", "c"], day)
    assert found["day"].to_list() == [2.0] * 3
    assert found["items"].to_list() == [2.0] * 3
    assert found["mean"].to_list() == [1.5, 0.5, 0.0]
    found = online.request_features("u", ["a"], later)
    assert (found["day"][0], found["items"][0]) == (0.0, 2.0)
    found = online.request_features("nobody", ["a"], later)
    assert (found["day"][0], found["items"][0]) == (0.0, 0.0)
    with pytest.raises(DataError, match="moment must not be before the newest event in the state"):
        online.request_features("u", ["a"], START)


def test_published_item_values_stand_in_for_the_items_state() -> None:
    definitions = [Count(name="n"), Count(name="mine", by="user_item")]
    online = OnlineFeatures(definitions, ITEMS)
    online.update(raw_events([("u", "a", START, "view", 1.0), ("v", "a", START, "view", 1.0)]))
    published = online.item_features(START + HOUR)
    assert published["n"].to_list() == [2.0, 0.0, 0.0, 0.0]
    assert online.item_features(START + HOUR, ["a"]).to_dicts() == [{"item_id": "a", "n": 2.0}]
    online.update(raw_events([("u", "a", START + 2 * HOUR, "view", 1.0)]))
    live = online.request_features("u", ["b", "a"], START + 3 * HOUR, published)
    assert live["n"].to_list() == [0.0, 2.0]
    assert live["mine"].to_list() == [0.0, 2.0]
    assert online.request_features("u", ["a"], START + 3 * HOUR)["n"][0] == 3.0


def test_packed_items_come_back_with_presence_and_age() -> None:
    online = OnlineFeatures([Count(name="n"), Recency(name="since", unit="s")], ITEMS)
    online.update(raw_events([("u", "a", START, "view", 1.0)]))
    schema, rows = online.packed_items(START + HOUR)
    assert list(rows) == ITEMS.ids
    block = schema.unpack([rows["b"], None, rows["a"]], moment=START + 3 * HOUR)
    assert block.present.tolist() == [True, False, True]
    assert block.age_s is not None
    np.testing.assert_array_equal(block.age_s, [7_200.0, np.nan, 7_200.0])
    assert block.values["n"][[0, 2]].tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(block.values["since"][[0, 2]], [np.nan, 3_600.0])


def test_an_event_that_comes_again_counts_once() -> None:
    online = OnlineFeatures([Count(name="n")], ITEMS, remember_days=1)
    frame = raw_events([("u", "a", START, "view", 1.0)])
    assert online.update(frame, arrived=START).applied == 1
    assert online.update(frame, arrived=START + HOUR) == (0, 1, 0, 0)
    with_id = raw_events([("u", "a", START + HOUR, "view", 1.0)]).with_columns(event_id=pl.lit("x"))
    moved = with_id.with_columns(timestamp=pl.lit(START + 2 * HOUR).cast(pl.Datetime("us")))
    assert online.update(with_id, arrived=START + 3 * HOUR) == (1, 0, 1, 0)
    assert online.update(moved, arrived=START + 4 * HOUR).duplicates == 1
    # forgotten after a day: that is what remember_days says
    assert online.update(frame, arrived=START + 3 * DAY).applied == 1
    assert online.item_features(START + 4 * DAY, ["a"])["n"][0] == 3.0


def test_an_arrival_before_the_newest_counts_as_arrived_with_it() -> None:
    online = OnlineFeatures([Count(name="n", refresh_s=3600)], ITEMS)
    online.update(raw_events([("u", "a", START, "view", 1.0, START + 5 * HOUR)]))
    report = online.update(raw_events([("u", "b", START, "view", 1.0, START + HOUR)]))
    assert report == (1, 0, 1, 1)
    assert online.item_features(START + 5 * HOUR, ["b"])["n"][0] == 0.0
    assert online.item_features(START + 6 * HOUR, ["b"])["n"][0] == 1.0


def test_nothing_changes_when_the_store_fails() -> None:
    from features.online.store import MemoryStateStore

    class Failing(MemoryStateStore):
        broken = False

        def write(self, values: Any) -> None:
            if self.broken:
                raise ConnectionError("gone")
            super().write(values)

    store = Failing()
    online = OnlineFeatures([Count(name="n")], ITEMS, store=store)
    event = raw_events([("u", "a", START, "view", 1.0)])
    again = raw_events([("u", "a", START + HOUR, "view", 1.0)])
    online.update(event)
    store.broken = True
    with pytest.raises(ConnectionError):
        online.update(again)
    store.broken = False
    assert online.item_features(START + DAY, ["a"])["n"][0] == 1.0
    assert online.update(again).applied == 1
    assert online.item_features(START + DAY, ["a"])["n"][0] == 2.0


def test_state_outlives_its_process_and_other_definitions_do_not_read_it() -> None:
    from features.online.store import MemoryStateStore

    store = MemoryStateStore()
    first = OnlineFeatures(EVERYTHING, ITEMS, USERS, VECTORS, store)
    events = [("u", item, START + hour * HOUR, "buy", 2.0) for hour, item in enumerate("abad")]
    first.update(raw_events(events[:2]))
    second = OnlineFeatures(EVERYTHING, ITEMS, USERS, VECTORS, store, cached=3)
    second.update(raw_events(events[2:]))
    whole = OnlineFeatures(EVERYTHING, ITEMS, USERS, VECTORS)
    whole.update(raw_events(events))
    rows = requests_of([(0, "u", item, START + DAY) for item in "abcd"])
    assert second.compute(rows).equals(whole.compute(rows))
    other = OnlineFeatures([Count(name="n")], ITEMS, store=store)
    assert other.item_features(START + DAY)["n"].to_list() == [0.0] * 4


def test_windows_are_forgotten() -> None:
    """State does not grow with events that no window can hold any more."""
    from features.online.store import MemoryStateStore

    store = MemoryStateStore()
    definitions = [
        Count(name="w", window_days=1),
        Count(name="b", window_days=1, refresh_s=3600),
        UniqueCount(name="u", of="user", window_days=1),
    ]
    online = OnlineFeatures(definitions, ITEMS, store=store)
    sizes = []
    for start in range(0, 2_000, 500):
        events = [
            (f"u{hour}", "a", START + hour * HOUR, "view", 1.0)
            for hour in range(start, start + 500)
        ]
        online.update(raw_events(events))
        (fields,) = store.read_all([f"{online.plan.digest}:i:a"])
        sizes.append(sum(len(value) for value in fields.values()))
    assert max(sizes) < 2 * sizes[0]
    moment = START + 2_000 * HOUR
    found = online.item_features(moment, ["a"])
    assert found.select("w", "b", "u").row(0) == (24.0, 24.0, 24.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("item_id"), "events must have the column 'item_id', got user_id"),
        (
            lambda f: f.with_columns(pl.col("timestamp").dt.replace_time_zone("UTC")),
            "timestamp must be a Datetime in UTC without time zone",
        ),
        (
            lambda f: f.with_columns(created=pl.lit("now")),
            "created must be a Datetime in UTC without time zone, got String",
        ),
        (lambda f: f.with_columns(weight=pl.lit("x")), "weight must be a number, got String"),
        (
            lambda f: f.with_columns(user_id=pl.lit(None, dtype=pl.String)),
            "user_id must not be null or empty: 1 of 1 break that, first in row 0",
        ),
        (lambda f: f.with_columns(weight=pl.lit(math.nan)), "weight must be a finite number:"),
        (lambda f: f.with_columns(event=pl.lit("")), "event must not be null or empty"),
    ],
)
def test_broken_events_change_nothing(change: Any, message: str) -> None:
    online = OnlineFeatures([Count(name="n", by="global")], ITEMS)
    frame = raw_events([("u", "a", START, "view", 1.0)])
    with pytest.raises(DataError, match=message):
        online.update(change(frame))
    assert online.item_features(START + DAY, ["a"])["n"][0] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": ""}, "user_id must not be empty, got ''"),
        ({"item": ""}, "item_id must not be empty"),
        ({"event": ""}, "event must not be empty"),
        ({"timestamp": START.replace(tzinfo=UTC)}, "timestamp must be UTC without time zone"),
        ({"created": START.replace(tzinfo=UTC)}, "created must be UTC without time zone"),
        ({"weight": -1.0}, "weight must be a finite number >= 0, got -1.0"),
        ({"weight": math.inf}, "weight must be a finite number >= 0, got inf"),
    ],
)
def test_a_broken_arrival(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        arrival(**{"user": "u", "item": "a", "timestamp": START, **arguments})


def test_one_arrival_is_the_row_of_a_frame() -> None:
    one = arrival("u", "a", START, event="buy", weight=0.1, created=START + HOUR, event_id="x")
    row = raw_events([("u", "a", START, "buy", 0.1, START + HOUR)])
    assert arrivals(row.with_columns(event_id=pl.lit("x"))) == [one]
    assert arrivals(row)[0].identity != one.identity


@pytest.mark.parametrize("name", ["remember_days", "cached"])
def test_arguments_must_be_positive(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} must be > 0, got 0"):
        OnlineFeatures([], ITEMS, **{name: 0})
