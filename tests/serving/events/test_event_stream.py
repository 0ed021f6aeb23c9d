from __future__ import annotations

import uuid

import pytest

from features import arrival
from features.moments import EPOCH
from serving.connection import connect
from serving.errors import StageUnavailable
from serving.events.event_stream import EventStream, Lag, Position, _batch
from serving.events.sessions import Sessions
from serving.messages import Event, EventReport
from serving.store.keys import Keys
from tests.serving.connection.servers import Proxy, standalone

NOW = 1_790_000_000.0
US = 1_790_000_000_000_000


def event(user="u", item="a", ago=10.0, **more):
    return Event(user, item, NOW - ago, **more)


def stream_of(client, keys, **options):
    sessions = Sessions(client, keys, clock=lambda: NOW)
    return EventStream(client, keys, sessions=sessions, clock=lambda: NOW, **options)


@pytest.fixture
def keys():
    return Keys(f"t{uuid.uuid4().hex[:10]}")


@pytest.fixture
def stream(any_store, keys):
    return stream_of(any_store._client, keys)


def numbered(count, start=0):
    return [event(item=str(number), ago=0.5) for number in range(start, start + count)]


def items_of(batch):
    return [each.item_id for each in batch.events]


def test_what_was_recorded_is_in_the_session_and_followed_in_order(stream, any_store, keys):
    events = [event(item="b", ago=3, weight=2.5, request_id="r1"), event("v", "ü", event="buy")]
    assert stream.record(events) == EventReport(2, 0, 0)
    assert [each.item_id for each in Sessions(any_store._client, keys).read("u")] == ["b"]
    batch = stream.read(Position())
    first, second = batch.events
    assert first[:5] == ("u", "b", US - 3_000_000, "click", 2.5)
    assert (first.request_id, second.request_id) == ("r1", None)
    assert second[:5] == ("v", "ü", US - 10_000_000, "buy", None)
    assert (batch.refused, batch.lag) == (0, (0, 0.0, 0))
    server_s = any_store._client.time()[0]
    assert abs(first.arrived_us / 1e6 - server_s) < 10
    assert first.arrived_us <= second.arrived_us
    again = stream.read(batch.position)
    assert (again.events, again.position) == ([], batch.position)


def test_identity_is_that_of_the_features(stream):
    stream.record([event("u", "a"), event("u", "a", event_id="e7")])
    moment = EPOCH.fromtimestamp(NOW - 10, tz=None)
    moment = EPOCH + (moment - moment.fromtimestamp(0))
    by_content = arrival("u", "a", moment, event="click").identity
    by_id = (
        arrival("other", "a", moment, event_id="e7").identity,
        arrival("u", "b", moment, event_id="e7").identity,
    )
    found = [each.identity for each in stream.read(Position()).events]
    assert found == [by_content, by_id[1]]
    assert by_id[0] != by_id[1]


def test_the_report_counts_new_known_and_outside_the_catalogue(stream):
    catalogue = {"a", "b"}
    batch = [event(), event("v", "new"), event(item="b")]
    assert stream.record(batch, known_items=catalogue) == EventReport(3, 0, 1)
    assert stream.record(batch, known_items=catalogue) == EventReport(0, 3, 0)
    assert stream.record([*batch, event(item="x")], known_items=catalogue) == EventReport(1, 3, 1)
    assert stream.record([]) == EventReport(0, 0, 0)
    identities = [each.identity for each in stream.read(Position()).events]
    assert len(identities) == 10  # it is on whoever follows to count an identity once
    assert len(set(identities)) == 4


def test_an_event_ahead_of_time_is_the_same_event_when_it_comes_again(stream):
    stream.record([event(ago=-200)])
    stream._sessions._clock = stream._clock = lambda: NOW + 60
    assert stream.record([event(ago=-200)]) == EventReport(0, 1, 0)
    first, second = stream.read(Position()).events
    assert first.identity == second.identity
    assert first.happened_us == US


def test_nothing_is_taken_in_where_one_event_breaks_a_rule(stream):
    with pytest.raises(ValueError, match=r"events\[1\].item_id must have 1..1024 bytes"):
        stream.record([event(), event(item="")])
    assert stream.read(Position()).events == []


def test_reading_on_and_what_waits(stream, any_store, keys):
    assert stream.read(Position()) == ([], 0, Position(), (0, 0.0, 0))
    stream.record(numbered(3))
    old = stream.read(Position(), limit=2)
    assert stream.lag(old.position) == (1, 0.0, 0)
    any_store._client.delete(keys.events)
    assert stream.lag(Position()).waiting == 0
    stream.record(numbered(25))
    batch, seen = stream.read(Position(), limit=10), []
    assert batch.lag.waiting == 15
    while batch.num_entries:
        seen += items_of(batch)
        batch = stream.read(batch.position, limit=10)
    assert seen == [str(number) for number in range(25)]
    stream.record(numbered(7, start=25))
    assert stream.lag(batch.position).waiting == 7
    part = stream.read(batch.position, limit=3)
    assert part.lag.waiting == 4
    assert stream.read(part.position, limit=4).lag.waiting == 0
    stream._clock = lambda: 4e9
    assert stream.lag(batch.position).behind_s > 1e9


def test_a_position_after_a_moment(stream):
    stream.record(numbered(3))
    arrived_us = stream.read(Position()).events[-1].arrived_us
    assert stream.read(Position.after(arrived_us)).events == []
    before_us = stream.read(Position()).events[0].arrived_us - 1_000_000
    assert len(stream.read(Position.after(before_us)).events) == 3
    first = stream.read(Position.after(before_us), limit=2)
    assert first.lag.waiting is None  # how many came before the moment is not known ...
    rest = stream.read(first.position, limit=2)
    assert (rest.position.number, rest.lag.waiting) == (3, 0)  # ... until the end is reached
    assert Position.after(-5).entry == f"0-{2**64 - 1}"


