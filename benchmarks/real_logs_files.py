"""One small world, and what writes its events in each shape of file of `real_logs`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

START = 1_700_000_000
ALL = ("user_id", "item_id", "timestamp", "event")
NO_KIND = ALL[:3]
Arguments = dict[str, str]


@dataclass(frozen=True)
class World:
    """The truth.

    Attributes:
        events: user_id, item_id, timestamp (seconds, no two equal), event; in order of time.
        items: item_id, genres, price, title; in order of the id.
    """

    events: pl.DataFrame
    items: pl.DataFrame


def make_world(users: int, items: int, seed: int) -> World:
    """Users of two tastes; a view, then now and then a purchase of the same item."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        likes = np.arange(items) % 2 == user % 2
        chance = np.where(likes, 6.0, 1.0)
        chosen = rng.choice(items, size=12, replace=False, p=chance / chance.sum())
        bought = rng.random(12) < 0.3
        for item, also in zip(chosen, bought, strict=True):
            rows.append((f"u{user:03}", f"i{item:03}", "view"))
            if also:
                rows.append((f"u{user:03}", f"i{item:03}", "purchase"))
    times = START + np.sort(rng.choice(90 * 86_400, size=len(rows), replace=False))
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "event"], orient="row")
    places = np.argsort(rng.random(len(rows)), kind="stable")
    events = frame[places.tolist()].with_columns(pl.Series("timestamp", times))
    numbers = np.arange(items)
    described = pl.DataFrame(
        {
            "item_id": [f"i{n:03}" for n in numbers],
            "genres": [["red|warm", "blue|cold"][n % 2] for n in numbers],
            "price": np.round(1 + rng.random(items) * 9, 2),
            "title": [f"{['Crimson', 'Azure'][n % 2]} thing für Zoë number {n}" for n in numbers],
        }
    )
    return World(events.select(ALL), described)


def csv(
    world: World, events: str = "events.csv", items: str = "items.csv", **how: Any
) -> Arguments:
    world.events.write_csv(events, **how)
    world.items.write_csv(items, **how)
    return {"events": events, "items": items}


def changed(
    change: Callable[[pl.DataFrame], pl.DataFrame], **names: str
) -> Callable[[World], Arguments]:
    """The plain shape with other events."""

    def write(world: World) -> Arguments:
        return csv(World(change(world.events), world.items), **names)

    return write


def time(text: str) -> Callable[[World], Arguments]:
    """Times written by a format of `strftime`."""
    moment = pl.from_epoch("timestamp", "s")
    return changed(lambda log: log.with_columns(moment.dt.strftime(text).alias("timestamp")))


def encoded(world: World, encoding: str) -> Arguments:
    texts = {"events.csv": world.events.write_csv(), "items.csv": world.items.write_csv()}
    for name, text in texts.items():
        Path(name).write_bytes(text.encode(encoding))
    return {"events": "events.csv", "items": "items.csv"}


def double_colon(world: World) -> Arguments:
    for name, frame in (("ratings.dat", world.events), ("movies.dat", world.items)):
        lines = ["::".join(map(str, row)) for row in frame.rows()]
        Path(name).write_text("\n".join(lines) + "\n")
    return {"events": "ratings.dat", "items": "movies.dat"}


def packed(world: World, suffix: str) -> Arguments:
    text = world.events.write_csv().encode()
    name = f"events.csv.{suffix}"
    if suffix == "gz":
        Path(name).write_bytes(gzip.compress(text))
    else:
        import pyarrow

        with pyarrow.output_stream(name, compression="zstd") as stream:
            stream.write(text)
    world.items.write_csv("items.csv")
    return {"events": name, "items": "items.csv"}


def json_lines(world: World) -> Arguments:
    world.events.write_ndjson("events.jsonl")
    world.items.write_ndjson("items.jsonl")
    return {"events": "events.jsonl", "items": "items.jsonl"}


def nested(world: World) -> Arguments:
    rows = [
        {
            "who": {"user": {"id": user}},
            "item": {"id": item},
            "at": {"timestamp": time},
            "event": kind,
        }
        for user, item, time, kind in world.events.iter_rows()
    ]
    Path("events.json").write_text(json.dumps(rows, indent=1))
    world.items.write_csv("items.csv")
    return {"events": "events.json", "items": "items.csv"}


