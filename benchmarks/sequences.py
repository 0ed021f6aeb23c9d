"""Does reading histories in their order find the next item?

Leave-one-out: of every user the last event is the test, the one before it validation, the rest is
trained on. All items are ranked but those of the history, which for the test includes the
validation event; HR@10 and NDCG@10 of the one item, means over all users with a bootstrap interval.
ML-1M in the order in which published comparisons have it (items with five ratings or more), ties as
SASRec's file has them; and once more with the order of events at the same second drawn. Both change
what the test item is: the published numbers are of the first. Its times are known for an eighth of
the rows and bounded for the rest; a row between two known times is put in the middle, and nothing
but "popular in 7 days" and the reader's intervals looks at them. Amazon Industrial and Scientific
(2018, 5-core) has an order and no times.

Rows: what was popular in the 7 days before the question, what followed the last item most often,
SASRec (benchmarks/peers/sasrec.py) with three losses, and our towers with ``pooling = "sequence"``.
Ours trains a fixed number of epochs on each user's newest 200 events, as the published models do,
and each SASRec for --peer-minutes a million events; all keep their best epoch on validation. The
last row of ours has then learned the validation event as well, as the published HSTU has; it is the
one that is held against the bars.

    python benchmarks/sequences.py [--data ml-1m ml-1m-ties amazon-scientific] [--quick]
        [--only "ours;SASRec, full"] [--epochs 24] [--peer-minutes 10] [--threads 2]

--quick: ml-1m alone, 5 epochs of ours, in a row of its own name, and 2 minutes a SASRec.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import recsys  # noqa: F401, before torch: how its threads wait is decided when it loads

# isort: split
import numpy as np
import polars as pl
from peers.sasrec import Loss, train_sasrec
from reporting import Report, add_threads, say
from retrieval_data import DATA, topk_lists

from features.tables import Histories
from recsys.evaluation import Truth, bootstrap_mean, judge
from recsys.evaluation.metrics import ndcg, recall
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import TrainingOptions, train_two_tower
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.threads import torch_threads

K = 10
MORE = 2  # epochs of ours with the validation event
DAY = 86_400_000_000  # microseconds
PUBLISHED = {  # HR@10, NDCG@10 on the original order
    "SASRec, BCE": (0.2392, 0.1259),
    "SASRec, softmax 256": (0.2929, 0.1684),
    "SASRec, full softmax": (0.2867, None),
    "eSASRec": (0.3133, 0.1772),
    "FuXi-alpha": (0.3164, 0.1813),
}
BAR, GOAL = PUBLISHED["eSASRec"], PUBLISHED["FuXi-alpha"]
LOSSES: Mapping[str, Loss] = {
    "SASRec, BCE": "bce",
    "SASRec, softmax 256": "sampled",
    "SASRec, full softmax": "full",
}
LOGS = ("ml-1m", "ml-1m-ties", "amazon-scientific")
TOWERS = TowerOptions(
    dim=256,
    pooling="sequence",
    history_length=200,
    reader_heads=4,
    id_dropout=0.0,
)
TRAINING = TrainingOptions(
    temperature=0.05,
    negatives=1_000_000,  # every item
    batch_size=12_800,
    table_learning_rate=0.1,
    final_learning_rate=0.05,
    history_dropout=0.0,
    example_events=200,
    patience=0,
    least_rank=0.0,
    low_precision=True,
    device="cpu",
)


@dataclass(frozen=True)
class Split:
    """One log, each user's last two events held out.

    Attributes:
        name: of the data.
        num_items: N.
        train: all but the last two events.
        validation: the last but one.
        test: the last.
    """

    name: str
    num_items: int
    train: Histories
    validation: Histories
    test: Histories


def load(name: str, seed: int) -> Split:
    """Read a log by its name; "ml-1m-ties" draws the order of ties."""
    if name == "amazon-scientific":
        frame = pl.read_parquet(DATA / name / "sequences.parquet").sort("user", "pos")
        user = frame["user"].to_numpy().astype(np.int64)
        item = frame["item"].to_numpy().astype(np.int64) + 1
        time_us = frame["pos"].to_numpy().astype(np.int64) * DAY
    else:
        frame = pl.read_parquet(DATA / "ml-1m" / "ratings.parquet")
        frame = frame.filter(pl.col("order").is_not_null()).sort("user_id", "order")
        low, high = pl.col("ts_lo"), pl.col("ts_hi")
        middle = pl.when(low.is_null()).then(high).when(high.is_null()).then(low)
        second = frame.select(middle.otherwise((low + high) // 2)).to_series().to_numpy()
        user = frame["user_id"].to_numpy().astype(np.int64) - 1
        if name == "ml-1m-ties":
            exact = frame.select((low == high).fill_null(False)).to_series().to_numpy()
            drawn = np.random.default_rng(seed).random(len(user))
            alone = (np.diff(second, prepend=-1) != 0) | (np.diff(user, prepend=-1) != 0) | ~exact
            order = np.lexsort((drawn, np.cumsum(alone)))  # moved within their second alone
            frame = frame[order]
        item = np.unique(frame["movie_id"].to_numpy(), return_inverse=True)[1].astype(np.int64) + 1
        begin = np.searchsorted(user, user)
        time_us = second * 1_000_000 + (np.arange(user.size) - begin)  # the order is a time
    counts = np.bincount(user)
    indptr = np.concatenate([[0], np.cumsum(counts[counts > 0])]).astype(np.int64)
    weight = np.ones(item.size, dtype=np.float32)
    whole = Histories(indptr, item, time_us, weight)
    from_end = np.repeat(indptr[1:], np.diff(indptr)) - np.arange(item.size)
    parts = [whole._keep(kept) for kept in (from_end > 2, from_end == 2, from_end == 1)]
    return Split(name, int(item.max()), *parts)


def joined(one: Histories, other: Histories) -> Histories:
    """The events of ``one`` and then those of ``other``, row by row."""
    row = np.concatenate([one.rows, other.rows])
    order = np.argsort(row, kind="stable")
    arrays = [
        np.concatenate([getattr(one, name), getattr(other, name)])[order]
        for name in ("item_index", "timestamp", "weight")
    ]
    return Histories(one.indptr + other.indptr, *arrays)


@dataclass(frozen=True)
class Found:
    """Test values of every user, and what it took."""

    hit: np.ndarray
    ndcg: np.ndarray
    validation: float
    seconds: float
    epochs: int


def judged(lists: np.ndarray, truth: Histories) -> tuple[np.ndarray, np.ndarray]:
    """[U] hit and [U] ndcg of lists [U, K]."""
    found = judge(lists, Truth.from_histories(truth))
    return recall(found, K), ndcg(found, K)


def found_by(
    lists: Callable[[Histories, Histories], np.ndarray],
    split: Split,
    seconds: float,
    epochs: int = 0,
) -> Found:
    """What lists [U, K] are worth that are made of what is known when the held-out event is."""
    whole = joined(split.train, split.validation)
    on_validation, _ = judged(lists(split.train, split.validation), split.validation)
    hit, gain = judged(lists(whole, split.test), split.test)
    return Found(hit, gain, float(on_validation.mean()), seconds, epochs)


def popular(split: Split) -> Found:
    """What was met most in the 7 days before each question."""
    whole = joined(joined(split.train, split.validation), split.test)
    order = np.argsort(whole.timestamp, kind="stable")
    time_us, item = whole.timestamp[order], whole.item_index[order]

    def lists(known: Histories, held: Histories) -> np.ndarray:
        end = np.searchsorted(time_us, held.timestamp)
        begin = np.searchsorted(time_us, held.timestamp - 7 * DAY)
        found = []
        for row, met in enumerate(rows_of(known)):
            counts = np.bincount(item[begin[row] : end[row]], minlength=split.num_items + 1)
            counts[met] = 0
            found.append(np.argsort(-counts[1:], kind="stable")[:K] + 1)
        return np.stack(found)

    return found_by(lists, split, 0.0)


def next_item(split: Split) -> Found:
    """What followed the last items most often, as our retriever of that name counts it."""
    began = time.perf_counter()
    model = CoOccurrenceRetriever.fit(
        split.train, split.num_items, direction="forward", half_life=2.0
    )
    seconds = time.perf_counter() - began

    def lists(known: Histories, _: Histories) -> np.ndarray:
        parts = (known.take(rows) for rows in np.array_split(np.arange(len(known)), 32))
        return np.concatenate(
            [
                model.retrieve(part, K, excluded=part.seen_mask(split.num_items)).item_index
                for part in parts
            ]
        )

    return found_by(lists, split, seconds)


def sasrec(split: Split, loss: Loss, seconds: float, seed: int) -> Found:
    def lists_of(
        encode: Callable[[list[np.ndarray]], np.ndarray], items: np.ndarray, known: Histories
    ) -> np.ndarray:
        return topk_lists(encode(rows_of(known)), items, known, k=K)

    def validate(encode: Callable[[list[np.ndarray]], np.ndarray], items: np.ndarray) -> float:
        return float(judged(lists_of(encode, items, split.train), split.validation)[0].mean())

    encode, items, epochs = train_sasrec(
        rows_of(split.train),
        split.num_items,
        loss=loss,
        seconds=seconds,
        validate=validate,
        seed=seed,
    )
    return found_by(lambda known, _: lists_of(encode, items, known), split, seconds, epochs)


def rows_of(histories: Histories) -> list[np.ndarray]:
    """The items of each row."""
    return np.split(histories.item_index, histories.indptr[1:-1])


def ours(split: Split, epochs: int, seed: int) -> list[Found]:
    """Our towers that read sequences, and the same after two more epochs with the validation event.

    The second is what one would serve. Both are judged on validation before they have learned it.
    """
    spent: list[float] = []

    def told(epoch: EpochReport) -> None:
        spent.append(epoch.training_seconds)
        say(f"{split.name}, ours: {epoch}")

    def lists(known: Histories, _: Histories) -> np.ndarray:
        return topk_lists(model.user_vectors(known), model.item_vectors, known, k=K)

    model = train_two_tower(
        split.train,
        num_items=split.num_items,
        validation=split.validation,
        towers=TOWERS,
        training=TRAINING.but(epochs=epochs),
        seed=seed,
        on_epoch=told,
    )
    chosen = found_by(lists, split, sum(spent), epochs)
    say(f"{split.name}, ours: HR@10 {chosen.hit.mean():.4f}, NDCG@10 {chosen.ndcg.mean():.4f}")
    model = train_two_tower(
        joined(split.train, split.validation),
        num_items=split.num_items,
        towers=TOWERS,
        training=TRAINING.but(
            epochs=MORE,
            learning_rate=0.2 * TRAINING.learning_rate,
            table_learning_rate=0.1 * TRAINING.table_learning_rate,
        ),
        start=model,
        seed=seed,
        on_epoch=told,
    )
    served = found_by(lists, split, sum(spent), epochs + MORE)
    return [chosen, replace(served, validation=chosen.validation)]


def shown(data: str, name: str, found: Found) -> dict[str, Any]:
    """A row of the table."""
    hit = bootstrap_mean(found.hit, rng=np.random.default_rng(0))
    gain = bootstrap_mean(found.ndcg, rng=np.random.default_rng(0))
    return {
        "row": f"{data}, {name}",
        "HR@10": round(hit.mean, 4),
        "95%": f"{hit.low:.4f}-{hit.high:.4f}",
        "NDCG@10": round(gain.mean, 4),
        "95% ndcg": f"{gain.low:.4f}-{gain.high:.4f}",
        "validation HR@10": round(found.validation, 4),
        "users": hit.users,
        "epochs": found.epochs or None,
        "train s": round(found.seconds),
    }


def rows(split: Split, arguments: argparse.Namespace) -> dict[str, Found]:
    """Every row of one log that is wanted."""
    wanted = arguments.only.split(";") if arguments.only else None
    mine = f"ours, {arguments.epochs} epochs"
    found: dict[str, Found] = {}

    def is_wanted(name: str) -> bool:
        if wanted is not None and not any(name.startswith(one.strip()) for one in wanted):
            return False
        say(f"{split.name}: {name}")
        return True

    def add(name: str, made: Callable[[], Found]) -> None:
        if is_wanted(name):
            found[name] = made()

    if is_wanted(mine):
        names = (mine, f"{mine}, then {MORE} with the validation event")
        found = dict(zip(names, ours(split, arguments.epochs, arguments.seed), strict=True))
    add("popular in 7 days", lambda: popular(split))
    add("next item", lambda: next_item(split))
    seconds = max(60.0, 60 * arguments.peer_minutes * split.train.item_index.size / 1e6)
    if split.name != "ml-1m-ties":
        for name, loss in LOSSES.items():
            add(name, partial(sasrec, split, loss, seconds, arguments.seed))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=LOGS, help="logs; default all")
    parser.add_argument("--epochs", type=int, default=24, help="of ours; default 24")
    parser.add_argument("--quick", action="store_true", help="ml-1m, 5 epochs of ours")
    parser.add_argument(
        "--peer-minutes",
        type=float,
        default=10.0,
        help="of a SASRec for a million events, at least 1; default 10",
    )
    parser.add_argument("--only", help="beginnings of rows, separated by ;")
    parser.add_argument("--seed", type=int, default=0)
    add_threads(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs, arguments.peer_minutes = 5, 2.0
    arguments.data = arguments.data or ([LOGS[0]] if arguments.quick else list(LOGS))
    report = Report("sequences", arguments, ("torch",))
    report.data(f"{', '.join(arguments.data)}, leave-one-out")
    table = []
    with torch_threads(arguments.threads):
        for name in arguments.data:
            split = load(name, arguments.seed)
            made = rows(split, arguments)
            table += [shown(name, row, found) for row, found in made.items()]
            if name == "ml-1m" and (reading := [row for row in made if row.startswith("ours")]):
                mine = made[reading[-1]]
                for measure, value, bar, goal in zip(
                    ("HR@10", "NDCG@10"), (mine.hit, mine.ndcg), BAR, GOAL, strict=True
                ):
                    report.bar(f"{measure}, ours", float(value.mean()), at_least=bar)
                    report.bar(f"{measure}, ours, goal", float(value.mean()), at_least=goal)
    report.table(table)
    published = [
        {"published, ml-1m": name, "HR@10": hit, "NDCG@10": gain}
        for name, (hit, gain) in PUBLISHED.items()
    ]
    report.table(published)
    report.close(rows=table)


if __name__ == "__main__":
    main()
