"""What a policy over slates does: draws, probabilities of slates, marginals of places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recsys.simulation.slates.arrivals import race_marginals
from recsys.simulation.slates.policies import (
    EpsilonGreedyPolicy,
    FactoredPolicy,
    PlackettLucePolicy,
    SlatePolicy,
)

__all__ = [
    "enumerate_slates",
    "place_probabilities",
    "sample_slates",
    "slate_probability",
    "slot_marginals",
]

# Sets of items above a place that are enumerated; beyond, marginals are sampled.
MOST_SETS = 5_000
MOST_SLATES = 5_000
BLOCK_BYTES = 64 * 2**20


def sample_slates(policy: SlatePolicy, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One slate a round.

    Args:
        policy: (n, L, K).
        rng: draws.

    Returns:
        [n, L] int64 items, -1 below the last one where none was left, and the [n, L] float64
        propensity of each place, as `SlateFeedback` takes them.
    """
    n, slots, _ = policy.shape
    action = np.full((n, slots), -1, dtype=np.int64)
    propensity = np.ones((n, slots))
    for slot in range(slots):
        chance = policy.next_probabilities(action[:, :slot])  # [n, K]
        below = np.cumsum(chance, axis=1)
        drawn = (below > rng.random((n, 1)) * below[:, -1:]).argmax(axis=1)
        ends = below[:, -1] == 0
        action[:, slot] = np.where(ends, -1, drawn)
        propensity[:, slot] = np.where(ends, 1.0, chance[np.arange(n), drawn])
    return action, np.minimum(propensity, 1.0)


def place_probabilities(policy: SlatePolicy, action: np.ndarray) -> np.ndarray:
    """Probability of every item that was shown, given the items above it.

    Args:
        policy: (n, L, K).
        action: [n, L] int64, -1 where nothing was shown.

    Returns:
        [n, L] float64, 1 where nothing was shown. Below an item that the policy would not have
        shown, the number is that of the policy had it been.

    Raises:
        ValueError: shapes disagree.
    """
    _check(policy, action)
    places = [
        _at(policy.next_probabilities(action[:, :slot]), action[:, slot])
        for slot in range(action.shape[1])
    ]
    return np.stack(places, axis=1)


def slate_probability(policy: SlatePolicy, action: np.ndarray) -> np.ndarray:
    """[n] float64 probability of the whole slates ``action`` [n, L]; see `place_probabilities`."""
    product: np.ndarray = place_probabilities(policy, action).prod(axis=1)
    return product


