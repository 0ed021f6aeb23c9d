"""Where origins lie, and what is before and after each."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.errors import DataError
from recsys.backtest.windows import checked_steps, lay_out
from recsys.config import Config
from recsys.dataset import Dataset, read_dataset
from recsys.errors import ConfigError

START = datetime(2026, 1, 1)


def config_of(directory: Path, hours: list[int], **data: Any) -> Config:
    """One user who meets an item of each hour in turn; what is at an even hour is a buy."""
    log = {
        "user_id": ["u"] * len(hours),
        "item_id": [f"i{hour}" for hour in hours],
        "timestamp": [START + timedelta(hours=hour) for hour in hours],
        "event": ["buy" if hour % 2 == 0 else "view" for hour in hours],
    }
    pl.DataFrame(log).write_parquet(directory / "events.parquet")
    return Config.model_validate({"data": {"events": directory / "events.parquet", **data}})


def data_of(directory: Path, hours: list[int], **data: Any) -> Dataset:
    return read_dataset(config_of(directory, hours, **data))


@pytest.mark.parametrize(
    ("origins", "every", "horizon"), [(2, 24, 24), (3, 12, 24), (4, 24, 6), (3, 7, 30)]
)
def test_parts_are_those_of_a_plain_loop(
    tmp_path: Path, origins: int, every: int, horizon: int
) -> None:
    hours = [*range(0, 200, 3), 200]
    config = config_of(tmp_path, hours)
    steps = checked_steps(config, origins, f"{every}h", f"{horizon}h")
    data = read_dataset(config)
    windows = lay_out(data, steps)
    assert len(windows) == origins
    assert windows[-1].end == START + timedelta(hours=200, seconds=1)
    for number, window in enumerate(reversed(windows)):
        begin = 200 * 3600 + 1 - (horizon + number * every) * 3600
        before, inside = [], []
        for hour in hours:
            if hour * 3600 < begin:
                before.append(f"i{hour}")
            elif hour * 3600 < begin + horizon * 3600:
                inside.append(f"i{hour}")
        parts = window.parts(data.interactions)
        assert parts.train.frame["item_id"].to_list() == before
        assert parts.test.frame["item_id"].to_list() == inside
        assert before
        assert inside


def test_an_event_at_the_origin_is_after_it_and_one_at_the_end_is_outside(tmp_path: Path) -> None:
    data = data_of(tmp_path, [0, 10, 20, 30])
    steps = checked_steps(config_of(tmp_path, [0]), 2, "10h", "10h")
    oldest = lay_out(data, steps)[0]
    at = oldest._replace(begin=START + timedelta(hours=10), end=START + timedelta(hours=20))
    parts = at.parts(data.interactions)
    assert parts.train.frame["item_id"].to_list() == ["i0"]
    assert parts.test.frame["item_id"].to_list() == ["i10"]


def test_a_window_is_as_long_as_the_step_where_nothing_is_said(tmp_path: Path) -> None:
    config = config_of(tmp_path, [0])
    steps = checked_steps(config, 2, "1.5d", None)
    assert steps.horizon_us == steps.every_us == 36 * 3_600_000_000
    assert checked_steps(config, 2, "1w", "2d").horizon_us == 48 * 3_600_000_000


@pytest.mark.parametrize(
    ("origins", "every", "horizon", "message"),
    [
        (1, "7d", None, "--origins must be 2 or more, to have a spread, got 1; split.moment"),
        (4, "weekly", None, "--every must be a time of a minute or more such as '7d'.*'weekly'"),
        (4, "0d", None, "--every must be a time of a minute or more.*got '0d'"),
        (4, "7d", "7", "--horizon must be a time of a minute or more.*got '7'"),
    ],
)
def test_arguments_are_refused(
    tmp_path: Path, origins: int, every: str, horizon: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_steps(config_of(tmp_path, [0]), origins, every, horizon)


@pytest.mark.parametrize("unit", ["order", "none"])
def test_a_log_without_clock_is_refused(unit: str) -> None:
    config = Config.model_validate(
        {"data": {"events": Path("e.parquet"), "columns": {"timestamp_unit": unit}}}
    )
    with pytest.raises(ConfigError, match=f"timestamp_unit must be of a clock .* got '{unit}'"):
        checked_steps(config, 4, "7d", None)


@pytest.mark.parametrize(
    ("origins", "every", "horizon", "fit"),
    [(5, "1d", "1d", 4), (2, "1d", "9d", 0), (3, "5d", "1d", 1)],
)
def test_a_log_that_is_too_short_says_how_many_origins_fit(
    tmp_path: Path, origins: int, every: str, horizon: str, fit: int
) -> None:
    config = config_of(tmp_path, list(range(0, 24 * 5)))
    data = read_dataset(config)
    with pytest.raises(ConfigError, match=f"in which {fit} origins fit; ask for fewer") as caught:
        lay_out(data, checked_steps(config, origins, every, horizon))
    assert f"--origins {origins} --every {every} --horizon {horizon}" in str(caught.value)
    if fit > 1:
        assert len(lay_out(data, checked_steps(config, fit, every, horizon))) == fit


def test_times_beyond_the_calendar_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, [0, 1, 2])
    with pytest.raises(ConfigError, match="reach back beyond the first year"):
        lay_out(read_dataset(config), checked_steps(config, 2, "9000000w", "1h"))


def test_a_window_without_anything_to_find_is_refused(tmp_path: Path) -> None:
    hours = [0, 1, 2, 5, 30]
    steps = checked_steps(config_of(tmp_path, hours), 2, "24h", "2h")
    assert len(lay_out(data_of(tmp_path, hours), steps)) == 2
    targets = {"rules": {"targets": ["buy"]}, "kinds": {"buy": 1.0, "view": 1.0}}
    with pytest.raises(ConfigError, match=r"every window must hold events .* got none from 2026"):
        lay_out(data_of(tmp_path, hours, **targets), steps)


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, [1], kinds={"view": 0.0})
    with pytest.raises(DataError, match="the log must hold events"):
        lay_out(read_dataset(config), checked_steps(config, 2, "1d", None))
