"""Feedback events, checked once: who did what, when, and what makes one event the same event."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from features.moments import EPOCH
from features.online.arrivals import arrival
from serving.messages import Event

__all__ = ["MAX_AGE_S", "MAX_AHEAD_S", "CheckedEvent", "checked_events"]

MAX_AHEAD_S = 300.0
MAX_AGE_S = 366 * 86_400.0
_MAX_ID_BYTES = 1024
_MAX_KIND_BYTES = 255


class CheckedEvent(NamedTuple):
    """An event that keeps the rules.

    Attributes:
        event: as it came.
        happened_us: microseconds since 1970-01-01 UTC; not after it came in.
        identity: 64 bits that are the same when the event comes again, as in `features.Arrival`.
    """

    event: Event
    happened_us: int
    identity: int


def checked_events(events: Sequence[Event], now_s: float) -> list[CheckedEvent]:
    """The events, all or none.

    A client's clock may be a little ahead: what it dates after ``now_s`` happened at ``now_s``. An
    event is known by its user and ``event_id``, without one by user, item, time and kind, always
    as the client said them.

    Args:
        events: what came in.
        now_s: seconds since the epoch.

    Raises:
        ValueError: an event breaks a rule; the message names the event, the rule and the value.
    """
    return [_checked(place, event, now_s) for place, event in enumerate(events)]


def _checked(place: int, event: Event, now_s: float) -> CheckedEvent:
    where = f"events[{place}]"
    for name, text, most in (
        ("user_id", event.user_id, _MAX_ID_BYTES),
        ("item_id", event.item_id, _MAX_ID_BYTES),
        ("event", event.event, _MAX_KIND_BYTES),
        ("event_id", event.event_id, _MAX_ID_BYTES),
        ("request_id", event.request_id, _MAX_ID_BYTES),
    ):
        if text is not None:
            _check_text(f"{where}.{name}", text, most)
    if not now_s - MAX_AGE_S <= event.timestamp <= now_s + MAX_AHEAD_S:  # NaN neither
        raise ValueError(
            f"{where}.timestamp must be seconds since 1970 in UTC, at most {MAX_AHEAD_S:g} s after "
            f"now ({now_s:.0f}) and {MAX_AGE_S / 86_400:g} days before, got {event.timestamp}"
        )
    said_us = round(event.timestamp * 1e6)
    try:
        known = arrival(
            event.user_id,
            event.item_id,
            EPOCH + timedelta(microseconds=said_us),
            event=event.event,
            weight=1.0 if event.weight is None else event.weight,
            event_id=event.event_id,
        )
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error
    return CheckedEvent(event, min(said_us, round(now_s * 1e6)), known.identity)


def _check_text(name: str, text: str, most: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be text, got a half of a surrogate pair") from error
    if not 1 <= size <= most:
        raise ValueError(f"{name} must have 1..{most} bytes in UTF-8, got {size}")
