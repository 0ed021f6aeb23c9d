from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from features import DataError
from features.tables.roles import find_codes, find_log_roles, log_facts
from features.tables.roles.kinds import is_purchase, weight_of

NOW = datetime(2025, 1, 1)
START = 1_600_000_000
N = 120
USERS = [f"u{n % 11}" for n in range(N)]
ITEMS = [f"p{n * 7 % 30}" for n in range(N)]
TIMES = [START + 1_000 * n for n in range(N)]
CATALOGUE = pl.DataFrame(
    {"sku": [f"p{n}" for n in range(30)], "title": [f"t {n}" for n in range(30)]}
)


def roles(frame: pl.DataFrame, items: pl.DataFrame | None = None, **tables: Any) -> Any:
    return find_log_roles(frame, items, now=NOW, **tables)


def log(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES} | columns)


def named(*names: str) -> pl.DataFrame:
    return pl.DataFrame(dict(zip(names, (USERS, ITEMS, TIMES), strict=True)))


@pytest.mark.parametrize(
    "time",
    ["t_dat", "event_time", "eventdate", "InvoiceDate", "unixReviewTime", "rated_at", "zz"],
)
def test_a_time_is_known_by_its_values(time: str) -> None:
    found = roles(named("user_id", "item_id", time)).when
    assert (found.found.column, found.unit) == (time, "s")


@pytest.mark.parametrize(
    ("user", "item"),
    [
        ("CustomerID", "StockCode"),
        ("Customer ID", "Product ID"),
        ("visitorid", "itemid"),
        ("reviewerID", "asin"),
        ("Kunde", "Artikel"),
        ("msno", "song_id"),
    ],
)
def test_ids_by_name(user: str, item: str) -> None:
    for order in (("when", item, user), (user, item, "when")):
        frame = named(user, item, "when").select(order)
        found = roles(frame)
        assert (found.user.column, found.item.column) == (user, item)


def test_ids_of_columns_without_a_meaning() -> None:
    found = roles(named("a", "b", "c"))
    assert (found.user.column, found.item.column) == ("a", "b")
    assert "no column is called like a user's id" in found.user.reason
    assert found.item.reason.startswith("no column is called like an item's id")
    # A catalogue tells them whatever their order is.
    found = roles(named("a", "b", "c").select("b", "a", "c"), CATALOGUE)
    assert (found.user.column, found.item.column) == ("a", "b")
    assert found.item.reason == "100 % of the events join 'sku' of the items"
    assert (found.ids.items_key, found.ids.joined) == ("sku", 1.0)


def test_the_item_is_what_joins_the_catalogue() -> None:
    frame = log(product=[f"other {item}" for item in ITEMS]).rename({"item_id": "thing"})
    found = roles(frame, CATALOGUE)
    assert found.item.column == "thing"
    half = CATALOGUE.head(15)
    assert roles(frame, half).ids.joined == pytest.approx(
        sum(int(item[1:]) < 15 for item in ITEMS) / N
    )


def test_whole_numbers_that_happen_to_join_are_not_the_item() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [n % 11 for n in range(N)],
            "quantity": [1 + n % 5 for n in range(N)],
            "movie": [n * 7 % 30 for n in range(N)],
            "timestamp": TIMES,
        }
    )
    found = roles(frame, pl.DataFrame({"movieId": range(30), "year": [2000] * 30}))
    assert (found.user.column, found.item.column) == ("user_id", "movie")


def test_a_session_is_no_user_where_there_is_one() -> None:
    sessions = [f"s{n // 3}" for n in range(N)]
    frame = log(session_id=sessions).select("session_id", "user_id", "item_id", "timestamp")
    found = roles(frame)
    assert found.user.column == "user_id"
    assert found.sessions == (("session_id", "a session's id beside a user's, 40 different"),)
    assert found.order is None
    found = roles(frame.drop("user_id"))
    assert found.user.column == "session_id"
    assert found.user.reason.startswith("users are sessions")


def test_a_category_is_no_item() -> None:
    frame = log(category_id=[int(item[1:]) % 4 for item in ITEMS]).select(
        "category_id", "user_id", "item_id", "timestamp"
    )
    assert roles(frame).item.column == "item_id"
    opaque = frame.rename({"category_id": "k", "user_id": "a", "item_id": "item"})
    assert roles(opaque).user.column == "a"  # "k" is decided by the item


def test_no_columns_of_ids() -> None:
    frame = pl.DataFrame({"price": [1.5, 2.5], "timestamp": [START, START]})
    with pytest.raises(DataError, match=r"log.csv must have a column that can be the user's id, "):
        find_log_roles(frame, source="log.csv")


