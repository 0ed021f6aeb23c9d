"""A reward model of one arm's log: what an item of each rank gets at each place.

A round is a place of a slate, as in `recsys.simulation.trial.log_estimates`; its action is the rank
of the item among the logging arm's candidates, which that arm drew by. One more action stands for
all that the log never shows. A table of ranks knows what the logging arm knows of a person, needs
no features and costs a second for a million rounds; a model of items would see a few rounds of
each.
"""

from __future__ import annotations

import numpy as np

from recsys.simulation.estimates.logged_feedback import LoggedFeedback
from recsys.simulation.estimates.reward_models import (
    CrossFitted,
    LookupRewards,
    Predicted,
    cross_fit,
)
from recsys.simulation.world.arms import SimulatedArm
from recsys.simulation.world.sessions import SessionLog, ranks_of

__all__ = ["PlaceRewards", "fit_place_rewards"]

_BLOCK = 4_000_000
"""Probabilities of a policy that are held at once."""


class PlaceRewards:
    """Models of the two halves of a log's people, each for the half that it has not seen.

    Attributes:
        models: of the rounds, in the order of the log's slates and their places.
        k: places.
    """

    def __init__(
        self, models: CrossFitted, k: int, logging: SimulatedArm, user: np.ndarray
    ) -> None:
        self.models = models
        self.k = k
        self._logging = logging
        self._user = user

    def predict(self, judged: SimulatedArm) -> Predicted:
        """Of what was shown, and of what ``judged`` would show at the same places.

        Returns:
            [n * k] each, place by place within a slate.
        """
        width, k = self.models.log.num_actions - 1, self.k
        same = np.array_equal(judged.item_index, self._logging.item_index)
        # [U or 1, R] rank of what was logged among what is judged
        asked = slice(1) if same else slice(None)
        there = ranks_of(judged.item_index[asked], self._logging.item_index[asked, :width])
        chance = judged.marginals(k)
        n = len(self._user)
        found = Predicted(np.empty(n * k), np.empty(n * k))
        block = max(1, _BLOCK // (width + 1))
        for place in range(k):
            shown = np.where(there >= 0, chance[np.maximum(there, 0), place], 0.0)
            rest = np.maximum(1.0 - shown.sum(axis=1, keepdims=True), 0.0)
            policy = np.concatenate([shown, rest], axis=1)  # [U or 1, K]
            for first in range(0, n, block):
                slates = np.arange(first, min(first + block, n))
                rounds = slates * k + place
                part = CrossFitted(
                    self.models.models, self.models.fold[rounds], self.models.log.take(rounds)
                ).predict(policy[0] if same else policy[self._user[slates]])
                for whole, values in zip(found, part, strict=True):
                    whole[rounds] = values
        return found


def fit_place_rewards(
    log: SessionLog, logging: SimulatedArm, *, rng: np.random.Generator
) -> PlaceRewards:
    """Mean clicks of each rank at each place, on two halves of the people.

    Args:
        log: of ``logging``, of two people or more.
        logging: the arm that was shown; it does not draw by score.
        rng: draws the halves.

    Raises:
        ValueError: the log is of one person, or ``logging`` draws by score ("softmax").
    """
    n, k = log.rank.shape
    chance = logging.marginals(k)
    place = np.tile(np.arange(k), n)
    action = log.rank.ravel()
    rounds = LoggedFeedback(
        action=action.astype(np.int64),
        reward=log.click.ravel().astype(np.float64),
        propensity=chance[action, place],
        num_actions=int(np.flatnonzero(chance.any(axis=1)).max()) + 2,
        position=place + 1,
        unit=np.repeat(log.person, k).astype(np.int64),
    )
    models = cross_fit(rounds, LookupRewards.fit, rng=rng)
    return PlaceRewards(models, k, logging, log.user)
