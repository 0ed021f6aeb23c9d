"""What `recsys tune` searches, as a configuration declares it, and the checks of that."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recsys.config.retrieval import RetrievalConfig
from recsys.retrieval.source_options import GraphOptions, PopularOptions
from recsys.settings import Count, Positive, Settings, explain

__all__ = [
    "SECTION",
    "UNSEARCHED",
    "Dimension",
    "TuningConfig",
    "field_of",
    "read_space",
    "step_of",
]


SECTION = "retrieval"
"""Where the settings that can be searched are."""


UNSEARCHED = (
    "sources",
    "item_item_l2",
    "item_item_dropout",
    "item_item_item_power",
    "item_item_user_power",
    "item_item_dense_items",
    "item_item_neighbours",
    "half_life",
    "popularity_window_days",
    *GraphOptions.model_fields,
    *PopularOptions.model_fields,
    "num_threads",
    "int8",
    "index",
    "warm_epochs",
    "compatibility_weight",
    "light_user_tower",
    "threshold_head",
    "soup",
)
"""Settings of that section that the towers of a trial do not depend on."""


_RANGE, _CHOICE = ("low", "high", "log"), ("choices",)


class Dimension(BaseModel):
    """The values one setting may take: a range, or a list of choices."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: int | float | None = None
    """Smallest value, itself included. None: there are choices."""
    high: int | float | None = None
    """Largest value, itself included."""
    log: bool = False
    """A factor of two is as likely at the low end as at the high one."""
    choices: tuple[bool | int | float | str, ...] | None = None
    """The values. None: there is a range."""

    def holds(self, value: Any) -> bool:
        """Whether the setting may take ``value``."""
        if self.choices is not None:
            return value in self.choices
        if value is None or self.low is None or self.high is None:
            return False
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if self.choices is not None:
            return ", ".join(str(choice) for choice in self.choices)
        return f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")


def read_space(declared: Any, model: type[BaseModel]) -> dict[str, Dimension]:
    """Check a declared space against the section it searches.

    ``"retrieval.dim" = {low = 32, high = 128}`` and, as TOML reads the same without the quotes,
    ``{"retrieval": {"dim": {"low": 32, "high": 128}}}`` mean the same.

    Args:
        declared: what stands in the configuration.
        model: the section; its own bounds hold for every value of the space.

    Returns:
        Dotted name -> values.

    Raises:
        ValueError: all mistakes, one a line.
    """
    if not isinstance(declared, Mapping):
        raise ValueError(f"must be a table of settings and their values, got {declared!r}")
    space = dict(_flat(declared))
    problems = [line for name, fields in space.items() for line in _problems(name, fields, model)]
    if problems:
        raise ValueError("\ntuning.space: ".join(problems))
    return {name: _dimension(fields) for name, fields in space.items()}


class TuningConfig(Settings):
    """What `recsys tune` searches, and for how long."""

    minutes: Positive = 60.0
    """Of one call; it stops after the epoch that is then trained."""
    trials: Count = 100
    """Of a study, over all calls."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """Setting -> values that are tried; empty: what the configured loss reads."""

    @field_validator("space", mode="before")
    @classmethod
    def _searchable(cls, value: Any) -> Any:
        return read_space(value, RetrievalConfig)


def field_of(name: str) -> str:
    """The setting within its section that a dotted name means."""
    return name.removeprefix(f"{SECTION}.")


def step_of(model: type[BaseModel], name: str) -> int | None:
    """What lies between two values of the setting ``name``; None: it is no whole number."""
    if _number_kind(model, name) is not int:
        return None
    steps = [getattr(bound, "multiple_of", None) for bound in model.model_fields[name].metadata]
    return next((int(step) for step in steps if step is not None), 1)


def _dimension(fields: Mapping[str, Any]) -> Dimension:
    choices = fields.get("choices")
    return Dimension(**{**fields, "choices": None if choices is None else tuple(choices)})


def _flat(declared: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in declared.items():
        if isinstance(value, Dimension):
            value = value.model_dump(exclude_none=True)
        if isinstance(value, Mapping) and value and not {*_RANGE, *_CHOICE} & set(value):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _problems(name: str, fields: Any, model: type[BaseModel]) -> Iterator[str]:
    section, _, setting = name.rpartition(".")
    searchable = [field for field in model.model_fields if field not in UNSEARCHED]
    if section == SECTION and setting in UNSEARCHED:
        yield (
            f"'{name}' does not change the towers, and a trial trains nothing else; leave it out, "
            f"or search one of {', '.join(searchable)}"
        )
    elif section != SECTION or setting not in searchable:
        near = difflib.get_close_matches(setting, searchable, n=1)
        hint = f"did you mean '{SECTION}.{near[0]}'?" if near else f"known: {', '.join(searchable)}"
        yield f"unknown setting '{name}'; {hint}"
    elif not isinstance(fields, Mapping):
        yield f"{name} must be a table with low and high, or with choices, got {fields!r}"
    else:
        given = {key: value for key, value in fields.items() if value is not None}
        wrong = sorted(set(given) - {*_RANGE, *_CHOICE})
        if wrong:
            yield f"{name} has an unknown '{wrong[0]}'; a table has low, high and log, or choices"
        elif "choices" in given:
            yield from _choice_problems(name, given, model)
        else:
            yield from _range_problems(name, given, model)


def _choice_problems(name: str, given: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    choices = given["choices"]
    if {"low", "high"} & set(given) or given.get("log"):
        yield f"{name} must have either low and high, or choices, got both"
    elif not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2:
        yield f"{name}.choices must be a list of at least two values, got {choices!r}"
    else:
        twice = [choice for at, choice in enumerate(choices) if choice in choices[:at]]
        if twice:
            yield f"{name}.choices must be distinct, got {twice[0]!r} twice"
        for choice in choices:
            yield from _refusals(name, choice, model)


def _range_problems(name: str, given: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    setting = field_of(name)
    missing = [end for end in ("low", "high") if end not in given]
    if missing:
        yield f"{name} must have low and high, or choices: {missing[0]} is missing"
        return
    if _number_kind(model, setting) is None:
        yield f"{name} is no number: give it choices instead of low and high"
        return
    refused = [line for end in ("low", "high") for line in _refusals(name, given[end], model)]
    yield from refused
    log = given.get("log", False)
    if not isinstance(log, bool):
        yield f"{name}.log must be true or false, got {log!r}"
    elif not refused:
        low, high = given["low"], given["high"]
        if not low < high:
            yield f"{name}.low must be below its high {high:g}, got {low:g}"
        if log and low <= 0:
            yield f"{name}.low must be > 0 with log = true, got {low:g}"
        if log and (step_of(model, setting) or 1) > 1:
            yield f"{name}.log must be false for multiples of {step_of(model, setting)}"


def _refusals(name: str, value: Any, model: type[BaseModel]) -> Iterator[str]:
    """What the section itself says against ``value``; its rules about two settings wait."""
    try:
        model.model_validate_json(json.dumps({field_of(name): value}, default=str), strict=True)
    except ValidationError as error:
        if any(detail["loc"] for detail in error.errors(include_url=False)):
            yield f"{SECTION}.{explain(error, model)}"


def _number_kind(model: type[BaseModel], name: str) -> type | None:
    annotation = model.model_fields[name].annotation
    members = (annotation, *get_args(annotation))
    return next((kind for kind in (int, float) if kind in members), None)
