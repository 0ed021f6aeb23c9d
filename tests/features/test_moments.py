from __future__ import annotations

import pytest

from features.moments import duration_text, duration_us

HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("text", "hours", "told"),
    [
        ("7d", 168, "7d"),
        ("2w", 336, "14d"),
        ("36 h", 36, "36h"),
        ("90m", 1.5, "90m"),
        ("0d", 0, "0d"),
        ("0.5d", 12, "12h"),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, hours: float, told: str) -> None:
    assert duration_us(text) == hours * HOUR
    assert duration_text(round(hours * HOUR)) == told


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 days", "-1d", "1e3d", "7D", "7d ", "7  d", "9" * 400 + "d"]
)
def test_anything_else_is_none(text: str) -> None:
    assert duration_us(text) is None
