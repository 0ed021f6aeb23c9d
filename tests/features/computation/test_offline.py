from __future__ import annotations

import math
from datetime import datetime
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import (
    Affinity,
    Age,
    BasketShare,
    Category,
    Count,
    DataError,
    DayOfWeek,
    Definition,
    Difference,
    FeatureComputer,
    Field,
    HourOfDay,
    Interactions,
    Interval,
    ItemTable,
    LastNOverlap,
    ListContains,
    ListSize,
    MeanWeight,
    Position,
    Rate,
    Recency,
    RetrievalScore,
    Similarity,
    SlateRelative,
    TextMatch,
    Trend,
    UniqueCount,
    UserTable,
    VectorComponent,
    compute_features,
    default_definitions,
    item_features,
    request_features,
)
from features.computation.kinds import KINDS
from features.computation.requests import parts_of
from tests.feature_world import (
    DAY,
    EVENTS,
    EVERYTHING,
    HOUR,
    ITEMS,
    LATE_EVENTS,
    ROWS,
    START,
    STEP,
    USERS,
    VECTORS,
    interactions,
    requests_of,
)


def test_everything_means_every_kind() -> None:
    assert {type(definition) for definition in EVERYTHING} == {
        kind.definition for kind in KINDS.values()
    }


def compute(requests: pl.DataFrame, log: Interactions) -> pl.DataFrame:
    return compute_features(EVERYTHING, requests, log, ITEMS, USERS, VECTORS)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS | LATE_EVENTS, ROWS)
def test_equals_plain_loops(
    reference: ModuleType,
    events: list[Any],
    rows: list[tuple[int, str, str, datetime]],
) -> None:
    log, requests = interactions(events), requests_of(rows)
    result = compute(requests, log)
    world = reference.World(
        [reference.Event(*event) for event in log.frame.rows()],
        {row["item_id"]: row for row in ITEMS.frame.to_dicts()},
        {row["user_id"]: row for row in USERS.frame.to_dicts()},
        {"content": {"b": np.array([1.0, 0]), "a": np.array([0.0, 2]), "d": np.zeros(2)}},
    )
    plain = [
        reference.Row(
            row["request_id"],
            row["user_id"],
            row["item_id"],
            row["moment"],
            {
                name: math.nan if row[name] is None else float(row[name])
                for name in ("score__ann", "rank__ann")
            },
            row["query"],
            float(row["position"]),
        )
        for row in requests.to_dicts()
    ]
    by_name = {definition.name: definition for definition in EVERYTHING}
    for definition in EVERYTHING:
        expected = [
            reference.feature(world, plain, place, definition, by_name)
            for place in range(len(plain))
        ]
        np.testing.assert_allclose(
            result[definition.name].to_numpy(),
            np.array(expected),
            rtol=2e-6,
            atol=1e-6,
            err_msg=definition.name,
        )


@settings(max_examples=20)
@given(EVENTS, EVENTS, ROWS, STEP)
def test_nothing_at_or_after_the_moment_enters(
    events: list[tuple[str, str, datetime, str, float]],
    others: list[tuple[str, str, datetime, str, float]],
    rows: list[tuple[int, str, str, datetime]],
    cut: datetime,
) -> None:
    """Two logs that agree before the cut, and differ in any way from it on, give the same rows."""
    rows = [(request, user, item, min(moment, cut)) for request, user, item, moment in rows]
    past = [event for event in events if event[2] < cut]
    first = interactions(past + [event for event in events if event[2] >= cut])
    second = interactions(past + [event for event in others if event[2] >= cut])
    requests = requests_of(rows)
    result = compute(requests, first)
    # bit for bit: NaN equals NaN, and no tolerance
    assert result.equals(compute(requests, second))
    assert result.equals(compute(requests, interactions(past)))


@settings(max_examples=12)
@given(EVENTS, ROWS, st.randoms(use_true_random=False))
def test_rows_do_not_depend_on_their_neighbours(
    events: list[Any],
    rows: list[tuple[int, str, str, datetime]],
    random: Any,
) -> None:
    log, requests = interactions(events), requests_of(rows)
    result = compute(requests, log)
    assert result.select("request_id", "user_id", "item_id", "moment").equals(
        requests.select("request_id", "user_id", "item_id", "moment")
    )
    order = list(range(len(rows)))
    random.shuffle(order)
    assert compute(requests[order], log).equals(result[order])
    alone = [
        definition.name for definition in EVERYTHING if not isinstance(definition, SlateRelative)
    ]
    single = compute(requests[:1], log)
    assert single.select(alone).equals(result[:1].select(alone))


