"""From stages to a slate: the first that has something answers, popular items fill it up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from recsys.config.experiment_design import ArmSettings
from recsys.ranking import Drawn, epsilon_greedy, plackett_luce, uniform_shuffle
from serving.errors import ServingError
from serving.request.selection import Named
from serving.request.slate_rule import SlateMaker
from serving.request.work import Work, reason_of
from serving.store.candidate_codec import CandidateList
from serving.telemetry.metrics import Telemetry

__all__ = ["SlateRunner", "Stage", "draw_slate"]

Stage = tuple[str, Callable[[Work], list[Named]]]


class SlateRunner:
    """Runs the stages of a request.

    Args:
        slates: the slate rule.
        telemetry: where failures are counted.
    """

    def __init__(self, slates: SlateMaker, telemetry: Telemetry) -> None:
        self._slates = slates
        self._telemetry = telemetry

    def run(self, work: Work, stages: Sequence[Stage]) -> None:
        """Fill the slate: the first stage with something allowed, then popular items."""
        snapshot, selection = work.view.snapshot, work.selection
        for name, stage in stages:
            if work.left_s <= 0:
                work.broken.append("deadline")
                break
            work.generation = snapshot.generation
            try:
                with work.timed(name) as outcome:
                    allowed = stage(work)
                    outcome.ended = "answered" if allowed or work.whole else "empty"
            except ServingError as error:
                self.note(work, error)
                continue
            if allowed or work.whole:
                self._take(work, allowed)
                work.source = name
                break
        else:
            work.generation = snapshot.generation
        if work.whole:
            return
        if not selection.items:
            work.generation = snapshot.generation
        if work.segment is not None and work.segment in snapshot.segments:
            self._fill_from(work, "popular_in_segment", snapshot.segments[work.segment])
        self._fill_from(work, "popular", snapshot.popular)
        if not selection.items or selection.only is not None:
            alone = selection.only
            rest = (
                snapshot.item_ids
                if alone is None
                else sorted(alone & snapshot.rows.keys(), key=snapshot.rows.__getitem__)
            )
            self._fill(work, "catalogue", ((item_id, 0.0, "catalogue") for item_id in rest))

    def choose(self, work: Work, allowed: list[Named], k: int) -> list[Named]:
        """At most ``k`` of ``allowed``, by the slate rule; as they come where that fails."""
        if work.local_only or work.diversity <= 0 or work.left_s <= 0:
            return allowed[:k]
        try:
            with work.timed("slate"):
                return self._slates.choose(
                    work.view.snapshot, allowed[: work.wanted], k, work.diversity
                )
        except ServingError as error:  # a plain slate is better than another stage's
            work.broken.append(reason_of(error))
            return allowed[:k]

    def note(self, work: Work, error: ServingError) -> None:
        """Remember a failure that a fallback hides."""
        reason = reason_of(error)
        work.broken.append(reason)
        if error.stage == "live":
            self._telemetry.stage_error("live", reason)

    def _take(self, work: Work, allowed: list[Named]) -> None:
        if not work.draws:
            work.selection.take(self.choose(work, allowed, work.k))
            return
        from recsys.ranking.exploration import seeded

        shown = len(work.page.shown)
        top = int(work.arm.drawn_with("top")) - shown  # earlier pages drew theirs
        if top < 1:
            work.selection.take(allowed[: work.k])
            return
        score = np.array([entry[1] for entry in allowed], dtype=np.float64)
        rng = seeded(str(work.page.seed), str(shown))
        drawn = draw_slate(replace(work.arm, top=top), score, work.k, rng)
        work.selection.take(
            [allowed[position] for position in drawn.position.tolist()], drawn.propensity.tolist()
        )

    def _fill_from(self, work: Work, name: str, found: CandidateList) -> None:
        if len(work.selection.items) < work.k:
            self._fill(work, name, work.view.snapshot.named(found, name))

    def _fill(self, work: Work, name: str, offered: Iterable[Named]) -> None:
        room = work.k - len(work.selection.items)
        if room <= 0:
            return
        chosen = work.selection.allowed(offered)[:room]
        if chosen and not work.selection.items:
            work.source = name
        work.selection.take(chosen)


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
