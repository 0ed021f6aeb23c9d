"""How near off-policy estimates come to the truth, and whether their intervals hold.

(a) The small Open Bandit Dataset: what Thompson sampling would have earned, from the random log,
    and the reverse, which must be refused. (b) A world whose value is known: bias, RMSE and
    coverage of every estimator.

    python benchmarks/ope_accuracy.py [--quick] [--seed 0] [--obp-python PYTHON]

RECSYS_DATA names the folder of obd_small; without it part (a) is left out. The interpreter of an
environment with obp 0.4.1 (it pins old packages) adds the agreement with its estimators.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from ope_world import BanditWorld, bandit_world, estimates_of_one_log, tables_of
from reporting import Report

from recsys.simulation import (
    dm,
    dr,
    dr_os,
    evaluate_policies,
    importance_weights,
    ips,
    read_open_bandit,
    replay,
    sndr,
    snips,
    switch_dr,
)

PRIORS = Path(__file__).with_name("obd_bts_priors.json")
OBP = Path(__file__).with_name("peers") / "obp_estimators.py"
SLOTS, DRAWS = 3, 100_000
ANCHORS = {"all": (1.198, 0.005), "men": (0.986, 0.01), "women": (1.481, 0.01)}
FIXED_LIMITS = ("clip 5", "clip 10", "clip 50")
Scores = dict[str, tuple[float, float, float, float]]  # bias, rmse, coverage, its standard error


def thompson(campaign: str, seed: int) -> np.ndarray:
    """[slots, K] probability of every item at every slot: the top draws of Beta(alpha, beta)."""
    prior = json.loads(PRIORS.read_text(encoding="utf-8"))[campaign]
    alpha, beta = np.array(prior["alpha"]), np.array(prior["beta"])
    rng = np.random.default_rng(seed)
    count = np.zeros((SLOTS, alpha.size))
    block = 10_000
    for _ in range(DRAWS // block):
        theta = rng.beta(alpha, beta, size=(block, alpha.size))
        best = np.argsort(-theta, axis=1)[:, :SLOTS]
        for slot in range(SLOTS):
            count[slot] += np.bincount(best[:, slot], minlength=alpha.size)
    return count / DRAWS


def open_bandit(directory: Path, seed: int, report: Report) -> None:
    """Part (a)."""
    agreeing = 0
    for campaign, (anchor, tolerance) in ANCHORS.items():
        log = read_open_bandit(directory, campaign=campaign, policy="random").log
        assert log.position is not None
        policy = thompson(campaign, 12345)[log.position - 1]
        rng = np.random.default_rng(seed)
        uniform = np.full(log.num_actions, 1.0 / log.num_actions)
        table = evaluate_policies(log, {"bts": policy}, rng=rng, logging=uniform)
        bts = table.policies["bts"]
        found = bts.estimates(force=True)
        relative = found["ips"].value / table.logger.value
        print(f"\n{campaign}: BTS from random, relative {relative:.4f} (anchor {anchor})")
        print(table.text())
        ends = {"at_least": anchor - tolerance, "at_most": anchor + tolerance}
        report.bar(f"Thompson sampling times random, {campaign}", relative, **ends)
        other = read_open_bandit(directory, campaign=campaign, policy="bts").log
        back = evaluate_policies(other, {"random": np.full(other.num_actions, uniform[0])}, rng=rng)
        print(f"{campaign}: random from BTS\n{back.text()}")
        if campaign == "women":
            reverse = back.policies["random"]
            name, size = "the reverse, women: effective rounds", reverse.diagnostics.effective_size
            refused = reverse.verdict == "unusable"
            report.judged(name, size, "refused as unusable", holds=refused)
        agreeing += bool(table.a_a_passes)
    report.bar("logs that agree with their own policy", agreeing, at_least=len(ANCHORS))


def agreement_with_obp(python: str, seed: int, report: Report) -> None:
    """The same arrays to obp and to ours."""
    rng = np.random.default_rng(seed)
    n, num_actions, limit, shrinkage = 5_000, 20, 3.0, 5.0
    logging = rng.dirichlet(np.ones(num_actions), size=n)
    policy = rng.dirichlet(np.full(num_actions, 0.4), size=n)
    action = (logging.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=num_actions - 1)
    reward, rewards = rng.normal(1, 1, n), rng.normal(1, 0.5, (n, num_actions))
    rows = np.arange(n)
    propensity = logging[rows, action]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "arrays.npz"
        np.savez(
            path, action=action, reward=reward, propensity=propensity, policy=policy,
            rewards=rewards, limit=limit, shrinkage=shrinkage,
        )  # fmt: skip
        done = subprocess.run([python, str(OBP), str(path)], stdout=subprocess.PIPE, check=True)
    theirs: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    weight = importance_weights(policy[rows, action], propensity)
    model = (weight, reward, rewards[rows, action], (policy * rewards).sum(axis=1))
    ours = (
        ips(weight, reward),
        snips(weight, reward),
        dm(model[3]),
        dr(*model),
        sndr(*model),
        switch_dr(*model, limit=limit),
        dr_os(*model, shrinkage=shrinkage),
        replay(policy.argmax(axis=1) == action, reward),
    )
    gap = max(abs(one.value - theirs[one.name]) for one in ours)
    print(f"\nobp: {len(theirs)} estimators on {n} rounds, largest difference {gap:.1e}")
    report.bar("estimators compared with obp", len(theirs), equal_to=len(ours))
    report.bar("largest difference to obp", gap, at_most=1e-9)


def scores_of(world: BanditWorld, rounds: int, replications: int, seed: int) -> Scores:
    """Every estimator on ``replications`` logs."""
    tables = tables_of(world)
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {}
    covers: dict[str, list[bool]] = {}
    for _ in range(replications):
        for name, one in estimates_of_one_log(world, tables, rounds, rng):
            values.setdefault(name, []).append(one.value - world.value)
            covers.setdefault(name, []).append(one.low <= world.value <= one.high)
    scores: Scores = {}
    for name, errors in values.items():
        error = np.array(errors)
        share = float(np.mean(covers[name]))
        around = float(np.sqrt(max(share * (1 - share), 1e-9) / replications))
        rmse = float(np.sqrt(np.square(error).mean()))
        scores[name] = (float(error.mean()), rmse, share, around)
    return scores


def print_scores(title: str, scores: Scores) -> None:
    print(f"\n{title}\n{'estimator':<14}{'bias':>9}{'RMSE':>9}{'coverage':>10}")
    for name, (bias, rmse, share, around) in scores.items():
        print(f"{name:<14}{bias:>9.4f}{rmse:>9.4f}{share:>9.3f} ± {1.96 * around:.3f}")


def synthetic(quick: bool, seed: int, report: Report) -> None:
    """Part (b)."""
    replications = 50 if quick else 200
    sizes = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    for num_actions in (10, 100, 1_000):
        world = bandit_world(num_actions, beta=-1.0, seed=seed + 1)
        for rounds in sizes:
            started = time.perf_counter()
            scores = scores_of(world, rounds, replications, seed + rounds + num_actions)
            title = f"{num_actions} actions, {rounds} rounds, {replications} replications, "
            title += f"value {world.value:.4f}, {time.perf_counter() - started:.0f} s"
            print_scores(title, scores)
            rmse = {name: score[1] for name, score in scores.items()}
            cell = f"{num_actions:,} actions, {rounds:,} rounds"
            clipping = rmse["clip chosen"] / min(rmse[name] for name in FIXED_LIMITS)
            name = f"{cell}: RMSE of chosen clipping by that of the best fixed limit"
            report.bar(name, clipping, at_most=1.0 + 1e-9)
            if num_actions == 10:
                weighted = max(rmse["SNIPS"], rmse["DR"])
                for label, ratio in (
                    ("SNIPS or DR by that of IPS", weighted / rmse["IPS"]),
                    ("IPS by that of DM", rmse["IPS"] / rmse["DM"]),
                ):
                    report.bar(f"{cell}: RMSE of {label}", ratio, below=1)
            if num_actions == 1_000:
                others = min(rmse["SNIPS"], rmse["DR"], rmse["IPS"])
                name = f"{cell}: RMSE of MIPS by that of the best of SNIPS, DR, IPS"
                report.bar(name, rmse["MIPS 64"] / others, below=1)
                name = f"{cell}: RMSE of SNMIPS by that of SNIPS"
                report.bar(name, rmse["SNMIPS 64"] / rmse["SNIPS"], below=1)
                name = f"{cell}: RMSE of MIPS in single cells by that of IPS"
                ratio = rmse["MIPS unique"] / rmse["IPS"]
                report.bar(name, ratio, at_least=0.85, at_most=1.15)
    many = 400 if quick else 4_000
    world = bandit_world(10, beta=0.0, seed=seed + 1)
    scores = scores_of(world, 10_000, many, seed + 5)
    print_scores(f"good overlap: uniform logger, 10 actions, 10000 rounds, {many} logs", scores)
    for name in ("SNIPS", "DR"):
        report.bar(f"coverage of {name}", scores[name][2], at_least=0.93, at_most=0.97)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50 replications, no 100k rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--obp-python", help="interpreter of an environment with obp 0.4.1")
    options = parser.parse_args()
    report = Report("ope_accuracy", options, ("scipy",))
    data = Path(os.environ.get("RECSYS_DATA", "")) / "obd_small"
    report.data(f"{'the small Open Bandit data, and ' if data.is_dir() else ''}simulated worlds")
    if data.is_dir():
        open_bandit(data, options.seed, report)
    else:
        print(f"part (a) left out: no {data}; set RECSYS_DATA")
    if options.obp_python:
        agreement_with_obp(options.obp_python, options.seed, report)
    synthetic(options.quick, options.seed, report)
    report.close()


if __name__ == "__main__":
    main()
