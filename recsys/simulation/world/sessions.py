"""People who come, look, click, come back or stay away: the session loop.

A fixed number of people are here at a time, each in one arm for good. Every step is one session of
each of them, computed for all at once; who stays away makes room for a new person, who is somebody
with the taste and the history of a random user of the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from recsys.simulation.world.arms import ArmTables, SimulatedArm
from recsys.simulation.world.clicks import ClickModel, click_probability, draw_clicks
from recsys.simulation.world.drawing import DrawnSlates, draw_slates
from recsys.simulation.world.slate_traits import SlateTraits

__all__ = ["Behaviour", "People", "SessionLog", "Simulated", "simulate_sessions"]

_MOST_SHOWN = 255


@dataclass(frozen=True)
class Behaviour:
    """How people come back and tire.

    Attributes:
        clicks: who looks where.
        churn: probability that a session without a click is a person's last, in (0, 1].
        loyalty: each click multiplies that by ``1 - loyalty``, in [0, 1].
        fatigue: novelty wears off: each earlier showing multiplies an item's attraction by
            ``1 - fatigue``, in [0, 1].
        days_between: mean days between two sessions of a person, >= 0; for the log's moments.

    Raises:
        ValueError: a value is out of range.
    """

    clicks: ClickModel = field(default_factory=ClickModel)
    churn: float = 0.25
    loyalty: float = 0.3
    fatigue: float = 0.05
    days_between: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.churn <= 1.0:
            raise ValueError(f"churn must be above 0 and at most 1, got {self.churn}")
        for name in ("loyalty", "fatigue"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not self.days_between >= 0:
            raise ValueError(f"days_between must be >= 0 days, got {self.days_between}")


class People(NamedTuple):
    """[P] what each person did in all.

    Attributes:
        user: int64 row of the world's users whose taste it has.
        arm: int64 number of its arm.
        sessions: int64, at least 1.
        clicks: int64.
        conversions: int64.
        expected: float64 clicks that were to be expected given what was shown.
        stayed: bool, still coming when the simulation ended.
        empty: int64 sessions without a click.
        traits: [P, 3] float64 sums over the sessions of `SlateTraits.measure`; zeros where no
            traits were given.
    """

    user: np.ndarray
    arm: np.ndarray
    sessions: np.ndarray
    clicks: np.ndarray
    conversions: np.ndarray
    expected: np.ndarray
    stayed: np.ndarray
    empty: np.ndarray
    traits: np.ndarray


@dataclass(frozen=True)
class SessionLog:
    """Sessions of one arm as a service would have logged them.

    Attributes:
        person: [n] int64.
        user: [n] int64 row of the world's users.
        rank: [n, k] int64 of the items shown among the arm's candidates of that user.
        propensity: [n, k] float64 P(item at this place | items above it).
        click: [n, k] bool.
        conversion: [n, k] bool.
        day: [n] float64 days since the beginning.
        truth: [n, B] float64 expected clicks had each of the other arms asked for answered in
            this very session; nothing a service could log.
    """

    person: np.ndarray
    user: np.ndarray
    rank: np.ndarray
    propensity: np.ndarray
    click: np.ndarray
    conversion: np.ndarray
    day: np.ndarray
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.person)


class Simulated(NamedTuple):
    """What came out.

    Attributes:
        people: all that came.
        log: of the logging arm; None without one.
        k: places.
    """

    people: People
    log: SessionLog | None
    k: int


def simulate_sessions(
    tables: ArmTables,
    *,
    sessions: int,
    rng: np.random.Generator,
    behaviour: Behaviour | None = None,
    k: int = 10,
    here: int = 8192,
    logging_arm: int | None = None,
    log_sessions: int = 0,
    what_if: Sequence[int] = (),
    only: int | None = None,
    traits: SlateTraits | None = None,
) -> Simulated:
    """Simulate sessions of all arms side by side; people fall into arms with equal chances.

    The same ``rng`` state gives the same people, slates and clicks.

    Args:
        tables: A arms in a world.
        sessions: in all, >= 1; the last step may go beyond it by less than ``here``.
        rng: all draws.
        behaviour: of people. None: the defaults.
        k: places on a slate.
        here: people at a time, >= 1; the size of a block.
        logging_arm: number of the arm that is logged. None: none.
        log_sessions: most sessions in the log.
        what_if: numbers of arms whose answer is tried on every logged session as well.
        only: everybody is in this arm. None: people are spread over all of them.
        traits: of the items, to be summed over what each person is shown. None: not measured.

    Raises:
        ValueError: a number is out of range.
    """
    behaviour = behaviour or Behaviour()
    num_arms = len(tables.arms)
    if sessions < 1 or here < 1:
        raise ValueError(f"sessions and here must be >= 1, got {sessions} and {here}")
    for name, number in (("logging_arm", logging_arm), ("only", only)):
        if number is not None and not 0 <= number < num_arms:
            raise ValueError(f"{name} must be in 0..{num_arms - 1}, got {number}")
    return _Loop(tables, behaviour, k, min(here, sessions), rng, only, traits).run(
        sessions, logging_arm, log_sessions, list(what_if)
    )


class _Loop:
    def __init__(
        self,
        tables: ArmTables,
        behaviour: Behaviour,
        k: int,
        here: int,
        rng: np.random.Generator,
        only: int | None,
        traits: SlateTraits | None,
    ) -> None:
        self._tables, self._behaviour, self._k, self._rng = tables, behaviour, k, rng
        self._only, self._traits = only, traits
        self._num_users = len(tables.arms[0].item_index)
        widest = max(arm.item_index.shape[1] for arm in tables.arms)
        self._wear = (1.0 - behaviour.fatigue) ** np.arange(_MOST_SHOWN + 1)
        self._shown = np.zeros((here, widest if behaviour.fatigue else 0), dtype=np.uint8)
        self._person = np.arange(here)
        self._came = here
        self._user, self._arm, self._day = self._arrivals(here)
        self._log: list[tuple[np.ndarray, ...]] = []
        self._columns: dict[int, np.ndarray] = {}

    def run(
        self, sessions: int, logging_arm: int | None, log_sessions: int, what_if: list[int]
    ) -> Simulated:
        here = self._person.size
        steps = -(-sessions // here)
        size = here * (steps + 1)
        user, arm = np.zeros(size, np.int32), np.zeros(size, np.int16)
        count, clicks, bought, empty = (np.zeros(size, np.int32) for _ in range(4))
        traits = np.zeros((size, 3))
        expected, stayed = np.zeros(size), np.zeros(size, dtype=bool)
        logged = 0
        for _ in range(steps):
            person = self._person
            user[person], arm[person] = self._user, self._arm
            clicked = np.zeros(here, dtype=np.int32)
            for number in range(len(self._tables.arms)):
                rows = np.nonzero(self._arm == number)[0]
                if rows.size == 0:
                    continue
                click, conversion, slates, hoped = self._sessions(number, rows)
                clicked[rows] = click.sum(axis=1)
                bought[person[rows]] += conversion.sum(axis=1, dtype=np.int32)
                expected[person[rows]] += hoped
                if self._traits is not None:
                    items = self._tables.arms[number].item_index
                    shown = items[self._user[rows][:, None], slates.rank]
                    traits[person[rows]] += self._traits.measure(shown)
                if number == logging_arm and logged < log_sessions:
                    # Before it is counted as shown: the other arms meet the same people.
                    truth = self._what_if(number, rows, what_if)
                    self._log.append(
                        (
                            person[rows],
                            self._user[rows],
                            slates.rank,
                            slates.propensity,
                            click,
                            conversion,
                            self._day[rows].copy(),
                            truth,
                        )
                    )
                    logged += rows.size
                self._tire(rows, slates.rank)
            count[person] += 1
            clicks[person] += clicked
            empty[person] += clicked == 0
            self._come_and_go(clicked)
        stayed[self._person] = count[self._person] > 0
        came = count > 0
        people = People(
            user=user[came].astype(np.int64),
            arm=arm[came].astype(np.int64),
            sessions=count[came].astype(np.int64),
            clicks=clicks[came].astype(np.int64),
            conversions=bought[came].astype(np.int64),
            expected=expected[came],
            stayed=stayed[came],
            empty=empty[came].astype(np.int64),
            traits=traits[came],
        )
        return Simulated(people, self._logged(logging_arm, log_sessions), self._k)

    def _arrivals(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = self._rng
        user = rng.integers(self._num_users, size=n)
        arm = rng.integers(len(self._tables.arms), size=n)
        if self._only is not None:
            arm = np.full(n, self._only)
        return user, arm, rng.random(n) * self._behaviour.days_between

    def _sessions(
        self, number: int, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, DrawnSlates, np.ndarray]:
        """Clicks, conversions [n, k], slates and expected clicks [n] of people of one arm."""
        arm, user, rng = self._tables.arms[number], self._user[rows], self._rng
        slates = draw_slates(arm.settings, _scores(arm, user), self._k, rng)
        attraction = self._tables.attraction[number][user[:, None], slates.rank]
        if self._behaviour.fatigue:
            attraction = attraction * self._wear[self._shown[rows[:, None], slates.rank]]
        model = self._behaviour.clicks
        click = draw_clicks(model, attraction, rng)
        conversion = np.zeros_like(click)
        who, place = np.nonzero(click)
        chance = self._tables.conversion[number][user[who], slates.rank[who, place]]
        conversion[who, place] = rng.random(who.size) < chance
        return click, conversion, slates, click_probability(model, attraction).sum(axis=1)

    def _tire(self, rows: np.ndarray, rank: np.ndarray) -> None:
        if self._behaviour.fatigue:
            before = self._shown[rows[:, None], rank]
            self._shown[rows[:, None], rank] = np.minimum(before, _MOST_SHOWN - 1) + 1

    def _what_if(self, number: int, rows: np.ndarray, arms: list[int]) -> np.ndarray:
        """[n, B] expected clicks of other arms' answers to the same people in the same state."""
        user = self._user[rows]
        truth = np.zeros((rows.size, len(arms)))
        for column, other in enumerate(arms):
            arm = self._tables.arms[other]
            slates = draw_slates(arm.settings, _scores(arm, user), self._k, self._rng)
            attraction = self._tables.attraction[other][user[:, None], slates.rank].astype(float)
            if self._behaviour.fatigue:
                where = self._same_items(number, other)[user[:, None], slates.rank]
                shown = np.where(where >= 0, self._shown[rows[:, None], np.maximum(where, 0)], 0)
                attraction *= self._wear[shown]
            truth[:, column] = click_probability(self._behaviour.clicks, attraction).sum(axis=1)
        return truth

    def _same_items(self, number: int, other: int) -> np.ndarray:
        """[U, M of other] rank of the other arm's items among this arm's candidates, or -1."""
        if other not in self._columns:
            arms = self._tables.arms
            self._columns[other] = ranks_of(arms[number].item_index, arms[other].item_index)
        return self._columns[other]

    def _come_and_go(self, clicked: np.ndarray) -> None:
        behaviour, rng = self._behaviour, self._rng
        leaves = behaviour.churn * (1.0 - behaviour.loyalty) ** clicked
        gone = np.nonzero(rng.random(clicked.size) < leaves)[0]
        self._day += rng.exponential(behaviour.days_between, size=clicked.size)
        user, arm, day = self._arrivals(gone.size)
        self._user[gone], self._arm[gone] = user, arm
        self._day[gone] += day
        self._person = self._person.copy()
        self._person[gone] = np.arange(self._came, self._came + gone.size)
        self._came += gone.size
        self._shown[gone] = 0

    def _logged(self, logging_arm: int | None, log_sessions: int) -> SessionLog | None:
        if logging_arm is None or not self._log:
            return None
        parts = zip(*self._log, strict=True)
        return SessionLog(*(np.concatenate(part)[:log_sessions] for part in parts))


def ranks_of(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Places of items in another list of the same user.

    Args:
        mine: [U, M1] int64 items >= 1, all different within a row.
        theirs: [U, M2], likewise.

    Returns:
        [U, M2] int64 place of each of ``theirs`` in its row of ``mine``, -1 = not there.
    """
    above = max(int(mine.max()), int(theirs.max())) + 1
    row = np.arange(len(mine))[:, None] * above
    order = np.argsort(mine, axis=1)
    rising = (np.take_along_axis(mine, order, axis=1) + row).ravel()  # rows one after another
    wanted = (theirs + row).ravel()
    at = np.minimum(np.searchsorted(rising, wanted), rising.size - 1)
    ranks: np.ndarray = np.where(rising[at] == wanted, order.ravel()[at], -1)
    return ranks.reshape(theirs.shape)


def _scores(arm: SimulatedArm, user: np.ndarray) -> np.ndarray:
    """[n, M] scores of the people's candidates; all but a softmax read their shape alone."""
    if arm.settings.ranker == "softmax":
        drawn: np.ndarray = arm.score[user]
        return drawn
    return np.broadcast_to(arm.score[:1], (user.size, arm.score.shape[1]))