def parquet(world: World) -> Arguments:
    world.events.write_parquet("events.parquet")
    world.items.write_parquet("items.parquet")
    return {"events": "events.parquet", "items": "items.parquet"}


def parts(world: World, form: str) -> Arguments:
    """A directory of Parquet files, Hive's partitions by kind, or CSV files for a pattern."""
    Path("log").mkdir()
    world.items.write_csv("items.csv")
    if form == "hive":
        for (kind,), part in world.events.group_by("event"):
            Path(f"log/event={kind}").mkdir()
            part.drop("event").write_parquet(f"log/event={kind}/part-0.parquet")
        return {"events": "log", "items": "items.csv"}
    for number, part in enumerate(world.events.iter_slices(200)):
        if form == "glob":
            part.write_csv(f"log/day-{number:03}.csv")
        else:
            part.write_parquet(f"log/part-{number:03}.parquet")
    return {"events": "log/day-*.csv" if form == "glob" else "log", "items": "items.csv"}


def recbole(world: World) -> Arguments:
    kinds = {"timestamp": "float", "price": "float", "genres": "token_seq"}
    items = world.items.with_columns(pl.col("genres").str.replace("|", " ", literal=True))
    for name, frame in (("log.inter", world.events), ("log.item", items)):
        heads = {one: f"{one}:{kinds.get(one, 'token')}" for one in frame.columns}
        frame.rename(heads).write_csv(name, separator="\t")
    return {"events": "log.inter", "items": "log.item"}


def odd_names(world: World) -> Arguments:
    names = {"user_id": "Kunde", "item_id": "Artikel", "timestamp": "Zeitpunkt", "event": "Aktion"}
    world.events.rename(names).write_csv("events.csv")
    world.items.rename({"item_id": "Nr"}).write_csv("items.csv")
    return {"events": "events.csv", "items": "items.csv"}


def with_session(log: pl.DataFrame) -> pl.DataFrame:
    day = pl.col("timestamp") // 86_400
    session = pl.format("s{}-{}", pl.col("user_id").str.slice(1), day)
    return log.select(session.alias("session_id"), pl.all())


def impressions(world: World, *, header: bool = False) -> Arguments:
    """Each purchase as a click beside two items that were not clicked; 12 hours, as MIND has it."""
    clicks = world.events.filter(pl.col("event") == "purchase")
    others = world.items["item_id"].to_list()
    lines = ["impression_id\tuser_id\ttime\thistory\timpressions"] if header else []
    moments = pl.from_epoch(clicks["timestamp"], "s").dt.strftime("%m/%d/%Y %I:%M:%S %p")
    for number, (row, moment) in enumerate(zip(clicks.iter_rows(), moments, strict=True)):
        user, item = row[:2]
        place = others.index(item)
        shown = [others[(place + step) % len(others)] for step in (1, 2)]
        told = f"{shown[0]}-0 {item}-1 {shown[1]}-0"
        lines.append(f"{number + 1}\t{user}\t{moment}\t\t{told}")
    Path("behaviors.tsv").write_text("\n".join(lines) + "\n")
    world.items.write_csv("items.csv")
    return {"events": "behaviors.tsv", "items": "items.csv"}


def bought(world: World) -> pl.DataFrame:
    return world.events.filter(pl.col("event") == "purchase")


def sequences(world: World) -> Arguments:
    views = viewed(world)
    lists = views.group_by("user_id", maintain_order=True).agg("item_id")
    lines = [" ".join([user, *items]) for user, items in lists.iter_rows()]
    Path("train.txt").write_text("\n".join(lines) + "\n")
    world.items.write_csv("items.csv")
    return {"events": "train.txt", "items": "items.csv"}


def viewed(world: World) -> pl.DataFrame:
    """Views; of every other user all but the last two, so that users have not all as many."""
    views = world.events.filter(pl.col("event") == "view")
    late = pl.int_range(pl.len()).over("user_id") >= 10
    return views.filter(~(late & (pl.col("user_id").str.slice(1).cast(pl.Int64) % 2 == 0)))


def by_user(world: World) -> pl.DataFrame:
    lists = world.events.group_by("user_id", maintain_order=True).agg(pl.all())
    return lists.rename({"item_id": "item_ids", "timestamp": "timestamps", "event": "events"})