@pytest.mark.parametrize(
    "name", ["event", "event_type", "behaviour", "type", "interaction_type", "activity", "zz"]
)
def test_kinds_are_known_by_their_values(name: str) -> None:
    kinds = ["pv", "cart", "buy", "remove_from_cart"] * (N // 4)
    found = roles(log(**{name: kinds, "colour": ["red", "blue"] * (N // 2)}))
    assert found.kinds.column == name
    assert found.kinds.reason.startswith("4 kinds of event: 'pv', 'cart', 'buy', 'remove_from")


def test_what_is_no_kind() -> None:
    assert roles(log(type=["shoe", "hat"] * (N // 2))).kinds is None
    assert roles(log(genre=["play", "novel", "poem"] * (N // 3))).kinds is None
    assert roles(log(behavior_type=[1, 2, 3, 4] * (N // 4))).kinds.column == "behavior_type"


@pytest.mark.parametrize(
    ("kind", "weight", "bought"),
    [
        ("pv", 0.1, False),
        ("Product Viewed", 0.1, False),
        ("click", 0.2, False),
        ("Add to Cart", 0.5, False),
        ("addtocart", 0.5, False),
        ("remove_from_cart", 0.0, False),
        ("transaction", 1.0, True),
        ("Order Completed", 1.0, True),
        ("dislike", -1.0, False),
        ("refund", -1.0, False),
        ("impression", 0.0, False),
        ("play", 1.0, False),
        ("quux", None, False),
    ],
)
def test_what_kinds_are_worth(kind: str, weight: float | None, bought: bool) -> None:
    assert (weight_of(kind), is_purchase(kind)) == (weight, bought)


def test_ratings() -> None:
    found = roles(log(rating=[-1, 0, 5, 10] * (N // 4))).weight
    assert (found.found.column, found.negative, found.zero, found.high) == ("rating", 30, 30, 8.0)
    assert found.good == 0.25
    found = roles(log(stars=["4", "5", "NULL", "3"] * (N // 4))).weight
    assert (found.found.column, found.missing, found.high) == ("stars", 30, 4.0)
    assert roles(log(weight=["heavy"] * N)).weight is None
    plays = roles(log(plays=range(N))).weight
    assert (plays.found.column, plays.found.others) == ("", (("plays", "0 to 119"),))


def test_orders_and_quantities() -> None:
    orders = [f"{user}-{n // 40}" for n, user in enumerate(USERS)]
    found = roles(log(InvoiceNo=orders, Quantity=[1, 2, -1] * (N // 3), price=[1] * N))
    assert (found.order.column, found.quantity.column) == ("InvoiceNo", "Quantity")
    assert found.quantity.reason == "says how many; 40 rows below 0 are returns"
    # Lines of several users are no order, and neither are orders of one line each.
    assert roles(log(order_id=[n // 4 for n in range(N)])).order is None
    assert roles(log(order_id=range(N))).order is None


def test_arrival_and_event_ids() -> None:
    arrived = [time + 5 for time in TIMES]
    found = roles(log(created_at=arrived, event_id=[f"e{n}" for n in range(N)]))
    assert found.when.found.column == "timestamp"
    assert (found.created.column, found.event_id.column) == ("created_at", "event_id")
    found = roles(log(created_at=[time - 5 for time in TIMES], event_id=["a", "b"] * (N // 2)))
    assert (found.created, found.event_id) == (None, None)
    found = roles(named("user_id", "item_id", "created_at"))
    assert (found.when.found.column, found.created) == ("created_at", None)
    found = roles(log(seen=arrived))
    assert found.created is None
    assert found.later == (("seen", "never before 'timestamp', 100 % after it"),)


def test_times_of_something_else_are_not_the_time_of_the_event() -> None:
    frame = log(birth_date=["1995-05-05"] * N, signup_time=[START] * N)
    frame = frame.rename({"timestamp": "zz"}).select(
        "birth_date", "signup_time", "user_id", "item_id", "zz"
    )
    assert roles(frame).when.found.column == "zz"


def test_a_place_where_there_is_no_time() -> None:
    found = roles(named("user_id", "item_id", "x").drop("x").with_columns(pos=pl.int_range(N)))
    assert (found.when.found.column, found.when.unit) == ("pos", "order")
    assert (found.user.column, found.item.column) == ("user_id", "item_id")
    found = roles(pl.DataFrame({"user_id": USERS, "item_id": ITEMS}))
    assert (found.when.found.column, found.when.unit) == ("", "none")
    frame = pl.DataFrame({"user_id": USERS, "item_id": ITEMS, "when": ["soon"] * N})
    found = roles(frame)
    assert found.when.unit == "none"
    assert found.when.found.others[0][0] == "when"
    assert "say it in timestamp_format" in found.when.found.others[0][1]


def test_times_of_32_bits_are_told() -> None:
    frame = log().with_columns(pl.col("timestamp").cast(pl.Float32))
    assert "off by up to a minute" in roles(frame).when.found.reason


def test_facts() -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["u", "u", "NA", "v", "v", None],
            "item_id": ["a", "a", "b", "x", "x", "a"],
            "timestamp": [START, START, START, START, START + 1, START],
        }
    )
    found = roles(frame)
    facts = log_facts(frame, found, pl.Series(["a", "b"]))
    assert (facts.rows, facts.marks, facts.missing) == (6, {"NA": 1}, {"user_id": 2})
    assert (facts.repeats, facts.undescribed, facts.unknown_items) == (1, 2, 1)
    assert (facts.one_moment, facts.tied, facts.cut) == (0.5, 0.5, 1.0)
    # An item whose id is such a mark is none where the catalogue has it.
    frame = frame.with_columns(item_id=pl.Series(["NA", "a", "b", "x", "x", "a"]))
    facts = log_facts(frame, found, pl.Series(["a", "NA"]))
    assert facts.missing == {"user_id": 2}


def test_codes_are_categories_and_quantities_are_not() -> None:
    rows = 300
    frame = pl.DataFrame(
        {
            "item_id": range(rows),
            "department_no": [1000 + n % 12 for n in range(rows)],
            "brand": [n % 150 for n in range(rows)],
            "shelf": [n % 4 for n in range(rows)],
            "price": [n % 4 for n in range(rows)],
            "year": [2000 + n % 9 for n in range(rows)],
            "pieces": [n % 200 for n in range(rows)],
            "serial_no": range(rows),
            "share": [0.5] * rows,
        }
    )
    found = find_codes(frame, "item_id", 1_000)
    assert list(found) == ["department_no", "brand", "shelf"]
    assert found["department_no"] == "department_no: 12 numbers that are codes, by its name"
    assert list(find_codes(frame, "item_id", 100)) == ["department_no", "shelf"]


def _many(**columns: list[object]) -> pl.DataFrame:
    """300 rows of users, items and days, with other columns whose values go round."""
    count = 300
    own = {
        name: [values[row % len(values)] for row in range(count)]
        for name, values in columns.items()
    }
    return pl.DataFrame(
        {
            "user": [f"u{row * 7 % 31}" for row in range(count)],
            "thing_id": [f"{row * row % 53:03}X" for row in range(count)],
            "day": [f"2024-01-{1 + row % 28:02}" for row in range(count)],
            **own,
        }
    )


def test_a_rating_is_no_item_though_it_names_one() -> None:
    frame = _many(**{"Book-Rating": [0, 0, 5, 7, 8]}).rename({"thing_id": "ISBN"})
    found = find_log_roles(frame.select("user", "Book-Rating", "ISBN", "day"))
    assert found.item.column == "ISBN"
    assert found.weight is not None
    assert (found.weight.found.column, found.weight.zero) == ("Book-Rating", 120)


@pytest.mark.parametrize("values", [[True, False, False], [1, 0, 0]])
@pytest.mark.parametrize("name", ["liked", "is_click", "clicked", "purchased"])
def test_truth_values_weigh_events(name: str, values: list[object]) -> None:
    found = find_log_roles(_many(**{name: values}))
    assert found.weight is not None
    assert (found.weight.found.column, found.weight.zero) == (name, 200)


@pytest.mark.parametrize(
    ("kinds", "weights"),
    [
        (["Ansicht", "Kauf", "Retoure"], [0.1, 1.0, -1.0]),
        (["vue", "panier", "achat"], [0.1, 0.5, 1.0]),
        (["vista", "carrito", "compra", "devolución"], [0.1, 0.5, 1.0, -1.0]),
        (["浏览", "收藏", "购买"], [0.1, 0.5, 1.0]),
    ],
)
def test_kinds_of_other_languages(kinds: list[object], weights: list[float]) -> None:
    found = find_log_roles(_many(vorgang=kinds))
    assert found.kinds is not None
    assert found.kinds.column == "vorgang"
    assert [weight_of(str(kind)) for kind in kinds] == weights


def test_words_that_are_not_known_are_mentioned() -> None:
    frame = _many(vorfall=["foo", "bar", "baz", "foo"], country=["DE", "FR"])
    frame = frame.with_columns(colour=pl.col("thing_id").str.slice(0, 2))
    found = find_log_roles(frame)
    assert found.kinds is None
    assert [name for name, _ in found.other_kinds] == ["vorfall"]
    assert "3 kinds of event: 'foo', 'bar', 'baz'" in found.other_kinds[0][1]
