"""Does offline tell the truth? Twelve pipelines ranked from one log and by what they really do.

In a world fitted to MovieLens-1M (without it: to the bundled sample)

- honesty: simulated against logged rates per decile of score, clicks and conversions,
- speed: sessions a second of every way to draw a slate, one core,
- twelve pipelines that order the same candidates are judged by one exploring log (SNIPS of single
  places), by plain NDCG@10 of the clicks in the same log, and by an experiment with all twelve:
  Kendall's and Spearman's correlation with the truth, with bootstrap intervals over people,
- the same from a log without exploration: how many verdicts are "unusable".

    python benchmarks/offline_truth.py [--sessions 600000] [--seed 0]

RECSYS_DATA names the folder of ml-1m. One thread.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from reporting import Report
from scipy.stats import kendalltau, spearmanr

from features.tables import Histories
from recsys.config.experiment_design import ArmSettings
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.protocol import Retriever
from recsys.simulation.trial.log_estimates import estimate_from_log, place_weights
from recsys.simulation.world.arms import SimulatedArm, arm_from_scores, tables_of
from recsys.simulation.world.calibration import DecileRate
from recsys.simulation.world.fit import fit_world
from recsys.simulation.world.sessions import Behaviour, SessionLog, simulate_sessions

ROOT = Path(__file__).resolve().parents[1]
K, CANDIDATES, BLOCK, RESAMPLES = 10, 30, 1000, 200
SHARE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=600_000, help="of the log")
    parser.add_argument("--epsilon", type=float, default=0.5, help="of the logging arm")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = Report("offline_truth", options, ("scipy",))
    began = time.perf_counter()
    histories, num_items, name = read_log()
    report.data(
        f"a world fitted to {name}: {len(histories):,} users, {num_items:,} items, "
        f"{histories.item_index.size:,} events"
    )
    rng = np.random.default_rng(options.seed)
    world, honesty = fit_world(histories, num_items, rng=rng, held_out=1.0 - SHARE)
    print(f"world fitted in {time.perf_counter() - began:.0f} s")
    show_deciles("clicks", honesty.clicks)
    show_deciles("conversions", honesty.conversions)

    train, _ = histories.head_fraction(SHARE)
    arms = twelve_pipelines(train, num_items, rng)
    print(f"twelve pipelines fitted after {time.perf_counter() - began:.0f} s")
    logger = replace(
        arms[4],
        name="logger",
        settings=ArmSettings(ranker="epsilon", epsilon=options.epsilon, top=CANDIDATES),
    )
    tables = tables_of(world, [*arms, logger, replace(arms[4], name="greedy")])
    speeds = measure_speed(world, arms[0], rng)
    online = simulate_sessions(
        tables_of(world, arms), sessions=3_000_000, rng=rng, behaviour=Behaviour(), k=K
    ).people
    truth = np.array(
        [
            online.expected[online.arm == n].sum() / online.sessions[online.arm == n].sum()
            for n in range(len(arms))
        ]
    )
    log = read(tables, len(arms), options.sessions, rng)
    found = judge(log, logger, arms, truth, np.random.default_rng(options.seed + 1))
    greedy = read(tables, len(arms) + 1, 20_000, rng)
    verdicts = [estimate_from_log(greedy, tables.arms[-1], arm).diagnostics for arm in arms]
    refused = [d.verdict == "unusable" for d in verdicts]
    weight = [round(d.mean.value, 3) for d in verdicts]
    print(f"without exploration: {sum(refused)} of {len(arms)} unusable, mean weights {weight}")
    deciles = (*honesty.clicks, *honesty.conversions)
    explained = sum(d.explained() for d in deciles)
    report.bar("deciles within 10% or two standard errors", explained, at_least=len(deciles))
    report.close(
        **found,
        deciles_within_10_percent=sum(d.within() for d in deciles),
        deciles=len(deciles),
        worst_decile=round(max(abs(d.ratio - 1) for d in deciles), 3),
        refused_without_exploration=sum(refused),
        sessions_per_second=speeds,
    )


def read_log() -> tuple[Histories, int, str]:
    """The larger log there is, in order of each user's events."""
    data = Path(os.environ.get("RECSYS_DATA", "")) / "ml-1m/ratings.parquet"
    if os.environ.get("RECSYS_DATA") and data.is_file():
        frame = pl.read_parquet(data).select(
            user="user_id", item="movie_id", weight="rating", order="order", time="ts_hi"
        )
        # Not every moment is known; the order is, and the last known moment before holds.
        frame = frame.sort("user", "order").with_columns(
            pl.col("time").forward_fill().backward_fill().cum_max().over("user")
        )
        name = "ml-1m"
    else:
        frame = pl.read_parquet(ROOT / "examples/data/ratings.parquet").select(
            user="userId", item="movieId", weight="rating", time="timestamp"
        )
        frame, name = frame.sort("user", "time"), "bundled sample"
    user = frame["user"].rank("dense").cast(pl.Int64).to_numpy() - 1
    item = frame["item"].rank("dense").cast(pl.Int64).to_numpy()
    histories = Histories(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64),
        item_index=item,
        timestamp=frame["time"].cast(pl.Int64).to_numpy() * 1_000_000,
        weight=frame["weight"].cast(pl.Float32).to_numpy(),
    )
    return histories, int(item.max()), name


