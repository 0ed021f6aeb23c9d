"""From stages to a slate: the first that has something answers, popular items fill it up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from serving.errors import ServingError
from serving.messages import Filtered, RecommendedItem, StageOutcome
from serving.request.asked import Asked
from serving.request.filters import Named
from serving.request.slate_rule import SlateRule
from serving.request.snapshot import Snapshot
from serving.request.stages import Found, Stages
from serving.request.timings import Timings
from serving.telemetry.metrics import Telemetry

__all__ = ["Ladder", "Slate"]

_Step = tuple[str, Callable[[Asked, Sequence[str], Timings], Found]]


class Slate(NamedTuple):
    """What a question gets.

    Attributes:
        items: first place first.
        source: stage that gave the first place.
        generation: whose lists were used.
        filtered: what was left out and why.
        whole: it stands as it is, however short.
        broken: reasons that make the answer a degraded one.
        missed: reasons why a stage had nothing.
        outcomes: of what was tried, in order.
    """

    items: tuple[RecommendedItem, ...]
    source: str
    generation: str | None
    filtered: Filtered
    whole: bool
    broken: tuple[str, ...]
    missed: tuple[str, ...]
    outcomes: tuple[StageOutcome, ...]


class Ladder:
    """Tries stages in order until one has something.

    Args:
        stages: that may answer.
        rule: makes places of a stage's entries.
        telemetry: where failures of a model are counted.
    """

    def __init__(self, stages: Stages, rule: SlateRule, telemetry: Telemetry) -> None:
        self._stages = stages
        self._rule = rule
        self._telemetry = telemetry
        self._recommending: Sequence[_Step] = (
            ("live", stages.live),
            ("cache", stages.cache),
            ("previous_generation", stages.previous),
            ("similar_to_last_item", stages.neighbours),
        )
        self._similar: Sequence[_Step] = (("similar", partial(stages.neighbours, label="similar")),)

    def recommend(self, asked: Asked) -> Slate:
        """A slate for a user."""
        return self._climb(asked, self._recommending)

    def popular(self, asked: Asked) -> Slate:
        """Popular items, whatever is known of the user."""
        return self._climb(asked, ())

    def similar(self, asked: Asked) -> Slate:
        """Items like the one that the question names as met."""
        return self._climb(asked, self._similar)

    def order(self, asked: Asked, item_ids: Sequence[str]) -> Slate:
        """All of ``item_ids``, those that the model knows by its score, the others behind."""
        timings, broken, missed = Timings(asked.outcomes), [*asked.broken], []
        snapshot, source = asked.view.snapshot, "given_order"
        items: list[RecommendedItem] = []
        item_index = np.array([snapshot.rows.get(one, 0) for one in item_ids], dtype=np.int64)
        known = np.flatnonzero(item_index)
        model = self._stages.model(snapshot.generation)
        if model is None:
            broken.append("no_model")
        elif known.size == 0:
            missed.append("unknown_items")
        else:
            began = time.perf_counter()
            try:
                score = self._stages.rank(asked, model, item_index[known], timings)
            except ServingError as error:
                broken.append(self._failed("rank", began, error, timings))
            else:
                timings.ended("rank", began)
                source = "rank"
                best = np.argsort(-score, kind="stable")
                entries = [
                    (item_ids[at], value, "rank")
                    for at, value in zip(known[best].tolist(), score[best].tolist(), strict=True)
                ]
                items, failed = self._rule.place(asked, entries, timings)
                broken += failed
        placed = {item.item_id for item in items}
        items += [RecommendedItem(one, 0.0, "given_order") for one in item_ids if one not in placed]
        return Slate(
            items=tuple(items),
            source=source,
            generation=snapshot.generation,
            filtered=asked.filters.counts({}),
            whole=True,
            broken=tuple(broken),
            missed=tuple(missed),
            outcomes=tuple(timings.outcomes),
        )

    # -- inside -------------------------------------------------------------------------------

    def _climb(self, asked: Asked, steps: Sequence[_Step]) -> Slate:
        timings = Timings(asked.outcomes)
        broken, missed, left_out = [*asked.broken], list[str](), dict[str, str]()
        source, generation, whole = "none", asked.view.snapshot.generation, False
        items: list[RecommendedItem] = []
        for name, stage in steps:
            if asked.now() >= asked.deadline:
                broken.append("deadline")
                break
            began = time.perf_counter()
            try:
                found = stage(asked, broken, timings)
            except ServingError as error:
                broken.append(self._failed(name, began, error, timings))
                continue
            answers = bool(found.entries) or found.whole
            timings.ended(name, began, "answered" if answers else "empty")
            broken += found.broken
            missed += found.missed
            left_out.update(found.left_out)
            if answers:
                source, whole = name, found.whole
                items, failed = self._rule.place(asked, found.entries, timings)
                broken += failed
                if items:
                    generation = found.generation or generation
                break
        if not whole and len(items) < asked.k:
            more, first, why = _filling(asked, items)
            source = source if items or first is None else first
            items += more
            left_out.update(why)
        return Slate(
            items=tuple(items),
            source=source,
            generation=generation,
            filtered=asked.filters.counts(left_out),
            whole=whole,
            broken=tuple(broken),
            missed=tuple(missed),
            outcomes=tuple(timings.outcomes),
        )

    def _failed(self, name: str, began: float, error: ServingError, timings: Timings) -> str:
        """The reason for a failure that a fallback hides."""
        reason = timings.failed(name, began, error)
        if error.stage == "live":
            self._telemetry.stage_error("live", reason)
        return reason


def _filling(
    asked: Asked, items: Sequence[RecommendedItem]
) -> tuple[list[RecommendedItem], str | None, dict[str, str]]:
    """What fills ``items`` up to ``k``, which list gave the first of it, and what was left out."""
    snapshot, filters = asked.view.snapshot, asked.filters
    more: list[RecommendedItem] = []
    first: str | None = None
    left_out: dict[str, str] = {}
    for name, offered in _fallbacks(snapshot, asked.segment, filters.only):
        room = asked.k - len(items) - len(more)
        has_some = bool(items or more)
        if room <= 0 or (name == "catalogue" and has_some and filters.only is None):
            break
        taken = {one.item_id for one in (*items, *more)}
        kept, why = filters.allowed(offered(), taken)
        left_out.update(why)
        if kept and not more:
            first = name
        more += [RecommendedItem(*entry) for entry in kept[:room]]
    return more, first, left_out


def _fallbacks(
    snapshot: Snapshot, segment: str | None, only: frozenset[str] | None
) -> Iterator[tuple[str, Callable[[], Iterable[Named]]]]:
    """What fills slates up, the best first; the catalogue only where there is nothing else."""
    if segment is not None and segment in snapshot.segments:
        found = snapshot.segments[segment]
        yield "popular_in_segment", lambda: snapshot.named(found, "popular_in_segment")
    yield "popular", lambda: snapshot.named(snapshot.popular, "popular")

    def catalogue() -> Iterable[Named]:
        rows = snapshot.rows
        rest = (
            snapshot.item_ids if only is None else sorted(only & rows.keys(), key=rows.__getitem__)
        )
        return ((item_id, 0.0, "catalogue") for item_id in rest)

    yield "catalogue", catalogue