def test_what_was_gone_before_it_was_read_is_counted(any_store, keys):
    stream = stream_of(any_store._client, keys, max_len=200)
    stream.record(numbered(10))
    position = stream.read(Position()).position
    stream.record(numbered(1000, start=10))
    kept = any_store._client.xlen(keys.events)
    assert 200 <= kept < 400  # whole nodes of the stream go
    seen, batch = [], stream.read(position, limit=150)
    while batch.num_entries:
        seen += items_of(batch)
        batch = stream.read(batch.position, limit=150)
    assert seen == [str(number) for number in range(1010 - kept, 1010)]
    if any_store._client.info("server")["redis_version"] >= "7":
        assert batch.position.lost == batch.lag.lost == 1000 - kept
    assert stream.read(batch.position).position == batch.position


def test_a_stream_that_began_anew(stream, any_store, keys):
    stream.record(numbered(20))
    position = stream.read(Position()).position
    any_store._client.delete(keys.events)
    assert stream.read(position) == ([], 0, position, (0, 0.0, 0))
    stream.record(numbered(5, start=20))
    batch = stream.read(position, limit=2)
    assert items_of(batch) == ["20", "21"]
    assert (batch.position.number, batch.position.lost, batch.lag.waiting) == (2, 0, 3)


def test_entries_that_are_no_events_are_counted_and_passed(stream, any_store, keys):
    client = any_store._client
    stream.record([event(item="good")])
    good = client.xrange(keys.events)[0][1]
    for name, value in [
        (b"user", b""),
        (b"item", b"\xff"),
        (b"happened", b"soon"),
        (b"weight", b"nan"),
        (b"weight", b"-1"),
        (b"identity", b"-1"),
        (b"event", b""),
    ]:
        client.xadd(keys.events, {**good, name: value})
    client.xadd(keys.events, {"something": "else"})
    stream.record([event(item="after")])
    batch = stream.read(Position())
    assert items_of(batch) == ["good", "after"]
    assert (batch.refused, batch.num_entries) == (8, 10)


def test_waiting_for_the_next_event(stream):
    assert not stream.wait(Position(), 0.01)
    stream.record([event()])
    assert stream.wait(Position(), 5.0)


def test_without_sessions_every_event_is_new(client, keys):
    stream = EventStream(client, keys, clock=lambda: NOW)
    assert stream.record([event(), event()]) == EventReport(2, 0, 0)
    with pytest.raises(ValueError, match="max_len must be >= 1, got 0"):
        EventStream(client, keys, max_len=0)


def test_another_kind_of_value_under_the_key(stream, any_store, keys):
    any_store._client.set(keys.events, "x")
    with pytest.raises(StageUnavailable, match=r"could not read events: .*WRONGTYPE"):
        stream.read(Position())
    with pytest.raises(StageUnavailable, match=r"could not record events: .*WRONGTYPE"):
        stream.record([event()])


def test_a_store_that_is_gone(keys):
    stream = EventStream(connect("unix:///nowhere/store.sock"), keys, clock=lambda: NOW)
    with pytest.raises(StageUnavailable, match="could not record events"):
        stream.record([event()])
    with pytest.raises(StageUnavailable, match="could not read events"):
        stream.read(Position())
    with pytest.raises(StageUnavailable, match="could not wait for events"):
        stream.wait(Position(), 0.1)


def test_what_was_acknowledged_is_there_and_a_cut_is_made_up_for(keys):
    with standalone() as store, Proxy(store.url) as network:
        client = connect(network.url, timeout_s=0.3, retries=0)
        stream = stream_of(client, keys)
        direct = stream_of(store.client(), keys)
        acknowledged, sent = [], numbered(12)
        for place, one in enumerate(sent):
            network.delay(0.2 if place % 3 == 1 else 0.0)  # the reply comes too late
            for _ in range(2):
                try:
                    stream.record([one])
                except StageUnavailable:
                    network.cut()
                    network.restore()
                else:
                    acknowledged.append(one.item_id)
                    break
        found = direct.read(Position()).events
        assert set(acknowledged) == {one.item_id for one in sent}
        assert {each.item_id for each in found} == set(acknowledged)
        assert len({each.identity for each in found}) == len(sent) < len(found)
        client.close()


def test_users_all_over_the_store_in_one_batch(stream):
    users = [f"u{number}" for number in range(30)]
    assert stream.record([event(user) for user in users]) == EventReport(30, 0, 0)
    assert [each.user_id for each in stream.read(Position()).events] == users


def test_a_server_that_does_not_count_entries():
    """Redis 6: what waits and what was lost is not known, what is there is read all the same."""
    fields = {
        **{b"user": b"u", b"item": b"a", b"event": b"view", b"weight": b"", b"request": b""},
        **{b"happened": b"1", b"identity": b"7"},
    }
    entries = [("1000-0", fields), ("2000-0", fields)]
    part = _batch(entries, Position(), {b"length": 5}, limit=2, now_s=7.0)
    assert (part.position, part.lag) == (Position("2000-0", None), Lag(None, 5.0, 0))
    end = _batch(entries[:1], part.position, {b"length": 5}, limit=2, now_s=7.0)
    assert (end.position.number, end.lag) == (None, Lag(0, 0.0, 0))
    assert [each.arrived_us for each in part.events] == [1_000_999, 2_000_999]
