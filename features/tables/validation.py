"""Every broken rule of a raw frame at once: nothing is raised, nothing is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from features.errors import Problem
from features.moments import microseconds
from features.tables.id_rules import MAX_ID_LENGTH, has_control, is_too_long
from features.tables.rules import EventRules, fulfils
from features.tables.schema import EventColumns
from features.tables.times import EARLIEST, ORDER_LIMIT, TICKS

__all__ = [
    "ADD_ITEMS",
    "ROW",
    "catalogue_problems",
    "entity_problems",
    "event_problems",
    "is_id",
    "numbered",
]

ADD_ITEMS = (
    "Add the items to the table, or set data.rules.undescribed to 'take' or 'drop' these events."
)
_MERGE = (
    "Say in data.rules.repeats what they are: one event of their 'sum', the 'first' of them, or "
    "'keep' for as many events."
)

_RENAME = "Rename it in every table: no request could ask for it."
ROW = "__row"
"""Column of the numbers that rows had in the file, where some have been left out since."""
_SHOWN = 60


def event_problems(
    frame: pl.DataFrame,
    columns: EventColumns,
    *,
    source: str,
    now: datetime | None = None,
    rules: EventRules | None = None,
) -> list[Problem]:
    """Problems of one raw event frame whose rows mean what ``rules`` say."""
    rules = rules or EventRules()
    problems: list[Problem] = []
    present = [name for name in frame.columns if name != ROW]
    event = columns.optional("event", present)
    weight = columns.optional("weight", present)
    created = columns.optional("created", present)
    event_id = columns.optional("event_id", present)
    required = list(columns.required)
    for name in [
        *required,
        *(
            name
            for name in (event, weight, created, event_id, columns.order, columns.quantity)
            if name
        ),
    ]:
        if name not in present:
            problems.append(_missing(source, name, present))
    frame = numbered(frame)
    for name in (columns.user, columns.item):
        if name in present:
            problems += _id_problems(frame, name, source)
    if columns.timestamp in present and columns.unit != "none":
        problems += _time_problems(frame, columns.timestamp, columns, source, now)
    if created is not None and created in present:
        arrived = frame.filter(pl.col(created).is_not_null())
        problems += _time_problems(arrived, created, columns, source, now)
    if event is not None and event in present:
        problems += _kind_problems(frame, event, source, rules)
    elif rules.kinds and event is None:
        problems += _default_kind_problems(columns.default_event, source, rules)
    if weight is not None and weight in present:
        problems += _weight_problems(frame, weight, source, rules)
    elif weight is None:
        problems += _unweighted_problems(source, rules)
    if columns.quantity and columns.quantity in present:
        problems += _quantity_problems(frame, columns.quantity, source)
    once = created is not None or event_id is not None
    if not once and rules.repeats == "refuse" and all(name in present for name in required):
        key = [*required, *([event] if event in present else [])]
        what = "user, item, time and kind"
        problems += _duplicate_problems(frame, key, source, what, _MERGE)
    return problems


def catalogue_problems(
    frame: pl.DataFrame, column: str, item_ids: pl.Series, *, source: str, remedy: str = ADD_ITEMS
) -> list[Problem]:
    """Events of a raw frame whose item is none of ``item_ids``; none where ids have no ids' type.

    Args:
        frame: the events.
        column: with the ids of their items.
        item_ids: of the catalogue.
        source: what to call the log in messages.
        remedy: what to do about it.
    """
    if not (is_id(frame.schema.get(column)) and is_id(item_ids.dtype)):
        return []
    known = item_ids.cast(pl.String).drop_nulls().implode()
    met = frame[column].unique().cast(pl.String).drop_nulls()
    unknown = met.filter(met.is_in(known).not_())
    if unknown.is_empty():
        return []
    bad = numbered(frame).filter(pl.col(column).cast(pl.String).is_in(unknown.implode()))
    rule = "must be described by a row of the item table"
    return _broken(bad, column, column, source, rule, remedy)


def entity_problems(frame: pl.DataFrame, id_column: str, *, source: str) -> list[Problem]:
    """Problems of one raw table that must have one row per ``id_column``."""
    if id_column not in frame.columns:
        return [_missing(source, id_column, frame.columns)]
    frame = frame.select(id_column).with_row_index(ROW)
    problems = _id_problems(frame, id_column, source)
    return problems + _duplicate_problems(
        frame.drop_nulls(), [id_column], source, id_column, "Keep one row of each."
    )


def numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the number of each row in `ROW`, from 0, if that is not there already."""
    return frame if ROW in frame.columns else frame.with_row_index(ROW)


def is_id(dtype: pl.DataType | None) -> bool:
    """Whether a column of this type can hold ids; None: there is none."""
    return dtype is not None and (
        dtype.is_integer() or dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
    )


def _missing(source: str, name: str, present: list[str]) -> Problem:
    return Problem(
        source,
        name,
        "must exist",
        0,
        f"the columns are {', '.join(present) or 'none'}",
        "Name the column that plays this role, or add it.",
    )