def twelve_pipelines(
    train: Histories, num_items: int, rng: np.random.Generator
) -> list[SimulatedArm]:
    """Good, middling and bad orders of the same candidates: the best by summed reciprocal ranks."""

    def item_item(l2: float, half_life: float | None) -> Retriever:
        return ItemItemRetriever.fit(train, num_items, l2=l2, half_life=half_life)

    def popular(days: float | None) -> Retriever:
        return PopularityRetriever.fit(train, num_items, window_days=days)

    def together(direction: str, window: int, power: float) -> Retriever:
        return CoOccurrenceRetriever.fit(
            train,
            num_items,
            direction=direction,
            window=window,
            popularity_power=power,  # type: ignore[arg-type]
        )

    fitted: dict[str, Retriever] = {
        "popular": popular(None),
        "popular, 30 days": popular(30.0),
        "item-item 300, recent": item_item(300.0, 10.0),
        "item-item 30, recent": item_item(30.0, 10.0),
        "item-item 3000, all": item_item(3000.0, None),
        "item-item 300, all": item_item(300.0, None),
        "item-item 300, last": item_item(300.0, 2.0),
        "together": together("both", 10, 0.5),
        "together, rare first": together("both", 10, 1.0),
        "next": together("forward", 5, 0.5),
    }
    moment = train.timestamp[train.indptr[1:] - 1] + 1
    score = {name: [] for name in fitted}
    pools = []
    for start in range(0, len(train), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(train)))
        asked = train.take(rows)
        seen = asked.seen_mask(num_items)
        total = np.zeros((rows.size, num_items + 1), dtype=np.float32)
        block = {}
        for name, retriever in fitted.items():
            question = retriever.ask(asked, moment=moment[rows], user_index=rows + 1)
            top = question.retrieve(CANDIDATES * 2, excluded=seen)
            real = top.item_index > 0
            at = np.maximum(top.item_index, 0)
            points = np.where(real, 1.0 / (10.0 + np.arange(top.item_index.shape[1])), 0.0)
            own = np.zeros_like(total)
            np.put_along_axis(own, at, points.astype(np.float32), axis=1)
            own[:, 0] = 0.0
            block[name] = own
            total += own
        pool = np.argsort(-total[:, 1:], axis=1, kind="stable")[:, :CANDIDATES] + 1
        pools.append(pool)
        for name, own in block.items():
            score[name].append(np.take_along_axis(own, pool, axis=1))
    pool = np.concatenate(pools)
    scores = {name: np.concatenate(parts) for name, parts in score.items()}
    scores["blend"] = sum(scores.values())  # type: ignore[assignment]
    best = scores["item-item 300, recent"]
    scores["item-item 300, noisy"] = best * rng.uniform(0.0, 2.0, best.shape)
    return [arm_from_scores(name, pool, value) for name, value in scores.items()]


def measure_speed(world: object, arm: SimulatedArm, rng: np.random.Generator) -> dict[str, int]:
    """Sessions a second by ranker, ten places of thirty candidates."""
    speeds = {}
    for ranker in ("default", "shuffle", "epsilon", "softmax"):
        one = replace(arm, settings=ArmSettings(ranker=ranker))  # type: ignore[arg-type]
        tables = tables_of(world, [one])  # type: ignore[arg-type]
        began = time.perf_counter()
        simulate_sessions(tables, sessions=300_000, rng=rng, k=K)
        speeds[ranker] = round(300_000 / (time.perf_counter() - began))
    print(f"sessions a second: {speeds}")
    return speeds


