"""Feedback on its way to whoever follows it: one stream of the store, and the users' sessions.

An entry of ``{ns}:events`` says of an event, as text, who, with what, when it happened (in
microseconds), which kind, the weight ("": the log's mean), its identity, and the request that
showed the item (""; none). The server dates it by its id. The stream holds the newest entries only:
who follows it learns how many were gone before they were read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import redis

from serving.connection.clients import store_errors
from serving.events.feedback import CheckedEvent, checked_events
from serving.events.sessions import Sessions
from serving.messages import Event, EventReport
from serving.store.keys import Keys

__all__ = ["Batch", "EventStream", "Lag", "Position", "StreamedEvent"]

_LAST = 2**64 - 1


class Position(NamedTuple):
    """How far somebody has followed the stream.

    Attributes:
        entry: id of the last entry that was followed.
        number: how many entries the stream had taken in up to it, lost ones too. None: not known
            yet, because it was given as a moment, or where the server does not count (Redis 6).
        lost: entries that were gone before they were read.
    """

    entry: str = "0-0"
    number: int | None = 0
    lost: int = 0

    @classmethod
    def after(cls, moment_us: int) -> Position:
        """Before everything that came in after the millisecond of ``moment_us``."""
        return cls(f"{max(moment_us, 0) // 1000}-{_LAST}", None)


class StreamedEvent(NamedTuple):
    """One entry.

    Attributes:
        user_id: who.
        item_id: with what.
        happened_us: microseconds since 1970-01-01 UTC.
        event: kind.
        weight: None: the log's mean.
        identity: 64 bits that are the same when the event comes again, as in `features.Arrival`.
        request_id: of the answer that showed the item; None: not known.
        arrived_us: microseconds since 1970-01-01 UTC by the server's clock, never falling: the
            end of the millisecond in which it came in.
    """

    user_id: str
    item_id: str
    happened_us: int
    event: str
    weight: float | None
    identity: int
    request_id: str | None
    arrived_us: int


class Lag(NamedTuple):
    """How far a position is behind the stream.

    Attributes:
        waiting: entries after it. None: not known, see `Position.number`.
        behind_s: age of the last entry that was read, in seconds; 0 where nothing waits.
        lost: entries that were gone before they were read.
    """

    waiting: int | None
    behind_s: float
    lost: int


class Batch(NamedTuple):
    """The next entries.

    Attributes:
        events: oldest first.
        refused: entries among them that are no events.
        position: after them.
        lag: of that position.
    """

    events: list[StreamedEvent]
    refused: int
    position: Position
    lag: Lag

    @property
    def num_entries(self) -> int:
        """How many were read."""
        return len(self.events) + self.refused


class EventStream:
    """Takes feedback in, and hands it on in the order in which it came; safe between threads.

    Args:
        client: from `serving.connection.connect`.
        keys: names of the store's keys.
        sessions: where users' newest events are kept as well. None: nowhere.
        max_len: entries kept, about; >= 1. One takes 60 to 150 bytes.
        clock: seconds since the epoch.

    Raises:
        ValueError: ``max_len`` is out of range.

    Every method raises `StageUnavailable` when the store does not answer or refuses.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        sessions: Sessions | None = None,
        max_len: int = 1_000_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_len < 1:
            raise ValueError(f"max_len must be >= 1, got {max_len}")
        self._client = client
        self._keys = keys
        self._sessions = sessions
        self._max_len = max_len
        self._clock = clock

    def record(
        self, events: Sequence[Event], *, known_items: Collection[str] | None = None
    ) -> EventReport:
        """Take events in, in one round trip; what is reported is in the store.

        An event whose reply was lost may be sent again: its session knows it, and whoever follows
        the stream counts it once by its identity.

        Args:
            events: of any users, in any order.
            known_items: the served catalogue. None: every item counts as known.

        Raises:
            ValueError: an event breaks a rule; then none of them was taken in.
        """
        checked = checked_events(events, self._clock())
        if not checked:
            return EventReport(0, 0, 0)
        places: list[list[int]] = []
        with store_errors("record events"):
            pipeline = self._client.pipeline(transaction=False)
            if self._sessions is not None:
                places = self._sessions.queue(pipeline, checked)
            for one in checked:
                pipeline.xadd(
                    self._keys.events, _fields(one), maxlen=self._max_len, approximate=True
                )
            replies = pipeline.execute()
        new = [True] * len(checked)
        if self._sessions is not None:
            new = self._sessions.is_new(places, replies[: len(places)])
        unknown = 0
        if known_items is not None:
            pairs = zip(checked, new, strict=True)
            unknown = sum(is_new and one.event.item_id not in known_items for one, is_new in pairs)
        return EventReport(sum(new), len(new) - sum(new), unknown)

    def read(self, position: Position, limit: int = 1000) -> Batch:
        """The entries after a position, at once; none where there are none.

        Args:
            position: where to go on.
            limit: entries at most.
        """
        with store_errors("read events"):
            # In one transaction, so that what is gone is counted at the moment of the read.
            pipeline = self._client.pipeline(transaction=True)
            pipeline.xread({self._keys.events: position.entry}, count=limit)
            pipeline.xinfo_stream(self._keys.events)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
            if "no such key" in str(replies[1]):
                return Batch([], 0, position, Lag(0, 0.0, position.lost))
            for reply in replies:
                if isinstance(reply, redis.RedisError):
                    raise reply
        info = _named(replies[1])
        if position.number is not None and info.get(b"entries-added", math.inf) < position.number:
            return self.read(Position(lost=position.lost), limit)  # the stream began anew
        return _batch(_entries(replies[0]), position, info, limit, self._clock())

    def lag(self, position: Position) -> Lag:
        """How far a position is behind now."""
        first = self.read(position, limit=1)  # its age is what is told
        if not first.num_entries:
            return first.lag
        waiting = None if first.lag.waiting is None else first.lag.waiting + first.num_entries
        return first.lag._replace(waiting=waiting)

    def wait(self, position: Position, timeout_s: float) -> bool:
        """Sleep until there is an entry after a position; whether there is one.

        Args:
            position: what is known.
            timeout_s: at most so long; less than the client's own timeout.
        """
        with store_errors("wait for events"):
            found = self._client.xread(
                {self._keys.events: position.entry}, count=1, block=max(1, round(timeout_s * 1000))
            )
        return bool(found)


