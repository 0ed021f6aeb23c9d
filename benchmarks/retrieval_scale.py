"""How much memory does an epoch over a large catalogue take?

Synthetic ids: item popularity falls as a power of the rank, the number of events of a user is
log-normal. Towers of id rows alone, 64 dimensions, BSL with 1,024 shared negatives; row-wise
Adagrad keeps one number of state a row. Prints the peak resident memory of the whole process, the
data included, and the seconds of the epoch.

    python benchmarks/retrieval_scale.py [--items 1000000] [--users 2000000] [--events 20000000]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from reporting import Report, add_threads

from features.tables import Histories
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import TrainingOptions, train_two_tower
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.threads import torch_threads

BAR_GIB = 20.0


def synthetic(num_users: int, num_items: int, num_events: int, seed: int) -> Histories:
    """Events of every user, without order; items by a power law, log-normally many."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(sigma=1.0, size=num_users)
    counts = np.maximum(1, (num_events * share / share.sum()).astype(np.int64))
    counts[0] = max(1, counts[0] + num_events - int(counts.sum()))
    total = int(counts.sum())
    cumulative = np.cumsum(1.0 / np.arange(1, num_items + 1) ** 0.8)
    item_index = 1 + np.searchsorted(cumulative, rng.random(total) * cumulative[-1])
    return Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        item_index=np.minimum(item_index, num_items).astype(np.int64),
        timestamp=np.zeros(total, dtype=np.int64),
        weight=np.ones(total, dtype=np.float32),
    )


def peak_gib() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--batch-size", type=int, default=8192)
    add_threads(parser)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = Report("retrieval_scale", arguments, ("torch",))
    histories = synthetic(arguments.users, arguments.items, arguments.events, arguments.seed)
    events = histories.item_index.size
    report.data(f"{events:,} synthetic events; 64 dimensions, float32, one state number a row")
    data_gib = peak_gib()
    reports: list[EpochReport] = []
    start = time.perf_counter()
    with torch_threads(arguments.threads):
        train_two_tower(
            histories,
            num_items=arguments.items,
            towers=TowerOptions(use_user_id=True, pooling="none", id_dropout=0.0),
            training=TrainingOptions(
                loss="bsl",
                bsl_weight=1.1,
                epochs=1,
                batch_size=arguments.batch_size,
                events_per_user=4,
                negative_power=0.0,
                table_learning_rate=0.3,
                patience=0,
            ),
            seed=arguments.seed,
            on_epoch=reports.append,
        )
    peak = peak_gib()
    rows = [
        {
            "epoch s": round(reports[0].training_seconds, 1),
            "events/s": round(events / reports[0].training_seconds),
            "call s": round(time.perf_counter() - start, 1),
            "data GiB": round(data_gib, 2),
            "peak GiB": round(peak, 2),
        }
    ]
    report.table(rows)
    report.bar("peak GiB", peak, below=BAR_GIB)
    report.close(rows=rows)


if __name__ == "__main__":
    main()
