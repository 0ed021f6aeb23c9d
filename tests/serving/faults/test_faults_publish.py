"""Publishers die at every step, or race each other, while the service answers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.connection import connect
from serving.errors import HeadConflict, PublishRefused
from serving.store import GenerationStore, PublishReport
from tests.serving.connection.servers import Store, standalone
from tests.serving.faults.fault_publisher import DONE, REFUSED, WHERE, Publishers
from tests.serving.faults.fault_world import (
    PATIENT_S,
    USERS,
    Shop,
    Traffic,
    items_of,
    publish,
    shop,
)


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with standalone(request.param) as server:
        yield server


@pytest.fixture
def world(server: Store, tmp_path: Path) -> Iterator[Shop]:
    server.servers[0].ask("FLUSHALL")
    with shop(server.url, tmp_path, timeout_s=PATIENT_S) as open_shop:
        publish(open_shop.store, "g1")
        yield open_shop


@pytest.fixture
def reference(server: Store) -> Iterator[GenerationStore]:
    """Another database of the server, for publishes that nothing interrupts."""
    client = connect(f"{server.url.rstrip('0')}1")
    yield GenerationStore(client)
    client.close()


def lists(store: GenerationStore, generation: str) -> list[list[int] | None]:
    found = store.read_users(generation, USERS)
    return [None if one is None else one.item_index.tolist() for one in found]


def contents(store: GenerationStore, generation: str) -> dict[bytes, bytes]:
    """Every value of a generation but its manifest, which holds moments."""
    names = list(store.client.scan_iter(f"{store.keys.namespace}:*{generation}*"))
    names.remove(store.keys.manifest(generation).encode())
    return {name: store.client.get(name) for name in names}


def check_whole(store: GenerationStore, generation: str) -> None:
    """The served generation is the one before or the new one, and all of its lists are there."""
    head = store.head()
    assert head.generation in (f"g{int(generation[1:]) - 1}", generation)
    assert lists(store, head.generation) == [items_of(head.generation, user) for user in USERS]
    assert len(store.item_ids(head.generation)) == store.manifest(head.generation).num_items


def kill_at_every_step(
    world: Shop, reference: GenerationStore, url: str, places: Iterator[str]
) -> tuple[int, Traffic]:
    """Each step kills the publisher of one generation, which the next attempt finishes.

    Returns:
        Steps there were, and the traffic meanwhile.
    """
    with (
        Publishers(url) as publishers,
        Traffic(world, readers=2, writers=1, pause_s=0.01) as traffic,
    ):
        for step in itertools.count():
            generation, where = f"g{step + 2}", next(places)
            ended = REFUSED
            while ended == REFUSED:  # its lock was not renewed in time on a busy machine
                ended = publishers.publish(generation, step, where)
            check_whole(world.store, generation)
            if ended == DONE:
                break
            assert ended == -9, (step, where)
            publish(world.store, generation)
            check_whole(world.store, generation)
            publish(reference, generation)
            manifest, expected = (store.manifest(generation) for store in (world.store, reference))
            assert manifest.content_sha256 == expected.content_sha256
            assert contents(world.store, generation) == contents(reference, generation)
            traffic.wait_for(
                lambda got, new=generation: got.answer.generation == new, "the new generation"
            )
    return step, traffic


def test_publisher_killed_at_every_step(
    world: Shop, reference: GenerationStore, server: Store
) -> None:
    steps, traffic = kill_at_every_step(world, reference, server.url, itertools.cycle(WHERE))
    assert steps > 25
    traffic.check()
    assert traffic.reasons() == set()
    assert {got.answer.generation for got in traffic.got if got.answer} > {"g1", "g10", "g20"}


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_publisher_killed_everywhere(
    world: Shop, reference: GenerationStore, server: Store, where: str
) -> None:
    _, traffic = kill_at_every_step(world, reference, server.url, itertools.repeat(where))
    traffic.check()
    assert traffic.reasons() == set()


def test_publishers_of_two_generations_race(world: Shop, server: Store) -> None:
    both_write = threading.Barrier(2)
    reports: list[PublishReport] = []
    conflicts: list[HeadConflict] = []

    def run(generation: str) -> None:
        client = connect(server.url)
        waited = []

        def meet(stage: str, done: int) -> None:
            if stage == "users" and not waited:
                waited.append(both_write.wait(20))

        try:
            reports.append(publish(GenerationStore(client), generation, on_progress=meet))
        except HeadConflict as error:
            conflicts.append(error)
        client.close()

    with Traffic(world, readers=2, writers=1, pause_s=0.01) as traffic:
        for number in range(2, 12, 2):
            names = [f"g{number}", f"g{number + 1}"]
            threads = [threading.Thread(target=run, args=(name,)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert (len(reports), len(conflicts)) == (1, 1)
            winner = reports.pop().generation
            assert "the head moved while this publish ran" in str(conflicts.pop())
            assert world.store.head().generation == winner
            (loser,) = set(names) - {winner}
            assert lists(world.store, loser) == [items_of(loser, user) for user in USERS]
            traffic.wait_for(lambda got, new=winner: got.answer.generation == new, "the winner")
            publish(world.store, loser)  # on top, as the message says
            traffic.wait_for(lambda got, new=loser: got.answer.generation == new, "the other")
    traffic.check()
    assert traffic.reasons() == set()


def test_publishers_of_one_generation_race(
    world: Shop, reference: GenerationStore, server: Store
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    reports: list[PublishReport] = []

    def hold(stage: str, done: int) -> None:
        inside.set()
        go_on.wait(20)

    def run() -> None:
        client = connect(server.url)
        store = GenerationStore(client, lease_s=1.0)
        reports.append(publish(store, "g2", on_progress=hold))
        client.close()

    with Traffic(world, readers=2, writers=1, pause_s=0.01) as traffic:
        first = threading.Thread(target=run)
        first.start()
        assert inside.wait(20)
        with pytest.raises(PublishRefused, match="is being written by another process"):
            publish(GenerationStore(world.client, lease_s=1.0), "g2")
        assert world.store.head().generation == "g1"
        go_on.set()
        first.join(20)
        again = publish(world.store, "g2")
        assert (reports[0].refreshed, again.refreshed) == (False, True)
        publish(reference, "g2")
        assert contents(world.store, "g2") == contents(reference, "g2")
        traffic.wait_for(lambda got: got.answer.generation == "g2", "the new generation")
    traffic.check()
    assert traffic.reasons() == set()
