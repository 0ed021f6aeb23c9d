"""What an arm that draws does to a slate."""

from __future__ import annotations

import numpy as np

from recsys.config.experiment_design import ArmSettings
from recsys.ranking import Drawn, epsilon_greedy, plackett_luce, uniform_shuffle

__all__ = ["draw_slate"]


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