def _batch(
    entries: list[tuple[str, dict[bytes, bytes]]],
    position: Position,
    info: dict[bytes, Any],
    limit: int,
    now_s: float,
) -> Batch:
    at_end = len(entries) < limit
    added: int | None = info.get(b"entries-added")
    number, lost = position.number, position.lost
    if added is None:
        number = None
    elif number is not None:
        gone = max(0, added - info[b"length"] - number)
        lost += gone
        number += gone + len(entries)
    elif at_end:
        number = added
    last = entries[-1][0] if entries else position.entry
    waiting = 0 if at_end else None if added is None or number is None else added - number
    behind_s = 0.0 if at_end else max(0.0, now_s - _milliseconds(last) / 1000)
    found = [_event(fields, _milliseconds(entry) * 1000 + 999) for entry, fields in entries]
    events = [event for event in found if event is not None]
    return Batch(
        events,
        len(found) - len(events),
        Position(last, number, lost),
        Lag(waiting, behind_s, lost),
    )


def _entries(found: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    streams = found.values() if isinstance(found, dict) else [rows for _, rows in found or []]
    return [(entry.decode(), _named(fields)) for rows in streams for entry, fields in rows]


def _named(reply: Any) -> dict[bytes, Any]:
    """Names and values, which a cluster's transaction gives one after another."""
    if isinstance(reply, dict):
        return {name.encode() if isinstance(name, str) else name: reply[name] for name in reply}
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _fields(checked: CheckedEvent) -> Any:
    event = checked.event
    return {
        "user": event.user_id,
        "item": event.item_id,
        "happened": checked.happened_us,
        "event": event.event,
        "weight": "" if event.weight is None else repr(event.weight),
        "identity": checked.identity,
        "request": event.request_id or "",
    }


def _event(fields: dict[bytes, bytes], arrived_us: int) -> StreamedEvent | None:
    """An entry as an event; None where it is none."""
    try:
        text = {name.decode(): value.decode() for name, value in fields.items()}
        event = StreamedEvent(
            text["user"],
            text["item"],
            int(text["happened"]),
            text["event"],
            float(text["weight"]) if text["weight"] else None,
            int(text["identity"]),
            text["request"] or None,
            arrived_us,
        )
    except (KeyError, ValueError):
        return None
    complete = event.user_id and event.item_id and event.event and 0 <= event.identity < 2**64
    return event if complete and 0 <= (event.weight or 0.0) < math.inf else None


def _milliseconds(entry: str) -> int:
    return int(entry.partition("-")[0])