def _broken(
    bad: pl.DataFrame, column: str, shown: str, source: str, rule: str, remedy: str
) -> list[Problem]:
    """One problem for the rows of ``bad``, none if it is empty."""
    if bad.height == 0:
        return []
    first = f"{_shown(bad[shown][0])} (row {bad[ROW][0]})"
    return [Problem(source, column, rule, bad.height, first, remedy)]


def _shown(value: object) -> str:
    """The value; of long text the beginning, and how long it is."""
    if isinstance(value, str) and len(value) > 2 * _SHOWN:
        return f"{value[:_SHOWN]!r}... of {len(value):,} characters"
    return repr(value)


def _wrong_type(source: str, column: str, rule: str, dtype: pl.DataType, remedy: str) -> Problem:
    return Problem(source, column, rule, 0, f"it is {dtype}", remedy)


def _id_problems(frame: pl.DataFrame, column: str, source: str) -> list[Problem]:
    dtype = frame.schema[column]
    rule = "must be an integer or a string"
    if not is_id(dtype):
        remedy = "Cast it; an id that went through floating point may have lost digits."
        return [_wrong_type(source, column, rule, dtype, remedy)]
    text = pl.col(column).cast(pl.String)
    bad = pl.col(column).is_null()
    if not dtype.is_integer():
        bad |= text.str.strip_chars() == ""
    rule, remedy = "must not be null or empty", "Drop these rows or fill in the id."
    problems = _broken(frame.filter(bad), column, column, source, rule, remedy)
    if dtype.is_integer():
        return problems
    met = frame.select(text.unique())
    for wrong, rule in (
        (has_control(text), "must hold no control character, such as a tab or a line break"),
        (is_too_long(text), f"must have at most {MAX_ID_LENGTH:,} characters"),
    ):
        refused = met.filter(wrong & (text.str.strip_chars() != ""))[column]
        if len(refused):
            bad_rows = frame.filter(text.is_in(refused.implode()))
            problems += _broken(bad_rows, column, column, source, rule, _RENAME)
    return problems


