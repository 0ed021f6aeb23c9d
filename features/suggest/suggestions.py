"""Feature definitions proposed from the data, each with its reason and what it is worth alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from features.computation.declarations import dump_definitions, load_definitions
from features.computation.kinds import KINDS
from features.definitions.columns import Definition
from features.definitions.sets import REQUEST_COLUMNS, RETRIEVAL_PREFIXES
from features.errors import DataError
from features.suggest.profile import ColumnProfile, EventProfile, profile_columns, profile_events
from features.suggest.proposals import Proposal, propose_columns, propose_events
from features.suggest.signal import FeatureSignal, hold_out, measure
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions

__all__ = ["LeftOut", "Suggestion", "Suggestions", "suggest_definitions"]

_LEAST_COVERAGE = 0.01


class Suggestion(NamedTuple):
    """A definition and why.

    Attributes:
        definition: what is proposed.
        reason: one sentence with the number behind it.
        signal: coverage and AUC on the held-out sample.
    """

    definition: Definition
    reason: str
    signal: FeatureSignal


class LeftOut(NamedTuple):
    """What is not proposed and why.

    Attributes:
        name: a column ("item.budget") or the name a feature would have had.
        reason: one sentence with the number behind it.
    """

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Suggestions:
    """What `suggest_definitions` found.

    Attributes:
        kept: proposals, strongest first; those that are the same for all candidates come last.
        left_out: what is not proposed.
        columns: profiles of the tables' columns.
        events: profile of the log.
        rows: rows of the held-out sample.
        users: users of the held-out sample.
        since: time of the first event that the sample was drawn from, UTC.
    """

    kept: tuple[Suggestion, ...]
    left_out: tuple[LeftOut, ...]
    columns: tuple[ColumnProfile, ...]
    events: EventProfile
    rows: int
    users: int
    since: datetime

    def to_toml(self) -> str:
        """``[[features]]`` tables with the reasons as comments.

        ``load_definitions(tomllib.loads(text)["features"])`` gives the definitions back.
        """
        parts = [
            f"# {self.rows:,} rows of {self.users:,} users, events since {self.since:%Y-%m-%d}"
        ]
        records = dump_definitions([one.definition for one in self.kept])
        for one, record in zip(self.kept, records, strict=True):
            lines = [f"# {one.reason}", f"# {describe(one.signal)}", "[[features]]"]
            lines += [f"{name} = {_toml(value)}" for name, value in record.items()]
            parts.append("\n".join(lines))
        if self.left_out:
            left = "\n".join(f"# {name}: {reason}" for name, reason in self.left_out)
            parts.append(f"# Left out:\n{left}")
        return "\n\n".join(parts) + "\n"


def suggest_definitions(
    interactions: Interactions,
    items: ItemTable,
    users: UserTable | None = None,
    *,
    sample_events: int = 2_000,
    negatives: int = 10,
    max_categories: int = 200,
    rng: np.random.Generator,
) -> Suggestions:
    """Propose definitions for a data set.

    Windows follow the gaps between events, priors the variance between items, thresholds the mean
    weight. Every proposal is computed on a sample of the newest fifth of the log, each row as of
    its own moment, next to items drawn uniformly from the catalogue; what turns out constant or
    nearly always missing is left out. Uniform negatives flatter popularity: read an AUC as "does
    it say anything", not as a share of the final quality.

    Args:
        interactions: the log.
        items: the catalogue.
        users: the user table, if there is one.
        sample_events: events drawn for the measurement.
        negatives: items drawn for each event.
        max_categories: a category of more values is not turned into codes.
        rng: decides the draws.

    Raises:
        DataError: there are too few events, or an argument is out of range.
    """
    if max_categories < 2:
        raise DataError(f"max_categories must be >= 2, got {max_categories}")
    if len(interactions) < 2:
        raise DataError(
            f"interactions must have at least 2 events, got {len(interactions)}; give a longer log"
        )
    events = profile_events(interactions)
    columns = profile_columns(items) + ([] if users is None else profile_columns(users))
    held_out = hold_out(interactions, items, events=sample_events, negatives=negatives, rng=rng)
    # What shapes a definition is read off the part before the sample.
    earlier = interactions.before(held_out.since)
    shaping = profile_events(earlier) if len(earlier) > 1 else events
    proposals = [
        *propose_events(shaping),
        *propose_columns(
            columns,
            shaping,
            earlier if len(earlier) > 1 else interactions,
            items,
            users,
            whole=interactions,
            max_categories=max_categories,
            rng=rng,
        ),
    ]
    known = _named_apart(
        [one for one in proposals if one.record is None or one.record["kind"] in KINDS]
    )
    left_out = [LeftOut(one.name, one.reason) for one in known if one.record is None]
    wanted = [one for one in known if one.record is not None]
    definitions = load_definitions([one.record for one in wanted if one.record is not None])
    signals = measure(definitions, held_out, interactions, items, users)
    kept = []
    for one, definition in zip(wanted, definitions, strict=True):
        signal = signals[definition.name]
        if signal.coverage < _LEAST_COVERAGE:
            text = f"{1 - signal.coverage:.1%} of the held-out rows have no value"
            left_out.append(LeftOut(definition.name, text))
        elif signal.constant:
            left_out.append(LeftOut(definition.name, "all held-out rows have the same value"))
        else:
            kept.append(Suggestion(definition, one.reason, signal))
    kept.sort(key=lambda one: -_strength(one.signal))
    return Suggestions(
        tuple(kept),
        tuple(left_out),
        tuple(columns),
        events,
        held_out.requests.height,
        held_out.users,
        held_out.since,
    )


def describe(signal: FeatureSignal) -> str:
    """Coverage and AUC in words."""
    coverage = f"coverage {signal.coverage:.1%}"
    if signal.auc is None:
        return f"{coverage}; the same for all candidates of a request"
    return f"{coverage}; AUC {signal.auc:.3f} over {signal.users:,} users"


def _strength(signal: FeatureSignal) -> float:
    return -1.0 if signal.auc is None else abs(signal.auc - 0.5)


def _named_apart(proposals: Sequence[Proposal]) -> list[Proposal]:
    """A column may be called like another feature, or like a column that requests have."""
    taken = set(REQUEST_COLUMNS)
    apart = []
    for one in proposals:
        if one.record is not None:
            name = one.name
            while name in taken or name.startswith(RETRIEVAL_PREFIXES):
                name = f"{one.record['kind']}_{name}"
            taken.add(name)
            one = one._replace(name=name, record={**one.record, "name": name})
        apart.append(one)
    return apart


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(_escaped(character) for character in escaped) + '"'
    if isinstance(value, Sequence):
        return f"[{', '.join(_toml(one) for one in value)}]"
    raise TypeError(f"a definition holds numbers, text and lists, got {type(value).__name__}")


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04X}" if code < 32 or code == 127 else character
