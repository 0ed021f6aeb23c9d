from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.moments import EPOCH, microseconds
from features.tables import CREATED, Histories, Interactions, Vocabulary
from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from features.tables.schema import INTERACTION_SCHEMA
from recsys.dataset.user_events import UserEvents
from recsys.recommender.past import FreshEvent, LiveItems, LivePast, LoggedPasts, MappedPasts
from recsys.retrieval.popularity import PopularityRetriever

START = datetime(2024, 1, 1)
AS_OF = microseconds(START + timedelta(days=10))
ITEMS = Vocabulary.from_ids(["a", "b", "c"])
KNOWN = Vocabulary.from_ids(["x", "c", "b", "a"])  # the definitions' tables know one more


def log(late: bool = False) -> Interactions:
    rows = [
        ("ann", "a", START, "view", 1.0),
        ("ann", "gone", START + timedelta(days=1), "view", 2.0),
        ("ann", "b", START + timedelta(days=2), "buy", 5.0),
        ("ann", "lost", START + timedelta(days=3), "view", 2.0),
        ("ann", "gone", START + timedelta(days=4), "view", 2.0),
        ("bob", "c", START + timedelta(days=1), "view", 4.0),
    ]
    frame = pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")
    if late:
        frame = frame.with_columns((pl.col("timestamp") + pl.duration(days=1)).alias(CREATED))
    return Interactions(frame.sort("timestamp", "user_id", "item_id", "event"))


@pytest.fixture(params=["in memory", "mapped"])
def logged(request: pytest.FixtureRequest, tmp_path: Path) -> LoggedPasts | MappedPasts:
    if request.param == "in memory":
        return LoggedPasts(log(), ITEMS)
    UserEvents.write(tmp_path / "events.bin", log(), ITEMS)
    return MappedPasts(UserEvents.open(tmp_path / "events.bin"))


def past(
    logged: LoggedPasts | MappedPasts,
    user: str = "ann",
    recent: list[str] | None = None,
    fresh: list[FreshEvent] | None = None,
    moment_us: int | None = None,
    rules: EventRules | None = None,
    repeats: RepeatRule | None = None,
) -> LivePast:
    return LiveItems(ITEMS, KNOWN).past(
        user,
        logged,
        recent or [],
        fresh or [],
        as_of_us=AS_OF,
        moment_us=moment_us,
        rules=rules or EventRules(),
        repeats=repeats,
    )


def test_each_event_hides_its_item_as_long_as_its_kind_says(
    logged: LoggedPasts | MappedPasts,
) -> None:
    day = 86_400_000_000
    repeats = RepeatRule("after 1d", {"buy": "after 9d"})

    def hidden(**asked: Any) -> list[int]:
        found = past(logged, repeats=repeats, **asked).hidden(3)
        return np.flatnonzero(found[0]).tolist()

    assert np.flatnonzero(past(logged).hidden(3)[0]).tolist() == [1, 2]  # for good
    assert hidden() == [2]  # bought eight days before
    assert hidden(moment_us=AS_OF + day) == []
    bought = FreshEvent("c", AS_OF + day, "buy")
    assert hidden(fresh=[bought], moment_us=AS_OF + 2 * day) == [3]
    assert hidden(fresh=[bought], moment_us=AS_OF + 10 * day) == []
    assert hidden(recent=["a"]) == [1, 2]  # of no kind that is known


def test_the_log_alone(logged: LoggedPasts | MappedPasts) -> None:
    found = past(logged)
    assert found.moment_us == AS_OF
    assert found.history.item_index.tolist() == [1, 2]  # what the vocabulary holds
    assert found.history.weight.tolist() == [1.0, 5.0]
    events = found.events
    assert events.item.tolist()[:1] == [4]  # a, as the tables number it
    assert events.item[1] == events.item[4] > len(KNOWN)
    assert events.item[3] > len(KNOWN)
    assert events.item[3] != events.item[1]
    assert events.kind.tolist() == ["view", "view", "buy", "view", "view"]
    assert events.weight.tolist() == [1.0, 2.0, 5.0, 2.0, 2.0]
    assert (np.diff(events.happened) == 86_400_000_000).all()
    assert past(logged, "nobody").history.counts.tolist() == [0]
    assert past(logged, "").events.item.size == 0


def test_late_events_are_seen_from_their_arrival(tmp_path: Path) -> None:
    moment = microseconds(START + timedelta(days=2, hours=1))
    UserEvents.write(tmp_path / "events.bin", log(late=True), ITEMS)
    mapped = MappedPasts(UserEvents.open(tmp_path / "events.bin"))
    for logged in (LoggedPasts(log(late=True), ITEMS), mapped):
        found = past(logged, moment_us=moment)
        assert found.events.item.size == 2  # the third one is on its way
        assert (found.events.arrived - found.events.happened == 86_400_000_000).all()


def test_recent_items_and_fresh_events_come_on_top(logged: LoggedPasts | MappedPasts) -> None:
    found = past(logged, recent=["c", "zzz", "a"])
    assert found.history.item_index.tolist() == [1, 2, 3, 1]
    assert found.moment_us - found.history.timestamp[-1] == 1_000_000
    assert found.events.kind.tolist()[-2:] == ["recent", "recent"]
    assert found.events.weight[-1] == pytest.approx(16 / 6)  # the mean of the log
    later = AS_OF + 5_000_000
    fresh = [
        FreshEvent("b", later, "buy", 3.0),
        FreshEvent("c", AS_OF + 1_000_000, "view"),
        FreshEvent("a", AS_OF - 1, "view"),  # in the log already
        FreshEvent("new", later + 1),
    ]
    found = past(logged, fresh=fresh)
    assert found.moment_us == later + 2  # just after the newest
    assert found.history.item_index.tolist() == [1, 2, 3, 2]
    assert found.history.timestamp[-1] == later
    assert found.events.kind.tolist()[-2:] == ["view", "buy"]
    assert found.events.weight.tolist()[-2:] == [pytest.approx(16 / 6), 3.0]
    found = past(logged, fresh=fresh, moment_us=later)
    assert found.history.item_index.tolist() == [1, 2, 3]  # strictly before the moment
    assert past(logged, moment_us=AS_OF + 7).moment_us == AS_OF + 7


def test_popularity_counts_are_the_same_in_any_order_of_questions() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 10**6, 500)) * 86_400_000
    items = rng.integers(1, 9, 500)
    histories = Histories(np.array([0, 500]), items, times, np.ones(500, dtype=np.float32))
    nobody = Histories(
        np.zeros(2, dtype=np.int64),
        *([np.zeros(0, dtype=np.int64)] * 2),
        np.zeros(0, dtype=np.float32),
    )
    retriever = PopularityRetriever.fit(histories, 8, window_days=200.0)
    moments = rng.choice(times, 40) + rng.integers(-1, 2, 40)
    together = PopularityRetriever.fit(histories, 8, window_days=200.0).score_all(
        nobody.take([0] * 40), moments
    )
    for moment, wanted in zip(moments, together, strict=True):
        np.testing.assert_array_equal(retriever.score_all(nobody, np.array([moment]))[0], wanted)
    assert len(retriever._known_counts) <= 5


def test_the_epoch_of_moments() -> None:
    assert EPOCH + timedelta(microseconds=AS_OF) == START + timedelta(days=10)
