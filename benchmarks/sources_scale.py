"""What do the sources that need no towers take on a large catalogue?

Synthetic ids as in retrieval_scale.py: item popularity falls as a power of the rank, the number of
events of a user is log-normal. Prints minutes to fit, seconds to answer some users and each of them
(1,000 of sparse EASE, 64 of the graph filter, which are four blocks), bytes of the model, and the
peak resident memory of the whole process, data included
(of the sources so far: it never falls).

    python benchmarks/sources_scale.py [--items 1000000] [--users 2000000] [--events 20000000]
        [--quick] [--only "sparse EASE"]

--quick: a tenth of the items, users and events.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from reporting import Report, say
from retrieval_scale import peak_gib, synthetic

from features.tables import Histories
from recsys.retrieval.graph_filter import GraphFilterRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.source_options import GraphOptions

BAR_GIB = 12.0
BAR_MINUTES = 30.0
ASKED = {"sparse EASE": 1_000, "graph filter": 64}
Fit = Callable[[Histories, int], Retriever]


def sparse_ease(histories: Histories, num_items: int) -> Retriever:
    return ItemItemRetriever.fit(
        histories,
        num_items,
        l2=20.0,
        dropout=0.3,
        item_power=0.2,
        user_power=0.3,
        neighbours=100,
        dense_items=0,
        half_life=None,
    )


def graph_filter(histories: Histories, num_items: int) -> Retriever:
    options = GraphOptions(graph_rank=64, graph_memory_gb=4.0)
    return GraphFilterRetriever.fit(histories, num_items, half_life=None, options=options)


SOURCES: Mapping[str, Fit] = {"sparse EASE": sparse_ease, "graph filter": graph_filter}


def measured(name: str, histories: Histories, num_items: int) -> dict[str, object]:
    """One row of the table."""
    say(f"{name}: fitting")
    start = time.perf_counter()
    model = SOURCES[name](histories, num_items)
    fitted = time.perf_counter()
    say(f"{name}: {fitted - start:.0f} s, {peak_gib():.2f} GiB")
    model.retrieve(histories.take(np.arange(ASKED[name])), 100)
    answered = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "source": name,
        "fit min": round((fitted - start) / 60, 2),
        "users asked": ASKED[name],
        "answers s": round(answered - fitted, 1),
        "s a user": round((answered - fitted) / ASKED[name], 4),
        "model GiB": round(size / 2**30, 2),
        "peak GiB": round(peak_gib(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="names of sources, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    report = Report("sources_scale", arguments, ("scipy", "numba"))
    share = 10 if arguments.quick else 1
    num_items = arguments.items // share
    histories = synthetic(
        arguments.users // share, num_items, arguments.events // share, arguments.seed
    )
    report.data(
        f"{len(histories):,} users, {num_items:,} items, {histories.item_index.size:,} synthetic "
        f"events, {peak_gib():.2f} GiB before anything is fitted"
    )
    names = arguments.only.split(",") if arguments.only else list(SOURCES)
    rows = [measured(name.strip(), histories, num_items) for name in names]
    report.table(rows)
    for row in rows:
        report.bar(f"peak GiB, {row['source']}", row["peak GiB"], below=BAR_GIB)
        report.bar(f"minutes to fit, {row['source']}", row["fit min"], below=BAR_MINUTES)
    report.close(rows=rows)


if __name__ == "__main__":
    main()