@settings(max_examples=12)
@given(EVENTS, STEP, st.sampled_from(["u", "v", "silent", "nobody"]))
def test_a_live_request_equals_training(
    events: list[tuple[str, str, datetime, str, float]], moment: datetime, user: str
) -> None:
    """Item values published at the moment + the user's own events = the whole log."""
    log = interactions(events)
    candidates = ["d", "a", "c", "b"]
    requests = requests_of([(0, user, item, moment) for item in candidates])
    names = [each.name for each in EVERYTHING if not isinstance(each, Position)]
    trained = compute(requests, log).select(names)
    computer = FeatureComputer(EVERYTHING, ITEMS, USERS, VECTORS)
    published = computer.item_features(log, moment)
    own = log.filter_users([user])
    read = ("score__ann", "rank__ann", "query")
    retrieval = {name: requests[name].to_numpy() for name in read}
    live = computer.request_features(user, candidates, moment, own, published, retrieval)
    assert live.select(names).equals(trained)
    assert live["position_shown"].to_list() == [3.0] * 4
    arrays = {
        name: published[name].to_numpy()[[3, 0, 2, 1]]
        for name in published.columns
        if name != "item_id"
    }
    live = request_features(
        EVERYTHING, user, candidates, moment, own, arrays, ITEMS, USERS, VECTORS, retrieval
    )
    assert live.select(names).equals(trained)


LOG = interactions(
    [
        ("u", "a", START, "view", 4.0),
        ("u", "b", START + DAY, "view", 2.0),
        ("v", "a", START + DAY, "buy", 5.0),
        ("u", "a", START + 2 * DAY, "buy", 3.0),
    ]
)


def value(definition: Definition, user: str, item: str, moment: datetime) -> float:
    rows = requests_of([(0, user, item, moment)])
    computed = compute_features([definition], rows, LOG, ITEMS, USERS, VECTORS)
    return float(computed[definition.name][0])