def _time_problems(
    frame: pl.DataFrame, column: str, columns: EventColumns, source: str, now: datetime | None
) -> list[Problem]:
    dtype, unit = frame.schema[column], columns.unit
    numeric = dtype.is_integer() or dtype.is_float()
    if numeric and unit == "iso" and columns.format is None:
        remedy = _unit_remedy(frame[column])
        return [_wrong_type(source, column, "must be text (unit 'iso')", dtype, remedy)]
    if not (numeric or dtype == pl.String or dtype == pl.Date or isinstance(dtype, pl.Datetime)):
        remedy = "Use integers, ISO text, or a date or datetime type."
        return [_wrong_type(source, column, "must be a time", dtype, remedy)]
    of_number = columns.format is None and unit in (*TICKS, "order") and not dtype.is_temporal()
    counted = of_number and (dtype != pl.String or column == columns.timestamp)
    try:
        time = (
            pl.col(column).cast(pl.Float64, strict=False)
            if counted
            else columns.time(column, dtype)
        )
        frame = frame.with_columns(time.alias("__time"))
    except pl.exceptions.PolarsError as error:
        rule, told = f"must be readable as {columns.format!r}", str(error).split("\n", 1)[0]
        return [Problem(source, column, rule, 0, told, "Correct the timestamp_format.")]
    time = pl.col("__time")
    unread = frame.filter(time.is_null() | (time.is_finite().not_() if counted else False))
    if of_number and dtype == pl.String and unread.height == frame.height > 0:
        remedy = "Declare the unit 'iso' or a timestamp_format, or cast the column to integers."
        return [_wrong_type(source, column, f"must be a number (unit {unit!r})", dtype, remedy)]
    rule = "must hold a time that can be read"
    remedy = "Drop or repair these rows; text must look like 2024-05-01T12:30:00."
    if columns.format is not None:
        remedy = f"Drop or repair these rows, or correct the timestamp_format {columns.format!r}."
    elif counted:
        remedy = "Drop or repair these rows; a number is wanted."
    problems = _broken(unread, column, column, source, rule, remedy)
    latest = (now or datetime.now(UTC).replace(tzinfo=None)) + timedelta(days=365)
    rule = f"must lie between 1971 and {latest:%Y-%m-%d}"
    low, high = pl.lit(EARLIEST), pl.lit(latest)
    if counted and unit == "order":
        low, high = pl.lit(0), pl.lit(ORDER_LIMIT)
        rule = f"must lie between 0 and {ORDER_LIMIT:,} when read as 'order'"
    elif counted:
        ticks = TICKS[unit]
        low, high = (pl.lit(microseconds(one) * ticks // 1_000_000) for one in (EARLIEST, latest))
        rule += f" when read as {unit!r}"
    outside = frame.filter(time.is_not_null() & ((time < low) | (time > high)))
    outside = outside.filter(time.is_finite()) if counted else outside
    if outside.height:
        remedy = "The numbers it was made from were probably in another unit; parse it again."
        if counted and unit == "order":
            remedy = "Number the events from 0, or declare the unit of a time."
        elif counted:
            remedy = _unit_remedy(outside["__time"], latest)
        elif columns.format is not None:
            remedy = f"Correct the timestamp_format {columns.format!r}, or repair these rows."
        problems += _broken(outside, column, column, source, rule, remedy)
    return problems


def _unit_remedy(values: pl.Series, latest: datetime | None = None) -> str:
    """Which unit would put the first of these values into the plausible range."""
    if latest is None:
        return "Declare the unit 's', 'ms', 'us' or 'ns'."
    value = float(values[0])
    for unit, ticks in TICKS.items():
        low, high = (microseconds(one) * ticks // 1_000_000 for one in (EARLIEST, latest))
        if low <= value <= high:
            return f"Declare the unit {unit!r}: read so, the first value is plausible."
    return "No unit makes the first value plausible; repair or drop these rows."


def _kind_problems(
    frame: pl.DataFrame, column: str, source: str, rules: EventRules
) -> list[Problem]:
    dtype = frame.schema[column]
    if not is_id(dtype):
        remedy = "Cast it, or leave the role out."
        rule = "must be a string or a whole number"
        return [_wrong_type(source, column, rule, dtype, remedy)]
    bad = frame.filter(pl.col(column).is_null())
    remedy = "Fill in the kind of event, or set data.rules.missing to 'drop'."
    problems = _broken(bad, column, column, source, "must not be null", remedy)
    kinds = frame[column].cast(pl.String).drop_nulls()
    if rules.kinds:
        unknown = frame.filter(~pl.col(column).cast(pl.String).is_in(list(rules.kinds)))
        named = ", ".join(unknown[column].cast(pl.String).unique().sort().head(5).to_list())
        rule = "must be one of the kinds in [data.kinds]"
        remedy = f"Say there what these weigh, 0 for nothing: {named}."
        problems += _broken(unknown, column, column, source, rule, remedy)
    missing = [kind for kind in rules.targets if not bool((kinds == kind).any())]
    if missing and frame.height:
        first = f"{missing[0]!r} never occurs"
        remedy = "Correct data.rules.targets."
        rule = "must hold the kinds that are to be predicted"
        problems.append(Problem(source, column, rule, 0, first, remedy))
    return problems


def _default_kind_problems(kind: str, source: str, rules: EventRules) -> list[Problem]:
    if kind in rules.kinds:
        return []
    first = f"all events are of the kind {kind!r}"
    remedy = "Name the column with the kinds in data.columns.event, or remove [data.kinds]."
    rule = "must exist where [data.kinds] weighs kinds"
    return [Problem(source, "event", rule, 0, first, remedy)]


def _unweighted_problems(source: str, rules: EventRules) -> list[Problem]:
    named = [name for name in ("positive", "negative") if getattr(rules, name) is not None]
    if not named:
        return []
    first = f"data.rules.{named[0]} is {getattr(rules, named[0])!r}"
    remedy = "Name the column that it compares in data.columns.weight."
    rule = "must exist where a rule compares it"
    return [Problem(source, "weight", rule, 0, first, remedy)]


def _quantity_problems(frame: pl.DataFrame, column: str, source: str) -> list[Problem]:
    dtype = frame.schema[column]
    if not dtype.is_numeric():
        remedy = "Cast it to a number, or leave the role out."
        return [_wrong_type(source, column, "must be a number", dtype, remedy)]
    bad = frame.filter(pl.col(column).cast(pl.Float64).is_finite().not_())
    remedy = "Repair these rows, or drop them."
    return _broken(bad, column, column, source, "must be finite", remedy)


def _weight_problems(
    frame: pl.DataFrame, column: str, source: str, rules: EventRules
) -> list[Problem]:
    dtype = frame.schema[column]
    if not (dtype.is_numeric() or dtype == pl.Boolean):  # true counts 1, false nothing
        remedy = "Cast it to a number, or leave the role out."
        return [_wrong_type(source, column, "must be a number", dtype, remedy)]
    weight = pl.col(column).cast(pl.Float32)
    known = weight >= 0
    for condition in (rules.positive, rules.negative):
        known = known if condition is None else known | fulfils(condition, weight)
    fine = weight.is_finite() & known
    bad = frame.filter(fine.not_().fill_null(True))
    remedy = (
        "Say what they mean: data.rules.negative = '< 0' takes them for dislikes; or set "
        "data.rules.missing to 'drop' where they are missing."
    )
    return _broken(bad, column, column, source, "must be finite and >= 0", remedy)


def _duplicate_problems(
    frame: pl.DataFrame, key: list[str], source: str, what: str, remedy: str
) -> list[Problem]:
    # Hashes first: of a log that repeats nothing the keys themselves need not be kept.
    if frame.select(key).hash_rows().n_unique() == frame.height:
        return []
    again = frame.filter(pl.struct(key).is_first_distinct().not_())
    if again.height == 0:
        return []
    shown = again.select(pl.struct(key).alias("__key"), ROW).head(1)
    values = ", ".join(f"{name}={value}" for name, value in shown["__key"][0].items())
    first = f"{values} (row {shown[ROW][0]})"
    rule = f"must not repeat ({what})"
    return [Problem(source, ", ".join(key), rule, again.height, first, remedy)]
