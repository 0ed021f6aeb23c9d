"""Are items found that nobody met yet?

15% of the items are drawn and taken out of training altogether; of every user the last fifth of
the events is test. Among the items taken out, those are ranked which a user met in that fifth:
recall@20 = hits / number of them, ndcg@20 with the ideal cut at min(20, number), the mean over
users with one, of all seeds (each draws other items); the bootstrap is over the same users.

Rows: chance; tf-idf of all text, a user the sum of what they met; the content vectors that `recsys
train` makes of the same columns, likewise; content kNN, an item's likeness to its 50 nearest of
what a user met; each of them with what was met last weighing more (half-life 10 events), as our
retrievers are asked; and the retriever `new_items` on the same content vectors. The bar: a fifth
more recall than content kNN asked alike, and an interval of the difference above 0.

    python benchmarks/cold_items.py [--data ml-1m amazon-scientific] [--seeds 3]

ml-1m: title, genres and year of the films. amazon-scientific: title, brand, categories and
description; in order, without times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import recsys  # noqa: F401, before torch: how its threads wait is decided when it loads

# isort: split
import numpy as np
import polars as pl
from reporting import Report, add_threads, say
from retrieval_data import DATA
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from features.tables import Histories
from recsys.content.encoder import ContentEncoder
from recsys.evaluation import Truth, bootstrap_mean, judge, paired_difference
from recsys.evaluation.metrics import ndcg, recall
from recsys.retrieval.finishing.new_items import fit_new_items
from recsys.retrieval.recency import recency_weights
from recsys.threads import torch_threads
from recsys.topk import top_k
from recsys.unit_rows import unit_rows

K = 20
HELD_OUT, TEST = 0.15, 0.2
NEAREST, HALF_LIFE, DIM = 50, 10.0, 256
LOGS = ("ml-1m", "amazon-scientific")
KNN, OURS = "content kNN, by recency", "ours: new_items"


class World(NamedTuple):
    """A log without some of its items.

    Attributes:
        items: N rows.
        content: [N + 1, D] float32, row 0 zero.
        tfidf: [N + 1, W], row 0 zero.
        train: what is learned from and asked with, U rows of other items.
        test: what the same users met of the items taken out.
        is_new: [N + 1] bool, those.
    """

    items: pl.DataFrame
    content: np.ndarray
    tfidf: csr_array
    train: Histories
    test: Histories
    is_new: np.ndarray


def read(name: str) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    """Users and items (from 1) of the events in their order, and the items' columns."""
    if name == "ml-1m":
        films = pl.read_parquet(DATA / name / "movies.parquet")
        place = pl.DataFrame({"movie_id": films["movie_id"], "item": np.arange(1, len(films) + 1)})
        rated = pl.read_parquet(DATA / name / "ratings.parquet").filter(
            pl.col("order").is_not_null()
        )
        rated = rated.sort("user_id", "order").join(
            place, on="movie_id", how="left", maintain_order="left"
        )
        columns = films.select(
            "title", pl.col("year").cast(pl.Float64), genres=_as_list(films, "genres", "|")
        )
        user = rated["user_id"].to_numpy().astype(np.int64) - 1
        return user, rated["item"].to_numpy().astype(np.int64), columns
    events = pl.read_parquet(DATA / name / "sequences.parquet").sort("user", "pos")
    items = pl.read_parquet(DATA / name / "items.parquet").sort("item")
    columns = items.select(pl.col("title", "brand", "categories", "description").fill_null(""))
    user = events["user"].to_numpy().astype(np.int64)
    return user, events["item"].to_numpy().astype(np.int64) + 1, columns


def _as_list(frame: pl.DataFrame, column: str, separator: str) -> pl.Series:
    values = frame[column]
    return values if isinstance(values.dtype, pl.List) else values.str.split(separator)


def encoded(name: str, items: pl.DataFrame) -> tuple[np.ndarray, csr_array]:
    """Content vectors and tf-idf of the same columns, with a row 0 of zeros."""
    if name == "ml-1m":
        roles: dict[str, tuple[str, ...]] = {
            "text_columns": ("title", "genres"),
            "list_columns": ("genres",),
            "number_columns": ("year",),
        }
        text = items.select(pl.col("title") + " " + pl.col("genres").list.join(" "))
    else:
        roles = {
            "text_columns": ("title", "categories", "description"),
            "category_columns": ("brand",),
        }
        text = items.select(pl.concat_str(pl.all(), separator=" "))
    encoder = ContentEncoder(**roles, dim=DIM).fit(items, rng=np.random.default_rng(0))
    content = np.zeros((len(items) + 1, DIM), dtype=np.float32)
    content[1:] = encoder.transform(items)
    words = TfidfVectorizer(stop_words="english", min_df=2, sublinear_tf=True)
    tfidf = csr_array(words.fit_transform(["", *text.to_series().to_list()]).astype(np.float32))
    return unit_rows(content), tfidf


