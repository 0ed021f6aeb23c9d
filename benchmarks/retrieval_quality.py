"""How good is retrieval from ids alone, next to what a user would otherwise run?

A fixed, published train/test split; 10% of every user's train items, at random, are validation.
Every system chooses its settings and its number of epochs by recall@20 on validation, then is
fitted on the whole published train part with them, once a seed, and judged on test (of ours, whose
learning rate falls to the end, whole schedules are compared, not their epochs): recall@20 =
hits / number of test items, ndcg@20 with the ideal cut at min(20, number of test items), training
items masked, the full catalogue ranked, the mean over users with a test item. Intervals are
bootstraps over users of the mean of the seeds. Tail: recall of the test items in the less popular
half of the catalogue. Head: share of the lists taken by the most popular tenth. Peak: resident
memory of the process so far, which never falls; --only tells that of one row.

The published numbers were selected on the test part, which is worth 1 to 2%. What it is worth for
one of ours stands below them: the same grid, the best of it on test. It is no bar and no result.
"ours: what recsys train chooses" is the graph filter where nothing is said: that of the two widths
which `recsys train` tries on every log that is better on its validation part; --quick tries both as
well. Its bar is 99% of the best published matrix factorisation.

    python benchmarks/retrieval_quality.py --data ml-1m-lcfn|gowalla [--quick] [--seeds 3]
        [--only "popularity,ours: softmax"]

--quick: one seed, and the peers with the settings that the full search chose (the first of each
grid below). The data: see retrieval_data.py. The options of ours: see retrieval_ours.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from reporting import Report, add_threads, say
from retrieval_counted import COUNTED, Counted, Scorer
from retrieval_data import K, Measured, Split, average, load_split, measure, topk_lists
from retrieval_ours import QUALITY, Ours
from retrieval_peers import Implicit, OnEpoch, Peer, Popularity, TorchLoop
from retrieval_scale import peak_gib

from features.tables import Histories
from recsys.evaluation import bootstrap_mean, paired_difference
from recsys.threads import torch_threads

PUBLISHED = {  # recall@20, ndcg@20; the methods' authors' logs and the BARS benchmark
    "ml-1m-lcfn": {
        "LightGCN": (0.2576, 0.2427),
        "SimpleX": (0.2802, 0.2670),
        "MF-BSL": (0.2804, 0.2681),
        "MF-SL": (0.2809, 0.2662),
    },
    "gowalla": {
        "MF-BPR": (0.1627, 0.1378),
        "MF-SL": (0.1759, 0.1395),
        "EASE": (0.1765, 0.1467),
        "LightGCN": (0.1830, 0.1554),
        "SimpleX": (0.1872, 0.1557),
        "MF-BSL": (0.1882, 0.1584),
        "LightGCN-BSL": (0.1892, 0.1590),
    },
}
TRAIN = "ours: what recsys train chooses"
ON_TEST = ("ours: graph filter",)  # the rows that are chosen on test as well
BARS = {  # recall@20, ndcg@20 of what is counted or solved
    "ml-1m-lcfn": {
        TRAIN: (0.99 * 0.2809, 0.99 * 0.2681),
        "ours: EASE": (0.2761, 0.2677),
        "ours: DAN-EASE": (0.2803, 0.2702),
        "ours: graph filter": (0.2821, 0.2694),
        "ours: item-item + graph filter": (0.2840, 0.2733),
    },
    "gowalla": {
        TRAIN: (0.99 * 0.1882, 0.99 * 0.1584),
        "ours: EASE": (0.1765, 0.1467),
        "ours: graph filter": (0.1941, 0.1616),
    },
}
ALS: dict[str, dict[str, list[float]]] = {
    "ml-1m-lcfn": {"alpha": [10, 4, 40], "regularization": [10.0, 1.0, 50.0]},
    "gowalla": {"alpha": [40, 10, 4], "regularization": [1.0, 10.0, 50.0]},
}
TORCH_BPR = {
    "ml-1m-lcfn": [(5e-3, 1e-3), (2e-3, 1e-3), (5e-3, 1e-4), (2e-3, 1e-4)],
    "gowalla": [(1e-3, 1e-3), (1e-3, 5e-4), (2e-3, 1e-3), (5e-3, 3e-3), (1e-2, 1e-4)],
}  # learning rate of Adam, l2
VALIDATION_USERS = 8_000  # at most so many, the same ones for every system
Settings = Mapping[str, Any]
Make = Callable[[Histories, int, Settings, int], Peer | Counted]


class Row(NamedTuple):
    """How one system is chosen.

    Attributes:
        make: (train, num_items, settings, seed) -> the system, not fitted.
        grid: settings tried, the one that a full search chose first.
        epochs: at most.
        every: epochs between two looks at validation.
        patience: looks without a better recall before it stops.
    """

    make: Make
    grid: Sequence[Settings]
    epochs: int
    every: int = 1
    patience: int = 3


class Choice(NamedTuple):
    """What validation chose."""

    settings: Settings
    epochs: int
    recall: float


def product(**values: Sequence[Any]) -> list[Settings]:
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def popularity(train: Histories, num_items: int, _: Settings, __: int) -> Peer:
    return Popularity(train, num_items)


def implicit_als(train: Histories, num_items: int, settings: Settings, seed: int) -> Peer:
    return Implicit.als(train, num_items, **settings, seed=seed)


def implicit_bpr(train: Histories, num_items: int, settings: Settings, seed: int) -> Peer:
    return Implicit.bpr(train, num_items, **settings, seed=seed)


def torch_bpr(train: Histories, num_items: int, settings: Settings, seed: int) -> Peer:
    return TorchLoop(train, num_items, loss="bpr", batch_size=8192, **settings, seed=seed)


def ours(train: Histories, num_items: int, settings: Settings, seed: int) -> Peer:
    return Ours(train, num_items, settings, seed=seed)


def counted(
    train: Histories, num_items: int, settings: Settings, _: int, *, fitted: dict[str, Scorer]
) -> Counted:
    return Counted(train, num_items, settings, fitted)


def rows_of(data: str, *, quick: bool) -> dict[str, Row]:
    rows = {
        "popularity": Row(popularity, [{}], 1),
        "implicit ALS": Row(
            implicit_als,
            product(**ALS[data]),
            20,
            5,
        ),
        "implicit BPR": Row(
            implicit_bpr,
            product(learning_rate=[0.01, 0.003, 0.03, 0.1], regularization=[0.001, 0.01]),
            400,
            20,
        ),
        "MF-BPR, torch": Row(
            torch_bpr,
            [{"learning_rate": rate, "l2": l2} for rate, l2 in TORCH_BPR[data]],
            200,
            10 if data == "gowalla" else 5,
        ),
    }
    for name, options in QUALITY.items():
        epochs = options[data]["epochs"]
        schedules = [{**options[data], "epochs": number} for number in (epochs, epochs // 2)]
        rows[name] = Row(ours, schedules, epochs)
    for name, grids in COUNTED.items():
        if data in grids:
            rows[name] = Row(partial(counted, fitted={}), grids[data], 1)
    if quick:
        first = {name: row._replace(grid=row.grid[:1]) for name, row in rows.items()}
        rows = first | {TRAIN: rows[TRAIN]}
    return rows


def lists_of(peer: Peer | Counted, train: Histories, users: np.ndarray) -> np.ndarray:
    """[n, K] items of rows ``users`` of ``train``, those of the row left out."""
    if isinstance(peer, Counted):
        return peer.lists(users)
    return topk_lists(peer.user_vectors[users], peer.item_vectors, train.take(users))


def validation_recall(peer: Peer | Counted, split: Split, users: np.ndarray) -> float:
    lists = lists_of(peer, split.train, users)
    return float(measure(lists, split.validation.take(users), split.popularity).recall.mean())


def choose(name: str, row: Row, split: Split) -> Choice:
    """The settings and the number of epochs with the best recall@20 on validation."""
    if name == "popularity":
        return Choice(row.grid[0], 1, float("nan"))
    users = np.flatnonzero(split.validation.counts)
    users = np.random.default_rng(0).permutation(users)[:VALIDATION_USERS]
    best = Choice({}, 0, -1.0)
    for settings in row.grid:
        if row.make is ours:
            own = Ours(split.train, split.num_items, settings)
            own.fit(settings["epochs"], progress(name))
            found = Choice(settings, settings["epochs"], validation_recall(own, split, users))
        else:
            peer = row.make(split.train, split.num_items, settings, 0)
            found = follow(peer, row, settings, partial(validation_recall, peer, split, users))
        say(f"{name}: {plain(found.settings)} -> {found.recall:.4f} after {found.epochs} epochs")
        best = max(best, found, key=lambda choice: choice.recall)
    return best


def follow(
    peer: Peer | Counted, row: Row, settings: Settings, recall: Callable[[], float]
) -> Choice:
    """Fit while looking at validation every few epochs."""
    best, waited = Choice(settings, 0, -1.0), 0

    def look(epoch: int, seconds: float) -> bool:
        nonlocal best, waited
        if epoch % row.every:
            return False
        found = Choice(settings, epoch, recall())
        waited = 0 if found.recall > best.recall else waited + 1
        best = max(best, found, key=lambda choice: choice.recall)
        return waited >= row.patience

    peer.fit(row.epochs, look)
    return best


def progress(name: str) -> OnEpoch:
    def after(epoch: int, seconds: float) -> bool:
        say(f"{name}: epoch {epoch}, {seconds:.1f} s")
        return False

    return after


def refit(row: Row, choice: Choice, split: Split, seed: int) -> tuple[Measured, float]:
    """What the chosen system does on test, and the seconds its training took."""
    took = 0.0

    def add(epoch: int, seconds: float) -> bool:
        nonlocal took
        took += seconds
        return False

    train = split.whole_train
    peer = row.make(train, split.num_items, choice.settings, seed)
    peer.fit(choice.epochs, add)
    lists = lists_of(peer, train, np.arange(len(train)))
    return measure(lists, split.test, split.popularity), took


def chosen_on_test(name: str, row: Row, split: Split) -> dict[str, Any]:
    """The best of the row's grid by what nobody may choose by."""
    runs = [
        (settings, refit(row, Choice(settings, 1, float("nan")), split, 0)) for settings in row.grid
    ]
    settings, run = max(runs, key=lambda found: float(found[1][0].recall.mean()))
    label = f"chosen on test: {name.removeprefix('ours: ')}"
    return table_row(label, Choice(settings, 1, float("nan")), [run])