def read(tables: object, arm: int, sessions: int, rng: np.random.Generator) -> SessionLog:
    """A log of one arm."""
    log = simulate_sessions(
        tables,
        sessions=sessions,
        rng=rng,
        k=K,
        only=arm,
        logging_arm=arm,
        log_sessions=sessions,  # type: ignore[arg-type]
    ).log
    if log is None:
        raise RuntimeError("nothing was logged")
    return log


def judge(
    log: SessionLog,
    logger: SimulatedArm,
    arms: list[SimulatedArm],
    truth: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, object]:
    """Both ways to rank the arms from the log, against the truth."""
    unit = np.unique(log.person, return_inverse=True)[1]
    num, reward = int(unit.max()) + 1, log.click.astype(np.float64)
    top, below = np.empty((num, len(arms))), np.empty((num, len(arms)))
    for column, arm in enumerate(arms):
        weight = place_weights(log, logger, arm)
        top[:, column] = np.bincount(unit, weights=(weight * reward).sum(axis=1))
        below[:, column] = np.bincount(unit, weights=weight.sum(axis=1)) / K
    gain = ndcg_by_user(log, logger, arms)
    estimate, ndcg = top.sum(axis=0) / below.sum(axis=0), gain.mean(axis=0)
    print(f"{'pipeline':<24}{'truth':>8}{'snips':>8}{'ndcg':>8}")
    for row in np.argsort(-truth):
        print(f"{arms[row].name:<24}{truth[row]:8.4f}{estimate[row]:8.4f}{ndcg[row]:8.4f}")
    drawn: dict[str, list[tuple[float, float]]] = {"snips": [], "ndcg": []}
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(num, size=num), minlength=num)
        drawn["snips"].append(correlations((times @ top) / (times @ below), truth))
        again = rng.integers(len(gain), size=len(gain))
        drawn["ndcg"].append(correlations(gain[again].mean(axis=0), truth))
    found: dict[str, object] = {"pipelines": len(arms), "log_sessions": len(log)}
    for name, value in (("snips", estimate), ("ndcg", ndcg)):
        tau, rho = correlations(value, truth)
        low, high = np.quantile(np.array(drawn[name]), [0.025, 0.975], axis=0)
        chosen = float(truth[int(value.argmax())] / truth.max() - 1.0)
        found[name] = {
            "kendall": round(tau, 3),
            "kendall_interval": [round(float(low[0]), 3), round(float(high[0]), 3)],
            "spearman": round(rho, 3),
            "spearman_interval": [round(float(low[1]), 3), round(float(high[1]), 3)],
            "lost_by_choosing_its_best": round(chosen, 4),
        }
        print(f"{name}: {found[name]}")
    away = np.abs(estimate / truth - 1.0)
    found["snips_relative_error"] = {
        "mean": round(float(away.mean()), 4),
        "max": round(float(away.max()), 4),
    }
    return found


def ndcg_by_user(log: SessionLog, logger: SimulatedArm, arms: list[SimulatedArm]) -> np.ndarray:
    """[V, A] plain NDCG@10 of the items a user clicked in the log, users with a click."""
    clicked = np.zeros(logger.item_index.shape, dtype=bool)
    row, place = np.nonzero(log.click)
    clicked[log.user[row], log.rank[row, place]] = True
    asked = np.nonzero(clicked.any(axis=1))[0]
    discount = 1.0 / np.log2(np.arange(2, K + 2))
    most = np.minimum(clicked[asked].sum(axis=1), K)
    ideal = np.cumsum(discount)[most - 1]
    gains = []
    for arm in arms:
        same = arm.item_index[asked, :K, None] == logger.item_index[asked, None, :]
        hit = (same & clicked[asked, None, :]).any(axis=2)
        gains.append((hit * discount).sum(axis=1) / ideal)
    return np.stack(gains, axis=1)


def correlations(value: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    return float(kendalltau(value, truth).statistic), float(spearmanr(value, truth).statistic)


def show_deciles(name: str, deciles: list[DecileRate]) -> None:
    for number, one in enumerate(deciles, start=1):
        print(
            f"{name} decile {number:2}: logged {one.logged:.5f} +- {one.logged_error:.5f}, "
            f"simulated {one.simulated:.5f}, ratio {one.ratio:.3f}"
        )


if __name__ == "__main__":
    main()
