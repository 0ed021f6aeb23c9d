from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from pyarrow.dataset import dataset

from features import ParquetDirectory, append_impressions
from features.sources.publishing import IMPRESSION_SCHEMA
from recsys.config.impressions import RowLogLimits
from serving.impressions import arm_of, join_feedback, read_feedback, read_impressions
from serving.impressions.log import FEEDBACK_COLUMNS, IMPRESSION_COLUMNS, FeedbackLog, ImpressionLog
from serving.impressions.row_journal import finished_files
from serving.messages import Event, Recommendations, RecommendedItem, RecommendRequest

NOON = datetime(2024, 5, 1, 12)
NOW = NOON.replace(tzinfo=UTC).timestamp()
SLATE = tuple(
    RecommendedItem(item_id, score, "two_tower", propensity)
    for item_id, score, propensity in (("i3", 2.5, 0.5), ("i1", 1.5, 0.25), ("i9", 0.5, 1.0))
)


def answer(request_id: str = "r1", **values: object) -> Recommendations:
    given = {"items": SLATE, "source": "cache", "generation": "g7", "request_id": request_id}
    return Recommendations(**{**given, **values})  # type: ignore[arg-type]


def test_every_place_of_a_slate_is_logged(tmp_path: Path) -> None:
    log = ImpressionLog(tmp_path, RowLogLimits(flush_s=0.01))
    shown = answer(policy="softmax", arms={"order": "soft", "price": "b"}, degraded=True)
    assert log.record(RecommendRequest("u1", k=3), shown, NOW)
    log.close()
    assert log.stats().written == 3
    rows = read_impressions(tmp_path).collect()
    assert dict(rows.schema) == IMPRESSION_COLUMNS
    assert rows.rows(named=True)[1] == {
        "user_id": "u1",
        "item_id": "i1",
        "timestamp": NOON,
        "request_id": "r1",
        "position": 2,
        "policy": "softmax",
        "propensity": 0.25,
        "generation": "g7",
        "arms": "order=soft;price=b",
        "stage": "cache",
        "source": "two_tower",
        "score": 1.5,
        "degraded": True,
    }
    arms = rows.select(arm_of("order"), arm_of("price"), arm_of("rder")).row(0, named=True)
    assert arms == {"order": "soft", "price": "b", "rder": None}


def test_positions_count_across_pages_and_a_place_counts_once(tmp_path: Path) -> None:
    log = ImpressionLog(tmp_path)
    log.record(RecommendRequest("u1"), answer(), NOW)
    later = (RecommendedItem("i4", 0.1, "popularity"),)
    log.record(RecommendRequest("u1"), answer(items=later), NOW + 1, first_position=4)
    log.record(RecommendRequest("u1"), answer(items=later), NOW + 2, first_position=4)
    log.close()
    rows = read_impressions(tmp_path).collect()
    assert rows["position"].to_list() == [1, 2, 3, 4]
    assert rows["timestamp"].to_list() == [NOON] * 3 + [NOON + timedelta(seconds=1)]
    assert rows["arms"].null_count() == 4


def test_an_empty_slate_is_no_row(tmp_path: Path) -> None:
    log = ImpressionLog(tmp_path)
    assert log.record(RecommendRequest("u1"), answer(items=()), NOW)
    log.close()
    assert log.stats().accepted == 0
    assert read_impressions(tmp_path).collect().shape == (0, len(IMPRESSION_COLUMNS))


def test_reading_a_span_of_time(tmp_path: Path) -> None:
    log = ImpressionLog(tmp_path)
    for hour in range(4):
        log.record(RecommendRequest("u1"), answer(f"r{hour}"), NOW + 3600 * hour)
    log.close()
    east = timezone(timedelta(hours=2))
    rows = read_impressions(
        tmp_path, since=NOON + timedelta(hours=1), until=datetime(2024, 5, 1, 17, tzinfo=east)
    )
    assert rows.collect()["request_id"].unique().sort().to_list() == ["r1", "r2"]