def world(
    log: tuple[np.ndarray, np.ndarray, pl.DataFrame],
    vectors: tuple[np.ndarray, csr_array],
    seed: int,
) -> World:
    """The log without items that are drawn."""
    user, item, items = log
    num_items = len(items)
    drawn = np.random.default_rng(seed).choice(num_items, int(HELD_OUT * num_items), replace=False)
    is_new = np.zeros(num_items + 1, dtype=bool)
    is_new[1 + drawn] = True
    counts = np.bincount(user)
    place = np.arange(user.size) - np.repeat(np.cumsum(counts) - counts, counts)
    late = place >= np.floor((1 - TEST) * counts[user])

    def part(kept: np.ndarray) -> Histories:
        each = np.bincount(user[kept], minlength=counts.size)
        indptr = np.concatenate([[0], np.cumsum(each)]).astype(np.int64)
        found = item[kept]
        weight = np.ones(found.size, dtype=np.float32)
        return Histories(indptr, found, place[kept].astype(np.int64), weight)

    train, test = part(~late & ~is_new[item]), part(late & is_new[item])
    return World(items, *vectors, train, test, is_new)


def scorers(seed: int) -> Mapping[str, Callable[[World, Histories, np.ndarray], np.ndarray]]:
    """Name -> [Q, M] scores of new items ``index`` [M] for Q users."""

    def asked(found: World, who: Histories, half_life: float | None) -> csr_array:
        return who.to_csr(len(found.items), recency_weights(who, half_life))

    def of_words(half_life: float | None) -> Callable[..., np.ndarray]:
        return lambda found, who, index: (
            asked(found, who, half_life) @ found.tfidf @ found.tfidf[index].T
        ).toarray()

    def of_content(half_life: float | None) -> Callable[..., np.ndarray]:
        return lambda found, who, index: (
            asked(found, who, half_life) @ found.content @ found.content[index].T
        )

    def of_neighbours(half_life: float | None) -> Callable[..., np.ndarray]:
        def score(found: World, who: Histories, index: np.ndarray) -> np.ndarray:
            near = found.content @ found.content[index].T  # [N + 1, M]
            near[found.is_new] = 0.0
            near[near < np.partition(near, -NEAREST, axis=0)[-NEAREST]] = 0.0
            return np.asarray(asked(found, who, half_life) @ near)

        return score

    def ours(found: World, who: Histories, index: np.ndarray) -> np.ndarray:
        model = fit_new_items(found.train, found.content, is_new=found.is_new, seed=seed)
        return model.score(who, np.tile(index, (len(who), 1)))

    def chance(found: World, who: Histories, index: np.ndarray) -> np.ndarray:
        return np.random.default_rng(seed).random((len(who), index.size))

    return {
        "chance": chance,
        "tf-idf profile": of_words(None),
        "tf-idf profile, by recency": of_words(HALF_LIFE),
        "content profile": of_content(None),
        "content profile, by recency": of_content(HALF_LIFE),
        "content kNN": of_neighbours(None),
        KNN: of_neighbours(HALF_LIFE),
        OURS: ours,
    }


def measured(name: str, seeds: int) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Row -> recall and ndcg of every user of every seed, and seconds a seed."""
    log = read(name)
    vectors = encoded(name, log[2])
    values: dict[str, list[tuple[np.ndarray, np.ndarray, float]]] = {}
    for seed in range(seeds):
        found = world(log, vectors, seed)
        rows = np.flatnonzero((found.train.counts > 0) & (found.test.counts > 0))
        who, truth = found.train.take(rows), found.test.take(rows)
        index = np.flatnonzero(found.is_new)
        for row, scorer in scorers(seed).items():
            began = time.perf_counter()
            score = np.pad(scorer(found, who, index), ((0, 0), (1, 0)))
            lists = top_k(score, K).item_index
            seconds = time.perf_counter() - began
            items = np.append(index, -1)[np.where(lists > 0, lists - 1, -1)]
            judged = judge(items, Truth.from_histories(truth))
            values.setdefault(row, []).append((recall(judged, K), ndcg(judged, K), seconds))
            say(f"{name}, seed {seed}, {row}: recall@{K} {values[row][-1][0].mean():.4f}")
    return {
        row: (
            np.concatenate([one[0] for one in each]),
            np.concatenate([one[1] for one in each]),
            float(np.mean([one[2] for one in each])),
        )
        for row, each in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    add_threads(parser)
    arguments = parser.parse_args()
    report = Report("cold_items", arguments, ("torch", "scikit-learn"))
    report.data(f"{', '.join(arguments.data)}: {HELD_OUT:.0%} of the items without an event")
    table: list[dict[str, Any]] = []
    with torch_threads(arguments.threads):
        for name in arguments.data:
            found = measured(name, arguments.seeds)
            for row, (hit, gain, seconds) in found.items():
                mean = bootstrap_mean(hit, rng=np.random.default_rng(0))
                table.append(
                    {
                        "row": f"{name}, {row}",
                        f"recall@{K}": round(mean.mean, 4),
                        "95%": f"{mean.low:.4f}-{mean.high:.4f}",
                        f"ndcg@{K}": round(float(gain.mean()), 4),
                        "users": hit.size,
                        "seconds": round(seconds, 1),
                    }
                )
            mine, other = found[OURS][0], found[KNN][0]
            gap = paired_difference(mine, other, rng=np.random.default_rng(0))
            share = gap.mean / float(other.mean())
            report.bar(f"{name}, recall gained over {KNN}", share, at_least=0.2)
            report.bar(f"{name}, recall less that of {KNN}, low end", gap.low, above=0.0)
    report.table(table)
    report.close(rows=table)


if __name__ == "__main__":
    main()
