"""Which form the values of a column have, if they are times at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from features.moments import microseconds
from features.tables.times.formats import formats_like
from features.tables.times.parsing import TICKS, TimeUnit, in_microseconds

__all__ = ["TimeForm", "detect", "narrow"]

_PLAUSIBLE = datetime(1990, 1, 1)
_MONTH_FIRST = ("%m/%d", "%m-%d", "%m.%d", "%m %d")
_DIGITS = {"%Y%m%d": (19900101, 99991231), "%Y%m%d%H%M%S": (19900101000000, 99991231235959)}
_SAMPLES = 50


@dataclass(frozen=True)
class TimeForm:
    """How the times of a column are written.

    Attributes:
        unit: of `TimeUnit`; None: the type of the column says it.
        format: of strftime, where the unit does not say it.
        other: the format that fits all values as well, with day and month the other way round.
        share: of the values that are there, how many have this form and are plausible.
        first: the earliest of them.
        last: the latest.
    """

    unit: TimeUnit | None
    format: str | None
    other: str | None
    share: float
    first: datetime
    last: datetime


def narrow(values: pl.Series) -> bool:
    """Whether a column holds times in a float of 32 bits, which is off by up to a minute."""
    return values.dtype == pl.Float32


def detect(values: pl.Series, now: datetime | None = None) -> TimeForm | None:
    """The form in which most values of a column are times from 1990 to a year after now.

    Args:
        values: the column; all of it is looked at.
        now: UTC without zone; None: the clock.

    Returns:
        None where no form fits; a form that fits some of the values has a share below 1.
    """
    now = now or datetime.now(UTC).replace(tzinfo=None)
    latest = now + timedelta(days=365)
    values = values.drop_nulls()
    if values.is_empty():
        return None
    dtype = values.dtype
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
        times = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else values
        return _form(times.cast(pl.Datetime("us")), None, None, latest)
    if dtype.is_integer() or dtype.is_float():
        return _of_numbers(values, latest)
    return _of_text(values, latest) if dtype == pl.String else None


def _form(
    times: pl.Series, unit: TimeUnit | None, format: str | None, latest: datetime
) -> TimeForm | None:
    fine = times.filter((times >= _PLAUSIBLE) & (times <= latest))
    if fine.is_empty():
        return None
    first, last = fine.min(), fine.max()
    if not (isinstance(first, datetime) and isinstance(last, datetime)):
        return None
    return TimeForm(unit, format, None, len(fine) / len(times), first, last)


def _of_numbers(values: pl.Series, latest: datetime) -> TimeForm | None:
    middle = values.median()
    if not isinstance(middle, int | float) or middle != middle:
        return None
    for unit, ticks in TICKS.items():
        low, high = (microseconds(one) * ticks // 1_000_000 for one in (_PLAUSIBLE, latest))
        if low <= middle <= high:
            return _form(in_microseconds(values, unit), _unit(unit), None, latest)
    for format, (least, most) in _DIGITS.items():
        if least <= middle <= most:
            found = values.value_counts(name="__rows")
            times = in_microseconds(found.to_series(0), "iso", format)
            return _weighted(times, found["__rows"], "iso", format, latest)
    return None


def _unit(name: str) -> TimeUnit:
    known: dict[str, TimeUnit] = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}
    return known[name]


def _weighted(
    times: pl.Series, rows: pl.Series, unit: TimeUnit, format: str | None, latest: datetime
) -> TimeForm | None:
    """The form of different values that stand in so many rows each."""
    form = _form(times, unit, format, latest)
    if form is None or form.share == 1:
        return form
    fine = ((times >= _PLAUSIBLE) & (times <= latest)).fill_null(False)
    share = int(rows.filter(fine).sum()) / int(rows.sum())
    return TimeForm(unit, format, None, share, form.first, form.last)


def _of_text(values: pl.Series, latest: datetime) -> TimeForm | None:
    head = values.gather_every(max(1, len(values) // _SAMPLES)).str.strip_chars()
    head = head.filter(head.str.contains(r"\d"))
    if head.is_empty() or (len(values) > len(head) and _of_text(head, latest) is None):
        return None
    distinct = values.n_unique()
    if distinct > len(values) / 2:
        different, rows = values, pl.repeat(1, len(values), eager=True)
    else:
        counted = values.value_counts(name="__rows")
        different, rows = counted.to_series(0), counted["__rows"]
    numbers = head.cast(pl.Float64, strict=False)
    if numbers.null_count() == 0:
        form = _of_numbers(values.str.strip_chars().cast(pl.Float64, strict=False), latest)
        if form is None or form.format is None:
            return form
        return _weighted(
            in_microseconds(different, "iso", form.format), rows, "iso", form.format, latest
        )
    forms = [_weighted(in_microseconds(different, "iso"), rows, "iso", None, latest)]
    best = forms[0]
    if best is None or best.share < 1:
        formats = list(dict.fromkeys(one for text in head for one in formats_like(text)))
        for format in formats:
            times = in_microseconds(different, "iso", format)
            forms.append(_weighted(times, rows, "iso", format, latest))
    found = [form for form in forms if form is not None]
    if not found:
        return None
    most = max(form.share for form in found)
    return _of_equals([form for form in found if form.share == most], values)


def _of_equals(forms: list[TimeForm], values: pl.Series) -> TimeForm:
    """The likeliest of forms that fit as many values: the one in which the file is in order."""
    if len(forms) == 1 or forms[0].format is None:
        return forms[0]

    def likely(form: TimeForm) -> tuple[float, float, bool]:
        times = in_microseconds(values.head(20_000), "iso", form.format).cast(pl.Int64)
        steps = times.diff().drop_nulls()
        back = int((steps < 0).sum()) if len(steps) else 0
        ahead = int((steps > 0).sum()) if len(steps) else 0
        span = (form.last - form.first).total_seconds()
        return min(back, ahead), span, _month_first(form.format) != _american(form.format)

    first, second = sorted(forms, key=likely)[:2]
    return TimeForm(first.unit, first.format, second.format, first.share, first.first, first.last)


def _month_first(format: str | None) -> bool:
    return format is not None and any(part in format for part in _MONTH_FIRST)


def _american(format: str | None) -> bool:
    """Whether a date of this form is likelier to have its month first."""
    return format is not None and ("%p" in format or "/" in format)