def test_arrow_reads_the_directory_while_the_log_is_open(tmp_path: Path) -> None:
    limits = RowLogLimits(flush_s=0.01, rotate_rows=3)
    log = ImpressionLog(tmp_path, limits)
    log.record(RecommendRequest("u1"), answer(), NOW)
    while not log.stats().files:
        time.sleep(0.005)
    assert len(list(tmp_path.iterdir())) > 1
    assert dataset(tmp_path, format="parquet").to_table().num_rows == 3
    log.close()


def test_files_of_an_older_version_lack_a_column(tmp_path: Path) -> None:
    log = ImpressionLog(tmp_path)
    log.record(RecommendRequest("u1"), answer(), NOW)
    log.close()
    (path,) = finished_files(tmp_path, "impressions")
    older = path.with_name(path.name.replace("-000001", "-000002"))
    pl.read_parquet(path).drop("degraded").with_columns(request_id=pl.lit("r0")).write_parquet(
        older
    )
    rows = read_impressions(tmp_path).collect()
    assert rows.height == 6
    assert rows["degraded"].null_count() == 3


def test_a_feature_store_takes_what_was_logged(tmp_path: Path) -> None:
    log = ImpressionLog(tmp_path / "log")
    log.record(RecommendRequest("u1"), answer("r1"), NOW)
    log.record(RecommendRequest(None), answer("r2"), NOW + 1)
    log.record(RecommendRequest("u2"), answer("r3", generation=None), NOW + 2)
    log.record(RecommendRequest("u2"), answer("r4"), NOW + 3)
    log.close()
    source = ParquetDirectory(tmp_path / "store")
    shown = read_impressions(tmp_path / "log").drop_nulls(["user_id", "generation"]).collect()
    receipt = append_impressions(source, shown)
    assert (receipt.view, receipt.rows) == ("impressions", 6)
    back = pl.concat(source.scan("impressions"))
    assert set(back.columns) == set(IMPRESSION_SCHEMA)
    assert back["request_id"].unique().sort().to_list() == ["r1", "r4"]
    keys = pl.DataFrame(
        {"user_id": ["u2"], "item_id": ["i1"], "timestamp": [NOON + timedelta(minutes=1)]}
    )
    assert source.as_of("impressions", keys)["position"].to_list() == [2]


def test_an_event_sent_again_counts_once(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, RowLogLimits(flush_s=0.01))
    again = Event("u1", "i1", NOW, "click", None, "e1", "r1")
    nameless = Event("u1", "i1", NOW, "buy", 2.0)
    assert log.record([again, again, nameless])
    assert log.record([again, nameless, Event("u1", "i1", NOW + 1, "buy", 2.0)])
    log.close()
    assert log.stats().written == 6
    rows = read_feedback(tmp_path).collect()
    assert dict(rows.schema) == FEEDBACK_COLUMNS
    assert rows.select("event", "event_id", "weight").rows() == [
        ("click", "e1", None),
        ("buy", None, 2.0),
        ("buy", None, 2.0),
    ]
    assert read_feedback(tmp_path, since=NOON + timedelta(seconds=1)).collect().height == 1


# -- attribution --------------------------------------------------------------------------------


def impressions(*rows: tuple[str, str | None, str, float]) -> pl.DataFrame:
    """Rows of request, user, item and seconds after noon."""
    return pl.DataFrame(
        [(r, u, i, NOON + timedelta(seconds=t)) for r, u, i, t in rows],
        schema={
            "request_id": pl.String,
            "user_id": pl.String,
            "item_id": pl.String,
            "timestamp": pl.Datetime("us"),
        },
        orient="row",
    )


def feedback(*rows: tuple[str | None, str, str, float, float | None]) -> pl.DataFrame:
    """Rows of request, user, item, seconds after noon and weight."""
    return impressions(*[row[:4] for row in rows]).with_columns(  # type: ignore[arg-type]
        pl.Series("weight", [row[4] for row in rows], dtype=pl.Float64)
    )


