"""Does denoising help when a known share of the training events is false?

False events are added to the published train part: items the user never met, drawn uniformly, never
a held-out one, so every hit on test is still possible. Then a tenth of every user's events, false
ones among them, is validation: what is chosen is chosen on that, as anyone would have to. Models
are matrix factorisations by our trainer (64 wide), trained on the other nine tenths, and judged on
the clean test part: recall@20 = hits / number of test items, training and validation events masked,
the mean over users. Tail: recall of the test items in the less popular half of the catalogue.

Five questions, each answered by the relative change of both, with a paired bootstrap over users
(of the means of the seeds): PLD against BPR with the same sampling of users and no resampling; the
denoised softmax that is best on validation against the best plain one; the softmax with graph
smoothing, which is no denoising by name, against the one without; the denoised DirectAU that is
best on validation against the plain one; and the best DirectAU, denoised or not, against the best
softmax, denoised or not. With a share of 0 they say what denoising costs where nothing is false.

    python benchmarks/retrieval_noise.py [--data ml-1m-lcfn|gowalla] [--shares 0 0.2 0.4] [--quick]
        [--seeds 1] [--only "softmax,BSL"]

DirectAU's settings on ML-1M are the best of these by recall@20 on the validation part of one seed
with 20% false events: gamma .25, .35, .5, 1; uniformity over the events of a batch or over its
distinct items; score "dot" or "cosine" (trained on unit vectors both times: the length of an item's
vector is a prior for popular items, which "cosine" drops, and with it a tenth of the recall). gamma
.5, distinct items, dot: .161; gamma 1: .135; over events with gamma 1: .115, cosine .101, each in
20 epochs; gamma .35 and .25, in 12 epochs: .084 and .055, the vectors collapse. On Gowalla gamma is
the paper's, not chosen here. Products are in bfloat16, which was not searched.

--quick: a third of the epochs. False picks: the share of false events among those a method trains
on at the end (PLD: what it picks; truncated: what it keeps; reweighted: by weight). The data: see
retrieval_data.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from reporting import Report, add_threads
from retrieval_data import (
    K,
    Measured,
    Split,
    add_false_interactions,
    average,
    carve,
    load_split,
    measure,
    topk_lists,
)
from retrieval_matrix import are_among, false_picks, rows_of_users, train_matrix

from recsys.evaluation import paired_difference
from recsys.retrieval.training import TrainingOptions
from recsys.threads import torch_threads

DATA: Mapping[str, Mapping[str, Any]] = {
    "ml-1m-lcfn": {
        "epochs": 20,
        "temperature": 0.15,
        "bsl": 1.03,
        "smoothing": 0.05,
        "directau": {"epochs": 12, "gamma": 0.5, "distinct_items": True},
    },
    "gowalla": {
        "epochs": 24,
        "temperature": 0.08,
        "bsl": 1.22,
        "smoothing": 0.25,
        "directau": {"epochs": 12, "gamma": 5.0},
    },
}
BPR = "BPR by users"
PLD = "BPR by users with PLD"
SOFTMAX, SMOOTHED = "softmax", "softmax with smoothing"
PLAIN = (SOFTMAX, "BSL")
DENOISED = ("truncated", "reweighted", "PLD on softmax", "PSL")
DIRECTAU = "DirectAU"
DENOISED_DIRECTAU = ("DirectAU truncated", "DirectAU reweighted", "PLD on DirectAU")
PAIRS_OF_SOFTMAX = (SOFTMAX, *DENOISED[:3])


class Found(NamedTuple):
    """One method on one noisy train part.

    Attributes:
        validation: recall@20 on the noisy validation part, mean over the seeds.
        test: on the clean test part, mean over the seeds.
        false_picks: share of false events it trains on in the end.
    """

    validation: float
    test: Measured
    false_picks: float


def methods(data: str) -> dict[str, dict[str, Any]]:
    """`TrainingOptions` of every method."""
    chosen = DATA[data]
    epochs = chosen["epochs"]
    softmax = {
        "epochs": epochs,
        "loss": "sampled_softmax",
        "temperature": chosen["temperature"],
        "table_learning_rate": 0.2,
        "batch_size": 2048,
        "events_per_user": 64,
        "negatives": 1024,
        "warmup_epochs": max(1, epochs // 4),
    }
    bpr = {
        "epochs": epochs,
        "loss": "bpr",
        "score": "dot",
        "temperature": 1.0,
        "users": "alike",
        "warmup_epochs": min(5, epochs // 2),
    }
    bsl = {"loss": "bsl", "bsl_weight": chosen["bsl"]}
    directau = {
        "loss": "directau",
        **chosen["directau"],
        "score": "dot",
        "table_learning_rate": 0.2,
        "batch_size": 1024,
        "temperature": chosen["temperature"],
        "negatives": 256,  # denoising alone looks at them
        "low_precision": True,
        "warmup_epochs": 3,
    }
    return {
        BPR: bpr,
        PLD: bpr | {"denoising": "pld"},
        SOFTMAX: softmax,
        SMOOTHED: softmax | {"smoothing": chosen["smoothing"]},
        "BSL": softmax | bsl,
        "truncated": softmax | {"denoising": "truncated"},
        "reweighted": softmax | {"denoising": "reweighted"},
        "PLD on softmax": softmax | {"denoising": "pld"},
        "PSL": softmax | {"loss": "psl"},
        DIRECTAU: directau,
        "DirectAU truncated": directau | {"denoising": "truncated"},
        "DirectAU reweighted": directau | {"denoising": "reweighted"},
        "PLD on DirectAU": directau | {"denoising": "pld"},
    }


def tried(name: str, options: Mapping[str, Any], split: Split, share: float, seeds: range) -> Found:
    """Train a method on ``split`` with ``share`` of false events, once a seed."""
    noisy = add_false_interactions(
        split.whole_train,
        share,
        forbidden=[split.test],
        num_items=split.num_items,
        rng=np.random.default_rng(0),
    )
    train, validation = carve(noisy.histories, 0.1, rng=np.random.default_rng(1))
    is_false = ~are_among(train, split.whole_train)
    recalls, tests, picks = [], [], []
    for seed in seeds:
        label = f"+{share:.0%}, {name}, seed {seed}"
        model = train_matrix(label, train, split.num_items, **options, seed=seed)
        users, items = rows_of_users(model, train), model.item_vectors
        on_validation = measure(topk_lists(users, items, train), validation, split.popularity)
        recalls.append(float(on_validation.recall.mean()))
        lists = topk_lists(users, items, noisy.histories)
        tests.append(measure(lists, split.test, split.popularity))
        picks.append(false_picks(model, train, is_false, TrainingOptions(**options))[0])
    return Found(float(np.mean(recalls)), average(tests), float(np.mean(picks)))


def change(new: Found, old: Found) -> dict[str, dict[str, Any]]:
    """Relative change of recall and tail recall on test, with intervals over users."""
    found = {}
    for metric in ("recall", "tail_recall"):
        before = getattr(old.test, metric)
        gap = paired_difference(getattr(new.test, metric), before, rng=np.random.default_rng(0))
        size = max(float(before.mean()), 1e-6)
        found[metric] = {
            "relative": round(gap.mean / size, 4),
            "95%": [round(gap.low / size, 4), round(gap.high / size, 4)],
            "p": round(gap.p, 4),
            "users": gap.users,
        }
    return found


def best(names: tuple[str, ...], found: Mapping[str, Found]) -> str | None:
    """The method with the best recall on the noisy validation part."""
    return max(
        (name for name in names if name in found),
        key=lambda name: found[name].validation,
        default=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(DATA), default="ml-1m-lcfn")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.2, 0.4])
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--quick", action="store_true", help="a third of the epochs")
    parser.add_argument("--only", help="methods, separated by commas")
    add_threads(parser)
    arguments = parser.parse_args()
    every = methods(arguments.data)
    wanted = list(every) if arguments.only is None else arguments.only.split(",")
    if not set(wanted) <= set(every):
        parser.error(f"--only must name methods of {list(every)}, got {wanted}")
    with torch_threads(arguments.threads):
        run(arguments, {name: every[name] for name in wanted})


def run(arguments: argparse.Namespace, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    report = Report("retrieval_noise", arguments, ("torch",))
    split, seeds = load_split(arguments.data), range(arguments.seeds)
    report.data(
        f"{split.name}, {len(split.train)} users, {split.num_items} items, "
        f"{split.whole_train.item_index.size} true training events, "
        f"{split.test.item_index.size} test events"
    )
    head = f"\n{'false':>5s}  {'method':22s} {'valid.':>7s} {'recall@20':>9s} {'ndcg@20':>8s}"
    print(f"{head} {'tail':>7s} {'head':>6s} {'false picks':>11s}", flush=True)
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for share in arguments.shares:
        found: dict[str, Found] = {}
        for name, chosen in wanted.items():
            options = dict(chosen)
            if arguments.quick:
                options["epochs"] = max(3, options["epochs"] // 3)
                options["warmup_epochs"] = options["warmup_epochs"] // 2
            found[name] = tried(name, options, split, share, seeds)
            row = table_row(name, share, found[name])
            rows.append(row)
            print(show(row), flush=True)
        plain, denoised = best(PLAIN, found), best(DENOISED, found)
        directau = best(DENOISED_DIRECTAU, found)
        pairs = (best((DIRECTAU, *DENOISED_DIRECTAU), found), best(PAIRS_OF_SOFTMAX, found))
        for new, old in (
            (PLD, BPR),
            (denoised, plain),
            (SMOOTHED, SOFTMAX),
            (directau, DIRECTAU),
            pairs,
        ):
            if new in found and old in found:
                answers.append(
                    {"false": share, "new": new, "old": old, **change(found[new], found[old])}
                )
    print()
    for answer in answers:
        for metric, label in (("recall", f"recall@{K}"), ("tail_recall", "tail recall")):
            value = answer[metric]
            print(
                f"+{answer['false']:.0%} false, {answer['new']} against {answer['old']}, {label}: "
                f"{value['relative']:+.1%} [{value['95%'][0]:+.1%}, {value['95%'][1]:+.1%}], "
                f"p {value['p']:.4f}, {value['users']} users"
            )
    report.close(rows=rows, answers=answers)


def table_row(name: str, share: float, found: Found) -> dict[str, Any]:
    test = found.test
    return {
        "false": share,
        "method": name,
        "validation": round(found.validation, 4),
        f"recall@{K}": round(float(test.recall.mean()), 4),
        f"ndcg@{K}": round(float(test.ndcg.mean()), 4),
        "tail": round(float(test.tail_recall.mean()), 4),
        "head": round(test.head_share, 3),
        "false picks": round(found.false_picks, 4),
    }


def show(row: Mapping[str, Any]) -> str:
    return (
        f"{row['false']:5.0%}  {row['method']:22s} {row['validation']:7.4f} "
        f"{row[f'recall@{K}']:9.4f} {row[f'ndcg@{K}']:8.4f} {row['tail']:7.4f} "
        f"{row['head']:6.3f} {row['false picks']:11.4f}"
    )


if __name__ == "__main__":
    main()
