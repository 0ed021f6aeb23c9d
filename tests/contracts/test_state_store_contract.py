"""What every `StateStore` must do; a new one is added to `BUILDERS` and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import redis

from features import MemoryStateStore, OnlineFeatures, StateStore, check_parity
from serving.events.feature_follower import _WithPosition
from serving.events.feature_state import RedisStateStore
from serving.events.online_inputs import _Fetched
from tests.feature_world import (
    DAY,
    EVERYTHING,
    HOUR,
    ITEMS,
    START,
    USERS,
    VECTORS,
    raw_events,
    requests_of,
)
from tests.serving.stores import BACKENDS

EVENTS = [
    ("uvw"[step % 3], "abcd"[step % 4], START + step * 5 * HOUR, "view", float(step % 5))
    for step in range(24)
]
Value = Callable[[str], Any]


class Case(NamedTuple):
    """A store that may be written, and what makes one to read the same state."""

    writer: StateStore
    open: Callable[[], StateStore]


def alone(store: StateStore) -> Case:
    return Case(store, lambda: store)


def in_redis(client: redis.Redis) -> Case:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    writer = RedisStateStore(client, namespace, writer=True)
    return Case(writer, lambda: RedisStateStore(client, namespace))


def fetched() -> Case:
    """Read at once for one request, and never written."""
    writer = MemoryStateStore()
    return Case(writer, lambda: _Fetched(writer, ["k", "nothing"]))


# Each from what gives the value of a fixture.
BUILDERS: dict[str, Callable[[Value], Case]] = {
    "memory": lambda _: alone(MemoryStateStore()),
    "with_position": lambda _: alone(_WithPosition(MemoryStateStore())),
    "fetched": lambda _: fetched(),
} | {
    f"redis_{kind}": lambda value, connected=connected: in_redis(connected(value))
    for kind, connected in BACKENDS.items()
}  # fmt: skip


@pytest.fixture(params=BUILDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return BUILDERS[request.param](request.getfixturevalue)


class TestStateStoreContract:
    def test_is_a_state_store(self, case: Case) -> None:
        assert isinstance(case.writer, StateStore)
        assert isinstance(case.open(), StateStore)

    def test_what_was_written_is_read(self, case: Case) -> None:
        case.writer.write({("k", "a"): b"1", ("k", "\u00e4"): b"\x00", ("l", "a"): b"2"})
        store = case.open()
        asked = [("l", "a"), ("k", "b"), ("k", "a"), ("none", "a"), ("k", "\u00e4"), ("l", "a")]
        assert store.read(asked) == [b"2", None, b"1", None, b"\x00", b"2"]
        everything = [{"a": b"1", "\u00e4": b"\x00"}, {}, {"a": b"2"}, {"a": b"2"}]
        assert store.read_all(["k", "none", "l", "l"]) == everything

    def test_nothing_is_asked_and_nothing_written(self, case: Case) -> None:
        case.writer.write({})
        assert case.open().read([]) == []
        assert case.open().read_all([]) == []
        assert case.open().read_all(["k"]) == [{}]

    def test_a_write_changes_the_fields_it_names(self, case: Case) -> None:
        case.writer.write({("k", "a"): b"1", ("k", "b"): b"1", ("l", "a"): b"1"})
        case.writer.write({("k", "b"): b"", ("k", "c"): b"3"})
        assert case.open().read_all(["k", "l"]) == [
            {"a": b"1", "b": b"", "c": b"3"},
            {"a": b"1"},
        ]

    @pytest.mark.parametrize("text", ["", " ", "a b:{c}", "{}", "\n", "*", "\u00e4\U0001f600", "0"])
    def test_keys_and_fields_are_any_text(self, case: Case, text: str) -> None:
        case.writer.write({(f"k{text}", text): b"1", ("k", f"{text}!"): b"2"})
        assert case.open().read([(f"k{text}", text), ("k", f"{text}!")]) == [b"1", b"2"]
        assert case.open().read_all([f"k{text}"])[0][text] == b"1"

    def test_values_are_any_bytes(self, case: Case) -> None:
        values = {("k", str(number)): bytes([number]) * number for number in range(256)}
        values["k", "large"] = bytes(range(256)) * 1024
        case.writer.write(values)
        assert case.open().read(list(values)) == list(values.values())

    def test_many_keys(self, case: Case) -> None:
        many = {(f"m{number}", "f"): str(number).encode() for number in range(2_500)}
        case.writer.write(many)
        store = case.open()
        assert store.read(list(many)) == list(many.values())
        found = store.read_all([key for key, _ in many])
        assert [each["f"] for each in found] == list(many.values())

    def test_a_key_may_have_many_fields(self, case: Case) -> None:
        values = {("k", f"f{number}"): str(number).encode() for number in range(25_000)}
        case.writer.write({**values, ("l", "a"): b"1"})
        assert case.open().read(list(values)) == list(values.values())
        assert case.open().read_all(["l"]) == [{"a": b"1"}]

    def test_what_is_handed_over_is_not_kept(self, case: Case) -> None:
        given = {("k", "a"): b"1"}
        case.writer.write(given)
        given["k", "a"] = b"2"
        case.open().read_all(["k"])[0]["a"] = b"3"
        assert case.open().read([("k", "a")]) == [b"1"]

    def test_features_equal_those_of_the_log(self, case: Case) -> None:
        rows = requests_of(
            [(step, "uvw"[step % 3], "abcd"[step % 4], START + step * DAY) for step in range(6)]
        )
        events = raw_events(EVENTS)
        report = check_parity(EVERYTHING, rows, events, ITEMS, USERS, VECTORS, case.writer)
        assert report.equal, str(report.first)
        assert report.update.applied == len(EVENTS)

    def test_a_reader_sees_what_the_writer_wrote(self, case: Case) -> None:
        definitions = EVERYTHING[:40]
        writer = OnlineFeatures(definitions, ITEMS, USERS, VECTORS, case.writer)
        writer.update(raw_events(EVENTS))
        reader = OnlineFeatures(definitions, ITEMS, USERS, VECTORS, case.open())
        rows = requests_of([(0, "u", item, START + 9 * DAY) for item in "abcd"])
        assert reader.compute(rows).equals(writer.compute(rows))
