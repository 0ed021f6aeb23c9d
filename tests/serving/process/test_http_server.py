"""The serving process as a whole: real sockets, a real store, pretend models."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis

import serving.process.server as module
from recsys.bundle import Bundle
from recsys.config import load_config
from serving.assembly import open_store
from serving.connection.embedded import EmbeddedStore
from serving.impressions import read_impressions
from serving.impressions.log import FeedbackLog, ImpressionLog
from serving.process.listening import bind, join, reserve, shown_url
from serving.request.service import RecommendationService
from tests.serving.fake_models import FakeModel

ROOT = str(Path(__file__).resolve().parents[3])
CONFIG = """
[data]
events = "events.parquet"
items = "items.parquet"
[serving]
live = {live}
rerank = "never"
head_ttl_s = 0.05
drain_s = 1.5
client_timeout_s = 5
[impressions]
enabled = true
"""


def make_bundle(home: Path, model: str) -> Bundle:
    with Bundle.create(home / "artifacts", config={"m": model}, data_fingerprint="d") as draft:
        for part in ("candidates", "data", "ranking"):
            (draft.path / part).mkdir()
        pl.DataFrame({"user_id": ["u"]}).write_parquet(draft.path / "candidates/users.parquet")
        pl.DataFrame({"id": ["a", "b", "c"]}).write_parquet(draft.path / "data/items.parquet")
        (draft.path / "ranking/ranker.txt").write_text(model)
        (draft.path / "recommender.json").write_text("{}")
    return draft.finished()


def publish(home: Path, generation: str) -> None:
    store = open_store(load_config(home / "recsys.toml"))
    store.publish(
        generation,
        users=[(["u"], np.array([[2, 3]]), np.array([[0.9, 0.5]], np.float32), 0)],
        item_ids=["a", "b", "c"],
        popular=(np.array([3, 1]), np.array([2.0, 1.0], np.float32)),
        vocabulary_sha256="v",
        ttl_s=3600,
    )


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    import tempfile

    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as name:
        directory = Path(name)
        events = {"user_id": ["u"], "item_id": ["a"], "timestamp": [10**9]}
        pl.DataFrame(events).write_parquet(directory / "events.parquet")
        pl.DataFrame({"item_id": ["a", "b", "c"]}).write_parquet(directory / "items.parquet")
        (directory / "recsys.toml").write_text(CONFIG.format(live="false"))
        yield directory
        EmbeddedStore.stop(directory / "artifacts" / "store")


def load_fake(path: Path) -> FakeModel:
    source = (path / "ranking/ranker.txt").read_text()
    return FakeModel(("b",), generation=path.name, source=source)


class Server:
    """`serving.process.server.serve` in a thread."""

    def __init__(self, config, *, listener=None, place=None) -> None:
        self.listener = listener or bind("127.0.0.1", 0)
        self.url = shown_url("127.0.0.1", self.listener)
        self.ready = threading.Event()
        self.servers: list = []
        with pytest.MonkeyPatch.context() as patch:
            made = module.DrainingServer

            def remembered(*args, **options):
                self.servers.append(made(*args, **options))
                return self.servers[-1]

            patch.setattr(module, "DrainingServer", remembered)
            self.thread = threading.Thread(
                target=module.serve,
                args=(config, self.listener),
                kwargs={"on_ready": self.ready.set, "place": place},
            )
            self.thread.start()
            until(lambda: self.servers)

    @property
    def listens(self) -> bool:
        return bool(self.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def stop(self) -> None:
        self.servers[0].handle_exit(signal.SIGINT, None)
        self.thread.join(20)
        assert not self.thread.is_alive()


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


def get(url: str, **headers: str):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(url: str, **body: object):
    request = urllib.request.Request(
        f"{url}/v1/recommend",
        data=json.dumps({"user_id": "u", "k": 1, **body}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def metric(url: str, name: str) -> dict[str, float]:
    """Samples of one name: labels as they are written -> value."""
    text = get(f"{url}/metrics")[1]
    found = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name)]
    return {key.removeprefix(name): float(number) for key, number in found}


def test_everything_is_closed_once_and_in_order(home, monkeypatch):
    publish(home, "g1")
    closed = []

    def noted(kind, name):
        close = kind.close

        def note(self):
            closed.append((name, self))
            close(self)

        monkeypatch.setattr(kind, "close", note)

    noted(RecommendationService, "service")
    noted(ImpressionLog, "impressions")
    noted(FeedbackLog, "feedback")
    noted(redis.Redis, "store")
    server = Server(load_config(home / "recsys.toml"))
    assert server.ready.wait(20)
    assert ask(server.url)["source"] == "cache"
    server.stop()
    client = closed[0][1].store.client  # others close themselves when they are collected
    names = [name for name, one in closed if name != "store" or one is client]
    assert names == ["service", "impressions", "feedback", "store"]


def test_half_a_bundle_leaves_the_old_model(home, monkeypatch):
    """The head moves to a generation whose directory is half deleted."""
    monkeypatch.setattr(module, "load_model", load_fake)
    (home / "recsys.toml").write_text(CONFIG.format(live="true"))
    first = make_bundle(home, "first")
    publish(home, first.id)
    server = Server(load_config(home / "recsys.toml"))
    try:
        assert server.ready.wait(20)
        assert ask(server.url, context={"recent_items": ["a"]})["items"][0]["source"] == "first"
        second = make_bundle(home, "second")
        shutil.copytree(second.path, home / "whole")
        shutil.rmtree(second.path / "ranking")
        publish(home, second.id)
        until(lambda: metric(server.url, "recsys_live_models_problem") == {"": 1.0})
        answer = ask(server.url, context={"recent_items": ["a"]})
        assert answer["items"][0]["item_id"] in ("b", "c")
        assert metric(server.url, "recsys_live_model_info") == {f'{{generation="{first.id}"}}': 1.0}
        assert get(f"{server.url}/health/ready")[0] == 200
        # A request without recent items never needed the model.
        assert ask(server.url)["source"] == "cache"

        shutil.copytree(home / "whole" / "ranking", second.path / "ranking")
        until(lambda: metric(server.url, "recsys_live_models_problem") == {"": 0.0})
        assert ask(server.url, context={"recent_items": ["a"]})["items"][0]["source"] == "second"

        # The bundle in use loses files: what is in memory goes on.
        shutil.rmtree(second.path / "data")
        until(lambda: metric(server.url, "recsys_live_models_problem") == {"": 1.0})
        assert ask(server.url, context={"recent_items": ["a"]})["items"][0]["source"] == "second"
    finally:
        server.stop()


def test_a_start_without_the_bundle_still_serves_the_store(home):
    (home / "recsys.toml").write_text(CONFIG.format(live="true"))
    publish(home, "elsewhere")
    server = Server(load_config(home / "recsys.toml"))
    try:
        assert server.ready.wait(20)
        assert ask(server.url)["source"] == "cache"
        assert metric(server.url, "recsys_live_models_problem") == {"": 1.0}
        assert metric(server.url, "recsys_live_model_info") == {}
    finally:
        server.stop()


def test_nothing_published_is_not_ready_until_it_is(home):
    make_bundle(home, "first")
    server = Server(load_config(home / "recsys.toml"))
    try:
        assert server.ready.wait(20), "it says so rather than hang"
        status, text = get(f"{server.url}/health/ready")
        assert (status, json.loads(text)["reason"]) == (503, "no_generation")
        publish(home, next((home / "artifacts").glob("2*")).name)
        until(lambda: get(f"{server.url}/health/ready")[0] == 200)
        assert metric(server.url, "recsys_warm_up_questions")[""] > 0
        assert metric(server.url, "recsys_ready") == {"": 1.0}
    finally:
        server.stop()


def replacing(home) -> Server:
    """A worker that takes the place of one that ended."""
    with reserve("127.0.0.1", 0) as reserved:
        listener = join(*reserved.getsockname())
    place = module.Place("0", home, replaces=True)
    return Server(load_config(home / "recsys.toml"), listener=listener, place=place)


def test_a_replacement_is_ready_when_it_listens(home, monkeypatch):
    warming, let_go = threading.Event(), threading.Event()

    def replay(*args, **options):
        warming.set()
        assert let_go.wait(20)
        return module_replay(*args, **options)

    module_replay = module.replay
    monkeypatch.setattr(module, "replay", replay)
    publish(home, make_bundle(home, "first").id)
    server = replacing(home)
    try:
        assert warming.wait(20)
        assert not server.listens
        let_go.set()
        until(lambda: server.listens)
        assert get(f"{server.url}/health/ready")[0] == 200
        assert server.ready.wait(20)
    finally:
        server.stop()


def test_a_replacement_with_nothing_to_serve_says_so_in_the_end(home, monkeypatch):
    monkeypatch.setattr(module, "_ALONE_S", 0.5)
    make_bundle(home, "first")
    server = replacing(home)
    try:
        until(lambda: server.listens)
        status, text = until(
            lambda: "no_generation" in (found := get(f"{server.url}/health/ready"))[1] and found
        )
        assert (status, json.loads(text)["status"]) == (503, "not_ready")
        publish(home, next((home / "artifacts").glob("2*")).name)
        until(lambda: get(f"{server.url}/health/ready")[0] == 200)
    finally:
        server.stop()


@pytest.fixture
def served(home):
    """`recsys serve --workers 2` as a process of its own."""
    publish(home, make_bundle(home, "first").id)
    # Long enough for a busy machine to see the drain.
    text = (home / "recsys.toml").read_text().replace("drain_s = 1.5", "drain_s = 4")
    (home / "recsys.toml").write_text(text)
    program = "from serving.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "-c", str(home / "recsys.toml")]
    child = subprocess.Popen(
        [*command, "--port", "0", "--workers", "2", "--log-format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    with child:
        url = child.stdout.readline().split()[-1]
        yield child, url
        child.kill()


def workers_of(child) -> list[int]:
    path = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    return [int(one) for one in path.read_text().split()]


def test_two_workers_behind_one_port(served, home):
    child, url = served
    first = workers_of(child)
    assert len(first) == 2
    for _ in range(20):
        assert ask(url)["items"][0]["item_id"] == "b"
    counts = metric(url, 'recsys_requests_total{route="/v1/recommend"')
    assert sum(counts.values()) == 20
    assert set(metric(url, "recsys_worker_up").values()) == {1.0}

    until(lambda: sum(metric(url, "recsys_log_rows_written_total").values()) == 20)
    os.kill(first[0], signal.SIGKILL)

    def steady(condition):
        """What waited in the socket of the one that died is reset: ask again."""
        try:
            return condition()
        except OSError:
            return False

    restarts = "recsys_process_restarts_total"
    until(lambda: steady(lambda: sum(metric(url, restarts).values()) == 1))
    until(lambda: len(set(workers_of(child)) - {first[0]}) == 2)
    # Its successor takes no connection before it is warm.
    ready = set()
    while (
        len(metric(url, "recsys_worker_up")) < 2 or 0.0 in metric(url, "recsys_worker_up").values()
    ):
        ready.add(get(f"{url}/health/ready")[0])
    assert ready <= {200}
    assert ask(url)["items"][0]["item_id"] == "b"

    # Draining: not ready and still answering; then gone, with everything it started.
    host, port = url.removeprefix("http://").split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as kept:

        def asked() -> http.client.HTTPResponse:
            kept.request("GET", "/health/ready")
            reply = kept.getresponse()
            reply.read()
            return reply

        assert asked().status == 200
        child.send_signal(signal.SIGTERM)
        # One connection, so one process: the other may be told a moment later.
        last = until(lambda: (reply := asked()).status == 503 and reply)
        assert last.headers["connection"] == "close"
    assert ask(url)["items"][0]["item_id"] == "b"
    assert child.wait(20) == 0
    log = [json.loads(line) for line in child.stderr.read().splitlines()]
    assert {line["worker"] for line in log if line["event"] == "ready"} == {"0", "1"}
    ended = [line for line in log if line["event"].startswith("a process ended")]
    assert [(line["code"], line["restarts"]) for line in ended] == [(-9, 1)]
    assert "u" not in [value for line in log for value in line.values()]
    shown = read_impressions(home / "artifacts" / "impressions").collect()
    assert shown["user_id"].to_list() == ["u"] * 22, "the warm-up leaves no trace"


@pytest.mark.slow  # three starts of two processes
def test_workers_that_cannot_start_say_why(home):
    (home / "recsys.toml").write_text(CONFIG.format(live="false"))
    program = "from serving.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "-c", str(home / "recsys.toml")]
    done = subprocess.run(
        [*command, "--port", "0", "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ROOT, "RECSYS_STORE_URL": "nonsense://x"},
    )
    assert done.returncode == 1
    assert "error: worker" in done.stderr
    assert "before it was ready" in done.stderr
    assert "nonsense" in done.stderr
