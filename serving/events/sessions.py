"""What users did just now, remembered between their requests.

``{ns}:s:{b<hex>}:<user>`` is a sorted set: its scores are microseconds, exact below 2^53, and its
members are

```
identity u64 | weight f32 (NaN: the log's mean) | bytes of the kind u8 | kind | item id
```

The member says all of the event but its time, so adding it again changes nothing.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis

from serving.connection.clients import store_errors
from serving.errors import CorruptValue
from serving.events.feedback import CheckedEvent, checked_events
from serving.messages import Event
from serving.store.keys import Keys

__all__ = ["SessionEvent", "Sessions"]

_HEAD = struct.Struct("<QfB")

# One user's events at once: no reader sees a half, and no cut leaves a key that never expires. What
# is no session goes, or the user's events would never be taken in again.
_ADD = """
local new = {}
for i = 3, #ARGV, 2 do
  local added = redis.pcall('ZADD', KEYS[1], 'NX', ARGV[i], ARGV[i + 1])
  if type(added) == 'table' then
    if not string.find(added.err, 'WRONGTYPE', 1, true) then return added end
    redis.call('DEL', KEYS[1])
    added = redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
  end
  new[#new + 1] = added
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return new
"""


class SessionEvent(NamedTuple):
    """Something a user did just now.

    Attributes:
        item_id: with what.
        timestamp_us: microseconds since 1970-01-01 UTC.
        event: kind.
        weight: None: the log's mean.
        identity: 64 bits that name the event, as in `features.Arrival`.
    """

    item_id: str
    timestamp_us: int
    event: str
    weight: float | None
    identity: int


class Sessions:
    """The newest events of every user, in Redis or Valkey; safe to share between threads.

    Args:
        client: from `serving.connection.connect`, of one server or of a cluster.
        keys: names of the store's keys.
        max_events: kept of one user, the newest, >= 1.
        expire_s: seconds after its last event at which a session is forgotten, >= 1.
        clock: seconds since the epoch.

    Raises:
        ValueError: ``max_events`` or ``expire_s`` is out of range.

    Every method raises `StageUnavailable` when the store does not answer or refuses.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        max_events: int = 50,
        expire_s: int = 7 * 86_400,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, value in (("max_events", max_events), ("expire_s", expire_s)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self._client = client
        self._keys = keys
        self._max_events = max_events
        self._expire_s = expire_s
        self._clock = clock

    def add(self, events: Sequence[Event]) -> list[bool]:
        """Remember events in one round trip; an event that is known changes nothing.

        Args:
            events: of any users, in any order.

        Returns:
            For each event whether the session did not know it. A session knows what is among its
            newest events.

        Raises:
            ValueError: an event breaks a rule, see `serving.events.feedback.checked_events`; then
                none of them was added.
        """
        checked = checked_events(events, self._clock())
        if not checked:
            return []
        with store_errors("remember events"):
            pipeline = self._client.pipeline(transaction=False)
            places = self.queue(pipeline, checked)
            replies = pipeline.execute()
        return self.is_new(places, replies)

    def queue(self, pipeline: Any, checked: Sequence[CheckedEvent]) -> list[list[int]]:
        """Put `add` into a pipeline, one command for each user; for `is_new`."""
        places: dict[str, list[int]] = {}
        for place, one in enumerate(checked):
            places.setdefault(one.event.user_id, []).append(place)
        for user_id, own in places.items():
            members: list[int | bytes] = []
            for place in own:
                members += (checked[place].happened_us, _pack(checked[place]))
            # By its name: a cluster's pipeline has no method for it.
            pipeline.execute_command(
                "EVAL",
                _ADD,
                1,
                self._keys.session(user_id),
                self._max_events,
                self._expire_s,
                *members,
            )
        return list(places.values())

    @staticmethod
    def is_new(places: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[bool]:
        """What the replies to `queue` say of each event."""
        new = [False] * sum(map(len, places))
        for own, added in zip(places, replies, strict=True):
            for place, one in zip(own, added, strict=True):
                new[place] = bool(one)
        return new

    def read(self, user_id: str) -> list[SessionEvent]:
        """One user's newest events, oldest first.

        Raises:
            CorruptValue: a member cannot be decoded.
        """
        return self.read_many([user_id])[0]

    def read_many(self, user_ids: Sequence[str]) -> list[list[SessionEvent]]:
        """The same of several users in one round trip, in the order asked.

        Raises:
            CorruptValue: a member cannot be decoded.
        """
        with store_errors("read sessions"):
            pipeline = self._client.pipeline(transaction=False)
            self.queue_read(pipeline, user_ids)
            replies = pipeline.execute()
        return [unpack_session(reply) for reply in replies]

    def queue_read(self, pipeline: Any, user_ids: Sequence[str]) -> None:
        """Put `read_many` into a pipeline; `unpack_session` takes each reply."""
        for user_id in user_ids:
            pipeline.zrange(self._keys.session(user_id), 0, -1, withscores=True)

    def forget(self, user_id: str) -> None:
        """Forget one user's events."""
        with store_errors("forget a session"):
            self._client.delete(self._keys.session(user_id))


def unpack_session(reply: Sequence[tuple[bytes, float]]) -> list[SessionEvent]:
    """Events of a sorted set with its scores, oldest first, none twice.

    Raises:
        CorruptValue: a member cannot be decoded.
    """
    events, problem = readable_session(reply)
    if problem is not None:
        raise problem
    return events


def readable_session(
    reply: Sequence[tuple[bytes, float]],
) -> tuple[list[SessionEvent], CorruptValue | None]:
    """What `unpack_session` returns, without the members that cannot be decoded, and why not."""
    found: dict[int, SessionEvent] = {}
    problem: CorruptValue | None = None
    for member, score in reply:
        try:
            event = _unpack(member, score)
        except CorruptValue as error:
            problem = error
        else:
            found.setdefault(event.identity, event)  # sent again under its id, something changed
    return list(found.values()), problem


def _pack(checked: CheckedEvent) -> bytes:
    event = checked.event
    weight = math.nan if event.weight is None else event.weight
    kind = event.event.encode()
    return _HEAD.pack(checked.identity, weight, len(kind)) + kind + event.item_id.encode()


def _unpack(member: bytes, score: float) -> SessionEvent:
    if not math.isfinite(score):
        raise CorruptValue(f"a session holds an event without a moment: its score is {score}")
    try:
        identity, weight, size = _HEAD.unpack_from(member)
        kind = member[_HEAD.size : _HEAD.size + size].decode()
        item_id = member[_HEAD.size + size :].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptValue(f"a session holds what is no event: {error}") from error
    if _HEAD.size + size >= len(member):
        raise CorruptValue("a session holds what is no event: it is cut short")
    return SessionEvent(item_id, int(score), kind, None if math.isnan(weight) else weight, identity)