@pytest.mark.parametrize(
    ("definition", "user", "item", "day", "expected"),
    [
        # a event at the very moment does not count
        (Count(name="x"), "u", "a", 2, 2.0),
        (Count(name="x"), "u", "a", 3, 3.0),
        (Count(name="x"), "u", "a", 0, 0.0),
        # the window [1, 3) holds the events of days 1 and 2
        (Count(name="x", window_days=2), "u", "a", 3, 2.0),
        (Count(name="x", by="user", weighted=True), "u", "c", 3, 9.0),
        (Count(name="x", by="global", event="view"), "u", "c", 3, 2.0),
        (Count(name="x", by="user_item"), "u", "a", 3, 2.0),
        # genre y: all 4 events; x: the three with a; mean 3.5
        (Count(name="x", by="attribute", column="genres"), "u", "a", 3, 3.5),
        (Count(name="x", by="attribute", column="genres"), "u", "c", 3, math.nan),
        (Count(name="x", log=True), "u", "a", 3, math.log(4)),
        # weights 4, 5, 3 of a: two are at least 4; (2 + 1 * .5) / (3 + 1)
        (Rate(name="x", threshold=4, prior=0.5, prior_count=1), "u", "a", 3, 0.625),
        # all events: two of four
        (Rate(name="x", threshold=4, prior_count=2), "u", "a", 3, (2 + 2 * 0.5) / 5),
        (MeanWeight(name="x", prior_count=0), "u", "a", 3, 4.0),
        (MeanWeight(name="x", prior_count=0), "u", "d", 3, math.nan),
        (MeanWeight(name="x", prior_count=10, prior=2.5), "u", "d", 3, 2.5),
        (Recency(name="x", unit="s"), "u", "b", 3, 2 * 86_400.0),
        (Recency(name="x"), "u", "b", 3, math.log(3)),
        (Recency(name="x", by="user"), "nobody", "b", 3, math.nan),
        (Age(name="x", by="user", unit="s"), "u", "a", 3, 3 * 86_400.0),
        (Age(name="x", year_column="year"), "u", "a", 3, 20.0),
        (Age(name="x", year_column="year"), "u", "b", 3, math.nan),
        (Trend(name="x", short_days=1, long_days=2), "u", "a", 3, 0.5),
        # u met x in 2 of 3 events and y in all: mean 5/6
        (Affinity(name="x", column="genres"), "u", "a", 3, 5 / 6),
        (Affinity(name="x", column="genres", last=1), "u", "d", 3, 2 / 3),
        (Affinity(name="x", column="genres", last=2, how="any"), "u", "d", 3, 1.0),
        # last two of u: b {y} and a {x, y} against d {x, y, z}: 1/3 and 2/3
        (LastNOverlap(name="x", column="genres", last=2), "u", "d", 3, 0.5),
        # mean of b (1, 0) and a (0, 2) is (.5, 1)
        (Similarity(name="x", vectors="content", last=2), "u", "a", 3, 2 / math.sqrt(5)),
        (Similarity(name="x", vectors="content"), "u", "d", 3, math.nan),
        (HourOfDay(name="x"), "u", "a", 0.5, 12.0),
        # 2020-01-01 was a Wednesday
        (DayOfWeek(name="x"), "u", "a", 0, 2.0),
        (Field(name="x", table="user", column="age"), "silent", "a", 3, 50.0),
        (Field(name="x", column="year", default=7.0), "u", "unknown", 3, 7.0),
        (Category(name="x", column="maker", values=("k", "m")), "u", "a", 3, 2.0),
        (Category(name="x", column="maker", values=("k", "m")), "u", "b", 3, 0.0),
    ],
)
def test_by_hand(definition: Definition, user: str, item: str, day: float, expected: float) -> None:
    got = value(definition, user, item, START + day * DAY)
    assert got == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_how_due_an_item_is_by_hand() -> None:
    """u buys a on days 0, 2 and 6, and b twice on day 2; v buys a on days 1 and 9."""
    log = interactions(
        [
            *(("u", "a", START + day * DAY, "buy", 1.0) for day in (0, 2, 6)),
            ("u", "b", START + 2 * DAY, "buy", 1.0),
            ("u", "b", START + 2 * DAY, "view", 1.0),
            *(("v", "a", START + day * DAY, "buy", 1.0) for day in (1, 9)),
        ]
    )
    definitions = [
        Recency(name="since", by="user_item"),
        Interval(name="usual", prior_count=0),
        Interval(name="drawn", prior_count=2, prior=0.0),
        Difference(name="due", of="since", minus="usual"),
        BasketShare(name="share"),
        BasketShare(name="lately", window_days=5),
        UniqueCount(name="baskets", by="user", of="basket"),
    ]
    asked = [("u", "a", 7), ("u", "b", 7), ("u", "a", 9), ("u", "a", 10), ("silent", "a", 10)]
    rows = requests_of([(0, user, item, START + day * DAY) for user, item, day in asked])
    found = compute_features(definitions, rows, log, ITEMS)
    two, all_three = np.log1p(6 / 2), np.log1p(14 / 3)  # gaps of 2, 4 and then 8 days
    nan = math.nan
    for name, expected in {
        "usual": [two, 0.0, two, all_three, all_three],  # day 9 is not before day 9
        "drawn": np.log1p([6 / 4, 0.0, 6 / 4, 14 / 5, 14 / 5]),
        "due": [np.log(2) - two, np.log(6), np.log(4) - two, np.log(5) - all_three, nan],
        "share": [1.0, 1 / 3, 1.0, 1.0, nan],
        "lately": [1.0, 0.5, 1.0, 1.0, nan],
        "baskets": [3.0, 3.0, 3.0, 3.0, 0.0],
    }.items():
        np.testing.assert_allclose(
            found[name].to_numpy(), expected, rtol=1e-6, atol=1e-6, err_msg=name
        )


def test_slate_relative_by_hand() -> None:
    rows = requests_of(
        [(1, "u", "a", START), (1, "u", "b", START), (2, "u", "c", START), (1, "u", "d", START)]
    ).with_columns(pl.Series("score__ann", [3.0, 1.0, 9.0, None]))
    result = compute_features(
        [
            RetrievalScore(name="s", retriever="ann"),
            SlateRelative(name="r", of="s"),
            SlateRelative(name="m", of="s", how="minus_mean", default=0.0),
        ],
        rows,
        LOG,
        ITEMS,
    )
    np.testing.assert_array_equal(result["r"].to_numpy(), np.float32([0.75, 0.25, 0.5, np.nan]))
    assert result["m"].to_list() == [1.0, -1.0, 0.0, 0.0]


