"""Does any shape of file become the same recommender, with nothing edited by hand?

The script makes one small world of users, items and events, writes it in each of the shapes of
`real_logs_shapes`, and runs `recsys init`, `validate`, `train` and `evaluate` on the files. Of each
shape it compares the log that the configuration reads, event by event, with the world, the rows
that were no events with what `validate` counts, and, where nothing is lost in the shape, every
metric with that of the plain shape.

The section [data] and what else `init` wrote stay as they are. Training is made small: settings of
training and of measuring that `init` did not write are added to the file, the same for all shapes.
At the end `recsys init` runs on a CSV file of a million rows in a process of its own.

    python benchmarks/real_logs.py [--quick] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from real_logs_files import ALL, START, World, make_world
from real_logs_shapes import SHAPES, Shape
from reporting import Report, add_threads, say
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.dataset.tables import open_tables
from recsys.tuning.toml_text import to_toml
from serving.cli import app

FAST: Mapping[str, Any] = {
    "seed": 1,
    "content": {"dim": 8},
    "semantic_ids": {"kind": "residual_kmeans", "levels": 2, "codes": 8},
    "retrieval": {
        "dim": 8,
        "epochs": 2,
        "negatives": 16,
        "batch_size": 64,
        "hidden_dim": 16,
    },
    "ranking": {
        "candidates_per_source": 20,
        "folds": 2,
        "gbdt": {"num_trees": 10, "min_data_in_leaf": 5},
        "listwise": {"epochs": 1, "dim": 8, "top": 10},
    },
    "evaluation": {"bootstrap_samples": 50},
}
QUICK = ("plain CSV", "tabs", "lists, bars", "sequences", "properties of items")
STEPS = ("init", "validate", "train", "evaluate")
CLOSE = 1e-6


def run(verb: str, *arguments: str) -> tuple[int, str]:
    """Exit code and what was said."""
    result = CliRunner().invoke(app, [verb, *arguments])
    return result.exit_code, result.stdout + result.stderr


def with_small_training(path: Path) -> None:
    """Add what `init` did not write; what it wrote stays."""
    written = tomllib.loads(path.read_text(encoding="utf-8"))

    def added(own: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        both = {**more, **own}
        for name in own.keys() & more.keys():
            if isinstance(own[name], dict):
                both[name] = added(own[name], more[name])
        return both

    every = added(written, FAST)
    if every["data"] != written["data"]:
        raise RuntimeError("settings of the data must stay as init wrote them")
    path.write_text(to_toml(every), encoding="utf-8")


def log_of(shape: Shape) -> pl.DataFrame:
    """What the configuration reads, with times in seconds and kinds as the world has them."""
    log = open_tables(load_config(Path("recsys.toml"))).interactions.frame
    log = log.with_columns(pl.col("timestamp").dt.epoch("s"))
    if shape.kinds:
        log = log.with_columns(pl.col("event").replace(shape.kinds))
    return log if shape.only is None else log.filter(pl.col("event") == shape.only)


def compare(shape: Shape, world: World) -> tuple[int, int, str]:
    """Rows that were read, rows there are, and what is wrong with them."""
    log, truth = log_of(shape), shape.as_of(world)
    if shape.ordered:
        place = pl.int_range(pl.len()).over("user_id").alias("place")
        log, truth = (one.sort("timestamp").with_columns(place) for one in (log, truth))
    names = [*shape.keeps, *(["place"] if shape.ordered else [])]
    ours, theirs = (one.select(names).sort(names) for one in (log, truth))
    if ours.height != theirs.height:
        return log.height, truth.height, f"{ours.height:,} rows of {theirs.height:,}"
    for name in names:
        if ours[name].cast(pl.String).to_list() != theirs[name].cast(pl.String).to_list():
            return log.height, truth.height, f"{name} differs"
    return log.height, truth.height, ""


def metrics_of(text: str) -> dict[str, float]:
    """Mean of each metric of each system."""
    found = json.loads(text)["evaluations"]
    return {
        f"{system} {name}": one["mean"]
        for system, table in found.items()
        for name, one in table["metrics"].items()
    }


def last_line(text: str) -> str:
    """What went wrong, in text or in JSON."""
    if text.lstrip().startswith("{"):
        return " ".join(text.split())[:200]
    return (text.strip().splitlines() or ["nothing was said"])[-1][:200]


def examine(shape: Shape, world: World, plain: Mapping[str, float]) -> dict[str, Any]:
    """One row of the table; "wrong" says what is."""
    row: dict[str, Any] = {"shape": shape.name, "wrong": ""}
    began = time.perf_counter()
    arguments = [part for role, name in shape.write(world).items() for part in (f"--{role}", name)]
    code, told = run("init", *arguments)
    if code:
        return row | {"wrong": f"init: {last_line(told)}"}
    with_small_training(Path("recsys.toml"))
    code, told = run("validate")
    if code:
        return row | {"wrong": f"validate: {last_line(told)}"}
    row["read"], row["there"], fault = compare(shape, world)
    if fault:
        return row | {"wrong": f"columns: {fault}"}
    row["dropped"] = shape.dropped
    if shape.dropped and not re.search(rf"\b{shape.dropped}\b", told):
        return row | {"wrong": f"validate does not count the {shape.dropped} rows that are dropped"}
    for verb in ("train", "evaluate"):
        code, told = run(verb, "--json", "--no-progress")
        if code:
            return row | {"wrong": f"{verb}: {last_line(told)}"}
    row["metrics"] = metrics_of(told[told.index("{") :])
    row["seconds"] = round(time.perf_counter() - began, 1)
    if shape.same and plain:
        away = [abs(row["metrics"].get(name, np.inf) - value) for name, value in plain.items()]
        row["off by"] = float(f"{max(away):.2g}")
        if max(away) > CLOSE:
            row["wrong"] = f"metrics differ by {max(away):.2g}"
    return row


def large(rows: int, seed: int) -> dict[str, float]:
    """Seconds and peak memory of `recsys init` on a CSV file of so many rows."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, rows // 20, rows), rng.zipf(1.3, rows) % (rows // 50)
    log = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "timestamp": START + np.sort(rng.integers(0, 90 * 86_400, rows)),
            "event": rng.choice(["view", "cart", "purchase"], rows, p=[0.8, 0.15, 0.05]),
        }
    ).unique(["user_id", "item_id", "timestamp", "event"], maintain_order=True)
    log.write_csv("events.csv")
    named = pl.DataFrame({"item_id": np.unique(items)})
    named.with_columns(pl.format("thing {}", "item_id").alias("title")).write_csv("items.csv")
    command = [str(Path(sys.executable).with_name("recsys")), "init"]
    command += ["--events", "events.csv", "--items", "items.csv"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"init on {rows:,} rows: {last_line(done.stdout + done.stderr)}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "rows": log.height,
        "file_mb": round(Path("events.csv").stat().st_size / 2**20, 1),
        "seconds": round(seconds, 1),
        "peak_mb": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five shapes, and 50,000 rows")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these shapes, and no large file")
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large file")
    add_threads(parser)
    arguments = parser.parse_args()
    report = Report("real_logs", arguments, ("polars", "pyarrow", "torch", "lightgbm"))
    import torch

    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    world = make_world(arguments.users, arguments.items, arguments.seed)
    report.data(
        f"{world.events.height:,} events of {arguments.users} users and {arguments.items} items, "
        f"two kinds, seed {arguments.seed}; columns {', '.join(ALL)}"
    )
    wanted = arguments.only or (QUICK if arguments.quick else [one.name for one in SHAPES])
    unknown = [name for name in wanted if name not in {one.name for one in SHAPES}]
    if unknown:
        parser.error(f"--only must name shapes, got {unknown[0]!r}")
    home = Path.cwd()
    rows: list[dict[str, Any]] = []
    plain: dict[str, float] = {}
    for shape in (one for one in SHAPES if one.name in wanted or one.name == SHAPES[0].name):
        with tempfile.TemporaryDirectory(prefix="rs-") as directory:
            os.chdir(directory)
            try:
                row = examine(shape, world, plain)
            finally:
                os.chdir(home)
        found = row.pop("metrics", {})
        plain = plain or found
        rows.append(row | {"holds": "yes" if not row["wrong"] else "NO"})
        say(f"{shape.name}: {row['wrong'] or 'right'}")
    columns = ("shape", "read", "there", "dropped", "off by", "seconds", "holds")
    report.table(rows, columns)
    for row in rows:
        if row["wrong"]:
            print(f"{row['shape']}: {row['wrong']}")
    first: dict[str, float] = {}
    if not arguments.only:
        with tempfile.TemporaryDirectory(prefix="rs-") as directory:
            os.chdir(directory)
            try:
                first = large(50_000 if arguments.quick else arguments.rows, arguments.seed)
            finally:
                os.chdir(home)
        report.table([first])
    right = sum(not row["wrong"] for row in rows)
    report.bar("shapes that come out right", right, equal_to=len(rows))
    report.close(rows=rows, metrics=plain, init_of_a_large_file=first)


if __name__ == "__main__":
    main()
