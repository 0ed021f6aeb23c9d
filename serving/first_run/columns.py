"""The settings of a log's columns, from the roles that its values show."""

from __future__ import annotations

from collections.abc import Iterator

from features.tables.roles import Found, LogRoles
from serving.first_run.setting import Setting

__all__ = ["column_settings"]

_COLUMNS = "data.columns"


def column_settings(roles: LogRoles, columns: list[str]) -> Iterator[Setting]:
    """Settings of ``data.columns``.

    Args:
        roles: of the log's columns.
        columns: of the log; one that is called like a role and plays it not is switched off.
    """
    yield _setting("user", roles.user)
    yield _setting("item", roles.item)
    yield from _time(roles)
    if roles.kinds is not None:
        yield _setting("event", roles.kinds)
    elif roles.other_kinds:
        reason = "no word of a kind of event that is known, so all rows count the same"
        yield Setting(_COLUMNS, "event", None, reason, others=roles.other_kinds)
    elif "event" in columns:
        yield Setting(_COLUMNS, "event", "", "'event' holds no kinds of event")
    yield from _weight(roles, columns)
    if roles.quantity is not None:
        yield _setting("quantity", roles.quantity)
    yield from _order(roles)
    yield from _arrival(roles, columns)
    if roles.event_id is not None:
        yield _setting("event_id", roles.event_id)
    elif "event_id" in columns and (roles.kinds is None or roles.kinds.column != "event_id"):
        yield Setting(_COLUMNS, "event_id", "", "'event_id' does not tell events apart")


def _setting(name: str, found: Found) -> Setting:
    return Setting(_COLUMNS, name, found.column, found.reason, others=found.others)


def _time(roles: LogRoles) -> Iterator[Setting]:
    when = roles.when
    if when.found is not None:
        value = when.found.column or None
        others = when.found.others
        yield Setting(_COLUMNS, "timestamp", value, when.found.reason, others=others)
    if when.format is not None:
        others = ((when.other_format, "the other way round"),) if when.other_format else ()
        yield Setting(_COLUMNS, "timestamp_format", when.format, when.unit_reason, others=others)
    elif when.unit is not None:
        yield Setting(_COLUMNS, "timestamp_unit", when.unit, when.unit_reason)


def _weight(roles: LogRoles, columns: list[str]) -> Iterator[Setting]:
    weight = roles.weight
    if weight is not None:
        value = weight.found.column or None
        reason = weight.found.reason
        if value is not None:
            told = [
                f"{weight.zero:,} rows of 0 count nothing" if weight.zero else "",
                f"{weight.negative:,} rows below 0 are no likes" if weight.negative else "",
            ]
            reason = "; ".join(one for one in (reason, *told) if one)
        yield Setting(_COLUMNS, "weight", value, reason, others=weight.found.others)
    if (weight is None or not weight.found.column) and "weight" in columns:
        yield Setting(_COLUMNS, "weight", "", "'weight' does not say how much an event counts")


def _order(roles: LogRoles) -> Iterator[Setting]:
    if roles.order is not None:
        yield _setting("order", roles.order)
    shown = [(name, why) for name, why in roles.sessions if name != roles.user.column]
    if shown:
        reason = "no order: a session is not used" if roles.order is None else ""
        named = tuple((name, f"{why}; its events would be one moment") for name, why in shown)
        yield Setting(_COLUMNS, "order", None, reason, others=named)


def _arrival(roles: LogRoles, columns: list[str]) -> Iterator[Setting]:
    if roles.created is not None:
        yield Setting(_COLUMNS, "created", roles.created.column, roles.created.reason)
        return
    if roles.later:
        yield Setting(_COLUMNS, "created", None, "", others=roles.later)
    when = roles.when.found
    clock = roles.when.unit not in ("order", "none")
    if "created" in columns and clock and (when is None or when.column != "created"):
        yield Setting(_COLUMNS, "created", "", "'created' is no time of arrival")
