"""A shop of a given size, trained and published: what `serving_load` asks questions of.

Users have a taste for some of 50 groups of items; within a group items are popular by Zipf's law.
The models are trained on the events of a part of the users, which is enough for trees and towers
of the usual size; every user's list is what the towers like best given all events, and is published
without being ranked: the service ranks it at every request.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from features.tables import TIMESTAMP, USER, Histories
from recsys.bundle import Bundle, latest
from recsys.config import Config, load_config
from recsys.dataset import read_dataset
from recsys.dataset.user_events import USER_EVENTS, UserEvents
from recsys.errors import ArtifactError
from recsys.pipeline import train
from recsys.recommender import Recommender
from serving.assembly import POPULAR
from serving.jobs.publish import publish

GROUPS = 50
END = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = ("two_tower", "co_occurrence", "popularity")

CONFIG = """\
seed = {seed}

[data]
events = "{events}"
items = "items.parquet"

[data.item_columns]
id = "item_id"
title = "title"
text = ["title"]
list = ["tags"]

[output]
directory = "artifacts"

[semantic_ids]
kind = "residual_kmeans"

[retrieval]
sources = {sources}
epochs = 3

[ranking]
candidates_per_source = {per_source}

[ranking.gbdt]
learning_rate = 0.02
num_leaves = 31

[store]
url = "{store}"

[serving]
rerank = "always"
deadline_s = 2.0
live_timeout_s = 1.0
drain_s = 0.1
pin_workers = true
warm_up_s = 5.0
"""


class World(NamedTuple):
    """A published shop.

    Attributes:
        config: file that `recsys serve --config` takes.
        bundle: the published one.
        users: ids of the users with a list.
        items: ids of the catalogue.
        candidates: entries of a user's list, on average.
    """

    config: Path
    bundle: Path
    users: list[str]
    items: list[str]
    candidates: float


def make_world(
    directory: Path,
    *,
    users: int,
    items: int,
    candidates: int,
    trained_users: int,
    seed: int,
    store: str = "embedded",
) -> World:
    """Make, train and publish; what is there already is not made again."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = {"users": users, "items": items, "candidates": candidates, "trained": trained_users}
    made = directory / "sizes.json"
    if not made.is_file() or json.loads(made.read_text()) != sizes:
        _write_tables(directory, users, items, trained_users, seed)
        made.write_text(json.dumps(sizes))
    paths = {}
    for name in ("train", "events"):
        paths[name] = directory / f"{name}.toml"
        paths[name].write_text(
            CONFIG.format(
                seed=seed,
                events=f"{name}.parquet",
                sources=json.dumps(SOURCES),
                per_source=round(candidates / len(SOURCES) * 1.15),
                store=store,
            )
        )
    config = load_config(paths["events"])
    try:
        bundle = latest(config.output.directory)
    except ArtifactError:
        bundle = train(load_config(paths["train"]))
    if not (bundle.path / "candidates").is_dir():
        _fill(config, bundle, candidates)
    bundle = Bundle.load(bundle.path)
    publish(config, bundle)
    listed = pl.read_parquet(bundle.path / "candidates" / "users.parquet")[USER].to_list()
    sizes_of = np.load(directory / "candidates.npy")
    catalogue = pl.read_parquet(directory / "items.parquet")["item_id"].to_list()
    return World(paths["events"], bundle.path, listed, catalogue, float(sizes_of.mean()))


