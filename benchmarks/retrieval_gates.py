"""Do training objectives and what is made of trained towers order themselves as they should?

Each row is one expectation of a published or measured ordering: what was measured, the bar with
its tolerance, and the number that the expectation comes from. All models are matrix
factorisations by our trainer (one row a user, one row an item, 64 wide) with the settings of those
numbers: cosine, temperature .15, batches of 1,024, 1,024 uniform negatives, one seed, 12 epochs (6
for both sides of a comparison where it says half a training). Nothing is chosen on test. They are
trained on the whole published train part; the soup (gate 10) and the collapse alarm (gate 3) need
validation events and hold a tenth of it out. recall@20 and ndcg@20 are as in retrieval_quality.py.
One seed is worth about 1.5% of a recall.

    python benchmarks/retrieval_gates.py [--data ml-1m-lcfn] [--only 1,2,9] [--quick] [--gowalla]

--quick: 4 epochs instead of 12, which the absolute bars are not made for. --gowalla: the row of
gate 4 on Gowalla too, two trainings of 20 epochs. The data: see retrieval_data.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

from reporting import Report, add_threads
from retrieval_data import load_split
from retrieval_gates_losses import (
    best_softmax,
    collapse_alarm,
    hard_negatives,
    log_q_and_masks,
    loss_variants,
    on_gowalla,
    propensities,
    resampling,
    score_kind,
)
from retrieval_gates_towers import compatible, light_user_tower, soup, threshold_and_auc
from retrieval_lab import SEED, Lab, Row
from retrieval_matrix import numbers

from recsys.threads import torch_threads

GATES: dict[int, Callable[[Lab], Iterator[Row]]] = {
    1: best_softmax,
    2: log_q_and_masks,
    3: collapse_alarm,
    4: loss_variants,
    7: light_user_tower,
    8: threshold_and_auc,
    9: compatible,
    10: soup,
    11: propensities,
    12: score_kind,
    16: resampling,
    17: hard_negatives,
}


def show(row: Row) -> str:
    sign = ">=" if row.at_least else "<="
    known = "" if row.known is None else f"{row.known:.3f}"
    return (
        f"{row.gate:4d}  {row.measured:70s} {row.value:7.3f}  {sign} {row.bar:6.3f} {known:>8s}  "
        f"{'held' if row.holds else 'MISSED':6s}  {row.detail}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-1m-lcfn", choices=["ml-1m-lcfn"])
    parser.add_argument("--only", type=numbers, default=list(GATES), help="such as 1,2,9")
    parser.add_argument("--quick", action="store_true", help="4 epochs instead of 12")
    parser.add_argument("--gowalla", action="store_true", help="gate 4 on Gowalla too")
    add_threads(parser)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.only) - set(GATES))
    if unknown:
        parser.error(f"there are no gates {unknown}; choose among {list(GATES)}")
    with torch_threads(arguments.threads):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    report = Report("retrieval_gates", arguments, ("torch",))
    split = load_split(arguments.data)
    lab = Lab(split, 4 if arguments.quick else 12)
    report.data(
        f"{split.name}, {len(split.train)} users, {split.num_items} items, "
        f"{lab.train.item_index.size} training events, {split.test.item_index.size} test events; "
        f"{lab.epochs} epochs, seed {SEED}"
    )
    print(f"\n{'gate':>4s}  {'measured':70s} {'value':>7s}  {'bar':>9s} {'known':>8s}", flush=True)
    rows: list[Row] = []
    seconds: dict[int, float] = {}

    def keep(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            print(show(row), flush=True)
            bound = {"at_least" if row.at_least else "at_most": row.bar}
            report.bar(f"gate {row.gate}: {row.measured}", row.value, **bound)

    for number in arguments.only:
        began = time.perf_counter()
        keep(GATES[number](lab))
        seconds[number] = round(time.perf_counter() - began, 1)
    if arguments.gowalla:
        keep(on_gowalla(arguments.quick))
    report.close(rows=[row._asdict() for row in rows], gate_seconds=seconds)


if __name__ == "__main__":
    main()
