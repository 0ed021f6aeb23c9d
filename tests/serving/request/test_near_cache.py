from __future__ import annotations

import json

import numpy as np
import pytest

from features.packing import PackedField, PackedSchema
from recsys.config import Config
from serving import RecommendationService, RecommendRequest, ServiceSettings, vectors_of_field
from serving.errors import CorruptValue, ServingError
from serving.telemetry.metrics import Telemetry

SCHEMA = PackedSchema((PackedField("year"), PackedField("content", "float16", 2)))
TEXT = json.dumps(SCHEMA.to_dict())
USERS = {"ann": [5, 6, 7, 8], "bob": [9]}


def item_rows(offset: int) -> list[bytes]:
    year = np.arange(12.0) + offset
    return SCHEMA.pack({"year": year, "content": np.stack([year, -year], axis=1)})


class SeenVectors:
    """A slate rule that takes the order as it comes and remembers the vectors it was given."""

    def __init__(self) -> None:
        self.firsts: list[list[float]] = []

    def __call__(self, item_index, score, k, *, vectors=None, diversity=0.0):
        self.firsts.append(vectors[:, 0].tolist())
        return np.arange(min(k, len(item_index)))


@pytest.fixture
def reads(store, monkeypatch):
    """Generations and items that were read from the store, call by call."""
    calls = []
    read = store.read_items

    def read_items(generation, item_ids):
        calls.append((generation, list(item_ids)))
        return read(generation, item_ids)

    monkeypatch.setattr(store, "read_items", read_items)
    return calls


@pytest.fixture
def build(store, make, fake_clock):
    make.publish(store, "g1", USERS, item_rows=item_rows(100), item_schema=TEXT)

    def build(rule, **settings):
        return RecommendationService(
            store,
            settings=ServiceSettings(diversity=0.5, **settings),
            row_vectors=vectors_of_field("content"),
            build_slate=rule,
            clock=fake_clock,
        )

    return build


def ask(service, user="ann", **change):
    return service.recommend(RecommendRequest(user, k=2, **change))


def test_item_rows_are_read_once_a_generation(store, make, build, reads, fake_clock):
    rule = SeenVectors()
    service = build(rule)
    for _ in range(3):
        assert not ask(service).degraded
    assert reads == [("g1", ["i5", "i6", "i7", "i8"])]
    assert rule.firsts == [[104, 105, 106, 107]] * 3

    make.publish(store, "g2", USERS, item_rows=item_rows(200), item_schema=TEXT)
    fake_clock.advance(1.1)
    for _ in range(2):
        assert ask(service).generation == "g2"
    assert reads[1:] == [("g2", ["i5", "i6", "i7", "i8"])]
    assert rule.firsts[3:] == [[204, 205, 206, 207]] * 2

    store.rollback()
    fake_clock.advance(1.1)
    assert ask(service).generation == "g1"
    assert rule.firsts[5:] == [[104, 105, 106, 107]]
    assert len(reads) == 2  # still warm
    assert ask(service, exclude=["i5"]).generation == "g1"
    assert rule.firsts[6:] == [[105, 106, 107]]
    assert len(reads) == 2


def test_without_a_cache_every_request_reads(build, reads):
    rule = SeenVectors()
    service = build(rule, near_cache_mb=0)
    ask(service)
    ask(service)
    assert len(reads) == 2
    assert rule.firsts == [[104, 105, 106, 107]] * 2
    assert b"near_cache" not in service.telemetry.exposition()


def test_metrics_show_it(build):
    service = build(SeenVectors())
    ask(service)
    ask(service)
    lines = service.telemetry.exposition().decode().splitlines()
    shown = dict(line.rsplit(" ", 1) for line in lines if line.startswith("recsys_near_cache"))
    assert {name: float(value) for name, value in shown.items() if "bytes" not in name} == {
        "recsys_near_cache_hits_total": 4,
        "recsys_near_cache_misses_total": 4,
        "recsys_near_cache_evicted_total": 0,
        "recsys_near_cache_rows": 4,
    }
    assert 4 * SCHEMA.row_bytes < float(shown["recsys_near_cache_bytes"]) < 2_000


def test_the_last_service_of_a_telemetry_is_shown(store, build):
    first = build(SeenVectors())
    telemetry = Telemetry()
    telemetry.watch_near_cache(first._reader.near_cache.stats)
    RecommendationService(store, telemetry=telemetry)
    ask(first)
    assert b"recsys_near_cache_misses_total 0.0" in telemetry.exposition()


def test_damaged_rows_are_told_and_not_kept(store, build, reads):
    rule = SeenVectors()
    service = build(rule)
    key = store.keys.item("g1", "i6")
    good = store._client.get(key)
    store._client.set(key, b"\0" + good[1:], keepttl=True)
    answer = ask(service)
    assert (answer.degraded, answer.reason) == (True, "corrupt_value")
    assert [item.item_id for item in answer.items] == ["i5", "i6"]
    assert b'kind="corrupt_value",stage="store"' in service.telemetry.exposition()
    store._client.set(key, good, keepttl=True)
    assert not ask(service).degraded
    assert [len(items) for _, items in reads] == [4, 4]


def test_item_block_names_the_problem(store, build):
    service = build(SeenVectors())
    reader = service._reader
    snapshot = reader.view().snapshot
    block = reader.item_block(snapshot, ["i1", "nobody"], SCHEMA)
    assert block.values["year"].tolist() == [100, 0]
    assert block.present.tolist() == [True, False]
    with pytest.raises(CorruptValue, match="item rows cannot be read: fields must name"):
        reader.item_block(snapshot, ["i1"], SCHEMA, fields=["colour"])
    with pytest.raises(ServingError, match="no readable field 'content': schema must be of format"):
        vectors_of_field("content").schema("{}")
    with pytest.raises(ServingError, match="no readable field 'content'"):
        vectors_of_field("content")([b"short"], TEXT)


def test_the_bound_is_a_setting():
    assert ServiceSettings().near_cache_bytes == 64_000_000
    with pytest.raises(ValueError, match="near_cache_mb must be >= 0, got -1"):
        ServiceSettings(near_cache_mb=-1)
    files = {"data": {"events": "e.parquet", "items": "i.parquet"}}
    assert Config.model_validate(files).serving.near_cache_mb == 64.0
    with pytest.raises(ValueError, match="near_cache_mb"):
        Config.model_validate(files | {"serving": {"near_cache_mb": -1}})
