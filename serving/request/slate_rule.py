"""From entries that may be shown to the places of one answer: length, diversity, draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from features.errors import DataError
from features.packing import PackedSchema
from recsys.config.experiment_design import ArmSettings
from recsys.ranking import Drawn, epsilon_greedy, plackett_luce, uniform_shuffle
from serving.errors import ServingError
from serving.messages import RecommendedItem
from serving.request.asked import Asked
from serving.request.filters import Named
from serving.request.reader import GenerationReader
from serving.request.snapshot import Snapshot, item_schema
from serving.request.timings import Timings

__all__ = [
    "FieldVectors",
    "RowVectors",
    "SlateBuilder",
    "SlateRule",
    "draw_slate",
    "vectors_of_field",
]

RowVectors = Callable[[Sequence[bytes | None], str], np.ndarray]
"""(packed rows [C], item schema) -> [C, D] float32; a missing row gives zeros."""


@dataclass(frozen=True)
class FieldVectors:
    """Reads the vectors in one field of rows packed by `features.packing.schema`.

    The service reads such rows through its near cache.

    Attributes:
        field: name of the field that holds the vector.
    """

    field: str

    def __call__(self, rows: Sequence[bytes | None], schema: str) -> np.ndarray:
        """The vectors, [C, D] float32; see `RowVectors`.

        Raises:
            ServingError: the schema has no such field or cannot be read.
        """
        try:
            block = self.schema(schema).unpack(rows, fields=[self.field])
        except DataError as error:
            raise _unreadable(self.field, error) from error
        return block.values[self.field].reshape(len(rows), -1)

    def schema(self, text: str) -> PackedSchema:
        """The schema as the manifest has it.

        Raises:
            ServingError: it has no such field or cannot be read.
        """
        try:
            schema = item_schema(text)
        except ValueError as error:
            raise _unreadable(self.field, error) from error
        if self.field not in {field.name for field in schema.fields}:
            raise _unreadable(self.field, "the schema has none of that name")
        return schema


def vectors_of_field(name: str) -> FieldVectors:
    """A `RowVectors` that reads one field of rows packed by `features.packing.schema`.

    Args:
        name: of the field that holds the vector.
    """
    return FieldVectors(name)


def _unreadable(name: str, reason: object) -> ServingError:
    return ServingError(f"item rows have no readable field {name!r}: {reason}", stage="slate")


class SlateBuilder(Protocol):
    """The slate rule, as `recsys.ranking.slate.build_slate` has it."""

    def __call__(
        self,
        item_index: np.ndarray,
        score: np.ndarray,
        k: int,
        *,
        vectors: np.ndarray | None = None,
        diversity: float = 0.0,
    ) -> np.ndarray:
        """At most ``k`` positions of ``item_index`` [C], int64, first place first."""
        ...


class SlateRule:
    """Makes places of entries; reads item rows only when diversity asks for them.

    Args:
        reader: gives the packed rows.
        row_vectors: reads vectors out of packed rows. None: diversity goes without vectors.
        build: the rule. None: the one in `recsys.ranking.slate`, imported on first use.
    """

    def __init__(
        self,
        reader: GenerationReader,
        *,
        row_vectors: RowVectors | None,
        build: SlateBuilder | None,
    ) -> None:
        self._reader = reader
        self._row_vectors = row_vectors
        self._build = build

    def place(
        self, asked: Asked, entries: Sequence[Named], timings: Timings
    ) -> tuple[list[RecommendedItem], tuple[str, ...]]:
        """At most ``k`` of ``entries``, and why the rule failed where it did.

        Args:
            asked: the question; its policy says how the slate is made.
            entries: that may be shown, best first. Where the rule fails they are taken as they
                come: a plain slate is better than another stage's.
            timings: of the answer.
        """
        if asked.policy.draws:
            return _drawn(asked, entries), ()
        chosen = entries[: asked.k]
        failed: tuple[str, ...] = ()
        diversity = 0.0 if asked.local_only else asked.policy.diversity
        if diversity > 0.0 and asked.now() < asked.deadline:
            began = time.perf_counter()
            try:
                chosen = self._chosen(asked, entries[: asked.policy.wanted], diversity)
            except ServingError as error:
                failed = (timings.failed("slate", began, error),)
            else:
                timings.ended("slate", began)
        return [RecommendedItem(*entry) for entry in chosen], failed

    def _chosen(self, asked: Asked, entries: Sequence[Named], diversity: float) -> Sequence[Named]:
        if len(entries) <= 1:
            return entries
        snapshot = asked.view.snapshot
        new = len(snapshot.item_ids) + 1
        item_index = np.array(
            [snapshot.rows.get(entry[0], new + at) for at, entry in enumerate(entries)], np.int64
        )
        score = np.array([entry[1] for entry in entries], dtype=np.float32)
        positions = self._rule()(
            item_index,
            score,
            asked.k,
            vectors=self._vectors(snapshot, [entry[0] for entry in entries]),
            diversity=diversity,
        )
        return [entries[position] for position in positions.tolist()]

    def _vectors(self, snapshot: Snapshot, item_ids: list[str]) -> np.ndarray | None:
        manifest = snapshot.manifest
        if self._row_vectors is None or manifest is None or manifest.item_schema is None:
            return None
        vectors = self._read(snapshot, item_ids, self._row_vectors, manifest.item_schema)
        if vectors.shape[:1] != (len(item_ids),) or vectors.ndim != 2:
            raise ServingError(
                f"row_vectors must return [C, D] for {len(item_ids)} rows, "
                f"got shape {list(vectors.shape)}",
                stage="slate",
            )
        return vectors

    def _read(
        self, snapshot: Snapshot, item_ids: list[str], row_vectors: RowVectors, schema: str
    ) -> np.ndarray:
        if not isinstance(row_vectors, FieldVectors):
            return row_vectors(self._reader.item_rows(snapshot, item_ids), schema)
        name = row_vectors.field
        block = self._reader.item_block(
            snapshot, item_ids, row_vectors.schema(schema), fields=[name]
        )
        return block.values[name].reshape(len(item_ids), -1)

    def _rule(self) -> SlateBuilder:
        if self._build is None:
            from recsys.ranking.slate import build_slate

            self._build = build_slate
        return self._build


def _drawn(asked: Asked, entries: Sequence[Named]) -> list[RecommendedItem]:
    """The places as the arm's ranker draws them, each with its propensity."""
    from recsys.ranking.exploration import seeded

    arm, page = asked.policy.arm, asked.page
    shown = len(page.shown)
    top = int(arm.drawn_with("top")) - shown  # earlier pages drew theirs
    if top < 1:
        return [RecommendedItem(*entry) for entry in entries[: asked.k]]
    score = np.array([entry[1] for entry in entries], dtype=np.float64)
    rng = seeded(str(page.seed), str(shown))
    drawn = draw_slate(replace(arm, top=top), score, asked.k, rng)
    chosen = [entries[position] for position in drawn.position.tolist()]
    return [
        RecommendedItem(item_id, score_, source, propensity)
        for (item_id, score_, source), propensity in zip(
            chosen, drawn.propensity.tolist(), strict=True
        )
    ]


def draw_slate(settings: ArmSettings, score: np.ndarray, k: int, rng: np.random.Generator) -> Drawn:
    """A slate as the arm's ranker draws it.

    Args:
        settings: of the arm; its ranker is one of `recsys.config.experiment_design.DRAWING`.
        score: [C] float of the candidates, higher is better; not finite: no candidate.
        k: most items on the slate. For a further page ask for all places up to its last and draw
            with the first page's seed: the places above come out as they were shown.
        rng: draws; of `recsys.ranking.seeded`.

    Raises:
        ValueError: the ranker does not draw, or an argument is wrong.
    """
    top = int(settings.drawn_with("top"))
    if settings.ranker == "shuffle":
        return uniform_shuffle(score, k, rng, top=top)
    if settings.ranker == "epsilon":
        return epsilon_greedy(score, k, rng, epsilon=settings.drawn_with("epsilon"), top=top)
    if settings.ranker == "softmax":
        temperature = settings.drawn_with("temperature")
        return plackett_luce(score, k, rng, temperature=temperature, top=top)
    raise ValueError(f"ranker must be one that draws, got {settings.ranker!r}")
