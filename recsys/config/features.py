"""Feature definitions in the configuration: ``[[features]]``, or a file of them.

The ranker is trained on the declared definitions, or without any on the defaults for the columns
that the catalogue has (`features.default_definitions`). To either is added what the retrievers say
of a candidate, and its likeness to the user's last items, unless ``ranking.retrieval_features`` is
off. A declared definition stands in for an added one of the same name, and may refer to an added
one ("slate_relative", of = "score__two_tower").
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from features.definitions import (
    Definition,
    Position,
    RetrievalRank,
    RetrievalScore,
    Similarity,
    SlateRelative,
    TextMatch,
)
from features.definitions.sets import check_definitions
from features.errors import DataError
from recsys.errors import ConfigError
from recsys.settings.messages import VALUE_KINDS

__all__ = [
    "CONTENT",
    "combined_definitions",
    "parsed_definitions",
    "read_features_file",
    "read_features_toml",
    "retrieval_definitions",
]

CONTENT = "content"
"""Name of the content vectors where definitions read vectors; a run has no others."""


def retrieval_definitions(
    sources: Sequence[str], *, content: bool = True
) -> tuple[Definition, ...]:
    """What is added: likeness to the last items, and score, rank and share of every retriever.

    Args:
        sources: names of the retrievers.
        content: whether items have content vectors, whose likeness can be measured.
    """
    found: list[Definition] = []
    if content:
        found.append(Similarity(name=f"{CONTENT}_similarity", vectors=CONTENT))
    for name in sources:
        found += [
            RetrievalScore(name=f"score__{name}", retriever=name),
            RetrievalRank(name=f"rank__{name}", retriever=name),
            SlateRelative(name=f"score__{name}_in_slate", of=f"score__{name}"),
        ]
    found += [RetrievalScore(name=f"share__{name}", retriever=f"{name}_share") for name in sources]
    return tuple(found)


def combined_definitions(
    declared: Sequence[Definition],
    sources: Sequence[str],
    *,
    retrieval_features: bool,
    content: bool = True,
) -> tuple[Definition, ...]:
    """The declared definitions, then those that are added.

    Args:
        declared: each by itself is right.
        sources: names of the retrievers.
        retrieval_features: whether any are added.
        content: see `retrieval_definitions`.

    Raises:
        DataError: definitions do not go together, or one reads of a request what the candidates
            of retrievers do not have.
    """
    named = {definition.name for definition in declared}
    added = retrieval_definitions(sources, content=content) if retrieval_features else ()
    missing = [definition for definition in added if definition.name not in named]
    definitions = check_definitions([*declared, *missing])
    if not definitions:
        raise DataError(
            "the ranker needs at least one definition, got none; declare some, or set "
            "ranking.retrieval_features = true"
        )
    for definition in definitions:
        _check_request_columns(definition, sources)
    return definitions


def parsed_definitions(
    value: Any, sources: Sequence[str], *, retrieval_features: bool
) -> tuple[Definition, ...]:
    """Declared records as definitions.

    Raises:
        DataError: not a list of tables, an argument of a wrong type, as
            `make_definition`, or as `combined_definitions`.
    """
    from features.computation.declarations import make_definition  # a run without any pays nothing

    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        raise DataError(
            "definitions must be a list of tables; write each as [[features]], in double brackets"
        )
    wrong = [line for record in value for line in _wrong_types(record)]
    if wrong:
        raise DataError("\n".join(wrong))
    declared = tuple(make_definition(record) for record in value)
    combined_definitions(declared, sources, retrieval_features=retrieval_features)
    return declared


def read_features_file(path: Path) -> Any:
    """What stands under ``features`` in a TOML file of definitions, unchecked.

    Raises:
        ConfigError: no such file, not TOML, or something else in it.
    """
    values = read_features_toml(path)
    if "features" not in values:
        raise ConfigError(
            f"features_file {path} holds no [[features]] table; add one, or drop features_file "
            "for the defaults"
        )
    return values["features"]


def read_features_toml(path: Path) -> dict[str, Any]:
    """A TOML file of definitions, unchecked; it may be empty.

    Raises:
        ConfigError: no such file, not TOML, or something else in it.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"features_file {path} does not exist; correct the path, or let `recsys features "
            f"suggest --out {path.name}` write it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"features_file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"features_file {path} is not TOML: {error}") from error
    other = sorted(set(values) - {"features"})
    if other:
        raise ConfigError(
            f"features_file {path} must hold [[features]] tables alone, got {', '.join(other)}; "
            "other settings belong into the configuration file"
        )
    return values


def _wrong_types(record: Mapping[str, Any]) -> list[str]:
    """Arguments of another type than the definition's; the rest is for `make_definition`."""
    from features.computation.kinds import KINDS

    kind = KINDS.get(str(record.get("kind")))
    if kind is None:
        return []
    types, wrong = get_type_hints(kind.definition), []
    fields = dataclasses.fields(kind.definition)
    for name in [field.name for field in fields if field.name in record]:
        text = json.dumps(record[name], default=str)
        try:
            TypeAdapter(types[name]).validate_json(text, strict=True)
        except ValidationError as error:
            wrong += [
                f"definition {record.get('name', '?')!r}: "
                f"{'.'.join(str(part) for part in (name, *detail['loc']))} must be "
                f"{VALUE_KINDS[detail['type']]}, got {detail['input']!r}"
                for detail in error.errors(include_url=False)
                if detail["type"] in VALUE_KINDS
            ]
    return wrong


def _check_request_columns(definition: Definition, sources: Sequence[str]) -> None:
    label = f"definition {definition.name!r}"
    if isinstance(definition, Position):
        raise DataError(
            f"{label}: position must not be a feature of the ranker: it learns from what the "
            "retrievers found, which was not shown anywhere; remove it (compute_features takes "
            "positions of logged slates)"
        )
    if isinstance(definition, TextMatch):
        raise DataError(
            f"{label}: text_match must not be a feature of the ranker: its requests hold a user "
            f"and a moment, and no text {definition.query!r} to match; remove it "
            "(compute_features takes texts)"
        )
    names = [*sources]
    if isinstance(definition, RetrievalScore):
        names += [f"{name}_share" for name in sources]
    if isinstance(definition, RetrievalScore | RetrievalRank):
        if definition.retriever not in names:
            near = difflib.get_close_matches(definition.retriever, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; or add it to retrieval.sources"
            raise DataError(
                f"{label}: retriever must be one of {', '.join(names)}, got "
                f"{definition.retriever!r}{hint}"
            )
        return
    unknown = [source for source in definition.columns() if source.startswith("request.")]
    if unknown:
        raise DataError(
            f"{label}: {unknown[0]} must be part of a request, and requests of the ranker hold "
            "the retrievers' scores and ranks alone; remove it"
        )
