"""What the impression log says of bundles: the value of the first place of their lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from features.errors import DataError
from features.tables import ITEM, USER, Vocabulary
from recsys.bundle import Bundle
from recsys.simulation import Evaluation, evaluate_policies, from_impressions, importance_weights
from recsys.simulation.experiment.power import plan_mean, power_at
from recsys.simulation.report.parts import CurveLine, CurvePlot, EstimateLine, WeightsPart
from serving.impressions import join_feedback, read_feedback, read_impressions

__all__ = ["GateLog", "estimate_bundles", "first_items", "read_rounds"]

ESTIMATORS = ("snips", "dr")
"""What the gate decides by. The direct method alone is as good as its model, and nobody knows that;
plain IPS is noisier than both."""
LIFTS, MARKED_LIFT = (0.02, 0.05, 0.1), 0.05
"""Of the reward, for the plan of an experiment; relative."""
MOST_CELLS = 20_000_000  # of probabilities of all actions; beyond it weights alone are used


class GateLog(NamedTuple):
    """Estimates of bundles from one log.

    Attributes:
        estimates: by the name of the bundle.
        weights: their histograms.
        notes: what a reader must know, in sentences.
        power: of an experiment on the same reward. None: it never differs between users.
    """

    estimates: Mapping[str, tuple[EstimateLine, ...]]
    weights: tuple[WeightsPart, ...]
    notes: tuple[str, ...]
    power: CurvePlot | None = None


def read_rounds(shown: Path, done: Path, *, window_s: float) -> pl.DataFrame:
    """First places of the impression log, with their rewards.

    Args:
        shown: directory of the impression log.
        done: directory of the feedback log.
        window_s: seconds after which an event is no reward any more.

    Raises:
        DataError: the log is empty.
    """
    rows = read_impressions(shown).filter(pl.col("position") == 1)
    rows = rows.drop_nulls([USER, "propensity"])
    joined = join_feedback(rows.collect(), read_feedback(done), window_s=window_s)
    if joined.height == 0:
        raise DataError(
            f"{shown} must hold first places with a propensity, shown to users, got none; switch "
            "impressions.enabled on, or judge without --log"
        )
    return joined


def first_items(bundle: Bundle) -> dict[str, str]:
    """The first item of every user's list in a bundle.

    Raises:
        ArtifactError: the bundle has no candidates.
    """
    source = bundle.file("candidates")
    users: list[str] = pl.read_parquet(source / "users.parquet")[USER].to_list()
    first = load_file(source / "lists.safetensors")["item_index"][:, 0]
    ids = Vocabulary.load(bundle.file("data") / "items.parquet").to_series().to_list()
    pairs = zip(users, first.tolist(), strict=True)
    return {user: ids[item - 1] for user, item in pairs if item > 0}


def estimate_bundles(
    rounds: pl.DataFrame,
    first: Mapping[str, Mapping[str, str]],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> GateLog:
    """Value of showing every user the first item of their list at the first place.

    Rounds of users whom one of the bundles has no list for are left out, for all of them.

    Args:
        rounds: see `read_rounds`.
        first: name of a bundle to the first item by user.
        rng: folds of the reward model.
        level: of the intervals.

    Raises:
        DataError: no round is of a user that every bundle has a list for.
        ValueError: the log is not sound, such as a propensity above 1.
    """
    known = set.intersection(*(set(lists) for lists in first.values()))
    kept = rounds.filter(pl.col(USER).is_in(sorted(known)))
    if kept.height == 0:
        raise DataError(
            f"the log must hold users of {', '.join(first)}: none of its {rounds.height} rounds "
            "is of a user they all have a list for"
        )
    wanted = {name: [lists[user] for user in kept[USER]] for name, lists in first.items()}
    ids = sorted({*kept[ITEM].to_list(), *(item for items in wanted.values() for item in items)})
    log = from_impressions(kept, item_ids=ids).log
    column = {item: place for place, item in enumerate(ids)}
    notes = [
        f"The log says what the first place is worth, over {kept.height:,} of {rounds.height:,} "
        "rounds; the places below, and what business rules change later, are not in it."
    ]
    estimates, weights = {}, []
    for name, items in wanted.items():
        top = np.array([column[item] for item in items])
        chosen = (top == log.action).astype(np.float64)
        policy = chosen
        if len(log) * len(ids) <= MOST_CELLS or len(log) == len(ids):
            policy = np.zeros((len(log), len(ids)))
            policy[np.arange(len(log)), top] = 1.0
        table = evaluate_policies(log, {name: policy}, rng=rng, level=level)
        estimates[name] = _lines(table.policies[name], table.logger.value)
        weights.append(WeightsPart.from_weights(name, importance_weights(chosen, log.propensity)))
        notes += (note for note in table.notes if note not in notes)
    return GateLog(estimates, tuple(weights), tuple(notes), _power(kept))


def _lines(found: Evaluation, logger: float) -> tuple[EstimateLine, ...]:
    note = "; ".join(reason.text for reason in found.reasons)
    if found.verdict == "unusable":
        return (EstimateLine(found.policy, ESTIMATORS[0], None, verdict="unusable", note=note),)
    estimates = found.estimates()
    return tuple(
        EstimateLine(
            found.policy,
            name,
            estimates[name].value,
            estimates[name].low,
            estimates[name].high,
            estimates[name].value / logger - 1 if logger > 0 else None,
            found.verdict,
            note,
        )
        for name in _known(estimates)
    )


def _power(rounds: pl.DataFrame) -> CurvePlot | None:
    """Chance of finding a lift of the reward per shown first place, by users per arm."""
    reward = rounds.group_by(USER).agg(pl.col("reward").mean())["reward"].to_numpy()
    mean = float(reward.mean())
    spread = float(reward.std(ddof=1)) if reward.size > 1 else 0.0
    if mean <= 0 or spread == 0:
        return None
    needed = plan_mean(mean, spread, MARKED_LIFT).units[0]
    sizes = np.unique(np.geomspace(max(2, needed / 50), 8 * needed, 24).round())
    lines = []
    for lift in LIFTS:
        power = np.asarray(power_at(mean * lift, spread * np.sqrt(2 / sizes)))
        points = tuple(zip(sizes.tolist(), power.tolist(), strict=True))
        lines.append(CurveLine(f"lift of {lift:.0%}", points))
    return CurvePlot(
        tuple(lines),
        x_label="users per arm",
        percent=True,
        log_x=True,
        marked_x=float(needed),
        marked_label=f"80% for a lift of {MARKED_LIFT:.0%}",
    )


def _known(estimates: Mapping[str, object]) -> Sequence[str]:
    return [name for name in ESTIMATORS if name in estimates]
