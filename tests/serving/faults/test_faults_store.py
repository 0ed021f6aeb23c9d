"""The store is killed, hangs or is full while requests and events keep coming."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from serving.errors import ServingError, StageUnavailable
from serving.impressions import read_impressions
from serving.store import GenerationStore
from tests.serving.connection.servers import Proxy, standalone
from tests.serving.faults.fault_world import (
    PATIENT_S,
    SETTINGS,
    USERS,
    Traffic,
    check_impressions,
    publish,
    shop,
)

VALKEY = [
    "valkey",
    pytest.param("redis", marks=pytest.mark.slow),
]
REDIS = [
    "redis",
    pytest.param("valkey", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("program", REDIS)
def test_store_killed_and_restarted_with_its_data(program: str, tmp_path: Path) -> None:
    durable = {"appendonly": "yes", "appendfsync": "always"}
    with standalone(program, **durable) as server, shop(server.url, tmp_path) as open_shop:
        publish(open_shop.store, "g1")
        with Traffic(open_shop) as traffic:
            for _ in range(2):
                traffic.wait_until_told()
                server.kill()
                away = traffic.wait_for(
                    lambda got: got.answer is not None and got.answer.degraded, "fallbacks", 50
                )
                traffic.wait_until_refused()
                # The lists were read before: they are answered from memory.
                assert {got.answer.source for got in away if got.answer} == {"cache"}
                server.restart()
                traffic.wait_until_good()
                traffic.wait_until_told()
        traffic.check()
        assert traffic.reasons() == {"store_unavailable"}
        assert open_shop.errors("store_unavailable") > 0
        answers = [got.answer for got in traffic.got if got.answer]
        check_impressions(open_shop, answers)
        logged = read_impressions(tmp_path / "impressions").collect()
        assert logged["degraded"].sum() == 5 * sum(answer.degraded for answer in answers)


@pytest.mark.parametrize("program", VALKEY)
def test_store_restarted_without_its_data(program: str, tmp_path: Path) -> None:
    with standalone(program) as server, shop(server.url, tmp_path) as open_shop:
        publish(open_shop.store, "g1")
        with Traffic(open_shop) as traffic:
            server.kill()
            traffic.wait_for(lambda got: got.answer is not None and got.answer.degraded, "a kill")
            traffic.wait_until_refused()
            told_before = len(traffic.told)
            server.restart()
            empty = traffic.wait_for(
                lambda got: got.answer is not None and got.answer.reason == "no_generation",
                "an empty store to be told",
                50,
            )
            assert {got.answer.source for got in empty if got.answer} == {"cache"}
            traffic.wait_until_told()
            publish(open_shop.store, "g2")
            traffic.wait_until_good()
            assert open_shop.ask("u0").generation == "g2"
        del traffic.told[:told_before]  # went with the data of the server
        traffic.check()
        assert traffic.reasons() == {"store_unavailable", "no_generation"}


@pytest.mark.parametrize("program", VALKEY)
def test_store_hung(program: str, tmp_path: Path) -> None:
    with (
        standalone(program) as server,
        Proxy(server.url) as proxy,
        shop(proxy.url, tmp_path) as open_shop,
    ):
        publish(open_shop.store, "g1")
        with Traffic(open_shop, readers=8, writers=8) as traffic:
            threads, connections = threading.active_count(), proxy.num_connections
            server.stop_process()
            began, seen = time.monotonic(), len(traffic.got)
            traffic.wait_for(lambda got: time.monotonic() > began + 5.0, "the hang to pass")
            hung = traffic.got[seen:]
            made = proxy.num_connections - connections
            grown = threading.active_count() - threads - 2 * made  # the proxy's own, two each
            elapsed = time.monotonic() - began
            server.cont()
            traffic.wait_until_good()
            traffic.wait_until_told()
        traffic.check()
        assert grown <= 0
        # Those under way when it began to hang, and then a caller now and then; each tries twice.
        assert made <= 2 * (8 + 8 + elapsed / SETTINGS.retry_after_s + 1)
        by_thread = [sum(got.user in USERS[number::8] for got in hung) for number in range(8)]
        assert max(got.took_s for got in hung) < 4
        assert min(by_thread) >= 20  # one that waited for the server would have a few
        assert len(traffic.refused) >= 8 * 20
        assert traffic.reasons() == {"store_unavailable"}


@pytest.mark.parametrize("program", REDIS)
def test_store_full(program: str, tmp_path: Path) -> None:
    with (
        standalone(program) as server,
        shop(server.url, tmp_path, timeout_s=PATIENT_S) as open_shop,
    ):
        publish(open_shop.store, "g1")
        with Traffic(open_shop) as traffic:
            traffic.wait_until_told()
            with server.client() as admin:
                admin.config_set("maxmemory-policy", "noeviction")
                admin.config_set("maxmemory", 1)
                traffic.wait_until_refused()
                told = len(traffic.told)
                epoch = open_shop.store.head().epoch
                with pytest.raises(ServingError, match="maxmemory"):
                    publish(open_shop.store, "g2")
                with pytest.raises(StageUnavailable, match="maxmemory"):
                    open_shop.service.hide(["i3"])
                assert open_shop.store.head().epoch == epoch
                full = traffic.wait_for(lambda got: True, "answers", 100)
                assert all(got.is_good for got in full)  # reading needs no memory
                assert len(traffic.told) == told
                admin.config_set("maxmemory", 0)
            traffic.wait_until_told()
            publish(GenerationStore(open_shop.client), "g2")
            traffic.wait_for(lambda got: got.answer.generation == "g2", "the new generation")
        traffic.check()
        assert traffic.reasons() == set()
