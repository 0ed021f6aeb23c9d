"""The space that `recsys tune` searches: which settings, and which values of each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.config.messages import explain

if TYPE_CHECKING:
    from recsys.config.config import Config, RetrievalConfig

__all__ = [
    "SECTION",
    "UNSEARCHED",
    "Dimension",
    "default_space",
    "field_of",
    "is_whole",
    "read_space",
    "settings_now",
    "space_of",
]

SECTION = "retrieval"
"""Where the settings that can be searched are."""

UNSEARCHED = (
    "sources",
    "item_item_l2",
    "half_life",
    "popularity_window_days",
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
    """The values one setting may take: a range, or a list of choices.

    Attributes:
        low: smallest value, itself included. None: there are choices.
        high: largest value, itself included.
        log: a factor of two is as likely at the low end as at the high one.
        choices: the values. None: there is a range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[bool | int | float | str, ...] | None = None

    def holds(self, value: Any) -> bool:
        """Whether the setting may take ``value``."""
        if self.choices is not None:
            return value in self.choices
        return self.low is not None and self.high is not None and self.low <= value <= self.high

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


def space_of(config: Config) -> dict[str, Dimension]:
    """What is searched: the declared space, or else the default one; dotted name -> values."""
    return dict(config.tuning.space) or default_space(config.retrieval)


def settings_now(config: Config) -> dict[str, Any]:
    """Dotted name -> value in the configuration, of everything that is searched."""
    return {name: getattr(config.retrieval, field_of(name)) for name in space_of(config)}


def field_of(name: str) -> str:
    """The setting within its section that a dotted name means."""
    return name.removeprefix(f"{SECTION}.")


def default_space(settings: RetrievalConfig) -> dict[str, Dimension]:
    """What is searched when nothing is declared: what the configured loss and denoising read."""
    wanted = [*_READ_BY[settings.loss], *_READ_BY_ALL]
    if settings.denoising != "none":  # compares positives with the shared negatives
        wanted += [name for name in _SHARED if name not in wanted]
        wanted.append(_READ_BY_DENOISING[settings.denoising])
    ranges = dict(_RANGES)
    if settings.score == "dot":
        ranges["temperature"] = Dimension(low=0.3, high=3.0, log=True)
    return {f"{SECTION}.{name}": ranges[name] for name in wanted}


_RANGES: Mapping[str, Dimension] = {
    "temperature": Dimension(low=0.05, high=0.3, log=True),  # of a cosine
    "gamma": Dimension(low=0.2, high=5.0, log=True),
    "negatives": Dimension(low=256, high=4096, log=True),
    "negative_power": Dimension(low=0.0, high=1.0),
    "learning_rate": Dimension(low=5e-4, high=1e-2, log=True),
    "table_learning_rate": Dimension(low=0.02, high=0.5, log=True),
    "user_power": Dimension(low=0.0, high=1.0),
    "smoothing": Dimension(low=0.0, high=0.4),
    "bsl_weight": Dimension(low=0.8, high=1.6),
    "ccl_margin": Dimension(low=0.2, high=0.95),
    "ccl_weight": Dimension(low=20.0, high=500.0, log=True),
    "mawu_user_gamma": Dimension(low=0.2, high=3.0, log=True),
    "mawu_item_gamma": Dimension(low=0.1, high=2.0, log=True),
    "sl_temperature": Dimension(low=0.3, high=3.0, log=True),
    "denoise_temperature": Dimension(low=0.03, high=1.0, log=True),
    "drop_rate": Dimension(low=0.02, high=0.3),
    "reweight_power": Dimension(low=0.05, high=1.0, log=True),
}

_READ_BY_ALL = ("learning_rate", "table_learning_rate", "user_power", "smoothing")
_SHARED = ("temperature", "negatives", "negative_power")
_READ_BY: Mapping[str, tuple[str, ...]] = {
    "bpr": _SHARED,
    "bsl": (*_SHARED, "bsl_weight"),
    "ccl": ("negatives", "negative_power", "ccl_margin", "ccl_weight"),
    "cm3": ("gamma",),
    "directau": ("gamma",),
    "in_batch_softmax": ("temperature",),
    "mann_whitney": _SHARED,
    "mawu": ("mawu_user_gamma", "mawu_item_gamma"),
    "psl": _SHARED,
    "sampled_softmax": _SHARED,
    "sl_at_k": (*_SHARED, "sl_temperature"),
}
"""Loss -> settings of the default space that it alone reads."""
_READ_BY_DENOISING: Mapping[str, str] = {
    "pld": "denoise_temperature",
    "truncated": "drop_rate",
    "reweighted": "reweight_power",
}


def is_whole(model: type[BaseModel], name: str) -> bool:
    """Whether the setting ``name`` of a section is a whole number."""
    return _number_kind(model, name) is int


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
