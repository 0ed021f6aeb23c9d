"""Do weights against unequal exposure bring rankings nearer to the truth, and what do they cost?

A world in which it is known what every user likes and how likely everyone is to see each item:
relevance is a low-rank taste taken from the data, without popularity in it; an item is seen with a
probability that grows with its real popularity to a power; clicks are what was seen and liked (see
retrieval_exposure.py). Models are trained on the clicks alone: matrix factorisation by our trainer,
cosine softmax, with the positives weighted

    none           all alike
    estimated      1 / (clicks / most clicks)^.5, clipped: what can be done without knowing more
    true           1 / exposure, clipped: what logged impressions would give

Error is against the true relevance: 1 - ndcg@20 of the items not clicked yet (relevance as grade),
and the share of item pairs in the wrong order. Nothing is chosen: every weighting has the same
settings and epochs. The mean is over seeds (of world and training), the intervals are paired
bootstraps over users.

Weights trade bias for variance, so they pay where a taste can be learnt from the clicks there are:
--rank is the number of directions that tastes differ in. With 32 of them forty clicks say little,
every model is near chance, and weights lower the share of wrong pairs a little and cost the top of
the list.

    python benchmarks/retrieval_bias.py [--data ml-1m-lcfn] [--powers 0 0.5 1] [--seeds 2]
        [--users 3000] [--rank 6] [--quick]

--quick: one seed, half of the epochs. At power 0 everything is exposed alike, and all that weights
change is for the worse: their cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from reporting import Report, add_threads
from retrieval_data import load_split
from retrieval_exposure import ExposureWorld, RankingError, relevance_error, semi_synthetic_exposure
from retrieval_matrix import rows_of_users, train_matrix

from features.tables import Histories
from recsys.evaluation import paired_difference
from recsys.retrieval.sampling.propensity import inverse_propensity_weights
from recsys.threads import torch_threads

EPOCHS = 16
CLIP = 0.1
SOFTMAX: Mapping[str, Any] = {
    "loss": "sampled_softmax",
    "temperature": 0.5,
    "smoothing": 0.1,
    "events_per_user": 32,
    "negatives": 1024,
    "table_learning_rate": 0.2,
    "propensity_clip": CLIP,
}
WEIGHTS = ("none", "estimated", "true")


def clicks_of(world: ExposureWorld, weights: str) -> Histories:
    """The clicks, with the true weights where they are asked for."""
    if weights != "true":
        return world.clicks
    relative = world.exposure / world.exposure.max()
    weight = inverse_propensity_weights(relative, clip=CLIP)
    return replace(world.clicks, weight=weight[world.clicks.item_index])


def error_of(world: ExposureWorld, weights: str, *, epochs: int, seed: int) -> RankingError:
    """Train with these weights, and compare with the truth."""
    clicks = clicks_of(world, weights)
    num_items = world.exposure.size - 1
    model = train_matrix(
        f"weights {weights}, seed {seed}",
        clicks,
        num_items,
        **SOFTMAX,
        epochs=epochs,
        seed=seed,
        propensity_power=0.5 if weights == "estimated" else 0.0,
    )
    return relevance_error(
        rows_of_users(model, clicks),
        model.item_vectors,
        world,
        rng=np.random.default_rng(seed),
    )


def compared(errors: RankingError, without: RankingError) -> dict[str, dict[str, Any]]:
    """How much each error changes, relative to no weights; below 0 is better."""
    found = {}
    for name in RankingError._fields:
        before = getattr(without, name)
        gap = paired_difference(getattr(errors, name), before, rng=np.random.default_rng(0))
        size = max(float(before.mean()), 1e-6)
        found[name] = {
            "relative": round(gap.mean / size, 4),
            "95%": [round(gap.low / size, 4), round(gap.high / size, 4)],
            "p": round(gap.p, 4),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-1m-lcfn", choices=["ml-1m-lcfn"])
    parser.add_argument("--powers", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0")
    parser.add_argument("--users", type=int, default=3000, help="the first so many")
    parser.add_argument("--rank", type=int, default=6, help="directions that tastes differ in")
    parser.add_argument("--quick", action="store_true", help="one seed, half of the epochs")
    add_threads(parser)
    arguments = parser.parse_args()
    with torch_threads(arguments.threads):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    report = Report("retrieval_bias", arguments, ("torch",))
    seeds = range(1 if arguments.quick else arguments.seeds)
    epochs = EPOCHS // 2 if arguments.quick else EPOCHS
    split = load_split(arguments.data)
    users = np.arange(min(arguments.users, len(split.train)))
    histories = split.whole_train.take(users)
    report.data(
        f"taste and popularity of {split.name}, {users.size} users, {split.num_items} items; "
        f"{epochs} epochs, seeds {list(seeds)}, clip {CLIP}"
    )
    print(
        f"\n{'power':>5s} {'clicks':>8s}  {'weights':10s} {'1 - ndcg@20':>11s} "
        f"{'against none':>25s} {'wrong pairs':>11s} {'against none':>25s}",
        flush=True,
    )
    rows: list[dict[str, Any]] = []
    for power in arguments.powers:
        runs: dict[str, list[RankingError]] = {weights: [] for weights in WEIGHTS}
        clicks = 0
        for seed in seeds:
            world = semi_synthetic_exposure(
                histories, split.num_items, power=power, rank=arguments.rank, seed=seed
            )
            clicks = world.clicks.item_index.size
            for weights in WEIGHTS:
                runs[weights].append(error_of(world, weights, epochs=epochs, seed=seed))
        errors = {
            weights: RankingError(*(np.mean(values, axis=0) for values in zip(*of, strict=True)))
            for weights, of in runs.items()
        }
        for weights in WEIGHTS:
            row = {
                "power": power,
                "clicks": clicks,
                "weights": weights,
                "top": round(float(errors[weights].top.mean()), 4),
                "pairs": round(float(errors[weights].pairs.mean()), 4),
                "against none": (
                    None if weights == "none" else compared(errors[weights], errors["none"])
                ),
            }
            rows.append(row)
            print(show(row), flush=True)
    for row in rows:
        if row["power"] == 0 or row["against none"] is None:
            continue
        for name, change in row["against none"].items():
            label = f"{name}, {row['weights']} weights at power {row['power']}: change, high end"
            report.bar(label, change["95%"][1], below=0)
    report.close(rows=rows)


def show(row: Mapping[str, Any]) -> str:
    shown = []
    for name in RankingError._fields:
        change = row["against none"] and row["against none"][name]
        text = (
            f"{change['relative']:+.1%} [{change['95%'][0]:+.1%}, {change['95%'][1]:+.1%}]"
            if change
            else ""
        )
        shown.append(f"{row[name]:11.4f} {text:>25s}")
    return f"{row['power']:5.1f} {row['clicks']:8d}  {row['weights']:10s} {' '.join(shown)}"


if __name__ == "__main__":
    main()
