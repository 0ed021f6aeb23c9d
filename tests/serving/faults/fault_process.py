"""`recsys serve` as a process of its own, asked over HTTP as `tests.serving.faults.fault_world`
asks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from serving.errors import StageUnavailable
from serving.messages import (
    Event,
    EventReport,
    Recommendations,
    RecommendedItem,
    RecommendRequest,
)
from tests.serving.connection.servers import wait_for
from tests.serving.faults.fault_world import ITEM_IDS, Shop

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
[data]
events = "events.parquet"
items = "items.parquet"
[serving]
port = 0
live = false
head_ttl_s = 0.05
deadline_s = 10.0
store_timeout_s = 5.0
drain_s = 0.0
warm_up_s = 0.0
client_timeout_s = 1.0
session_events = 1000000
[impressions]
enabled = true
flush_s = 0.05
{more}
"""


class Serving:
    """A process that serves.

    Args:
        home: with a ``recsys.toml``.
        store_url: of the store.
        file_bytes: no file of the process may be longer; see `grow`. None: any length.
    """

    def __init__(self, home: Path, store_url: str, *, file_bytes: int | None = None) -> None:
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._log = home / "stderr.txt"
        program = "from serving.cli import main; main()"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, "serve", "-c", str(home / "recsys.toml")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RECSYS_STORE_URL": store_url},
            )
        if file_bytes is not None:
            self.grow(file_bytes)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.url = line.split()[-1]
        host, port = self.url.removeprefix("http://").split(":")
        self.address = (host, int(port))

    def grow(self, file_bytes: int = resource.RLIM_INFINITY) -> None:
        """Let files of the process become so long; a longer one is refused as on a full disk."""
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (file_bytes, hard))

    def log(self) -> str:
        """What it wrote to stderr."""
        return self._log.read_text(encoding="utf-8")

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of an answer, over a connection that each thread keeps."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(*self.address, timeout=30)
            self._connections.append(self._local.connection)
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"content-type": "application/json"}
        self._local.connection.request(method, path, data, headers)
        reply = self._local.connection.getresponse()
        return reply.status, reply.read()

    def metric(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none."""
        _, text = self.call("GET", "/metrics")
        written = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = f"{name}{{{written}}} " if labels else f"{name} "
        for line in text.decode().splitlines():
            if line.startswith(wanted):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def recommend(self, request: RecommendRequest) -> Recommendations:
        """As of `RecommendationService`."""
        body: dict[str, Any] = {"user_id": request.user_id, "k": request.k}
        if request.recent_items:
            body["context"] = {"recent_items": list(request.recent_items)}
        status, text = self.call("POST", "/v1/recommend", body)
        assert status == 200, (status, text)
        found = json.loads(text)
        items = tuple(RecommendedItem(**item) for item in found["items"])
        names = ("source", "generation", "request_id", "degraded", "reason")
        return Recommendations(items=items, **{name: found[name] for name in names})

    def record(self, events: Sequence[Event]) -> EventReport:
        """As of `RecommendationService`."""
        rows = [
            {
                "user_id": event.user_id,
                "item_id": event.item_id,
                "timestamp": event.timestamp,
                "event": event.event,
                "event_id": event.event_id,
            }
            for event in events
        ]
        status, text = self.call("POST", "/v1/events", {"events": rows})
        if status == 503:
            raise StageUnavailable(text.decode(), stage="store")
        assert status == 200, (status, text)
        return EventReport(**json.loads(text))

    def stop(self) -> None:
        """End it in order, and wait."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)

    def close(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.communicate()
        for connection in self._connections:
            connection.close()


def write_home(home: Path, more: str = "") -> None:
    """The files that `recsys serve` wants, without a bundle."""
    home.mkdir(parents=True, exist_ok=True)
    events = {"user_id": ["u0"], "item_id": ["i1"], "timestamp": [10**9]}
    pl.DataFrame(events).write_parquet(home / "events.parquet")
    pl.DataFrame({"item_id": ITEM_IDS}).write_parquet(home / "items.parquet")
    (home / "recsys.toml").write_text(CONFIG.format(more=more))


@contextlib.contextmanager
def serving(home: Path, store_url: str, **options: Any) -> Iterator[Serving]:
    """`Serving`, ready to answer from the store."""
    process = Serving(home, store_url, **options)
    try:
        wait_for(lambda: process.call("GET", "/health/ready")[0] == 200, "ready", process.log)
        yield process
    finally:
        process.close()


def over_http(open_shop: Shop, process: Serving) -> Shop:
    """The same shop whose questions and events go to a process."""
    return replace(open_shop, service=process)  # type: ignore[arg-type]
