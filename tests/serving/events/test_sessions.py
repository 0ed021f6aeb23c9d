from __future__ import annotations

import random
import uuid

import pytest

from serving.connection import connect
from serving.errors import CorruptValue, StageUnavailable
from serving.events.sessions import Sessions
from serving.messages import Event
from serving.store.keys import Keys
from tests.serving.connection.servers import Proxy, standalone

NOW = 1_790_000_000.0
US = 1_790_000_000_000_000


def event(user="u", item="a", ago=10.0, **more):
    return Event(user, item, NOW - ago, **more)


@pytest.fixture
def keys():
    return Keys(f"t{uuid.uuid4().hex[:10]}")


@pytest.fixture
def sessions(any_store, keys):
    return Sessions(any_store._client, keys, max_events=8, expire_s=60, clock=lambda: NOW)


def items_of(found):
    return [each.item_id for each in found]


def test_what_was_added_is_read_oldest_first(sessions):
    assert sessions.read("u") == []
    added = sessions.add(
        [
            event(item="ü", ago=1.5, event="buy", weight=2.5),
            event(item="b", ago=3),
            event("v", "c", ago=9),
            event(item="d", ago=2, event_id="e1"),
        ]
    )
    assert added == [True] * 4
    found = sessions.read("u")
    assert items_of(found) == ["b", "d", "ü"]
    assert found[2][:4] == ("ü", US - 1_500_000, "buy", 2.5)
    assert found[0][:4] == ("b", US - 3_000_000, "click", None)
    many = sessions.read_many(["v", "nobody", "u", "v"])
    assert list(map(items_of, many)) == [["c"], [], ["b", "d", "ü"], ["c"]]
    assert sessions.read_many([]) == []
    sessions.forget("u")
    assert list(map(items_of, sessions.read_many(["u", "v"]))) == [[], ["c"]]


def test_an_event_is_known_when_it_comes_again(sessions):
    first = [event(), event(ago=11), event(item="b"), event(event="buy"), event("v")]
    assert sessions.add(first) == [True] * 5
    assert sessions.add(first[::-1]) == [False] * 5
    assert sessions.add([event(weight=3.0), event(item="c"), event(item="c")])[1:] == [True, False]
    assert len(sessions.read("u")) == 5  # "a" with another weight is the same event
    assert sessions.add([]) == []


def test_an_id_names_an_event_of_its_user(sessions):
    assert sessions.add([event(event_id="e1"), event("v", event_id="e1")]) == [True, True]
    assert sessions.add([event(event_id="e1", ago=50)]) == [False]
    found = sessions.read("u")
    assert [each.timestamp_us for each in found] == [US - 10_000_000]
    sessions.add([event(item="other", event_id="e1", ago=3)])
    assert items_of(sessions.read("u")) == ["a"]  # the first to come is the event
    identities = {each[0].identity for each in sessions.read_many(["u", "v"])}
    assert len(identities) == 2


def test_only_the_newest_are_kept_and_not_for_ever(sessions, keys, any_store):
    ago = list(range(1, 21))
    random.Random(0).shuffle(ago)
    for one in ago:
        sessions.add([event(item=str(one), ago=one)])
    assert items_of(sessions.read("u")) == ["8", "7", "6", "5", "4", "3", "2", "1"]
    assert 0 < any_store._client.ttl(keys.session("u")) <= 60


def test_microseconds_are_exact(sessions):
    times = [US - 3, US - 2, US - 1]
    sessions.add([Event("u", str(place), one / 1e6) for place, one in enumerate(times)])
    assert [each.timestamp_us for each in sessions.read("u")] == times


def test_a_client_whose_clock_is_ahead(sessions):
    """What it dates later happened now; sent again it is still the same event."""
    ahead = event(ago=-200.0)
    assert sessions.add([ahead]) == [True]
    assert [each.timestamp_us for each in sessions.read("u")] == [US]
    sessions._clock = lambda: NOW + 30
    assert sessions.add([ahead]) == [False]
    assert [each.timestamp_us for each in sessions.read("u")] == [US]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": NOW * 1000}, r"events\[1\].timestamp must be seconds since 1970 in UTC, at"),
        ({"timestamp": NOW + 301}, r"at most 300 s after now \(1790000000\) and 366 days before"),
        ({"timestamp": 0.0}, "366 days before, got 0.0"),
        ({"timestamp": float("nan")}, "got nan"),
        ({"timestamp": float("inf")}, "got inf"),
        ({"weight": -1.0}, r"events\[1\]: weight must be a finite number >= 0, got -1.0"),
        ({"weight": float("nan")}, "finite number >= 0, got nan"),
        ({"weight": 1e39}, r"events\[1\]: .*too large"),
        ({"user_id": ""}, r"events\[1\].user_id must have 1..1024 bytes in UTF-8, got 0"),
        ({"item_id": "ü" * 513}, r"events\[1\].item_id must have 1..1024 bytes in UTF-8, got 1026"),
        ({"event": "x" * 256}, r"events\[1\].event must have 1..255 bytes in UTF-8, got 256"),
        ({"event_id": ""}, r"events\[1\].event_id must have 1..1024"),
        ({"request_id": "\ud800"}, r"events\[1\].request_id must be text, got a half of a surr"),
    ],
)
def test_an_event_that_breaks_a_rule_and_none_is_added(client, keys, change, message):
    sessions = Sessions(client, keys, clock=lambda: NOW)
    good = {"user_id": "u", "item_id": "a", "timestamp": NOW}
    with pytest.raises(ValueError, match=message):
        sessions.add([Event(**good), Event(**{**good, **change})])
    assert sessions.read("u") == []