def _write_tables(directory: Path, users: int, items: int, trained_users: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = np.array([f"word{number}" for number in range(4_000)])
    group = rng.integers(0, GROUPS, items)
    picked = words[(group[:, None] * 80 + rng.integers(0, 80, (items, 4))) % words.size]
    ids = np.array([f"item-{number:06d}" for number in range(items)])
    pl.DataFrame(
        {
            "item_id": ids,
            "title": [" ".join(row) for row in picked.tolist()],
            "tags": [
                [f"group{one}", f"tag{other}"]
                for one, other in zip(
                    group.tolist(), rng.integers(0, 200, items).tolist(), strict=True
                )
            ],
            "price": np.exp(rng.normal(3.0, 1.0, items)),
        }
    ).write_parquet(directory / "items.parquet")
    order = rng.permutation(items)
    by_group = [order[group[order] == one] for one in range(GROUPS)]
    counts = rng.poisson(20, users) + 3
    user = np.repeat(np.arange(users), counts)
    tastes = rng.integers(0, GROUPS, (users, 3))
    of_event = tastes[user, rng.integers(0, 3, user.size)]
    place = rng.pareto(1.0, user.size)
    width = np.array([one.size for one in by_group])[of_event]
    place = np.minimum((place * 8).astype(np.int64), width - 1)
    starts = np.cumsum([0, *[one.size for one in by_group]])[:-1]
    item = np.concatenate(by_group)[starts[of_event] + place]
    anywhere = rng.random(user.size) < 0.2
    item[anywhere] = order[rng.integers(0, items, int(anywhere.sum()))]
    seconds = END.timestamp() - rng.random(user.size) * 200 * 86_400
    events = (
        pl.DataFrame(
            {
                "user_id": pl.Series(user).cast(pl.String).str.pad_start(7, "0"),
                "item_id": ids[item],
                "timestamp": (seconds * 1e6).astype(np.int64),
            }
        )
        .with_columns(
            pl.concat_str(pl.lit("user-"), "user_id").alias("user_id"),
            pl.col("timestamp").cast(pl.Datetime("us")),
        )
        .sort("timestamp")
    )
    events.write_parquet(directory / "events.parquet")
    trained = pl.Series(user).lt(trained_users).sum()
    first = events.filter(pl.col("user_id") < f"user-{trained_users:07d}")
    if first.height != trained:
        raise AssertionError("the first users are those of the smallest ids")
    first.write_parquet(directory / "train.parquet")


def _fill(config: Config, bundle: Bundle, candidates: int) -> None:
    """The directory of candidates, with lists of the towers."""
    from recsys.progress import Progress
    from serving.jobs.candidates import _neighbours, _popular

    data = read_dataset(config)
    recommender = Recommender.load(bundle.path)
    events, users = data.interactions, data.user_list
    newest = events.frame[TIMESTAMP].max()
    as_of = newest + pl.select(pl.duration(microseconds=1)).item()
    moment = int(events.frame[TIMESTAMP].to_physical().max()) + 1
    histories = Histories.from_interactions(events, users, recommender.item_ids)
    lists = {
        "item_index": np.full((len(users), candidates), -1, dtype=np.int64),
        "score": np.full((len(users), candidates), -np.inf, dtype=np.float32),
        "source": np.zeros((len(users), candidates), dtype=np.uint8),
    }
    if recommender.towers is None:
        raise AssertionError("the shop is trained with towers")
    for start in range(0, len(users), 512):
        rows = np.arange(start, min(start + 512, len(users)))
        asked = histories.take(rows)
        found = recommender.towers.retriever.retrieve(
            asked,
            candidates,
            moment=np.full(rows.size, moment),
            excluded=asked.seen_mask(len(recommender.item_ids)),
        )
        lists["item_index"][rows], lists["score"][rows] = found.item_index, found.score
    counts = (lists["item_index"] > 0).sum(axis=1)
    np.save(bundle.path.parent.parent / "candidates.npy", counts)
    values = recommender.features.computer.item_features(events, as_of)
    with bundle.adding("candidates") as out:
        out.mkdir()
        save_file(lists, out / "lists.safetensors")
        pl.DataFrame({USER: users}).write_parquet(out / "users.parquet")
        save_file(_neighbours(recommender, Progress()), out / "neighbours.safetensors")
        values.with_columns(pl.lit(as_of).cast(pl.Datetime("us")).alias("as_of")).write_parquet(
            out / "item_features.parquet"
        )
        (out / POPULAR).write_text(json.dumps(_popular(recommender, as_of)) + "\n")
        UserEvents.write(out / USER_EVENTS, events, recommender.item_ids)
