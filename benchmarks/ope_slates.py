"""How far slate estimators are off, under three kinds of users and two kinds of logs.

A world with a known value: 10 kinds of users, 5 items, 3 places. A user of kind x likes item a with
probability q(x, a). Clicks are the rewards::

    independent   q(a_k) times .9, .7, .5 by place
    cascade       q(a_k), and a user leaves after a click with probability .8
    interacting   q(a_k) less .6 times what the rest of the slate is liked, above and below

The log is drawn from noisy likes, Plackett-Luce (without replacement) or factored (every place on
its own, so items may repeat). The policy that is judged is epsilon-greedy by q with epsilon .3. Its
value is exact, by enumeration. For every estimator: bias, RMSE, and how often the 95% interval
holds the value. "unchecked short" is the short pseudo-inverse formula where the package refuses it.

    python benchmarks/ope_slates.py [--seed 0] [--quick]

--quick: a tenth of the replications. One thread is enough.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from reporting import Report

from recsys.simulation.estimates.estimate import Estimate, from_contributions, ratio_estimate
from recsys.simulation.slates.comparison import compare_slates
from recsys.simulation.slates.estimators import (
    independent_ips,
    reward_interaction_ips,
    standard_slate_ips,
)
from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import (
    EpsilonGreedyPolicy,
    FactoredPolicy,
    PlackettLucePolicy,
    SlatePolicy,
)
from recsys.simulation.slates.probabilities import (
    enumerate_slates,
    place_probabilities,
    sample_slates,
    slot_marginals,
)
from recsys.simulation.slates.pseudo_inverse import factored_pseudo_inverse, pseudo_inverse_weights

KINDS, K, L = 10, 5, 3
EXAMINED = np.array([0.9, 0.7, 0.5])
LEAVES = 0.8
USERS = ("independent", "cascade", "interacting")
LOGS = ("factored", "plackett-luce")
# Rounds -> replications.
SIZES = {500: 200, 2_000: 200, 10_000: 50}


def click_chance(users: str, liked: np.ndarray) -> np.ndarray:
    """[..., L] chance of a click at each place, of what is liked there [..., L]."""
    if users == "independent":
        return liked * EXAMINED
    if users == "cascade":
        stays = np.ones_like(liked)
        stays[..., 1:] = np.cumprod(1 - LEAVES * liked, axis=-1)[..., :-1]
        return liked * stays
    others = liked.sum(axis=-1, keepdims=True) - liked
    return liked * (1 - 0.6 * others)


def clicks(users: str, liked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n, L] clicks; in a cascade those below one depend on it."""
    if users != "cascade":
        return (rng.random(liked.shape) < click_chance(users, liked)).astype(np.float64)
    clicked = rng.random(liked.shape) < liked
    left = clicked & (rng.random(liked.shape) < LEAVES)
    gone = np.zeros_like(left)
    gone[:, 1:] = np.logical_or.accumulate(left, axis=1)[:, :-1]
    return (clicked & ~gone).astype(np.float64)


def true_value(users: str, likes: np.ndarray, policy: SlatePolicy) -> float:
    slates, chance = enumerate_slates(policy)  # [S, L], [kinds, S]
    return float((chance * click_chance(users, likes[:, slates]).sum(axis=2)).sum(axis=1).mean())


def world(log: str, seed: int) -> tuple[np.ndarray, SlatePolicy, SlatePolicy]:
    """Likes [kinds, K], and the two policies for one round of each kind."""
    rng = np.random.default_rng(seed)
    likes = rng.uniform(0.05, 0.6, size=(KINDS, K))
    score = 2.0 * likes + rng.normal(0, 0.7, size=(KINDS, K))
    target = EpsilonGreedyPolicy(likes, L, epsilon=0.3)
    if log == "plackett-luce":
        return likes, PlackettLucePolicy(score, L), target
    mass = np.exp(score)[:, None, :] * np.ones((1, L, 1))
    return likes, FactoredPolicy(mass / mass.sum(axis=2, keepdims=True)), target


def estimates(
    feedback: SlateFeedback,
    target: SlatePolicy,
    logging: SlatePolicy,
    kind: np.ndarray,
    tables: list[np.ndarray],
    rng: np.random.Generator,
) -> tuple[list[Estimate], bool | None, bool]:
    """Every estimate, whether interaction was seen, and whether the short formula was refused."""
    compared = compare_slates(feedback, target, logging, rng=rng, cell=kind)
    chance = place_probabilities(target, feedback.action)
    marginals = [one[kind[:, None], np.arange(L), feedback.action] for one in tables]
    total = feedback.reward.sum(axis=1)
    weight = pseudo_inverse_weights(feedback, target, logging)
    found = [
        from_contributions("mean of the log", total),
        *compared.estimates,
        standard_slate_ips(feedback, chance, self_normalised=True),
        independent_ips(feedback, *marginals, self_normalised=True),
        reward_interaction_ips(feedback, chance, self_normalised=True),
        from_contributions("pseudo-inverse", weight * total),
        ratio_estimate("self-normalised pseudo-inverse", weight * total, weight),
    ]
    try:
        found.append(factored_pseudo_inverse(feedback, target, logging))
        refused = False
    except ValueError:
        weight = (marginals[0] / marginals[1]).sum(axis=1) - L + 1
        found.append(from_contributions("unchecked short", weight * total))
        refused = True
    return found, compared.interaction, refused


