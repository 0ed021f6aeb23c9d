from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from email.utils import format_datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import EventColumns, Interactions, find_problems
from features.tables.times import check_format, detect, in_microseconds
from features.tables.times.formats import formats_like

NOW = datetime(2025, 1, 1)
MOMENT = datetime(2024, 3, 10, 2, 30)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024-03-10 02:30:00", MOMENT),
        ("2024-03-10 02:30:00+00", MOMENT),
        ("2024-03-10T02:30Z", MOMENT),
        ("2024-03-10T02:30:00+0100", MOMENT - timedelta(hours=1)),
        ("2024-03-10 02:30:00.5 -0330", MOMENT + timedelta(hours=3.5, seconds=0.5)),
        ("20240310T023000Z", MOMENT),
        ("20240310", datetime(2024, 3, 10)),
        ("2024-03-10 02:30:00 UTC", MOMENT),
        ("2024-03-10 02:30:00.000000 UTC", MOMENT),
        ("2024-03-10 02:30:00,25", MOMENT + timedelta(seconds=0.25)),
        ("2024-03-10", datetime(2024, 3, 10)),
        ("2024-03-10 02:30", MOMENT),
        ("2024-03-10 02", datetime(2024, 3, 10, 2)),
        ("2024/3/10 2:30:00", MOMENT),
        ("2024.03.10 02:30:00", MOMENT),
        ("2024-03-10 02:30:00 PM", MOMENT + timedelta(hours=12)),
        ("2024-03-10 12:30:00 am", datetime(2024, 3, 10, 0, 30)),
        ("2024-03-10T08:00:00+05:30[Asia/Kolkata]", MOMENT),
        ("2024-03-10T02:30:00.123456789Z", MOMENT + timedelta(microseconds=123456)),
        ("2024-13-10", None),
        ("2024-03-00", None),
        ("2024-03-10T25:00:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_iso_in_every_form(text: str | None, wanted: datetime | None) -> None:
    alone = in_microseconds(pl.Series([text], dtype=pl.String), "iso")
    assert alone.to_list() == [wanted]
    # Beside other forms, which are read by other ways, it means the same.
    mixed = in_microseconds(pl.Series(["2020-01-01", text, "2020-01-01 00:00:00Z"]), "iso")
    assert mixed.to_list() == [datetime(2020, 1, 1), wanted, datetime(2020, 1, 1)]


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2024, 12, 31)),
    st.integers(-14 * 4, 14 * 4),
)
def test_what_python_writes_is_read(moment: datetime, quarters: int) -> None:
    zoned = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=15 * quarters)))
    texts = pl.Series([str(zoned), zoned.isoformat(), str(moment), moment.isoformat()])
    assert in_microseconds(texts, "iso").to_list() == [moment] * 4


@pytest.mark.parametrize(
    ("first", "format"),
    [
        ("30/11/2019 8:26", "%d/%m/%Y %H:%M"),
        ("11/30/2019 9:05:58 AM", "%m/%d/%Y %I:%M:%S %p"),
        ("30.11.19", "%d.%m.%y"),
        ("30-11-2019 08:26:00.5", "%d-%m-%Y %H:%M:%S%.f"),
        ("Sat Nov 30 20:19:24 +0000 2019", "%a %b %d %H:%M:%S %z %Y"),
        ("Sat Nov 30 20:19:24 UTC 2019", "%a %b %d %H:%M:%S UTC %Y"),
        ("[30/Nov/2019:13:55:36 -0700]", "[%d/%b/%Y:%H:%M:%S %z]"),
        ("30-NOV-19 02.30.00 PM", "%d-%b-%y %I.%M.%S %p"),
        ("11 30, 2019", "%m %d, %Y"),
        ("November 30, 2019 8:00 pm", "%B %d, %Y %I:%M %p"),
        ("20191130", "%Y%m%d"),
    ],
)
def test_forms_that_need_a_format(first: str, format: str) -> None:
    form = detect(pl.Series([first] * 3), NOW)
    assert form is not None
    assert (form.unit, form.format, form.other, form.share) == ("iso", format, None, 1.0)
    assert form.first.date() == date(2019, 11, 30)


