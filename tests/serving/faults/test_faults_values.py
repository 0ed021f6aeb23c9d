"""A value of the store is damaged: random bytes, cut short, empty, or of another type."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.packing import PackedField, PackedSchema
from recsys.config.serving import ServiceSettings
from serving.errors import CorruptValue, NoGeneration
from serving.messages import Event, RecommendRequest
from serving.models.live import OneModel
from serving.request.snapshot import BundledPopular
from tests.serving.connection.servers import Store, standalone, wait_for
from tests.serving.fake_models import FakeModel
from tests.serving.faults.fault_world import (
    ITEM_IDS,
    PATIENT_S,
    POPULAR,
    K,
    Shop,
    Traffic,
    problem_of,
    publish,
    shop,
)

RANDOM = np.random.default_rng(1).bytes(64)
SCHEMA = PackedSchema((PackedField("price"),))
DAMAGES = ["random", "cut", "empty", "other type"]
NAMES = ["head", "manifest", "vocabulary", "popular", "alive"]
QUICK = ServiceSettings(head_ttl_s=0.02, retry_after_s=0.02, deadline_s=PATIENT_S)
BUNDLED = BundledPopular(POPULAR, np.linspace(1.0, 0.5, len(POPULAR)).tolist())


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with standalone(request.param) as server:
        yield server


@pytest.fixture
def world(server: Store, tmp_path: Path) -> Iterator[Shop]:
    """Two generations, the second one served, and a session of "u0"."""
    server.servers[0].ask("FLUSHALL")
    with shop(server.url, tmp_path, timeout_s=PATIENT_S, settings=QUICK) as open_shop:
        rows = SCHEMA.pack({"price": np.arange(len(ITEM_IDS), dtype=np.float32)})
        for generation in ("g1", "g2"):
            schema = '{"format": 2, "fields": [{"name": "price"}]}'
            publish(open_shop.store, generation, item_rows=rows, item_schema=schema)
        yield open_shop


def damage(open_shop: Shop, key: str, how: str) -> Callable[[], None]:
    """Damage a value; returns what puts it right again."""
    client: Any = open_shop.client
    kept, kind = client.dump(key), client.type(key)
    # Made beside it and put in its place at once: it is damaged, but never absent.
    if how == "other type":
        client.rpush("aside", b"x")
    elif kind == b"zset":
        member = client.zrange(key, 0, 0)[0]
        client.zadd("aside", {{"random": RANDOM, "cut": member[:9], "empty": b""}[how]: 1.8e15})
    else:
        value = client.get(key)
        client.set("aside", {"random": RANDOM, "cut": value[: len(value) // 2], "empty": b""}[how])
    client.restore(key, 0, client.dump("aside"), replace=True)
    client.delete("aside")
    return lambda: client.restore(key, 0, kept, replace=True)


def keys_of(open_shop: Shop, generation: str = "g2") -> dict[str, str]:
    keys = open_shop.store.keys
    return {
        "head": keys.head,
        "manifest": keys.manifest(generation),
        "vocabulary": keys.items(generation),
        "popular": keys.popular(generation),
        "alive": keys.alive(generation),
    }


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_list_or_session_of_a_user(world: Shop, how: str) -> None:
    world.service.record([Event("u0", "i60", time.time())])
    keys = world.store.keys
    with Traffic(world, writers=0) as traffic:
        for key in (keys.user("g2", "u0"), keys.session("u0")):
            errors = world.errors("corrupt_value")
            repair = damage(world, key, how)
            hurt = traffic.wait_for(lambda got: got.user == "u0", "answers for u0", 3)
            assert {got.answer.reason for got in hurt if got.answer} == {"corrupt_value"}
            assert {got.answer.source for got in hurt if got.answer} == {"cache"}
            assert world.errors("corrupt_value") >= errors + 3
            others = traffic.wait_for(lambda got: got.user != "u0", "answers for others", 50)
            assert all(got.is_good for got in others)
            repair()
            traffic.wait_until_good()
    traffic.check()


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_list_that_is_in_no_memory(world: Shop, how: str) -> None:
    damage(world, world.store.keys.user("g2", "u0"), how)
    answer = world.ask("u0")
    assert (answer.source, answer.degraded, answer.reason) == ("popular", True, "corrupt_value")
    assert world.ask("u1").source == "cache"
    asked = [RecommendRequest(user, k=K) for user in ("u1", "u0", "u2")]
    assert [one.degraded for one in world.service.recommend_many(asked)] == [False, True, False]
    publish(world.store, "g3")
    wait_for(lambda: world.ask("u0").source == "cache", "the list of the new generation")


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_session_takes_events_in(world: Shop, how: str) -> None:
    world.service.record([Event("u0", "i60", time.time())])
    damage(world, world.store.keys.session("u0"), how)
    events = [Event("u0", "i59", time.time()), Event("w0", "i59", time.time())]
    assert world.service.record(events).accepted == 2
    assert len(world.sessions.read("w0")) == 1
    if how == "other type":
        assert [event.item_id for event in world.sessions.read("u0")] == ["i59"]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_value_of_the_served_generation(world: Shop, name: str) -> None:
    key = keys_of(world)[name]
    with Traffic(world, readers=2, writers=0) as traffic:
        for how in DAMAGES:
            errors = world.errors("corrupt_value")
            repair = damage(world, key, how)
            if name not in ("vocabulary", "popular"):  # which are read once for a generation
                wait_for(lambda least=errors: world.errors("corrupt_value") > least + 1, "errors")
                hurt = traffic.wait_for(lambda got: True, "answers", 20)
                assert {got.answer.reason for got in hurt if got.answer} == {"corrupt_value"}
                assert {got.answer.source for got in hurt if got.answer} == {"cache"}
            repair()
            traffic.wait_until_good()
    traffic.check()
    assert traffic.reasons() <= {"corrupt_value"}


@pytest.mark.parametrize("name", NAMES)
def test_damaged_value_at_the_start(world: Shop, server: Store, tmp_path: Path, name: str) -> None:
    for how in DAMAGES:
        repair = damage(world, keys_of(world)[name], how)
        with shop(
            server.url, tmp_path / how, timeout_s=PATIENT_S, bundled=BUNDLED, settings=QUICK
        ) as late:
            answer = late.ask("u0")
            assert (answer.degraded, answer.reason) == (True, "corrupt_value")
            assert late.errors("corrupt_value") > 0
            expected = ("popular", None) if name == "head" else ("cache", "g1")
            assert (answer.source, answer.generation) == expected
            assert late.service.not_ready() == ("corrupt_value" if name == "head" else None)
            repair()
            wait_for(lambda shop=late: shop.ask("u0").generation == "g2", "the generation")
            assert not late.ask("u0").degraded


@pytest.mark.parametrize("name", NAMES)
def test_damaged_value_is_published_anew(world: Shop, name: str) -> None:
    world.ask("u0")
    for number, how in enumerate(DAMAGES, start=3):
        generation = f"g{number}"
        damage(world, keys_of(world, f"g{number - 1}")[name], how)
        publish(world.store, generation)
        wait_for(lambda new=generation: world.ask("u0").generation == new, "the new generation")
        assert not world.ask("u0").degraded
        assert world.store.generations()[0].manifest.generation == generation


def test_damaged_values_of_all_there_is(world: Shop, server: Store, tmp_path: Path) -> None:
    """With nothing in memory and nothing bundled the error says so; later it is served."""
    repairs = [
        damage(world, world.store.keys.manifest(generation), "random")
        for generation in ("g1", "g2")
    ]
    with shop(server.url, tmp_path / "late", timeout_s=PATIENT_S) as late:
        with pytest.raises(NoGeneration):
            late.service.recommend(RecommendRequest("u0"))
        for repair in repairs:
            repair()
        wait_for(lambda: late.service.not_ready() is None, "it to be ready")
        assert not late.ask("u0").degraded


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_item_row(world: Shop, server: Store, tmp_path: Path, how: str) -> None:
    model = FakeModel(generation="g2", item_fields=("price",), slope=0.0)
    settings = ServiceSettings(
        head_ttl_s=0.05, rerank="always", near_cache_mb=0, deadline_s=30, live_timeout_s=30
    )
    options = {"models": OneModel(model), "settings": settings}
    with shop(server.url, tmp_path / "ranked", timeout_s=PATIENT_S, **options) as ranked:
        first = ranked.ask("u0").items[0].item_id
        assert model.values[-1] is not None
        repair = damage(world, world.store.keys.item("g2", first), how)
        assert not ranked.ask("u0").degraded  # ranked with what the model was loaded with
        assert model.values[-1] is None
        assert ranked.errors("corrupt_value") == (how != "other type")  # which reads as absent
        repair()
        ranked.ask("u0")
        assert model.values[-1] is not None


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_neighbours(world: Shop, how: str) -> None:
    repair = damage(world, world.store.keys.neighbours("g2", "i1"), how)
    asked = RecommendRequest("stranger", k=K, recent_items=["i1"])
    answer = world.service.recommend(asked)
    assert problem_of("stranger", answer) is None
    assert answer.source == "popular"
    if how == "other type":  # reads as absent
        assert not answer.degraded
    else:
        assert answer.reason == "corrupt_value"
        assert world.errors("corrupt_value") == 1
    repair()
    assert world.service.recommend(asked).source == "similar_to_last_item"


def test_damaged_bitmap_that_was_evicted_and_begun_anew(world: Shop) -> None:
    """Hiding one item where the bitmap is gone must not hide all others."""
    world.ask("u0")
    world.service.hide(["i51"])
    for how in ("evicted", "empty", "other type"):
        if how == "evicted":
            world.client.delete(world.store.keys.alive("g2"))
        else:
            damage(world, world.store.keys.alive("g2"), how)
        world.service.hide(["i52"])
        wait_for(lambda: not world.ask("u0").degraded, "the bitmap to be whole")
        mask = world.store.alive("g2", len(ITEM_IDS))
        assert mask.tolist() == [False, *(one not in ("i51", "i52") for one in ITEM_IDS)]
    with pytest.raises(CorruptValue, match="bitmap"):
        world.store.alive("g2", 10 * len(ITEM_IDS))
