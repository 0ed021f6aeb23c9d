from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.tuning.toml_text import to_toml

scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
tables = st.recursive(
    st.dictionaries(names, scalars | st.lists(scalars, max_size=3), max_size=3),
    lambda inner: st.dictionaries(
        names, scalars | inner | st.lists(inner, min_size=1, max_size=2), max_size=3
    ),
    max_leaves=8,
)


@given(tables)
def test_reading_gives_back_what_was_written(values: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(values)) == values


def test_the_text() -> None:
    values = {"space": {"retrieval.dim": {"low": 1}}, "seed": 1, "on": True, "x": [0.1, 1e-05]}
    assert to_toml(values) == (
        'seed = 1\non = true\nx = [0.1, 1e-05]\n\n[space."retrieval.dim"]\nlow = 1\n'
    )


def test_lists_of_tables() -> None:
    assert to_toml({"features": [{"kind": "age"}, {}], "on": True}) == (
        'on = true\n\n[[features]]\nkind = "age"\n\n[[features]]\n'
    )


def test_what_toml_cannot_say() -> None:
    with pytest.raises(TypeError, match=r"TOML takes text, .* got None"):
        to_toml({"a": None})
    with pytest.raises(ValueError, match="must be finite, got inf"):
        to_toml({"a": float("inf")})