def test_mail_dates() -> None:
    moments = [datetime(2019, 11, day, 1, 2, 3, tzinfo=UTC) for day in range(1, 29)]
    texts = pl.Series([format_datetime(one) for one in moments])
    form = detect(texts, NOW)
    assert form is not None
    read = in_microseconds(texts, "iso", form.format)
    assert read.to_list() == [one.replace(tzinfo=None) for one in moments]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.String])
def test_numbers_in_each_unit(unit: str, dtype: type[pl.DataType]) -> None:
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = pl.Series([1_600_000_000 * ticks, 1_600_000_100 * ticks]).cast(dtype)
    form = detect(values, NOW)
    assert form is not None
    assert (form.unit, form.format, form.share) == (unit, None, 1.0)
    read = in_microseconds(values, unit).to_list()
    assert read == [datetime(2020, 9, 13, 12, 26, 40), datetime(2020, 9, 13, 12, 28, 20)]


@pytest.mark.parametrize(
    ("values", "format", "first"),
    [
        ([20180920, 20180921], "%Y%m%d", datetime(2018, 9, 20)),
        ([20180920101112.0], "%Y%m%d%H%M%S", datetime(2018, 9, 20, 10, 11, 12)),
    ],
)
def test_dates_as_numbers(values: list[float], format: str, first: datetime) -> None:
    form = detect(pl.Series(values), NOW)
    assert form is not None
    assert (form.format, form.first) == (format, first)


@pytest.mark.parametrize(
    "values",
    [[1, 2, 3], [0.5, 5.0], ["a", "b"], ["85123A", "10"], [True], [2**62], [float("nan")], [None]],
)
def test_what_is_no_time(values: list[object]) -> None:
    assert detect(pl.Series(values, strict=False), NOW) is None


def test_one_value_that_is_no_time_takes_from_the_share() -> None:
    form = detect(pl.Series(["2024-03-10"] * 3 + ["soon"]), NOW)
    assert form is not None
    assert form.share == 0.75
    form = detect(pl.Series([1_600_000_000] * 3 + [12]), NOW)
    assert form is not None
    assert form.share == 0.75


def test_a_form_that_only_later_values_decide() -> None:
    days = [f"{day:02}/01/2019" for day in range(1, 13)] * 50
    form = detect(pl.Series([*days, "13/01/2019"]), NOW)
    assert form is not None
    assert (form.format, form.other) == ("%d/%m/%Y", None)


@pytest.mark.parametrize(("format", "other"), [("%d/%m/%Y", "%m/%d/%Y"), ("%m/%d/%Y", "%d/%m/%Y")])
def test_where_day_and_month_fit_both_ways_the_order_of_rows_tells(format: str, other: str) -> None:
    start = datetime(2019, 3, 1)
    moments = [start + timedelta(days=30 * month + day) for month in range(6) for day in range(5)]
    moments = [one for one in moments if one.day <= 12]
    form = detect(pl.Series([one.strftime(format) for one in sorted(moments)]), NOW)
    assert form is not None
    assert (form.format, form.other) == (format, other)


def test_text_that_is_like_no_time_has_no_format() -> None:
    for text in ("iphone 10 12 2012", "hello 10/12", "85123A", "1234567", ""):
        assert formats_like(text) == []


def test_python_formats_are_understood() -> None:
    for format, text in (
        ("%d/%m/%Y %H:%M:%S.%f", "10/03/2024 02:30:00.250000"),
        ("%d/%m/%Y %H:%M:%S.%f%z", "10/03/2024 02:30:00.25Z"),
    ):
        read = in_microseconds(pl.Series([text]), "s", format)
        assert read.to_list() == [MOMENT + timedelta(seconds=0.25)]


