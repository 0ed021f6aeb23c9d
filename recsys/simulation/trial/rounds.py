"""Arms that are trained again and again on the log they made themselves, for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from recsys.simulation.report.parts import CurveLine, CurvePlot, TablePart
from recsys.simulation.trial.feedback_loop import (
    LoopRound,
    Refit,
    click_rates,
    debiased_click_rates,
    feedback_loop,
)
from recsys.simulation.world.arms import SimulatedArm
from recsys.simulation.world.sessions import Behaviour
from recsys.simulation.world.world import World

__all__ = ["REFITS", "TITLE", "Rounds", "run_rounds"]

TITLE = "Retraining rounds"
REFITS: Mapping[str, Refit] = {
    "clicks per showing": click_rates,
    "the same, places made even": debiased_click_rates,
}
"""What later rounds order the candidates by."""


class Rounds(NamedTuple):
    """What became of every arm.

    Attributes:
        of: (arm, key of `REFITS`) to its rounds.
        sessions: of each round.
    """

    of: Mapping[tuple[str, str], Sequence[LoopRound]]
    sessions: int

    def table(self) -> TablePart:
        """One row an arm, way of training and round."""
        head = ("arm", "trained on", "round", "clicks a session", "candidates shown",
                "concentration", "places kept")  # fmt: skip
        rows = [
            (
                arm,
                "as it is" if number == 1 else refit,
                str(number),
                f"{one.clicks:.4f}",
                f"{one.coverage:.1%}",
                f"{one.concentration:.3f}",
                "-" if number == 1 else f"{one.kept:.1%}",
            )
            for (arm, refit), rounds in self.of.items()
            for number, one in enumerate(rounds, start=1)
        ]
        text = (
            f"{self.sessions:,} sessions a round. Round 1 shows the arm as it is; later ones order "
            "the same candidates by what their items got in all logs so far, all people together, "
            "and draw as the arm does: round 2 differs by this plain model, later ones by the "
            "loop. Concentration is the Gini coefficient of the showings over "
            "the candidates of all users: 0 even, 1 all one item. Clicks are those to be expected "
            "given what was shown."
        )
        return TablePart(TITLE, (head, *rows), text)

    def curves(self) -> tuple[CurvePlot, ...]:
        """Clicks, and concentration, by round."""
        found: list[CurvePlot] = []
        plots: tuple[tuple[str, Callable[[LoopRound], float]], ...] = (
            ("Clicks a session by round", lambda one: one.clicks),
            ("Concentration of what is shown by round", lambda one: one.concentration),
        )
        for title, value in plots:
            lines = tuple(
                CurveLine(
                    f"{arm}, {refit}",
                    tuple((float(n), value(one)) for n, one in enumerate(rounds, start=1)),
                )
                for (arm, refit), rounds in self.of.items()
            )
            found.append(CurvePlot(lines, x_label="round", title=title))
        return tuple(found)


def run_rounds(
    world: World,
    arms: Sequence[SimulatedArm],
    *,
    rounds: int,
    sessions: int,
    seed: int,
    behaviour: Behaviour | None = None,
    k: int = 10,
) -> Rounds:
    """Run `feedback_loop` for every arm and every way of training, each from the same seed.

    Args:
        world: the truth.
        arms: one or more.
        rounds: >= 1.
        sessions: of each round.
        seed: of all draws.
        behaviour: of people.
        k: places.

    Raises:
        ValueError: ``rounds`` < 1, or as in `recsys.simulation.world.sessions.simulate_sessions`.
    """
    found = {
        (arm.name, name): feedback_loop(
            world,
            arm,
            refit,
            rounds=rounds,
            sessions=sessions,
            rng=np.random.default_rng(seed),
            behaviour=behaviour,
            k=k,
        )
        for arm in arms
        for name, refit in REFITS.items()
    }
    return Rounds(found, sessions)
