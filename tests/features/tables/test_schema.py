from __future__ import annotations

import pytest

from features import EventColumns


def test_optional_columns_are_found_by_name_or_left_out() -> None:
    columns = EventColumns()
    assert columns.optional("event", ["user_id", "event"]) == "event"
    assert columns.optional("weight", ["user_id", "event"]) is None
    assert EventColumns(weight="rating").optional("weight", []) == "rating"


def test_a_column_with_another_role_is_not_taken_for_an_optional_one() -> None:
    assert EventColumns(event="weight").optional("weight", ["weight"]) is None


def test_unknown_unit_is_refused() -> None:
    known = "'s', 'ms', 'us', 'ns', 'iso', 'order', 'none'"
    with pytest.raises(ValueError, match=f"unit must be one of {known}, got 'min'"):
        EventColumns(unit="min")  # type: ignore[arg-type]


def test_two_roles_cannot_share_a_column() -> None:
    with pytest.raises(ValueError, match="got 'user_id' for two roles"):
        EventColumns(item="user_id")