def test_formats_that_read_nothing_are_refused() -> None:
    for format in ("year", "%Y-%m-%d %H"):
        with pytest.raises(ValueError, match="format must be one of strftime, such as"):
            check_format(format)
    with pytest.raises(ValueError, match="format must not stand beside the unit 'order'"):
        EventColumns(unit="order", format="%Y")
    with pytest.raises(ValueError, match="created must not be named beside the unit 'none'"):
        EventColumns(unit="none", created="at")


def log(**columns: list[object]) -> pl.DataFrame:
    base: dict[str, list[object]] = {"user_id": ["u", "v", "u"], "item_id": ["a", "b", "c"]}
    return pl.DataFrame(base | columns)


def test_a_log_in_a_format() -> None:
    columns = EventColumns(timestamp="when", format="%d/%m/%Y")
    frame = log(when=["10/03/2024", "09/03/2024", "11/03/2024"])
    times = Interactions.from_frame(frame, columns=columns, now=NOW).frame["timestamp"].to_list()
    assert times == [datetime(2024, 3, day) for day in (9, 10, 11)]
    frame = log(when=["10/03/2024", "13/13/2024", "11/03/1924"])
    unread, outside = find_problems(frame, columns=columns, now=NOW)
    assert (unread.rows, unread.first) == (1, "'13/13/2024' (row 1)")
    assert "correct the timestamp_format '%d/%m/%Y'" in unread.remedy
    assert (outside.rule, outside.first) == (
        "must lie between 1971 and 2026-01-01",
        "'11/03/1924' (row 2)",
    )


def test_numbers_that_only_say_what_came_first() -> None:
    columns = EventColumns(timestamp="place", unit="order")
    found = Interactions.from_frame(log(place=[2, 0, 1]), columns=columns).frame
    assert found["item_id"].to_list() == ["b", "c", "a"]
    assert found["timestamp"].to_list() == [
        datetime(1970, 1, 1) + timedelta(seconds=n) for n in range(3)
    ]
    (problem,) = find_problems(log(place=[1, -1, 2]), columns=columns)
    assert problem.rule == "must lie between 0 and 4,000,000,000 when read as 'order'"
    assert problem.first == "-1 (row 1)"


def test_a_log_without_any_time() -> None:
    columns = EventColumns(unit="none")
    assert find_problems(log(), columns=columns) == []
    found = Interactions.from_frame(log(), columns=columns).frame
    assert found["timestamp"].to_list() == [datetime(1970, 1, 1)] * 3


def test_text_of_numbers_with_one_that_is_none() -> None:
    frame = log(timestamp=["1600000000", "x", "1600000002"])
    (problem,) = find_problems(frame, now=NOW)
    assert (problem.rows, problem.first) == (1, "'x' (row 1)")
    assert problem.remedy == "Drop or repair these rows; a number is wanted."


def test_nanoseconds_are_told_as_the_unit() -> None:
    (problem,) = find_problems(log(timestamp=[1_600_000_000 * 10**9 + n for n in range(3)]))
    assert problem.remedy.startswith("Declare the unit 'ns'")


def test_arrival_may_be_text_beside_numbers() -> None:
    frame = log(timestamp=[1_600_000_000] * 3, created=["2020-09-13 12:30:00 UTC"] * 3)
    assert find_problems(frame, now=NOW) == []
    found = Interactions.from_frame(frame, now=NOW).frame["created"]
    assert found.to_list() == [datetime(2020, 9, 13, 12, 30)] * 3


@pytest.mark.parametrize(
    "dtype", [pl.Int32, pl.UInt32, pl.Int64, pl.UInt64, pl.Int16, pl.UInt8, pl.Float32, pl.Float64]
)
def test_whole_numbers_of_any_width(dtype: type[pl.DataType]) -> None:
    values = pl.Series([120, None, 7]).cast(dtype)
    for unit, scale in (("s", 1_000_000), ("ms", 1_000), ("us", 1), ("order", 1_000_000)):
        found = in_microseconds(values, unit).to_physical().to_list()
        assert found == [120 * scale, None, 7 * scale]
    beyond = in_microseconds(pl.Series([2**64 - 1], dtype=pl.UInt64), "s")
    assert beyond.to_list() == [None]
