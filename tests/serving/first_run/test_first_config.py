from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.config.retrieval import RetrievalConfig
from recsys.dataset import read_dataset
from serving.cli import app
from serving.first_run.rules import sources_setting

START = 1_600_000_000
N = 200
USERS = [f"u{n % 13}" for n in range(N)]
ITEMS = [f"p{n * 7 % 30}" for n in range(N)]
TIMES = [START + 5_000 * n for n in range(N)]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = range(30)
    items = {"item_id": [f"p{n}" for n in rows], "title": [f"a title {n}" for n in rows]}
    pl.DataFrame(items | {"section_no": [1000 + n % 3 for n in rows]}).write_csv("items.csv")


def log(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES} | columns)


def first(frame: pl.DataFrame, *more: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The written file's values, what ``--json`` says, and the file's text."""
    frame.write_csv("log.csv")
    asked = ["init", "--force", "--events", "log.csv", "--items", "items.csv", *more]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    text = Path("recsys.toml").read_text()
    return tomllib.loads(text), json.loads(result.stdout), text


def test_what_init_writes_passes_validate() -> None:
    values, told, _ = first(log())
    assert told["problems"] == []
    assert (told["preview"]["rows"], told["preview"]["described"]) == (N, 1.0)
    assert values["split"] == {"kind": "time"}
    assert values["data"]["item_columns"]["category"] == ["section_no"]
    assert "rules" not in values["data"]
    result = CliRunner().invoke(app, ["validate"])
    assert result.exit_code == 0
    assert "no problems in log.csv, items.csv" in result.stdout
    assert len(read_dataset(load_config("recsys.toml")).interactions) == N


def test_kinds_are_listed_with_weights_and_counts() -> None:
    kinds = ["pv"] * 100 + ["cart"] * 40 + ["buy"] * 30 + ["hide"] * 20 + ["quux"] * 10
    values, told, text = first(log(behaviour=kinds))
    assert values["data"]["columns"]["event"] == "behaviour"
    assert values["data"]["kinds"] == {
        "pv": 0.1,
        "cart": 0.5,
        "buy": 1.0,
        "hide": -1.0,
        "quux": 1.0,
    }
    assert values["data"]["rules"] == {"targets": ["buy"]}
    assert "\npv = 0.1  # 100 rows\n" in text
    assert "\nquux = 1.0  # 10 rows, not a word that is known\n" in text
    assert told["problems"] == []
    assert told["preview"]["kinds"] == {"pv": 100, "cart": 40, "buy": 30, "hide": 20, "quux": 10}


def test_few_purchases_are_no_targets_but_a_proposal() -> None:
    values, _, text = first(log(event=["view"] * (N - 3) + ["buy"] * 3))
    assert "targets" not in values["data"].get("rules", {})
    assert '\n# targets = ["buy"]\n' in text


def test_one_kind_alone_counts_1() -> None:
    assert first(log(event=["view"] * N))[0]["data"]["kinds"] == {"view": 1.0}


def test_ratings_below_0_are_no_likes() -> None:
    values, told, text = first(log(rating=[-1, 0, 7, 10] * (N // 4)))
    assert values["data"]["columns"]["weight"] == "rating"
    assert values["data"]["rules"] == {"negative": "< 0"}
    assert "50 rows of 0 count nothing; 50 rows below 0 are no likes" in text.replace("\n# ", " ")
    assert '\n# positive = ">= 8"\n' in text
    assert told["problems"] == []
    assert told["preview"]["ratings"] == {"-1": 50, "0": 50, "7": 50, "10": 50}


def test_returns_orders_and_sessions() -> None:
    orders = [f"{user}/{n // 50}" for n, user in enumerate(USERS)]
    frame = log(Invoice=orders, Quantity=[1, 2, 3, -1] * (N // 4), session_id=range(N))
    values, told, text = first(frame)
    columns = values["data"]["columns"]
    assert (columns["order"], columns["quantity"]) == ("Invoice", "Quantity")
    assert values["data"]["rules"]["negative_quantity"] == "cancel"
    assert "says how many; 50 rows below 0 are returns" in text
    assert '\n# order = "session_id"\n' in text
    assert told["problems"] == []


def test_marks_of_no_value_in_roles_are_said_and_dropped() -> None:
    users = ["NA" if n % 10 == 0 else user for n, user in enumerate(USERS)]
    times = ["\\N" if n % 40 == 1 else str(time) for n, time in enumerate(TIMES)]
    values, told, _ = first(log(user_id=users, timestamp=times))
    assert values["data"]["read"]["events"]["missing"] == ["NA", "\\N"]
    assert values["data"]["rules"] == {"missing": "drop"}
    assert told["problems"] == []
    assert "25 rows without user_id, item_id or timestamp left out" in told["preview"]["taken"]


def test_repeats_and_items_without_a_row() -> None:
    frame = log(item_id=["p99" if n % 50 == 0 else item for n, item in enumerate(ITEMS)])
    values, told, text = first(pl.concat([frame, frame.head(3)]))
    assert values["data"]["rules"] == {"repeats": "sum", "undescribed": "take"}
    assert "5 rows (2 %) are of 1 items that the items' file does not have" in text
    assert told["problems"] == []
    rated = log(rating=[1, 2, 3, 4, 5] * (N // 5))
    values, _, _ = first(pl.concat([rated, rated.head(3)]))
    assert values["data"]["rules"] == {"repeats": "first"}


def test_a_log_of_one_moment_is_shuffled_and_split_by_user() -> None:
    values, told, _ = first(log().with_columns(timestamp=pl.lit("2018-09-20")).unique())
    assert values["data"]["rules"] == {"same_time": "shuffle"}
    assert values["data"]["columns"]["timestamp_unit"] == "iso"
    assert values["split"] == {"kind": "per_user"}
    assert told["problems"] == []


def test_logs_that_know_an_order_or_nothing() -> None:
    values, told, _ = first(log().drop("timestamp").with_columns(position=pl.int_range(N)))
    columns = values["data"]["columns"]
    assert (columns["timestamp"], columns["timestamp_unit"]) == ("position", "order")
    assert values["split"] == {"kind": "per_user"}
    assert told["problems"] == []
    values, told, _ = first(log().drop("timestamp").unique())
    assert values["data"]["columns"] == {
        "user": "user_id",
        "item": "item_id",
        "timestamp_unit": "none",
    }
    assert told["problems"] == []


def test_day_and_month_that_may_be_exchanged_stand_as_a_choice() -> None:
    days = [f"{1 + n % 17 * 11 // 16:02}/{1 + n // 17:02}/2019" for n in range(N)]
    values, told, text = first(log(timestamp=days))
    assert values["data"]["columns"]["timestamp_format"] == "%d/%m/%Y"
    assert '\n# timestamp_format = "%m/%d/%Y"\n' in text
    choices = [why for name, why in told["choices"] if name == "data.columns.timestamp_format"]
    assert "both fit every value, so check which one the file means" in choices[0]
    assert choices[1] == 'or "%m/%d/%Y": the other way round'


def test_columns_called_like_a_role_that_they_do_not_play_are_switched_off() -> None:
    frame = log(weight=["light", "heavy"] * (N // 2), event_id=["a", "b"] * (N // 2))
    values, told, _ = first(frame.with_columns(created=pl.lit(7)))
    columns = values["data"]["columns"]
    assert (columns["weight"], columns["event_id"], columns["created"]) == ("", "", "")
    assert told["problems"] == []
    assert len(read_dataset(load_config("recsys.toml")).interactions) == N


def test_a_log_alone() -> None:
    colours = ["red" if n % 3 else "blue" for n in range(30)]
    kinds = {
        "Description": [f"a thing called {item}" for item in ITEMS],
        "colour": [colours[int(item[1:])] for item in ITEMS],
        "country": ["UK" if int(user[1:]) else "FR" for user in USERS],
    }
    log(**kinds).write_csv("log.csv")
    result = CliRunner().invoke(app, ["init", "--events", "log.csv"])
    assert result.exit_code == 0, result.output
    told = result.stdout.splitlines()
    assert told[-1] == "wrote recsys.toml; next: recsys validate && recsys train"
    assert "no problems" in told
    values = tomllib.loads(Path("recsys.toml").read_text())
    assert "items" not in values["data"]
    assert values["data"]["columns"]["item"] == "item_id"
    described = {"title": "Description", "text": ["Description"], "category": ["colour"]}
    assert values["data"]["item_columns"] == described
    data = read_dataset(load_config("recsys.toml"))
    assert "retrieval" not in values
    assert data.items.category_columns == ("colour",)
    assert len(data.items) == 30


def test_items_that_nothing_describes_get_the_graph_filter_too() -> None:
    log().write_csv("log.csv")
    result = CliRunner().invoke(app, ["init", "--events", "log.csv"])
    assert result.exit_code == 0, result.output
    sources = load_config("recsys.toml").retrieval.sources
    assert sources == (*RetrievalConfig().sources, "graph_filter")
    assert "retrieval" not in first(log())[0]  # with items.csv


def test_a_large_log_is_not_asked_of_the_graph_filter() -> None:
    named = sources_setting(2_000_000)
    assert named is not None
    assert "graph_filter" in named.value
    assert sources_setting(2_000_001) is None


def test_what_is_left_to_do_is_said() -> None:
    frame = log(timestamp=["soon" if n == 7 else str(time) for n, time in enumerate(TIMES)])
    _, told, _ = first(frame)
    (problem,) = told["problems"]
    assert "column 'timestamp' must hold a time that can be read" in problem
    assert "'soon' (line 9)" in problem