def test_a_late_event_by_hand() -> None:
    """Bought on day 1, known on day 3: nobody sees it before, and day 3 knows when it was."""
    log = interactions(
        [
            ("u", "a", START + DAY, "buy", 1.0, START + 3 * DAY),
            ("u", "a", START + 2 * DAY, "buy", 1.0, START + 2 * DAY),
            ("u", "b", START + 9 * DAY, "buy", 1.0, START + 2 * DAY),  # a wrong clock
        ]
    )
    definitions = [
        Count(name="all", by="user"),
        Count(name="day", by="user", window_days=1.5),
        Age(name="age", by="user", unit="s"),
        UniqueCount(name="items", by="user", of="item", window_days=1.5),
    ]
    days = [2.0, 3.0, 3.1, 4.0]
    rows = requests_of([(0, "u", "a", START + day * DAY) for day in days])
    found = compute_features(definitions, rows, log, ITEMS)
    assert found["all"].to_list() == [0.0, 2.0, 3.0, 3.0]
    assert found["day"].to_list() == [0.0, 2.0, 2.0, 0.0]
    assert found["items"].to_list() == [0.0, 2.0, 2.0, 0.0]
    ages = [math.nan, 86_400.0, 2.1 * 86_400, 3.0 * 86_400]
    np.testing.assert_allclose(found["age"].to_numpy(), ages)


def test_refresh_by_hand() -> None:
    """Counted at midnight: a day's events are seen from the next day on."""
    log = interactions([("u", "a", START + hour * HOUR, "view", 1.0) for hour in (1, 23, 24, 30)])
    definition = Count(name="n", window_days=1, refresh_s=86_400)
    hours = [2, 24, 25, 47, 48, 72]
    rows = requests_of([(0, "u", "a", START + hour * HOUR) for hour in hours])
    found = compute_features([definition], rows, log, ITEMS)
    assert found["n"].to_list() == [0.0, 2.0, 2.0, 2.0, 2.0, 0.0]


def test_bm25_by_hand() -> None:
    rows = requests_of([(0, "u", "b", START)]).with_columns(query=pl.lit("Red?"))
    found = compute_features([TextMatch(name="m", column="title")], rows, LOG, ITEMS)
    # 2 of 4 titles hold it; twice among 4 words, the mean title has (2 + 4 + 0 + 2) / 4 words
    expected = math.log(1 + 2.5 / 2.5) * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 2))
    assert found["m"][0] == pytest.approx(expected, rel=1e-6)


def test_a_wrong_time_zone_in_the_table() -> None:
    users = UserTable.from_frame(pl.DataFrame({"user_id": ["u"], "zone": ["Berlin"]}))
    rows = requests_of([(0, "u", "a", START)])
    with pytest.raises(DataError, match="such as 'Europe/Berlin', got 'Berlin' in the user table"):
        compute_features([HourOfDay(name="h", zone_column="zone")], rows, LOG, ITEMS, users)


@pytest.mark.parametrize("rows_at_once", [1, 3, 7, 100])
def test_parts_give_the_whole(rows_at_once: int) -> None:
    rng = np.random.default_rng(0)
    rows = requests_of(
        [
            (int(rng.integers(5)), "uv"[at % 2], "abcd"[at % 4], START + (at % 7) * 6 * HOUR)
            for at in range(17)
        ]
    )
    whole = compute(rows, LOG)
    parts = compute_features(
        EVERYTHING, rows, LOG, ITEMS, USERS, VECTORS, rows_at_once=rows_at_once
    )
    assert parts.equals(whole)
    cut = parts_of(rows, rows_at_once)
    assert sorted(np.concatenate(cut).tolist()) == list(range(17))
    ids = [set(rows["request_id"].gather(part)) for part in cut]
    assert sum(map(len, ids)) == rows["request_id"].n_unique()
    assert all(
        len(part) <= rows_at_once or len(own) == 1 for part, own in zip(cut, ids, strict=True)
    )


def test_rows_at_once_must_be_positive() -> None:
    with pytest.raises(DataError, match="rows_at_once must be >= 1, got 0"):
        compute_features([], requests_of([]), LOG, ITEMS, rows_at_once=0)


