"""A bandit world whose value is known: what each estimator makes of a log of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from recsys.simulation import (
    Contributions,
    Estimate,
    LoggedFeedback,
    LookupRewards,
    choose_least_error,
    choose_lepski,
    choose_slope,
    clipped_ips,
    dm,
    dr,
    dr_os,
    ips,
    mips,
    prefix_cells,
    sg_dr,
    sg_ips,
    sndr,
    snips,
    snmips,
    switch_dr,
    weight_spread,
)

NUM_CONTEXTS = 100
LIMITS = (float("inf"), 200.0, 100.0, 50.0, 20.0, 10.0, 5.0)
"""Of clipping, least biased first; those a person would fix are `FIXED`."""
FIXED = (50.0, 10.0, 5.0)


@dataclass(frozen=True)
class BanditWorld:
    """Contexts, actions and what they earn in the mean.

    Rewards depend on an action through its three attributes alone.

    Attributes:
        mean_reward: [M, K] float64, the probability of a reward of 1.
        logging: [M, K] float64, rows sum to 1.
        target: the same.
        codes: [K, 4] int64: three attributes, and a number that means nothing and makes cells of
            almost one action each.
        value: of the target, exact.
    """

    mean_reward: np.ndarray
    logging: np.ndarray
    target: np.ndarray
    codes: np.ndarray
    value: float


def bandit_world(
    num_actions: int, *, beta: float, seed: int, epsilon: float = 0.2, value: float = 0.5
) -> BanditWorld:
    """A world of ``num_actions`` in at most 64 cells.

    The logger draws from softmax(beta * mean reward): below 0 it prefers what earns little. The
    target takes the best action, or with ``epsilon`` any, and earns ``value``.

    The level matters: what does not normalise its weights (IPS, MIPS) pays for the square of the
    rewards, SNIPS and DR only for what is left of it. At a value of .93 and 1,000 actions plain
    MIPS errs more than SNIPS, and self-normalised MIPS three times less.
    """
    rng = np.random.default_rng(seed)
    context = rng.standard_normal((NUM_CONTEXTS, 5))
    codes = np.stack([rng.integers(4, size=num_actions) for _ in range(3)], axis=1)
    effect = rng.standard_normal((3, 4, 5)) / np.sqrt(5)  # of context and attribute value
    level = rng.standard_normal((3, 4))
    odds = np.zeros((NUM_CONTEXTS, num_actions))
    for attribute in range(3):
        chosen = codes[:, attribute]
        odds += 0.7 * (context @ effect[attribute].T)[:, chosen] + 0.7 * level[attribute, chosen]
    best = odds.argmax(axis=1)
    rows = np.arange(NUM_CONTEXTS)

    def target_value(shift: float) -> float:
        reward = expit(odds + shift)
        return float((1 - epsilon) * reward[rows, best].mean() + epsilon * reward.mean())

    mean_reward = expit(odds + brentq(lambda shift: target_value(shift) - value, -20, 20))
    logit = beta * mean_reward
    logging = np.exp(logit - logit.max(axis=1, keepdims=True))
    logging /= logging.sum(axis=1, keepdims=True)
    target = np.full_like(logging, epsilon / num_actions)
    target[rows, best] += 1.0 - epsilon
    codes = np.concatenate([codes, rng.integers(64, size=(num_actions, 1))], axis=1)
    return BanditWorld(mean_reward, logging, target, codes, value)


class Tables(NamedTuple):
    """What a round needs, by its number ``context * K + action``.

    Attributes:
        cumulative: [M * K] of the joint probability under the logger.
        weight: [M * K] pi_e / pi_0.
        marginal: weights of cells by depth of the codes, 4 (nearly single actions) to 1.
        clipped: [limits, M * K] weights after clipping at `LIMITS`.
        joint: [M * K] probability of every outcome under the logger.
        clip_spread: `weight_spread` of `LIMITS` for one round and rewards of 1.
        depth_spread: that of the depths 4 to 1.
    """

    cumulative: np.ndarray
    weight: np.ndarray
    marginal: dict[int, np.ndarray]
    clipped: np.ndarray
    joint: np.ndarray
    clip_spread: np.ndarray
    depth_spread: np.ndarray


def tables_of(world: BanditWorld) -> Tables:
    marginal = {}
    for depth in range(world.codes.shape[1], 0, -1):
        cell = prefix_cells(world.codes, depth)
        one_hot = np.eye(int(cell.max()) + 1)[cell]  # [K, C]
        ratio = (world.target @ one_hot) / (world.logging @ one_hot)
        marginal[depth] = ratio[:, cell].ravel()
    joint = world.logging.ravel() / NUM_CONTEXTS
    cumulative = np.cumsum(joint)
    weight = (world.target / world.logging).ravel()

    clipped = np.stack([np.minimum(weight, limit) for limit in LIMITS])

    def spread(weights: np.ndarray) -> np.ndarray:
        return weight_spread(weights, joint, mean_square_reward=1.0, num_rounds=1)

    return Tables(
        cumulative / cumulative[-1],
        weight,
        marginal,
        clipped,
        joint,
        spread(clipped),
        spread(np.stack(list(marginal.values()))),
    )


def estimates_of_one_log(
    world: BanditWorld, tables: Tables, rounds: int, rng: np.random.Generator
) -> Iterator[tuple[str, Estimate]]:
    """Draw a log and hand it to every estimator; the model is a table of actions, cross-fitted."""
    num_actions = world.logging.shape[1]
    row = np.searchsorted(tables.cumulative, rng.random(rounds), side="right")
    context, action = np.divmod(row, num_actions)
    reward = (rng.random(rounds) < world.mean_reward.ravel()[row]).astype(np.float64)
    weight = tables.weight[row]
    predicted, expected = _cross_fitted(world, context, action, reward, rng)
    model = (weight, reward, predicted, expected)
    plain: dict[str, Contributions] = {
        "DM": dm(expected),
        "IPS": ips(weight, reward),
        "SNIPS": snips(weight, reward),
        "DR": dr(*model),
        "SNDR": sndr(*model),
        "switch-DR 10": switch_dr(*model, limit=10.0),
        "DRos 100": dr_os(*model, shrinkage=100.0),
        "SG-IPS .1": sg_ips(weight, reward, strength=0.1),
        "SG-DR .1": sg_dr(*model, strength=0.1),
        "SNMIPS 64": snmips(tables.marginal[3][row], reward),
    }
    for name, one in plain.items():
        yield name, one.estimate()
    level = plain["SNIPS"].value  # rewards of 0 and 1 are their own squares
    scale = level / rounds
    clipped = [clipped_ips(weight, reward, limit=limit).estimate() for limit in LIMITS]
    for limit, found in zip(LIMITS, clipped, strict=True):
        if limit in FIXED:
            yield f"clip {limit:.0f}", found
    # The weights alone decide: rewards only weigh bias against variance.
    chosen = choose_least_error(
        tables.clipped,
        tables.joint,
        mean_reward=level,
        mean_square_reward=level,
        num_rounds=rounds,
    )
    yield "clip chosen", clipped[chosen]
    deep = [mips(tables.marginal[depth][row], reward).estimate() for depth in (4, 3, 2, 1)]
    for name, found in zip(("MIPS unique", "MIPS 64", "MIPS 16", "MIPS 4"), deep, strict=True):
        yield name, found
    for name, some, spread in (
        ("clip", clipped, tables.clip_spread),
        ("MIPS", deep, tables.depth_spread),
    ):
        yield f"{name} SLOPE", some[choose_slope(some)]
        value = np.array([one.value for one in some])
        yield f"{name} Lepski", some[choose_lepski(value, spread * scale)]


def _cross_fitted(
    world: BanditWorld,
    context: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Reward of the logged action and under the target, of two folds; as `cross_fit` does it.

    The policies of a context are one row here, so the sum over actions is taken once a context.
    """
    rounds, num_actions = reward.size, world.logging.shape[1]
    fold = rng.permutation(rounds) % 2 == 0
    predicted, expected = np.empty(rounds), np.empty(rounds)
    ones = np.ones(rounds)
    for held in (fold, ~fold):
        seen = LoggedFeedback(action[~held], reward[~held], ones[~held], num_actions)
        table = LookupRewards.fit(seen).table[0]  # [K]
        predicted[held] = table[action[held]]
        expected[held] = (world.target @ table)[context[held]]
    return predicted, expected