def test_arguments(client, keys):
    with pytest.raises(ValueError, match="max_events must be >= 1, got 0"):
        Sessions(client, keys, max_events=0)
    with pytest.raises(ValueError, match="expire_s must be >= 1, got 0"):
        Sessions(client, keys, expire_s=0)


def test_ids_with_any_bytes(sessions):
    ids = ["\0", "a\nb", "{b000}", "*", "x" * 1024, "\U0001f600"]
    sessions.add([event(user=one, item=one) for one in ids])
    assert [items_of(found) for found in sessions.read_many(ids)] == [[one] for one in ids]


@pytest.mark.parametrize("member", [b"", b"short", b"\0" * 12 + b"\x05view", b"\0" * 13 + b"\xff"])
def test_a_member_that_is_no_event(sessions, keys, any_store, member):
    any_store._client.zadd(keys.session("u"), {member: US})
    with pytest.raises(CorruptValue, match="a session holds what is no event"):
        sessions.read("u")


def test_another_kind_of_value_under_the_key(sessions, keys, any_store):
    any_store._client.set(keys.session("u"), "x")
    with pytest.raises(StageUnavailable, match=r"could not read sessions: .*WRONGTYPE"):
        sessions.read("u")
    assert sessions.add([event(), event("v")]) == [True, True]  # what was no session is gone
    assert list(map(items_of, sessions.read_many(["u", "v"]))) == [["a"], ["a"]]
    assert any_store._client.ttl(keys.session("u")) > 0


def test_a_session_that_is_gone_begins_again(sessions, keys, any_store):
    sessions.add([event()])
    any_store._client.delete(keys.session("u"))
    assert sessions.add([event()]) == [True]


def test_a_store_that_is_gone(keys):
    sessions = Sessions(connect("unix:///nowhere/store.sock"), keys)
    with pytest.raises(StageUnavailable, match="could not read sessions"):
        sessions.read("u")


@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_a_full_store_says_so_and_takes_nothing(keys, program):
    with standalone(program, maxmemory="3mb", maxmemory_policy="noeviction") as store:
        client = store.client()
        sessions = Sessions(client, keys, clock=lambda: NOW)
        sessions.add([event(item="kept")])
        client.config_set("maxmemory", "1mb")
        with pytest.raises(StageUnavailable, match=r"could not remember events: .*OutOfMemory"):
            sessions.add([event("u"), event("v")])
        assert list(map(items_of, sessions.read_many(["u", "v"]))) == [["kept"], []]


def test_a_reply_lost_on_the_way_is_made_up_for_by_sending_again(keys):
    with standalone() as store, Proxy(store.url) as network:
        direct = Sessions(store.client(), keys, clock=lambda: NOW)
        client = connect(network.url, timeout_s=0.3, retries=0)
        sessions = Sessions(client, keys, clock=lambda: NOW)
        sessions.add([event(item="before")])
        network.delay(0.2)  # it arrives, and the reply is too late
        batch = [event("u", "b"), event("v", "c")]
        with pytest.raises(StageUnavailable, match="could not remember events: TimeoutError"):
            sessions.add(batch)
        assert items_of(direct.read("v")) == ["c"]
        network.cut()
        network.restore()
        sessions.add(batch)
        assert list(map(items_of, direct.read_many(["u", "v"]))) == [["before", "b"], ["c"]]
        client.close()


def test_users_all_over_the_store_in_one_batch(sessions):
    users = [f"u{number}" for number in range(30)]
    batch = [event(user, item) for item in "ab" for user in users]
    assert sessions.add(batch) == [True] * 60
    assert sessions.add(batch) == [False] * 60
    found = [sorted(items_of(each)) for each in sessions.read_many(users)]
    assert found == [["a", "b"]] * 30
