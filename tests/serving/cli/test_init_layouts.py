"""From files in which a row is not one event to checked tables, with what `init` wrote."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.dataset import read_dataset
from recsys.dataset.tables import item_titles, newest_events
from recsys.errors import ConfigError
from serving.cli import app

START = 1_600_000_000


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("items.csv", "item_id,title\nN1,A a\nN2,B b\nN3,C c\n1,D d\n2,E e\n03,F f\n")


def write(name: str, text: str) -> None:
    Path(name).write_text(text, encoding="utf-8")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout + result.stderr


FILES = {
    "impressions": (
        "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N2-0\n"
        "2\tU2\t11/12/2019 6:11:30 PM\tN2\tN1-0 N3-1\n"
    ),
    "sequences": "7 1 2 03\n8 03 1\n",
    "lists": (
        "user_id,item_ids,timestamps\n7,1 2 03,1600000000 1600000100 1600000200\n"
        "8,03 1,1600000000 1600000100\n"
    ),
    "matrix": "user_id,1,2,03\n7,5,,3\n8,,4,1\n",
}
PLAIN = {
    "impressions": [
        *[("U1", item) for item in ("N1", "N2", "N3")],  # what was shown alone counts nothing
        *[("U2", item) for item in ("N2", "N3")],
    ],
    "sequences": [("7", "03"), ("7", "1"), ("7", "2"), ("8", "03"), ("8", "1")],
    "lists": [("7", "03"), ("7", "1"), ("7", "2"), ("8", "03"), ("8", "1")],
    "matrix": [("7", "03"), ("7", "1"), ("8", "03"), ("8", "2")],
}


@pytest.mark.parametrize("layout", list(FILES))
def test_the_layout_is_written_and_read_again(layout: str) -> None:
    write("log.tsv" if layout == "impressions" else "log.csv", FILES[layout])
    name = "log.tsv" if layout == "impressions" else "log.csv"
    code, told = run("init", "--events", name, "--items", "items.csv")
    assert (code, "data.layout: " in told) == (0, True)
    assert tomllib.loads(Path("recsys.toml").read_text())["data"]["layout"] == layout
    assert run("validate")[0] == 0
    config = load_config(Path("recsys.toml"))
    log = read_dataset(config).interactions.frame
    assert sorted(log.select("user_id", "item_id").rows()) == PLAIN[layout]
    assert newest_events(config, 100).frame.equals(log)


def test_order_lines() -> None:
    write("lines.csv", "order_id,product_id\n1,03\n1,1\n2,2\n3,03\n")
    write("orders.csv", "order_id,user_id,order_number\n1,7,1\n2,7,2\n3,8,1\n")
    code, told = run("init", "--events", "lines.csv", "--items", "items.csv")
    assert code == 2
    assert "layout 'order_lines'" in told
    assert "--orders" in told
    orders = ("--orders", "orders.csv")
    write("items.csv", "product_id,title\n03,A a\n1,B b\n2,C c\n")
    assert run("init", "--events", "lines.csv", "--items", "items.csv", *orders)[0] == 0
    log = read_dataset(load_config(Path("recsys.toml"))).interactions.frame
    assert sorted(log.select("user_id", "item_id").rows()) == [
        ("7", "03"),
        ("7", "1"),
        ("7", "2"),
        ("8", "03"),
    ]


def test_properties_as_of_the_cut() -> None:
    events = [f"u{n % 2},{10 + n % 2},{START + n * 1000}" for n in range(10)]
    write("events.csv", "visitorid,itemid,timestamp\n" + "\n".join(events))
    late = START + 9_500
    rows = [
        f"{START},10,title,Lamp",
        f"{START},10,stock,5",
        f"{late},10,stock,9",
        f"{START},11,title,Chair",
        f"{late},11,title,Stool",
    ]
    write("items.csv", "timestamp,itemid,property,value\n" + "\n".join(rows))
    code, told = run("init", "--events", "events.csv", "--items", "items.csv")
    assert code == 0
    assert "2 properties of an item, as it was known when the training part ends" in told
    config = load_config(Path("recsys.toml"))
    table = read_dataset(config).items.frame
    assert table.sort("item_id").rows() == [("10", 5, "Lamp"), ("11", None, "Chair")]
    titled = config.data.item_columns.model_copy(update={"title": "title"})
    data = config.data.model_copy(update={"item_columns": titled})
    assert item_titles(config.model_copy(update={"data": data})) == {"10": "Lamp", "11": "Stool"}


def test_events_of_items_without_properties_are_left_out() -> None:
    lines = [f"u{n % 2},{n % 3},{START + n * 1000}" for n in range(12)]
    write("events.csv", "user_id,item_id,timestamp\n" + "\n".join(lines))
    rows = [f"{START - 1},{item},{name},x" for item in (0, 1) for name in ("a", "b")]
    write("items.csv", "timestamp,item_id,property,value\n" + "\n".join(rows))
    write(
        "recsys.toml",
        '[data]\nevents = "events.csv"\nitems = "items.csv"\nitem_layout = "properties"\n'
        '[data.rules]\nundescribed = "drop"\n',
    )
    data = read_dataset(load_config(Path("recsys.toml")))
    assert len(data.interactions) == 8
    assert data.items.ids == ["0", "1"]


def test_a_faulty_log_is_told_once() -> None:
    write("events.csv", "user_id,item_id,timestamp\na,1,1600000000\n,1,1600000001\n")
    write("items.csv", "timestamp,item_id,property,value\n1599000000,1,t,x\n1599000000,1,s,y\n")
    write(
        "recsys.toml",
        '[data]\nevents = "events.csv"\nitems = "items.csv"\nitem_layout = "properties"\n',
    )
    code, told = run("validate")
    assert code != 0
    assert told.count("must not be null") == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('layout = "properties"', "'data.layout' must be a layout of events"),
        ('layout = "order_lines"', "'data.orders' must name the file of the orders"),
        ('orders = "o.csv"', "'data.orders' must name .* got 'o.csv' with layout 'rows'"),
    ],
)
def test_layouts_that_do_not_fit(lines: str, message: str) -> None:
    write("recsys.toml", f'[data]\nevents = "e.csv"\nitems = "i.csv"\n{lines}\n')
    with pytest.raises(ConfigError, match=message):
        load_config(Path("recsys.toml"))
    write("recsys.toml", '[data]\nlayout = "lists"\n[data.feast]\nrepository = "f"\n')
    with pytest.raises(ConfigError, match=r"must not stand beside 'data.feast'"):
        load_config(Path("recsys.toml"))


def test_no_log_at_all_is_refused_by_its_name() -> None:
    write("log.txt", "0 qid:1 1:0.89 2:0.75\n1 qid:1 1:0.69 2:0.64\n")
    code, told = run("init", "--events", "log.txt", "--items", "items.csv")
    assert code == 2
    assert "of the layout 'svmlight'" in told
    assert "should not happen" not in told


def test_times_of_impressions_are_times() -> None:
    write("log.tsv", FILES["impressions"])
    run("init", "--events", "log.tsv", "--items", "items.csv")
    log = read_dataset(load_config(Path("recsys.toml"))).interactions.frame
    clicks = log.filter(pl.col("event") == "click")["timestamp"].to_list()
    assert clicks == [datetime(2019, 11, 11, 9, 5, 58), datetime(2019, 11, 12, 18, 11, 30)]
