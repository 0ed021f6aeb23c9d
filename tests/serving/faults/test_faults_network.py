"""The network between the service and the store is cut, swallows everything or is slow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from serving.errors import NoGeneration
from serving.messages import RecommendRequest
from serving.request.snapshot import BundledPopular
from tests.serving.connection.servers import Proxy, Store, standalone, wait_for
from tests.serving.faults.fault_world import POPULAR, TIMEOUT_S, Got, Shop, Traffic, publish, shop


class Link(NamedTuple):
    """A shop and its line to the store."""

    proxy: Proxy
    shop: Shop


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with standalone(request.param) as server:
        yield server


@pytest.fixture
def link(server: Store, tmp_path: Path) -> Iterator[Link]:
    server.servers[0].ask("FLUSHALL")
    with Proxy(server.url) as proxy:
        with shop(server.url, tmp_path / "publisher") as publisher:
            publish(publisher.store, "g1")
        with shop(proxy.url, tmp_path / "service") as open_shop:
            yield Link(proxy, open_shop)


def is_from_memory(got: Got) -> bool:
    answer = got.answer
    return answer is not None and (answer.source, answer.reason) == ("cache", "store_unavailable")


def test_network_cut(link: Link) -> None:
    with Traffic(link.shop) as traffic:
        for _ in range(3):
            link.proxy.cut()
            traffic.wait_for(is_from_memory, "answers from memory", 50)
            traffic.wait_until_refused()
            link.proxy.restore()
            traffic.wait_until_good()
            traffic.wait_until_told()
    traffic.check()
    assert traffic.reasons() == {"store_unavailable"}


def test_network_swallows_everything(link: Link) -> None:
    """Replies that come late, after all, are nobody else's."""
    with Traffic(link.shop) as traffic:
        for _ in range(2):
            link.proxy.blackhole()
            traffic.wait_for(is_from_memory, "answers from memory", 50)
            traffic.wait_until_refused()
            link.proxy.restore()
            traffic.wait_until_good()
            traffic.wait_until_told()
    traffic.check()


def test_network_slow_but_in_time(link: Link) -> None:
    with Traffic(link.shop) as traffic:
        seen = len(traffic.got)
        link.proxy.delay(TIMEOUT_S / 8)
        slow = traffic.wait_for(lambda got: got.took_s >= TIMEOUT_S / 4, "slow answers", 20)
        assert all(problem is None for problem in (one.error for one in slow))
        assert sum(one.is_good for one in slow) > len(slow) / 2  # a busy machine adds to it
        assert len(traffic.got) > seen
        link.proxy.restore()
        traffic.wait_until_good()
    traffic.check()


def test_network_slower_than_the_limit(link: Link) -> None:
    with Traffic(link.shop) as traffic:
        link.proxy.delay(3 * TIMEOUT_S)
        traffic.wait_for(is_from_memory, "answers from memory", 50)
        traffic.wait_until_refused()
        began = time.monotonic()
        link.proxy.restore()
        traffic.wait_until_good()
        traffic.wait_until_told()
    traffic.check()
    late = [got for got in traffic.got if got.began > began and not got.is_good]
    assert all(is_from_memory(got) for got in late)


def test_network_gone_at_the_start(link: Link, tmp_path: Path) -> None:
    """With the bundle's list popular items come at once; without it the error says why."""
    link.proxy.blackhole()
    with pytest.raises(NoGeneration):
        link.shop.service.recommend(RecommendRequest("u0"))
    bundled = BundledPopular(POPULAR, [1.0] * len(POPULAR))
    with shop(link.proxy.url, tmp_path / "bundled", bundled=bundled) as with_list:
        answer = with_list.ask("u0")
        assert (answer.source, answer.reason) == ("popular", "store_unavailable")
        assert with_list.service.not_ready() == "store_unavailable"
        link.proxy.restore()
        wait_for(lambda: with_list.service.not_ready() is None, "the store to be found")
        assert not with_list.ask("u0").degraded
    wait_for(lambda: link.shop.service.not_ready() is None, "the store to be found")
    assert not link.shop.ask("u0").degraded
