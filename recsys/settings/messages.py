"""Messages of a refused configuration: the setting, the rule, the value, the nearest name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["VALUE_KINDS", "explain"]

_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}
VALUE_KINDS: Mapping[str, str] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "path_type": "a path in quotes",
    "tuple_type": "a list in brackets",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
"""Pydantic's name of a type error -> what the value must be, in words."""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line per refused setting, in the order of the model.

    Args:
        error: what pydantic raised while it validated ``model``.
        model: the whole configuration, which knows the names that exist.
    """
    return "\n".join(_line(dict(detail), model) for detail in error.errors(include_url=False))


def _line(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    location = tuple(part for part in detail["loc"])
    path = ".".join(str(part) for part in location)
    kind, given, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(location, path, model)
    if kind == "missing":
        return f"missing setting '{path}'; add it to the configuration file"
    if kind in _BOUNDS:
        sign, key = _BOUNDS[kind]
        return f"{path} must be {sign} {context[key]:g}, got {given!r}"
    if kind == "multiple_of":
        return f"{path} must be a multiple of {context['multiple_of']:g}, got {given!r}"
    if kind == "one_of":
        return f"{path} must be one of {context['names']}, got {given!r}{context['hint']}"
    if kind == "literal_error":
        return _literal(location, path, given, model)
    if kind in VALUE_KINDS:
        return f"{path} must be {VALUE_KINDS[kind]}, got {given!r}"
    if kind == "value_error":
        return f"{path}: {context['error']}" if path else str(context["error"])
    return f"{path}: {detail['msg']}, got {given!r}"


def _unknown(location: tuple[Any, ...], path: str, model: type[BaseModel]) -> str:
    name = str(location[-1])
    section = _section(model, location[:-1])
    known = list(section.model_fields) if section is not None else []
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown setting '{path}'; did you mean '{near[0]}'?"
    everywhere = dict(_paths(model))
    elsewhere = difflib.get_close_matches(name, everywhere.values(), n=1, cutoff=0.8)
    if elsewhere:
        homes = [dotted for dotted, last in everywhere.items() if last == elsewhere[0]]
        return f"unknown setting '{path}'; did you mean '{homes[0]}'?"
    return f"unknown setting '{path}'; known here: {', '.join(sorted(known))}"


def _literal(location: tuple[Any, ...], path: str, given: Any, model: type[BaseModel]) -> str:
    names = tuple(part for part in location if isinstance(part, str))  # not places in a list
    section = _section(model, names[:-1])
    field = None if section is None else section.model_fields.get(names[-1])
    choices = [] if field is None else [str(choice) for choice in _choices(field.annotation)]
    near = difflib.get_close_matches(str(given), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{path} must be one of {', '.join(choices)}, got {given!r}{hint}"


def _section(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The section at ``location``; None where that is no section."""
    for part in location:
        if isinstance(part, int):  # a place in a list of sections
            continue
        field = model.model_fields.get(str(part))
        section = None if field is None else _as_section(field.annotation)
        if section is None:
            return None
        model = section
    return model


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, also where it is what a tuple or a union holds."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for inner in get_args(annotation) for choice in _choices(inner))


def _as_section(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        for member in get_args(annotation):
            found = _as_section(member)
            if found is not None:
                return found
        return None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Pairs of dotted path and last name, of every setting."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", name
        section = _as_section(field.annotation)
        if section is not None:
            yield from _paths(section, f"{prefix}{name}.")
