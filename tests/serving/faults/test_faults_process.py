"""A serving process whose store dies, whose disk is full and whose clients misbehave."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from serving.impressions import read_impressions
from tests.serving.connection.servers import Store, standalone, wait_for
from tests.serving.faults.fault_process import Serving, over_http, serving, write_home
from tests.serving.faults.fault_world import K, Shop, Traffic, publish, shop

HALVES = (
    b"",
    b"POST /v1/recommend HT",
    b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 50\r\n\r\n{",
)
CLIENTS = 4  # of each kind


class World(NamedTuple):
    """A store, a shop over it, and a process that serves from it."""

    server: Store
    direct: Shop
    process: Serving


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    with (
        standalone(appendonly="yes", appendfsync="always") as server,
        shop(server.url, home / "direct") as direct,
    ):
        publish(direct.store, "g1")
        with serving(home, server.url) as process:
            yield World(server, direct, process)


def test_serving_process_outlives_its_store(world: World) -> None:
    with Traffic(over_http(world.direct, world.process)) as traffic:
        traffic.wait_until_told()
        world.server.kill()
        away = traffic.wait_for(lambda got: got.answer.degraded, "fallbacks", 50)
        assert {got.answer.reason for got in away} == {"store_unavailable"}
        traffic.wait_until_refused()
        assert world.process.call("GET", "/health/ready")[0] == 200
        assert world.process.metric(
            "recsys_stage_errors_total", kind="store_unavailable", stage="store"
        )
        world.server.restart()
        traffic.wait_until_good()
        traffic.wait_until_told()
    traffic.check()


def closed(client: socket.socket) -> bool:
    """Whether the other side has closed, without waiting; what it sent before is thrown away."""
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_clients_that_never_read_or_end_a_request(world: World) -> None:
    process = world.process
    before = {
        reason: process.metric("recsys_clients_dropped_total", reason=reason)
        for reason in ("slow_request", "slow_reader")
    }

    def dropped(reason: str) -> float:
        now = process.metric("recsys_clients_dropped_total", reason=reason)
        return now - before[reason]

    with (
        contextlib.ExitStack() as stack,
        Traffic(over_http(world.direct, process), readers=3, writers=1) as traffic,
    ):
        slow = []
        for half in HALVES * CLIENTS:
            slow.append(stack.enter_context(socket.create_connection(process.address)))
            slow[-1].sendall(half)
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(process.address)
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        during = traffic.wait_for(lambda got: True, "answers", 200)
        assert all(got.is_good for got in during)
        wait_for(lambda: dropped("slow_request") == len(slow), "half requests to be dropped")
        wait_for(lambda: dropped("slow_reader") == CLIENTS, "those that never read to be dropped")
        assert all(closed(client) for client in slow)
        traffic.wait_until_good()
    traffic.check()
    assert traffic.reasons() == set()
    assert process.metric("recsys_requests_in_flight") == 1  # this one
    assert " ERROR " not in process.log()


def test_disk_full_for_the_log(world: World, tmp_path: Path) -> None:
    write_home(tmp_path, more="queue_rows = 500")
    with serving(tmp_path, world.server.url, file_bytes=50_000) as process:

        def rows(name: str) -> float:
            return process.metric(f"recsys_log_rows_{name}_total", log="impressions")

        with Traffic(over_http(world.direct, process), writers=0) as traffic:
            wait_for(lambda: rows("dropped") > 0, "rows to be dropped", process.log)
            assert process.metric("recsys_log_write_errors_total", log="impressions") > 0
            full = traffic.wait_for(lambda got: True, "answers", 100)
            assert all(got.is_good for got in full)
            process.grow()
            written = rows("written")
            wait_for(lambda: rows("written") > written + 100, "writing to go on", process.log)
        traffic.check()
        assert traffic.reasons() == set()
        wait_for(lambda: process.metric("recsys_log_rows_pending", log="impressions") == 0, "rest")
        dropped, accepted = rows("dropped"), rows("accepted")
        assert accepted == rows("written")
        assert accepted + dropped == K * len(traffic.got)
        assert "No space" in process.log() or "File too large" in process.log()
        process.stop()
    logged = read_impressions(tmp_path / "artifacts" / "impressions").collect()
    assert len(logged) == accepted
    answered = {got.answer.request_id for got in traffic.got if got.answer}
    assert set(logged["request_id"]) <= answered