def test_an_event_rewards_the_request_it_names() -> None:
    shown = impressions(("r1", "u1", "i1", 0), ("r2", "u1", "i1", 10), ("r2", "u1", "i2", 10))
    events = feedback(("r1", "u1", "i1", 20, 2.0), ("r1", "u1", "i1", 25, None))
    joined = join_feedback(shown, events, window_s=60)
    assert joined.drop("reward", "num_events").equals(shown)
    assert joined["reward"].to_list() == [3.0, 0.0, 0.0]
    assert joined["num_events"].to_list() == [2, 0, 0]
    assert joined.schema["num_events"] == pl.UInt32


def test_without_a_known_request_the_last_time_shown_counts() -> None:
    shown = impressions(
        ("r1", "u1", "i1", 0),
        ("r2", "u1", "i1", 10),
        ("r3", "u1", "i1", 30),
        ("r4", "u2", "i1", 11),
    )
    events = feedback((None, "u1", "i1", 20, 1.0), ("lost", "u1", "i1", 29.5, 1.0))
    assert join_feedback(shown.lazy(), events.lazy(), window_s=60)["reward"].to_list() == [
        0,
        2,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("event", "reward"),
    [
        ((None, "u1", "i1", 60, 1.0), 1.0),  # exactly the window
        ((None, "u1", "i1", 60.000001, 1.0), 0.0),
        ((None, "u1", "i1", 0, 1.0), 1.0),  # the moment it was shown
        ((None, "u1", "i1", -0.000001, 1.0), 0.0),  # before
        (("r1", "u1", "i1", 60, 1.0), 1.0),
        (("r1", "u1", "i1", 61, 1.0), 0.0),
        (("r1", "u1", "i1", -1, 1.0), 0.0),
        (("r1", "u1", "i2", 5, 1.0), 0.0),  # that request did not show the item
        ((None, "u2", "i1", 5, 1.0), 0.0),  # another user
    ],
)
def test_the_window(event: tuple[str | None, str, str, float, float | None], reward: float) -> None:
    shown = impressions(("r1", "u1", "i1", 0), ("r9", None, "i1", 0))
    assert join_feedback(shown, feedback(event), window_s=60)["reward"].to_list() == [reward, 0.0]


def test_attribution_agrees_with_a_plain_loop() -> None:
    rng = random.Random(5)
    shown = impressions(
        *[
            (f"r{n // 3}", f"u{rng.randrange(4)}", f"i{n % 3}", rng.randrange(300))
            for n in range(120)
        ]
    )
    events = feedback(
        *[
            (
                rng.choice([None, f"r{rng.randrange(45)}"]),
                f"u{rng.randrange(4)}",
                f"i{rng.randrange(4)}",
                rng.randrange(300) + 0.5,
                rng.choice([None, 0.5, 2.0]),
            )
            for _ in range(300)
        ]
    )
    window = timedelta(seconds=40)
    expected = [0.0] * shown.height
    places = shown.rows(named=True)
    for event in events.rows(named=True):
        moment = event["timestamp"]
        named = [
            row
            for row, place in enumerate(places)
            if place["request_id"] == event["request_id"]
            and place["item_id"] == event["item_id"]
            and place["timestamp"] <= moment
        ]
        last = named or [
            row
            for row, place in sorted(enumerate(places), key=lambda one: one[1]["timestamp"])
            if (place["user_id"], place["item_id"]) == (event["user_id"], event["item_id"])
            and place["timestamp"] <= moment
        ]
        if last and moment - places[last[-1]]["timestamp"] <= window:
            expected[last[-1]] += 1.0 if event["weight"] is None else event["weight"]
    joined = join_feedback(shown, events, window_s=40)
    assert joined["reward"].to_list() == pytest.approx(expected)
    assert 0 < sum(expected) < 300


def test_nothing_shown_and_nothing_done() -> None:
    assert join_feedback(impressions(), feedback(), window_s=1).height == 0
    shown = impressions(("r1", "u1", "i1", 0))
    assert join_feedback(shown, feedback(), window_s=1)["num_events"].to_list() == [0]


def test_a_window_that_is_none() -> None:
    with pytest.raises(ValueError, match="window_s must be > 0 seconds, got 0"):
        join_feedback(impressions(), feedback(), window_s=0)