def slot_marginals(
    policy: SlatePolicy,
    *,
    action: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
    num_samples: int = 1_000,
) -> np.ndarray:
    """Probability that a place holds an item, whatever stands above.

    Exact where places draw on their own, for a uniform shuffle (1 / m each), and while there are
    at most 5,000 sets of items that may stand above a place; of a Plackett-Luce policy right to
    1e-9 beyond (`race_marginals`). Of others slates are drawn and the
    probabilities of what comes next are averaged over what stands above: without bias, its
    standard error falls with the root of ``num_samples``.

    Args:
        policy: (n, L, K).
        action: [n, L] int64: give the marginals of these items alone. None: of all.
        rng: draws, where the sets are too many; None: refuse then.
        num_samples: slates a round that are drawn, >= 1.

    Returns:
        [n, L, K] float64, or [n, L] with ``action``, 1 where nothing was shown.

    Raises:
        ValueError: shapes disagree, ``num_samples`` is < 1, or there are too many sets and no
            ``rng``.
    """
    n, slots, items = policy.shape
    if action is not None:
        _check(policy, action)
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    if isinstance(policy, FactoredPolicy):
        every = policy.probability
        if action is None:
            return every.copy()
        return np.stack([_at(every[:, j], action[:, j]) for j in range(slots)], axis=1)
    sets = _num_sets(items, slots)
    shuffled = isinstance(policy, EpsilonGreedyPolicy) and policy.epsilon == 1
    race = isinstance(policy, PlackettLucePolicy) and sets > MOST_SETS
    exact = shuffled or race or sets <= MOST_SETS
    if not exact and rng is None:
        raise ValueError(
            f"{sets:,} sets of items may stand above a place, more than {MOST_SETS:,}: pass rng to "
            "sample the marginals, or take fewer places or items"
        )
    found = np.zeros((n, slots) if action is not None else (n, slots, items))
    widest = max(sets, items) if sets <= MOST_SETS else items * slots
    block = max(1, BLOCK_BYTES // (8 * widest))
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        part = policy.take(rows)
        if isinstance(part, EpsilonGreedyPolicy) and shuffled:
            weighted = _shuffled(part)
        elif isinstance(part, PlackettLucePolicy) and race:
            weighted = _raced(part)
        else:
            weighted = _enumerated(part) if exact else _drawn(part, rng, num_samples)
        for slot, weight, chance in weighted:
            if action is None:
                found[rows, slot] += weight[:, None] * chance
            else:
                found[rows, slot] += weight * _at(chance, action[rows, slot])
    if action is not None:
        found[action < 0] = 1.0
    return found


def enumerate_slates(policy: SlatePolicy) -> tuple[np.ndarray, np.ndarray]:
    """Every slate that some round may show.

    Returns:
        [S, L] int64 slates in lexicographic order, and their [n, S] float64 probabilities.

    Raises:
        ValueError: there are more than 5,000 slates, or a round runs out of items.
    """
    n, slots, items = policy.shape
    slates = np.zeros((1, 0), dtype=np.int64)
    probability = np.ones((n, 1))
    for _ in range(slots):
        chance = np.stack(
            [
                policy.next_probabilities(np.broadcast_to(above, (n, above.size)))
                for above in slates
            ],
            axis=1,
        )  # [n, S, K]
        every = (probability[:, :, None] * chance).reshape(n, -1)
        kept = np.nonzero(every.max(axis=0) > 0)[0]
        if kept.size > MOST_SLATES:
            raise ValueError(
                f"more than {MOST_SLATES:,} slates are possible with {slots} places and {items} "
                "items: take fewer places, or an estimator that needs no enumeration"
            )
        slates = np.concatenate([slates[kept // items], (kept % items)[:, None]], axis=1)
        probability = every[:, kept]
    short = np.abs(probability.sum(axis=1) - 1) > 1e-9
    if short.any():
        raise ValueError(
            f"every round must have an item for each of the {slots} places; {int(short.sum())} of "
            f"{n} rounds have not, first: round {int(np.nonzero(short)[0][0])}"
        )
    return slates, probability


def _num_sets(items: int, slots: int) -> int:
    total, size = 0, 1
    for chosen in range(min(slots, items + 1)):
        total += size
        size = size * (items - chosen) // (chosen + 1)
    return total


def _shuffled(policy: EpsilonGreedyPolicy) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """As `_enumerated`, of a uniform shuffle: every place that is drawn is like the first."""
    n, slots, _items = policy.shape
    first = policy.next_probabilities(np.empty((n, 0), dtype=np.int64))
    drawn = (first > 0).sum(axis=1, keepdims=True)  # [n, 1] m
    for slot in range(slots):
        yield slot, np.ones(n), np.where(slot < drawn, first, policy.by_score(slot))


def _raced(policy: PlackettLucePolicy) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """As `_enumerated`, whole marginals at once."""
    n, slots, _items = policy.shape
    found = race_marginals(policy.logits(), slots)
    drawn = np.isfinite(policy.logits()).sum(axis=1, keepdims=True)  # [n, 1] m
    for slot in range(slots):
        yield slot, np.ones(n), np.where(slot < drawn, found[:, slot], policy.by_score(slot))


def _enumerated(policy: SlatePolicy) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Place, probability [n] of a set above it, and of what comes next [n, K]; every set once."""
    n, slots, _items = policy.shape
    sets: dict[tuple[int, ...], np.ndarray] = {(): np.ones(n)}
    for slot in range(slots):
        larger: dict[tuple[int, ...], np.ndarray] = {}
        for above, weight in sets.items():
            before = np.broadcast_to(np.array(above, dtype=np.int64), (n, slot))
            chance = policy.next_probabilities(before)
            yield slot, weight, chance
            if slot + 1 == slots:
                continue
            for item in np.nonzero(chance.max(axis=0) > 0)[0].tolist():
                key = tuple(sorted((*above, item)))
                mass = weight * chance[:, item]
                larger[key] = larger[key] + mass if key in larger else mass
        sets = larger


def _drawn(
    policy: SlatePolicy, rng: np.random.Generator | None, num_samples: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """As `_enumerated`, of slates that are drawn."""
    if rng is None:
        return
    n, slots, _ = policy.shape
    weight = np.full(n, 1.0 / num_samples)
    for _ in range(num_samples):
        action, _propensity = sample_slates(policy, rng)
        for slot in range(slots):
            yield slot, weight, policy.next_probabilities(action[:, :slot])


def _at(chance: np.ndarray, item: np.ndarray) -> np.ndarray:
    """[n] of [n, K] at ``item`` [n], 1 where it is -1."""
    picked: np.ndarray = chance[np.arange(len(item)), item]
    return np.where(item < 0, 1.0, picked)


def _check(policy: SlatePolicy, action: np.ndarray) -> None:
    n, slots, items = policy.shape
    if action.shape != (n, slots):
        raise ValueError(
            f"action must be [n, L] = {(n, slots)} like the policy's rounds and places, got "
            f"{action.shape}"
        )
    if action.size and not -1 <= action.min() <= action.max() < items:
        raise ValueError(
            f"action must be -1 or 0..{items - 1}, got {action.min()} to {action.max()}"
        )