def test_columns_are_float32_in_the_order_of_the_definitions() -> None:
    result = compute(requests_of([(0, "u", "a", START + DAY)]), LOG)
    names = [definition.name for definition in EVERYTHING]
    assert result.columns[-len(names) :] == names
    assert set(result.select(names).dtypes) == {pl.Float32}


def test_empty_requests_and_an_empty_log() -> None:
    assert compute(requests_of([]), LOG).height == 0
    empty = interactions([])
    result = compute(requests_of([(0, "u", "a", START)]), empty)
    assert result["count_item"].to_list() == [0.0]
    assert math.isnan(result["recency_user"][0])
    assert compute(requests_of([]), empty).height == 0


def test_item_features_hold_every_item_once() -> None:
    moment = START + 3 * DAY
    frame = item_features(EVERYTHING, ITEMS, LOG, moment, VECTORS)
    assert frame["item_id"].to_list() == ITEMS.ids
    published = [d.name for d in EVERYTHING if d.scope in ("item", "global")]
    assert frame.columns == ["item_id", *published]
    assert frame["count_item"].to_list() == [3.0, 1.0, 0.0, 0.0]
    assert frame["count_global"].to_list() == [4.0] * 4


def test_a_candidate_that_was_not_published_has_no_item_values() -> None:
    definitions = [Count(name="n"), Count(name="m", default=0.0), Count(name="u", by="user")]
    published = item_features(definitions, ITEMS, LOG, START + 3 * DAY)
    live = request_features(definitions, "u", ["new", "a"], START + 3 * DAY, LOG, published, ITEMS)
    assert live["m"].to_list() == [0.0, 3.0]
    assert math.isnan(live["n"][0])
    assert live["u"].to_list() == [3.0, 3.0]


def test_many_values_and_wide_bit_sets() -> None:
    """200 values (four words): the path for sparse attributes agrees with counting sets."""
    rng = np.random.default_rng(0)
    lists = [[f"t{v:03d}" for v in rng.choice(200, size=5, replace=False)] for _ in range(30)]
    items = ItemTable.from_frame(
        pl.DataFrame({"item_id": [str(i) for i in range(30)], "tags": lists})
    )
    log = interactions(
        [("u", str(i), START + i * HOUR, "view", 1.0) for i in rng.permutation(30)[:12].tolist()]
    )
    rows = requests_of([(0, "u", str(i), START + 40 * HOUR) for i in range(30)])
    result = compute_features(
        [
            LastNOverlap(name="jaccard", column="tags", last=4),
            Affinity(name="affinity", column="tags"),
            Affinity(name="affinity_12", column="tags", last=12),
        ],
        rows,
        log,
        items,
    )
    last = [set(lists[int(i)]) for i in log.frame["item_id"][-4:]]
    jaccard = [
        float(np.mean([len(set(own) & s) / len(set(own) | s) for s in last])) for own in lists
    ]
    np.testing.assert_allclose(result["jaccard"].to_numpy(), jaccard, rtol=1e-6)
    np.testing.assert_allclose(result["affinity"], result["affinity_12"], rtol=1e-6)


def test_a_column_of_very_many_values_is_compared_value_by_value() -> None:
    rest = [str(v) for v in range(5_000)]
    tags = [["x", "y", *rest], ["y", "z", "w"], ["x"], []]
    ids = ["1", "2", "3", "4"]
    items = ItemTable.from_frame(pl.DataFrame({"item_id": ids, "tags": tags}))
    log = interactions([("u", "1", START, "view", 1.0), ("u", "2", START + HOUR, "view", 1.0)])
    rows = requests_of([(0, "u", item, START + DAY) for item in ids])
    found = compute_features([LastNOverlap(name="o", column="tags")], rows, log, items)["o"]
    expected = [(1.0 + 1 / 5_004) / 2, (1 / 5_004 + 1.0) / 2, (1 / 5_002 + 0.0) / 2, np.nan]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-6)