def lists(world: World, form: str) -> Arguments:
    lists = by_user(world)
    world.items.write_csv("items.csv")
    if form == "parquet":
        lists.write_parquet("users.parquet")
        return {"events": "users.parquet", "items": "items.csv"}
    if form == "objects":
        rows = [
            {"user_id": one, "events": part.drop("user_id").to_dicts()}
            for (one,), part in world.events.group_by("user_id", maintain_order=True)
        ]
        Path("users.json").write_text(json.dumps(rows))
        return {"events": "users.json", "items": "items.csv"}
    names = ("item_ids", "timestamps", "events")
    texts = {
        "bar": lambda cell: "|".join(map(str, cell)),
        "json": lambda cell: json.dumps(list(map(str, cell))),
    }
    rows = [[user, *map(texts[form], cells)] for user, *cells in lists.iter_rows()]
    pl.DataFrame(rows, schema=["user_id", *names], orient="row").write_csv("users.csv")
    return {"events": "users.csv", "items": "items.csv"}


def matrix(world: World) -> Arguments:
    views = world.events.filter(pl.col("event") == "view").with_columns(
        (pl.col("timestamp") % 5 + 1).alias("stars")
    )
    names = world.items["item_id"].to_list()
    wide = views.pivot(on="item_id", index="user_id", values="stars", on_columns=names)
    wide.sort("user_id").write_csv("matrix.csv")
    world.items.write_csv("items.csv")
    return {"events": "matrix.csv", "items": "items.csv"}


def order_lines(world: World, *, clock: bool) -> Arguments:
    log = world.events.with_row_index("order_id", 1)
    log.select("order_id", "item_id", "event").write_csv("lines.csv")
    number = pl.int_range(1, pl.len() + 1).over("user_id").alias("order_number")
    log.select("order_id", "user_id", "timestamp" if clock else number).write_csv("orders.csv")
    world.items.write_csv("items.csv")
    return {"events": "lines.csv", "items": "items.csv", "orders": "orders.csv"}


def properties(world: World) -> Arguments:
    texts = world.items.with_columns(pl.col("price").cast(pl.String))
    rows = texts.unpivot(index="item_id", variable_name="property").with_columns(
        pl.lit((START - 86_400) * 1000).alias("timestamp")
    )
    rows.select("timestamp", "item_id", "property", "value").write_csv("properties.csv")
    world.events.write_csv("events.csv")
    return {"events": "events.csv", "items": "properties.csv"}


def no_items(world: World) -> Arguments:
    world.events.write_csv("events.csv")
    return {"events": "events.csv"}


def marks(world: World) -> Arguments:
    """Three rows without a user, whom pandas and databases write in three ways."""
    first = world.events.head(3)
    lost = first.with_columns(pl.Series("user_id", ["NA", "", "\\N"]))
    csv(World(pl.concat([world.events, lost]), world.items))
    return {"events": "events.csv", "items": "items.csv"}


def repeated_header(world: World) -> Arguments:
    half = world.events.height // 2
    text = world.events.head(half).write_csv() + world.events.slice(half).write_csv()
    Path("events.csv").write_text(text)
    world.items.write_csv("items.csv")
    return {"events": "events.csv", "items": "items.csv"}


def returns(world: World) -> Arguments:
    """Two purchases more, and their return an hour later."""
    more = world.events.filter(pl.col("event") == "view").head(2)
    bought = more.with_columns(pl.lit("purchase").alias("event"), pl.col("timestamp") + 1)
    back = bought.with_columns(pl.col("timestamp") + 3600)
    log = pl.concat(
        [
            world.events.with_columns(pl.lit(1).alias("quantity")),
            bought.with_columns(pl.lit(1).alias("quantity")),
            back.with_columns(pl.lit(-1).alias("quantity")),
        ]
    )
    return csv(World(log.sort("timestamp"), world.items))


def url(world: World, scheme: str) -> Arguments:
    if scheme == "file":
        named = csv(world)
        return {role: Path(name).absolute().as_uri() for role, name in named.items()}
    import fsspec

    for name, frame in (("events.csv", world.events), ("items.csv", world.items)):
        with fsspec.open(f"memory://world/{name}", "w") as file:
            file.write(frame.write_csv())
    return {"events": "memory://world/events.csv", "items": "memory://world/items.csv"}


def users(world: World) -> Arguments:
    users = world.events["user_id"].unique().sort().to_frame()
    users.with_columns((pl.col("user_id").str.slice(1).cast(pl.Int64) % 7).alias("age")).write_csv(
        "users.csv"
    )
    return {**csv(world), "users": "users.csv"}
