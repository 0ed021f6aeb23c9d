"""How fast does it train, next to what a user would otherwise run?

Two-tower retrieval from ids alone on Gowalla's published train part (810,128 events), 64
dimensions. Every contender is a process of its own that waits while others run. They
train one epoch each in turn, the order reversed from round to round; the first round is a warm-up
and not counted. Then, one contender at a time and from scratch, the seconds of training until
recall@20 on test reaches the targets. The test part is only the clock that stops this: nothing is
chosen by it, the whole train part is trained on, and evaluation time is not counted.

    python benchmarks/retrieval_speed.py [--quick] [--only "loop: BPR,ours: BPR"]
        [--rounds 3] [--loop-steps 200] [--targets 0.15 0.17] [--budget 900]

"loop": plain torch, dense Adam, negatives of every positive gathered on their own (see
retrieval_peers.py); its epoch is timed over --loop-steps steps and scaled to all, 0 for whole
epochs. Ours shares a step's negatives among its positives. RecBole 1.2.1 runs in its own
environment, on the same torch: set RECSYS_RECBOLE_PYTHON, see peers/recbole_bpr.py. --budget:
training seconds after which a contender gives up a target; one whose single epoch is longer is not
followed. --quick: one round, no targets.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers.worker import Answers, Worker
from reporting import Report, add_threads, say
from retrieval_data import Split, load_split, measure, topk_lists
from retrieval_ours import SPEED, Ours
from retrieval_peers import Implicit, Peer, TorchLoop

from recsys.threads import torch_threads

RECBOLE = "RecBole BPR"
RECBOLE_PYTHON = "RECSYS_RECBOLE_PYTHON"
LOOP: Mapping[str, Mapping[str, Any]] = {
    "loop: DirectAU": {"loss": "directau", "gamma": 5.0},
    "loop: softmax 256": {"loss": "softmax", "num_negatives": 256, "temperature": 0.08},
    "loop: softmax 800": {"loss": "softmax", "num_negatives": 800, "temperature": 0.08},
    "loop: BPR": {"loss": "bpr"},
}
FOREVER = 1_000_000  # epochs; the driver says when to stop


def contenders() -> list[str]:
    pairs = [name for loss in LOOP for name in (loss, loss.replace("loop", "ours"))]
    return [*pairs, "ours: BSL", RECBOLE, "implicit BPR", "implicit ALS"]


def make_peer(name: str, split: Split, *, threads: int, loop_steps: int | None) -> Peer:
    train, num_items = split.whole_train, split.num_items
    if name in LOOP:
        return TorchLoop(train, num_items, **LOOP[name], max_steps=loop_steps)
    if name == "implicit ALS":
        return Implicit.als(train, num_items, alpha=10.0, threads=threads)
    if name == "implicit BPR":
        return Implicit.bpr(train, num_items, learning_rate=0.03, threads=threads)
    return Ours(train, num_items, SPEED[name])


def serve(arguments: argparse.Namespace) -> None:
    """Be the worker ``arguments.worker``."""
    peer = make_peer(
        arguments.worker,
        load_split(arguments.data),
        threads=arguments.threads,
        loop_steps=arguments.loop_steps or None,
    )
    answers = Answers(lambda: (peer.user_vectors, peer.item_vectors))
    if answers.wait():
        return

    def after(epoch: int, seconds: float) -> bool:
        answers.report(epoch, seconds)
        return answers.wait()

    peer.fit(arguments.epochs, after)


def start(name: str, arguments: argparse.Namespace, events: Path, **extra: int) -> Worker:
    """A process that has read the data and waits; ``extra`` are options of the worker."""
    environment = {"OMP_NUM_THREADS": str(arguments.threads)}
    if name == RECBOLE:
        script = Path(__file__).parent / "peers" / "recbole_bpr.py"
        command = [os.environ[RECBOLE_PYTHON], str(script), str(events)]
        return Worker([*command, "--threads", str(arguments.threads)], environment)
    options = {"data": arguments.data, "threads": arguments.threads, **extra}
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    flags = [flag.replace("_", "-") if flag.startswith("--") else flag for flag in flags]
    return Worker([sys.executable, __file__, "--worker", name, *flags], environment)


def epoch_seconds(
    names: Sequence[str], arguments: argparse.Namespace, events: Path
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each counted epoch, and peak MiB, of every contender."""
    rounds = 1 if arguments.quick else arguments.rounds
    workers, seconds = {}, {name: [] for name in names}
    try:
        for name in names:
            workers[name] = start(
                name, arguments, events, epochs=rounds + 2, loop_steps=arguments.loop_steps
            )
        for turn in range(rounds + 1):
            for name in names if turn % 2 == 0 else reversed(names):
                took = workers[name].epoch()
                say(f"round {turn}: {name} {took:.2f} s an epoch")
                if turn:
                    seconds[name].append(took)
        return seconds, {name: worker.stop() for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.kill()


def recall_of(worker: Worker, split: Split) -> float:
    user, item = worker.vectors()
    lists = topk_lists(user, item, split.whole_train)
    return float(measure(lists, split.test, split.popularity).recall.mean())


def seconds_to_reach(
    name: str,
    targets: Sequence[float],
    arguments: argparse.Namespace,
    events: Path,
    recall: Callable[[Worker], float],
) -> dict[str, Any]:
    """Training seconds until each target, None where the budget ended first; best recall seen."""
    found: dict[str, Any] = {str(target): None for target in targets}
    best, trained = 0.0, 0.0

    def look(worker: Worker, epochs: int, took: float) -> bool:
        nonlocal best
        reached = recall(worker)
        best = max(best, reached)
        say(f"{name}: recall@20 {reached:.4f} after {epochs} epochs, {took:.1f} s")
        for target in targets:
            if reached >= target and found[str(target)] is None:
                found[str(target)] = {"seconds": round(took, 1), "epochs": epochs}
        return None not in found.values() or took > arguments.budget

    worker = start(name, arguments, events, epochs=FOREVER, loop_steps=0)
    try:
        epochs, next_look = 0, 1
        while True:
            trained += worker.epoch()
            epochs += 1
            if epochs < next_look:
                continue
            if look(worker, epochs, trained):
                break
            next_look = max(epochs + 1, int(1.1 * epochs))
    finally:
        worker.kill()
    return found | {"best recall@20": round(best, 4)}


def shown(rows: Sequence[Mapping[str, Any]], targets: Sequence[float]) -> list[dict[str, Any]]:
    """The rows with a column for each target."""
    table = []
    for row in rows:
        found = {name: value for name, value in row.items() if name != "reached"}
        for target in targets:
            reached = row["reached"][str(target)]
            found[f"s to {target:g}"] = reached and reached["seconds"]
            found[f"epochs to {target:g}"] = reached and reached["epochs"]
        if targets:
            found["best recall@20"] = row["reached"]["best recall@20"]
        table.append(found)
    return table


def hold(
    report: Report, rows: Sequence[Mapping[str, Any]], targets: Sequence[float], budget: float
) -> None:
    by_name = {row["system"]: row for row in rows}
    for loss in ("DirectAU", "softmax 256", "softmax 800"):
        loop, own = by_name.get(f"loop: {loss}"), by_name.get(f"ours: {loss}")
        if loop and own:
            times = round(loop["epoch s"] / own["epoch s"], 1)
            report.bar(f"{loss}: times as fast as the loop", times, at_least=6)
    if not targets:
        return
    key = str(max(targets))
    seconds = {row["system"]: row["reached"][key]["seconds"] for row in rows if row["reached"][key]}
    own = [took for name, took in seconds.items() if name.startswith("ours")]
    peers = [took for name, took in seconds.items() if not name.startswith("ours")]
    if own:
        first = min(peers, default=budget)  # of no peer it is known to be longer
        report.bar(f"seconds to {key}, ours; the first peer's", min(own), below=first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="gowalla")
    add_threads(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop-steps", type=int, default=200)
    parser.add_argument("--targets", type=float, nargs="*", default=[0.15, 0.17])
    parser.add_argument("--budget", type=float, default=900.0)
    parser.add_argument("--only", help="names of contenders, separated by commas")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with torch_threads(arguments.threads):
        if arguments.worker:
            serve(arguments)
        else:
            run(arguments, chosen_names(parser, arguments))


def chosen_names(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """The contenders asked for that can run here."""
    names = contenders()
    if arguments.only:
        chosen = [name.strip() for name in arguments.only.split(",")]
        unknown = set(chosen) - set(names)
        if unknown:
            parser.error(f"--only: unknown {sorted(unknown)}; known: {', '.join(names)}")
        names = chosen
    if RECBOLE in names and not os.environ.get(RECBOLE_PYTHON):
        names.remove(RECBOLE)
        say(f"{RECBOLE}: left out, {RECBOLE_PYTHON} is not set (see peers/recbole_bpr.py)")
    return names


def run(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    report = Report("retrieval_speed", arguments, ("torch", "implicit"))
    targets = [] if arguments.quick else arguments.targets
    split = load_split(arguments.data)
    whole = split.whole_train
    report.data(
        f"{split.name}, {len(whole)} users, {split.num_items} items, "
        f"{whole.item_index.size} training events; 64 dimensions; seed 0; "
        f"loop timed over {arguments.loop_steps or 'all'} steps an epoch"
    )
    reached: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        events = Path(directory) / "events.npz"
        np.savez(
            events,
            row=whole.rows,
            item_index=whole.item_index,
            num_users=len(whole),
            num_items=split.num_items,
        )
        seconds, peak = epoch_seconds(names, arguments, events)
        if targets:
            recall = partial(recall_of, split=split)
            for name in names:
                if statistics.median(seconds[name]) > arguments.budget:
                    say(f"{name}: one epoch is longer than the budget, not followed")
                    reached[name] = dict.fromkeys(map(str, targets)) | {"best recall@20": None}
                    continue
                reached[name] = seconds_to_reach(name, targets, arguments, events, recall)

    rows = []
    for name in names:
        loop = seconds.get(name.replace("ours", "loop"), []) if name.startswith("ours") else []
        median = statistics.median(seconds[name])
        rows.append(
            {
                "system": name,
                "epoch s": round(median, 3),
                "epoch s range": [round(min(seconds[name]), 3), round(max(seconds[name]), 3)],
                "times the loop": round(statistics.median(loop) / median, 1) if loop else None,
                "reached": reached.get(name),
                "peak MiB": round(peak[name]),
            }
        )
    report.table(shown(rows, targets))
    hold(report, rows, targets, arguments.budget)
    report.close(rows=rows)


if __name__ == "__main__":
    main()
