"""How settings are declared, checked, composed and told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from recsys.config import Config
from recsys.config.page import configuration_page
from recsys.errors import ConfigError
from recsys.settings import Count, Positive, Searched, Settings, Share, explain
from recsys.settings.reference import effective, reference, toml_value

ROOT = Path(__file__).resolve().parents[3]


class Shape(Settings):
    """The shape of a thing."""

    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 8
    """Width, a multiple of 4."""
    share: Annotated[Share, Searched(0.1, 0.5)] = 0.25
    """How much of it
    is hidden."""


class Training(Settings):
    """How it is trained."""

    rate: Positive = 0.1
    """Of the updates."""
    names: tuple[str, ...] = ("a",)
    """Of its parts."""
    kind: Literal["x", "y"] | None = None
    """Which one. Not said: any."""

    @field_validator("names")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must be distinct")
        return value


class Section(Shape, Training):
    """Both, and more."""

    count: Count = 3
    """How many."""


class Whole(Settings):
    """A file."""

    seed: int
    """Of the draws."""
    section: Section = Section()
    """The one section."""
    others: tuple[Shape, ...] = ()
    """More shapes."""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 6}, r"^dim must be a multiple of 4, got 6$"),
        ({"dim": 0}, r"^dim must be >= 4, got 0$"),
        ({"share": 1}, r"^share must be < 1, got 1$"),
        ({"rate": math.inf}, r"^rate must be a finite number, got inf$"),
        ({"kind": "z"}, r"^kind must be one of x, y, got 'z'"),
        ({"names": ("a", "a")}, r"^names: must be distinct$"),
        ({"rat": 1.0}, r"^unknown setting 'rat'; did you mean 'rate'\?$"),
        ({"dim": 0, "count": 0}, r"^count must be >= 1, got 0\ndim must|^dim must .*\ncount must"),
    ],
)
def test_a_refused_value_names_setting_rule_and_value(values, message):
    with pytest.raises(ConfigError, match=message):
        Section(**values)


def test_a_section_within_is_named_by_its_path():
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate_json('{"seed": 1, "section": {"dim": 6}}')
    assert explain(caught.value, Whole) == "section.dim must be a multiple of 4, got 6"
    with pytest.raises(ConfigError, match=r"^section\.dim must be a multiple of 4, got 6$"):
        Whole(seed=1, section={"dim": 6})


def test_changed_settings_are_checked_like_new_ones():
    section = Section()
    assert section.but(dim=12) == Section(dim=12)
    assert section.dim == 8
    with pytest.raises(ConfigError, match="dim must be >= 4, got 0"):
        section.but(dim=0)


def test_a_part_is_what_its_base_declares():
    section = Section(dim=12, rate=0.5, count=7)
    assert section.only(Shape) == Shape(dim=12)
    assert section.only(Training) == Training(rate=0.5)


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        Section().dim = 12


def test_the_reference_says_kind_default_and_meaning():
    whole, section, others = reference(Whole)
    assert (whole.path, whole.meaning) == ("", "A file.")
    assert [tuple(one) for one in whole.settings] == [
        ("seed", "whole number", "needed", "Of the draws.")
    ]
    said = {one.name: tuple(one)[1:] for one in section.settings}
    assert said == {
        "dim": ("whole number >= 4 a multiple of 4", "8", "Width, a multiple of 4."),
        "share": ("number >= 0 < 1", "0.25", "How much of it is hidden."),
        "rate": ("number > 0", "0.1", "Of the updates."),
        "names": ("list, each text", '["a"]', "Of its parts."),
        "kind": ('one of "x", "y"', "not said", "Which one. Not said: any."),
        "count": ("whole number >= 1", "3", "How many."),
    }
    assert (others.path, others.repeated) == ("others", True)


def test_the_effective_settings_mark_what_is_not_as_by_default():
    whole = Whole(seed=1, section=Section(dim=12), others=(Shape(), Shape(share=0.5)))
    found = {one.path: (one.value, one.is_default) for one in effective(whole)}
    assert found["seed"] == (1, False)
    assert found["section.dim"] == (12, False)
    assert found["section.rate"] == (0.1, True)
    assert found["others[0].share"] == (0.25, True)
    assert found["others[1].share"] == (0.5, False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not said"),
        (True, "true"),
        (1e9, "1e+09"),
        (0.123456789, "0.123456789"),
        (Path("a/b"), '"a/b"'),
        (("a", 1), '["a", 1]'),
        ({"low": 1}, "{low = 1}"),
    ],
)
def test_values_are_written_as_in_the_file(value, text):
    assert toml_value(value) == text


def test_every_setting_of_the_configuration_has_a_meaning():
    sections = reference(Config)
    settings = [(section.path, one) for section in sections for one in section.settings]
    assert len(settings) > 220
    assert [f"{path}.{one.name}" for path, one in settings if len(one.meaning) < 10] == []
    assert [section.path for section in sections if len(section.meaning) < 10] == []


def test_the_page_of_settings_is_not_stale():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration_page(reference(Config)), (
        "run `recsys config reference > docs/configuration.md`"
    )
