"""Values of a time column as UTC time, once it is known how they are written."""

from __future__ import annotations

import warnings
from datetime import datetime
from functools import partial
from typing import Literal, TypeAlias

import polars as pl

__all__ = [
    "EARLIEST",
    "ORDER_LIMIT",
    "TICKS",
    "TimeUnit",
    "check_format",
    "in_microseconds",
    "time_in_microseconds",
]

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns", "iso", "order", "none"]
TICKS: dict[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""Unit of numbers -> how many of them are a second."""
EARLIEST = datetime(1971, 1, 1)
"""Times before are numbers that were read in another unit."""
ORDER_LIMIT = 4_000_000_000
"""Numbers that only say what came first lie below; each is a second after 1970."""

_US = pl.Datetime("us")
_MICROSECONDS = 1_000_000
_NO_MOMENT = datetime(1970, 1, 1)
_UTC = r"(:\d\d(?:\.\d+)?)\s*(?:Z|UTC|GMT|[+-]00(?::?00)?)$"
_ISO = (
    r"^(?<year>\d{4})(?:-(?<month>\d{1,2})-(?<day>\d{1,2})|/(?<month2>\d{1,2})/(?<day2>\d{1,2})"
    r"|\.(?<month3>\d{1,2})\.(?<day3>\d{1,2})|(?<month4>\d{2})(?<day4>\d{2}))"
    r"(?:(?:[Tt_]|\s+)?(?<hour>\d{1,2})(?::?(?<minute>\d{2})(?::?(?<second>\d{2})"
    r"(?:[.,](?<fraction>\d{1,9})\d*)?)?)?(?:\s*(?<half>[AaPp])\.?[Mm]\.?)?"
    r"(?:\s*(?<zone>[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?(?:\[[^\]]+\])?)?$"
)


def time_in_microseconds(
    column: str, dtype: pl.DataType, unit: str, format: str | None = None
) -> pl.Expr:
    """The expression that makes a time column ``Datetime("us")``, UTC without zone.

    What cannot be read is null. Columns of a date or datetime type need neither unit nor format.

    Args:
        column: which.
        dtype: its type.
        unit: of `TimeUnit`; with "none" all is at one moment, whatever the column holds.
        format: how text is written, as `strftime` has it; numbers are read as their digits. None:
            the unit says it.
    """
    if unit == "none":
        return pl.lit(_NO_MOMENT, dtype=_US)
    raw = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is not None:
            raw = raw.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return raw.cast(_US)
    if dtype == pl.Date:
        return raw.cast(_US)
    return raw.map_batches(partial(in_microseconds, unit=unit, format=format), return_dtype=_US)


def in_microseconds(values: pl.Series, unit: str, format: str | None = None) -> pl.Series:
    """The same of one column of text or numbers."""
    if format is not None:
        return _of_format(values, format)
    if unit == "iso":
        return _of_iso(values.cast(pl.String))
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        whole = text.cast(pl.Int64, strict=False)
        values = (
            whole
            if whole.null_count() == text.null_count()
            else text.cast(pl.Float64, strict=False)
        )
    if values.dtype.is_float():
        wide = values.cast(pl.Float64)
        values = wide.set(wide.is_finite().fill_null(False).not_(), None)
    values = values.cast(pl.Float64() if values.dtype.is_float() else pl.Int64(), strict=False)
    ticks = TICKS["s" if unit == "order" else unit]
    if ticks > _MICROSECONDS:
        scaled = values // (ticks // _MICROSECONDS)
    else:
        limit = 2**62 // (_MICROSECONDS // ticks)
        values = values.set((values > limit) | (values < -limit), None)
        scaled = (values * (_MICROSECONDS // ticks)).round()
    return scaled.cast(pl.Int64, strict=False).cast(_US)


def check_format(format: str) -> None:
    """Whether times can be read by a format at all.

    Raises:
        ValueError: they cannot.
    """
    try:
        if "%" not in format:
            raise ValueError("no part of a time in it")
        _of_format(pl.Series(["2024-01-01"]), format)
    except (ValueError, pl.exceptions.PolarsError) as error:
        told = str(error).split("\n", 1)[0]
        raise ValueError(
            f"format must be one of strftime, such as '%d/%m/%Y %H:%M', got {format!r}: {told}"
        ) from None


def _of_format(values: pl.Series, format: str) -> pl.Series:
    if values.dtype.is_float():
        values = values.cast(pl.Int64, strict=False)
    text = values.cast(pl.String).str.strip_chars()
    # Python reads "%z" as any offset and "%f" as the digits of a fraction; chrono spells both so.
    spelled = format.replace("%z", "%#z").replace(".%f", "%.f").replace("%%#z", "%%z")
    zone = "UTC" if "%#z" in spelled else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that Python knows and chrono reads otherwise
        read = text.str.to_datetime(spelled, time_unit="us", time_zone=zone, strict=False)
    return read.dt.replace_time_zone(None)


def _of_iso(raw: pl.Series) -> pl.Series:
    """Dates and times with the year first, as databases and programs write them; else null."""
    text = raw.str.strip_chars()
    read = pl.repeat(None, len(text), dtype=_US, eager=True).alias(raw.name)
    for usual in (_date_alone, _of_utc, _with_offset, _of_parts):
        left = (read.is_null() & text.is_not_null()).arg_true()
        if not len(left):
            break
        whole = len(left) == len(text)
        found = usual(text if whole else text.gather(left))
        if found is not None:
            read = found.alias(raw.name) if whole else read.scatter(left, found)
    return read


def _date_alone(text: pl.Series) -> pl.Series | None:
    if not text.head(1).str.contains(r"^\d{4}-\d\d-\d\d$").all():
        return None
    return text.str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)


def _of_utc(text: pl.Series) -> pl.Series:
    if text.head(1).str.contains(_UTC).any():
        text = text.str.replace(_UTC, "$1")
    text = text.str.replace("T", " ", literal=True)
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)


def _with_offset(text: pl.Series) -> pl.Series | None:
    if not text.head(1).str.contains(r":\d\d(?:\.\d+)?\s*[+-]\d\d(?::?\d\d)?$").all():
        return None
    text = text.str.replace("T", " ", literal=True)
    format = "%Y-%m-%d %H:%M:%S%.f%#z"
    read = text.str.to_datetime(format, time_unit="us", time_zone="UTC", strict=False)
    return read.dt.replace_time_zone(None)


def _of_parts(text: pl.Series) -> pl.Series:
    """Every form, slowly."""
    found = text.rename("text").to_frame().select(pl.col("text").str.extract_groups(_ISO))
    parts = found.unnest("text").select(
        pl.concat_str(
            pl.col("year"),
            pl.lit("-"),
            pl.coalesce("month", "month2", "month3", "month4").str.zfill(2),
            pl.lit("-"),
            pl.coalesce("day", "day2", "day3", "day4").str.zfill(2),
            pl.lit(" "),
            pl.col("hour").fill_null("0").str.zfill(2),
            pl.lit(":"),
            pl.col("minute").fill_null("00"),
            pl.lit(":"),
            pl.col("second").fill_null("00"),
        ).alias("plain"),
        pl.col("fraction").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64).fill_null(0),
        pl.col("half").str.to_lowercase(),
        pl.col("hour").cast(pl.Int64).fill_null(0),
        pl.col("zone").str.starts_with("-").fill_null(False).alias("west"),
        pl.col("zone").str.extract(r"^[+-](\d{2})", 1).cast(pl.Int64).fill_null(0).alias("zone_h"),
        pl.col("zone")
        .str.extract(r"^[+-]\d{2}:?(\d{2})", 1)
        .cast(pl.Int64)
        .fill_null(0)
        .alias("zone_m"),
    )
    moment = pl.col("plain").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    east = 60 * pl.col("zone_h") + pl.col("zone_m")
    noon = pl.when((pl.col("half") == "p") & (pl.col("hour") < 12)).then(12)
    hours = noon.when((pl.col("half") == "a") & (pl.col("hour") == 12)).then(-12).otherwise(0)
    minutes = hours * 60 + pl.when("west").then(east).otherwise(-east)
    shift = minutes * 60 * _MICROSECONDS + pl.col("fraction")
    return parts.select((moment.cast(pl.Int64) + shift).cast(_US)).to_series()