def measure(users: str, log: str, n: int, replications: int, seed: int) -> dict[str, Any]:
    likes, logging, target = world(log, seed)
    truth = true_value(users, likes, target)
    tables = [slot_marginals(one) for one in (target, logging)]  # [kinds, L, K] each
    rng = np.random.default_rng([seed, n, USERS.index(users), LOGS.index(log)])
    every: dict[str, list[Estimate]] = {}
    seen: list[bool | None] = []
    refused = 0
    for _ in range(replications):
        kind = rng.integers(0, KINDS, n)
        made, wanted = logging.take(kind), target.take(kind)
        action, propensity = sample_slates(made, rng)
        liked = likes[kind[:, None], action]
        feedback = SlateFeedback(action, clicks(users, liked, rng), propensity, K)
        found, interaction, no_short = estimates(feedback, wanted, made, kind, tables, rng)
        seen.append(interaction)
        refused += no_short
        for one in found:
            every.setdefault(one.name, []).append(one)
    rows = {}
    for name, values in every.items():
        error = np.array([one.value for one in values]) - truth
        held = [one.low <= truth <= one.high for one in values]
        rows[name] = {
            "bias": round(float(error.mean()), 5),
            "bias_se": round(float(error.std(ddof=1) / np.sqrt(error.size)), 5),
            "rmse": round(float(np.sqrt(np.square(error).mean())), 5),
            "coverage": round(float(np.mean(held)), 3),
        }
    told = [one for one in seen if one is not None]
    return {
        "users": users,
        "log": log,
        "n": n,
        "replications": replications,
        "truth": round(truth, 5),
        "short_refused": refused / replications,
        "interaction_seen": round(float(np.mean(told)), 3) if told else None,
        "interaction_not_told": 1 - len(told) / replications,
        "estimators": rows,
    }


UNBIASED = {
    "standard": USERS,
    "reward interaction": ("independent", "cascade"),
    "cascade DR": ("independent", "cascade"),
    "independent": ("independent",),
    "pseudo-inverse": ("independent",),
}
"""Estimators, and the users under whom they have no bias."""
TENDENCIES = (
    ("reward interaction", "standard"),
    ("cascade DR", "reward interaction"),
    ("independent", "reward interaction"),
)


def largest_bias(results: list[dict[str, Any]], name: str) -> float:
    """In standard errors of itself, over the users under whom there should be none."""
    rows = [one["estimators"][name] for one in results if one["users"] in UNBIASED[name]]
    return max(abs(row["bias"]) / row["bias_se"] if row["bias"] else 0.0 for row in rows)


def share_below(results: list[dict[str, Any]], first: str, second: str) -> float:
    """Share of the cells in which the first estimator has the smaller RMSE."""
    wins = [
        one["estimators"][first]["rmse"] <= one["estimators"][second]["rmse"] for one in results
    ]
    return round(float(np.mean(wins)), 3)


def show(one: dict[str, Any]) -> None:
    print(
        f"\n{one['users']} users, {one['log']} log, {one['n']:,} rounds, "
        f"{one['replications']} replications, true value {one['truth']:.4f}; "
        f"short formula refused in {one['short_refused']:.0%}, interaction seen in "
        f"{one['interaction_seen']} (not told in {one['interaction_not_told']:.0%})"
    )
    print(f"  {'':36s} {'bias':>8s} {'RMSE':>8s} {'coverage':>9s}")
    for name, row in one["estimators"].items():
        print(f"  {name:36s} {row['bias']:+8.4f} {row['rmse']:8.4f} {row['coverage']:9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the world and of all draws")
    parser.add_argument("--quick", action="store_true", help="a tenth of the replications")
    arguments = parser.parse_args()
    report = Report("ope_slates", arguments)
    report.data(f"{KINDS} kinds of users, {K} items, {L} places, an exact value; one thread")
    results = []
    for n, replications in SIZES.items():
        times = max(5, replications // 10) if arguments.quick else replications
        for log in LOGS:
            for users in USERS:
                results.append(measure(users, log, n, times, arguments.seed))
                show(results[-1])
    shares = {
        f"RMSE of {first} below {second}": share_below(results, first, second)
        for first, second in TENDENCIES
    }
    print()
    for name, share in shares.items():
        print(f"{name}: in {share:.1%} of the cells")
    wrong = [one for one in results if one["short_refused"] != (one["log"] == "plackett-luce")]
    report.bar("cells where the short formula is refused wrongly or not", len(wrong), equal_to=0)
    for name, users in UNBIASED.items():
        worst = largest_bias(results, name)
        label = f"bias of {name} in standard errors, {', '.join(users)} users, worst"
        report.bar(label, worst, at_most=4)
    report.close(shares_of_cells=shares, cells=results)


if __name__ == "__main__":
    main()