def table_row(name: str, choice: Choice, runs: Sequence[tuple[Measured, float]]) -> dict[str, Any]:
    measured = [run for run, _ in runs]
    mean = average(measured)
    row: dict[str, Any] = {"system": name, "seeds": len(runs), "users": mean.recall.size}
    for metric in ("recall", "ndcg"):
        interval = bootstrap_mean(getattr(mean, metric), rng=np.random.default_rng(0))
        by_seed = [float(getattr(run, metric).mean()) for run in measured]
        row[f"{metric}@{K}"] = round(interval.mean, 4)
        row[f"{metric}@{K} 95%"] = [round(interval.low, 4), round(interval.high, 4)]
        row[f"{metric}@{K} spread"] = round(float(np.ptp(by_seed)), 4)
    return row | {
        "tail": round(float(mean.tail_recall.mean()), 4),
        "head": round(mean.head_share, 3),
        "coverage": round(mean.coverage, 3),
        "validation": None if np.isnan(choice.recall) else round(choice.recall, 4),
        "epochs": choice.epochs,
        "settings": plain(choice.settings),
        "seconds": round(float(np.mean([took for _, took in runs])), 1),
        "peak GiB": round(peak_gib(), 2),
    }


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values; of settings within settings only what is no default."""
    found = {}
    for name, value in settings.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            usual = type(value)()
            for field in dataclasses.fields(value):
                if getattr(value, field.name) != getattr(usual, field.name):
                    found[field.name] = getattr(value, field.name)
        else:
            found[name] = value
    return found


def published_rows(published: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """For the same table; they were selected on test."""
    return [
        {"system": f"published: {name}", "recall@20": recall, "ndcg@20": ndcg}
        for name, (recall, ndcg) in published.items()
    ]


def hold(
    report: Report,
    rows: Sequence[Mapping[str, Any]],
    published: Mapping[str, tuple[float, float]],
    quick: bool,
) -> None:
    """Our best row by validation against the best published number of each metric."""
    own = [row for row in rows if row["system"].startswith("ours") and row["validation"]]
    if not own:
        return
    chosen = max(own, key=lambda row: row["validation"])
    for place, metric in enumerate(("recall@20", "ndcg@20")):
        best = max(pair[place] for pair in published.values())
        for label, share in (("bar", 0.97 if quick else 0.99), ("goal", 1.0)):
            name = f"{metric} of {chosen['system']}, {label}: {share:g} of the best published"
            report.bar(name, chosen[metric], at_least=share * best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(PUBLISHED), default="ml-1m-lcfn")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="names of rows, separated by commas")
    add_threads(parser)
    arguments = parser.parse_args()
    with torch_threads(arguments.threads):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    report = Report("retrieval_quality", arguments, ("torch", "implicit"))
    seeds = range(1 if arguments.quick else arguments.seeds)
    split = load_split(arguments.data)
    report.data(
        f"{split.name}, {len(split.train)} users, {split.num_items} items, "
        f"{split.whole_train.item_index.size} training events of which "
        f"{split.validation.item_index.size} are validation while choosing, "
        f"{split.test.item_index.size} test events"
    )
    wanted = rows_of(arguments.data, quick=arguments.quick)
    if arguments.only:
        wanted = {name.strip(): wanted[name.strip()] for name in arguments.only.split(",")}
    rows, runs = [], {}
    for name, row in wanted.items():
        choice = choose(name, row, split)
        runs[name] = [
            refit(row, choice, split, seed) for seed in (seeds[:1] if row.epochs == 1 else seeds)
        ]
        rows.append(table_row(name, choice, runs[name]))
        say(f"{name}: recall@20 {rows[-1]['recall@20']:.4f}, ndcg@20 {rows[-1]['ndcg@20']:.4f}")
    published = PUBLISHED[arguments.data]
    columns = [name for name in rows[0] if name not in ("users", "settings")]
    flattered = [
        chosen_on_test(name, row, split)
        for name, row in wanted.items()
        if name in ON_TEST and len(row.grid) > 1
    ]
    report.table([*rows, *flattered, *published_rows(published)], columns)
    own = [row["system"] for row in rows if row["system"].startswith("ours")]
    peers = [row for row in rows if not row["system"].startswith("ours")]
    if own and peers:
        peer = max(peers, key=lambda row: row["recall@20"])["system"]
        mean = {name: average([run for run, _ in found]) for name, found in runs.items()}
        print()
        for name in own:
            gap = paired_difference(
                mean[name].recall, mean[peer].recall, rng=np.random.default_rng(0)
            )
            print(
                f"recall@20, {name} minus {peer}: {gap.mean:+.4f} [{gap.low:+.4f}, "
                f"{gap.high:+.4f}], p {gap.p:.4f}, {gap.users} users"
            )
    hold(report, rows, published, arguments.quick)
    for row in rows:
        anchors = BARS[arguments.data].get(row["system"], ())
        for metric, anchor in zip(("recall@20", "ndcg@20"), anchors, strict=False):
            report.bar(f"{metric} of {row['system']}", row[metric], at_least=anchor - 5e-5)
    report.close(rows=[*rows, *flattered], published=published)


if __name__ == "__main__":
    main()