def test_default_definitions_run() -> None:
    definitions = default_definitions(ITEMS, ["ann"], vectors=["content"])
    assert len(definitions) >= 20
    names = {definition.name for definition in definitions}
    assert {"genres_affinity", "maker_code", "year", "year_age", "content_similarity"} <= names
    rows = requests_of([(0, "u", "a", START + 3 * DAY)])
    result = compute_features(definitions, rows, LOG, ITEMS, vectors=VECTORS)
    assert result["item_count"][0] == pytest.approx(math.log(4))
    short = default_definitions(ITEMS, short_days=7, long_days=70)
    assert Trend(name="item_trend", short_days=7, long_days=70, refresh_s=86_400) in short


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        ([Field(name="f", column="yaer")], r"definition 'f': item\.yaer must exist; known: .*year"),
        ([Field(name="f", table="user", column="zip")], r"user\.zip must exist; known: age"),
        ([Similarity(name="s", vectors="text")], r"vectors\.text must exist; known: content"),
        ([Affinity(name="s", column="genre")], r"item\.genre must exist"),
        ([ListSize(name="s", column="year")], "must be a list of text, got 'year' of type Int64"),
        (
            [ListContains(name="s", table="user", column="land", value="p")],
            "must be a list of text, got 'land' of type String",
        ),
        ([TextMatch(name="t", column="year")], "column must be text, got 'year' of type Int64"),
        (
            [VectorComponent(name="v", vectors="content", component=2)],
            "component must be below the 2 of vectors 'content', got 2",
        ),
        ([HourOfDay(name="h", zone_column="zip")], r"user\.zip must exist"),
        ([Count(name="moment")], "name must not be one of request_id, user_id, item_id, moment"),
        ([Count(name="n"), Count(name="n")], "name 'n' must be used once"),
    ],
)
def test_definitions_that_do_not_fit_the_tables(
    definitions: list[Definition], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        FeatureComputer(definitions, ITEMS, USERS, VECTORS)


def test_tables_that_were_not_given() -> None:
    with pytest.raises(DataError, match=r"user\.age must exist; known: none given"):
        FeatureComputer([Field(name="f", table="user", column="age")], ITEMS)
    with pytest.raises(DataError, match=r"vectors\.content must exist; known: none given"):
        FeatureComputer([Similarity(name="s", vectors="content")], ITEMS)


def test_vectors_have_a_padding_row() -> None:
    with pytest.raises(DataError, match=r"must be \[N \+ 1, D\] with N = 3, got shape \(3, 2\)"):
        FeatureComputer([], ITEMS, vectors={"content": (VECTORS["content"][0], np.zeros((3, 2)))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("moment"), "requests must have the column 'moment'"),
        (lambda f: f.drop("score__ann"), "requests must have the column 'score__ann'"),
        (lambda f: f.with_columns(query=pl.lit(7)), "query must be text, got Int32"),
        (
            lambda f: f.with_columns(pl.col("moment").dt.timestamp()),
            "moment must be a Datetime in UTC without time zone, got Int64",
        ),
        (
            lambda f: f.with_columns(pl.col("moment").dt.replace_time_zone("UTC")),
            "moment must be a Datetime in UTC without time zone",
        ),
        (
            lambda f: f.with_columns(pl.lit("high").alias("score__ann")),
            "score__ann must be a number, got String",
        ),
        (
            lambda f: f.with_columns(pl.lit(None, dtype=pl.String).alias("item_id")),
            "item_id must not be null or empty: 2 of 2 are, first in row 0",
        ),
        (
            lambda f: f.with_columns(pl.lit("").alias("user_id")),
            "user_id must not be null or empty",
        ),
        (
            lambda f: f.with_columns(pl.lit(None, dtype=pl.Datetime("us")).alias("moment")),
            "moment must not be null or empty",
        ),
    ],
)
def test_broken_requests(change: Any, message: str) -> None:
    rows = requests_of([(0, "u", "a", START), (0, "u", "b", START)])
    with pytest.raises(DataError, match=message):
        compute(change(rows), LOG)


def test_broken_item_values() -> None:
    computer = FeatureComputer([Count(name="n")], ITEMS)
    wrong_frame = pl.DataFrame({"item_id": ["a"]})
    with pytest.raises(DataError, match="item_values must have the column 'n', got item_id"):
        computer.request_features("u", ["a"], START, LOG, wrong_frame)
    with pytest.raises(DataError, match="item_values must have 'n', got none"):
        computer.request_features("u", ["a"], START, LOG, {})
    with pytest.raises(DataError, match=r"got shape \(2,\) for 1 candidates"):
        computer.request_features("u", ["a"], START, LOG, {"n": np.zeros(2)})
