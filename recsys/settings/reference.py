"""Settings in words: what each may be, its default and its meaning, and what a run has of them.

Meanings are read from the source when they are asked for, so that no start of a verb pays for them.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys.settings.one_of import OneOf

__all__ = [
    "EffectiveSetting",
    "SectionText",
    "SettingText",
    "effective",
    "meanings",
    "reference",
    "toml_value",
]

_WORDS: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    datetime: "date and time",
}
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


class SettingText(NamedTuple):
    """One setting.

    Attributes:
        name: within its section.
        kind: what it may be, bounds included.
        default: as it would be written in the file; "needed" where there is none, "not said" where
            leaving it out says something of its own.
        meaning: one line or two.
    """

    name: str
    kind: str
    default: str
    meaning: str


class SectionText(NamedTuple):
    """One table of the file.

    Attributes:
        path: dotted; empty for what stands outside any table.
        repeated: whether it is a list of tables.
        meaning: what it is about.
        settings: in the order in which they are declared.
    """

    path: str
    repeated: bool
    meaning: str
    settings: tuple[SettingText, ...]


class EffectiveSetting(NamedTuple):
    """One setting of a run.

    Attributes:
        path: dotted.
        value: plain JSON value.
        is_default: whether it is what it would be if nothing were said.
    """

    path: str
    value: Any
    is_default: bool


def reference(
    model: type[BaseModel], path: str = "", *, repeated: bool = False
) -> list[SectionText]:
    """Every section below ``model``, itself first, in the order of declaration."""
    own: list[SettingText] = []
    said = meanings(model)
    below: list[SectionText] = []
    for name, field in model.model_fields.items():
        section, many = _section_of(field.annotation)
        if section is None:
            own.append(_setting_text(name, field, said.get(name, "")))
        else:
            inner = f"{path}.{name}".lstrip(".")
            below += reference(section, inner, repeated=many)
    meaning = _one_line((model.__doc__ or "").partition("\n\nRaises:")[0])
    return [SectionText(path, repeated, meaning, tuple(own)), *below]


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Setting -> the line below its declaration, of ``model`` and its bases."""
    found = {}
    for kind in reversed(model.__mro__):
        if kind is BaseModel or not issubclass(kind, BaseModel):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
        for setting, below in pairwise(body):
            if isinstance(setting, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[ast.unparse(setting.target)] = _one_line(text)
    return found


def effective(settings: BaseModel, path: str = "") -> Iterator[EffectiveSetting]:
    """Every setting of ``settings``, those of sections within it included."""
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        dotted = f"{path}.{name}".lstrip(".")
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from effective(value, dotted)
        elif _section_of(field.annotation)[1] and value:
            for place, one in enumerate(value):
                yield from effective(one, f"{dotted}[{place}]")
        else:
            is_default = not field.is_required() and value == field.get_default(
                call_default_factory=True
            )
            yield EffectiveSetting(dotted, values[name], is_default)


def toml_value(value: Any) -> str:
    """A plain value as it stands in the file; None: "not said"."""
    if value is None:
        return "not said"
    if isinstance(value, float):
        return f"{value:g}" if value == float(f"{value:g}") else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _setting_text(name: str, field: FieldInfo, meaning: str) -> SettingText:
    if field.is_required():
        default = "needed"
    else:
        default = toml_value(field.get_default(call_default_factory=True))
    kind = _kind(field.annotation, field.metadata)
    return SettingText(name, kind, default, meaning)


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section an annotation stands for, and whether it is a list of such."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        section, _ = _section_of(inner[0])
        return section, section is not None
    if origin in (Union, types.UnionType):
        found = [_section_of(one) for one in inner]
        return next((one for one in found if one[0] is not None), (None, False))
    return None, False


def _kind(annotation: Any, metadata: Sequence[Any]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        said = [_kind(one, metadata) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(said))
    if origin is Literal:
        return "one of " + ", ".join(toml_value(one) for one in inner)
    names = next(
        ((*one.built_in, *one.besides) for one in metadata if isinstance(one, OneOf)), None
    )
    if names is not None:
        return "one of " + ", ".join(toml_value(one) for one in names)
    if origin is tuple:
        return f"list, each {_kind(inner[0], metadata)}"
    if origin is not None and hasattr(annotation, "__metadata__"):  # Annotated
        return _kind(inner[0], [*metadata, *_flat(annotation.__metadata__)])
    words = _WORDS.get(annotation, "table")
    limits = [
        f"{sign} {getattr(bound, name):g}"
        for bound in _flat(metadata)
        for name, sign in _BOUNDS
        if getattr(bound, name, None) is not None
    ]
    steps = [one.multiple_of for one in metadata if getattr(one, "multiple_of", None) is not None]
    return " ".join([words, *limits, *(f"a multiple of {step}" for step in steps)])


def _flat(metadata: Sequence[Any]) -> list[Any]:
    """Bounds of a field, those within a `pydantic.Field` included."""
    return [
        bound
        for one in metadata
        for bound in (one.metadata if isinstance(one, FieldInfo) else [one])
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())
