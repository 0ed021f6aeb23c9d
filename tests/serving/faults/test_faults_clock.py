"""The wall clock jumps by a day, and the store's clock is another one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.messages import Event, RecommendRequest
from tests.serving.connection.servers import Store, standalone
from tests.serving.faults.fault_world import (
    PATIENT_S,
    K,
    Shop,
    Traffic,
    check_impressions,
    publish,
    shop,
)

DAY = 86_400.0


class Clock:
    """Wall clock of this process; the server keeps the real one."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.ahead_s


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with standalone() as server:
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def world(server: Store, clock: Clock, tmp_path: Path) -> Iterator[Shop]:
    server.servers[0].ask("FLUSHALL")
    with shop(server.url, tmp_path, timeout_s=PATIENT_S, now=clock) as open_shop:
        publish(open_shop.store, "g1")
        yield open_shop


def shown(open_shop: Shop, user: str, cursor: str | None = None, k: int = K) -> list[str]:
    answer = open_shop.service.recommend(RecommendRequest(user, k=k, cursor=cursor))
    assert not answer.degraded
    return [item.item_id for item in answer.items]


@pytest.mark.parametrize("jump_s", [DAY, -DAY])
def test_clock_jumps_under_traffic(world: Shop, clock: Clock, jump_s: float) -> None:
    with Traffic(world) as traffic:
        traffic.wait_until_told()
        clock.ahead_s = jump_s
        traffic.wait_until_good()
        traffic.wait_until_told()
        publish(world.store, "g2")
        found = traffic.wait_for(lambda got: got.answer.generation == "g2", "the flip")
        assert found[0].is_good
        clock.ahead_s = 0.0
        traffic.wait_until_good()
        traffic.wait_until_told()
    traffic.check()
    assert traffic.refused == []
    assert traffic.reasons() == set()
    check_impressions(world, [got.answer for got in traffic.got if got.answer])


@pytest.mark.parametrize("jump_s", [DAY, -DAY])
def test_clock_jumps_between_pages_and_events(world: Shop, clock: Clock, jump_s: float) -> None:
    whole = shown(world, "u0", k=K + 1)
    first = world.service.recommend(RecommendRequest("u0", k=2))
    world.service.record([Event("u0", whole[3], clock(), event_id="before")])
    clock.ahead_s = jump_s
    assert shown(world, "u0", first.cursor, k=2) == whole[2:4]  # pages stay as they were
    # What the user did before the jump is not shown again, whatever the clock says now.
    assert whole[3] not in shown(world, "u0")
    assert world.service.record([Event("u0", whole[3], clock(), event_id="before")]).duplicates == 1
    world.service.record([Event("u0", whole[4], clock(), event_id="after")])
    assert {whole[3], whole[4]}.isdisjoint(shown(world, "u0"))
    clock.ahead_s = 0.0
    assert {whole[3], whole[4]}.isdisjoint(shown(world, "u0"))
    again = world.service.recommend(RecommendRequest("u0", k=2))
    assert set(shown(world, "u0", again.cursor, k=2)).isdisjoint(whole[3:5])


def test_clock_far_behind_refuses_what_comes_from_the_future(world: Shop, clock: Clock) -> None:
    """A client whose clock is right while ours is a day behind is told so, and keeps the event."""
    right = Event("u0", "i1", clock(), event_id="e")
    clock.ahead_s = -DAY
    with pytest.raises(ValueError, match="at most 300 s after now"):
        world.service.record([right])
    clock.ahead_s = 0.0
    assert world.service.record([right]).accepted == 1


@pytest.mark.parametrize("ahead_s", [DAY, -DAY])
def test_clock_of_the_store_is_another_one(world: Shop, clock: Clock, ahead_s: float) -> None:
    """The store's clock alone says when a generation goes."""
    clock.ahead_s = ahead_s
    publish(world.store, "g2", ttl_s=600)
    client = world.client
    for key in client.scan_iter("*:g2*"):
        assert 590 < client.ttl(key) <= 600
    with Traffic(world) as traffic:
        traffic.wait_until_told()
    traffic.check()
    assert traffic.reasons() == set()
    assert world.ask("u0").generation == "g2"
    publish(world.store, "g2", ttl_s=600)  # the same once more
    world.store.rollback()
    assert [one.manifest.generation for one in world.store.generations()] != []
