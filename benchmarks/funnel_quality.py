"""How good is the whole funnel, stage by stage, next to what a user would otherwise run?

MovieLens latest-small, every rating a positive, each user's last 20% by time is test (the cut is
floor(0.8 n)), seen items masked, the full catalogue ranked. Nothing is chosen on the test part: the
funnel's sizes are chosen on a cut of the training part (see recsys/pipeline/run.py), and so are
ALS's alpha and regularisation (best of 18 pairs, alpha 1..40); EASE has its usual l2 of 300. The
contenders alternate within each seed.

    python benchmarks/funnel_quality.py [--config recsys.toml] [--seeds 42 43 44] [--split time]

--split time: one cut for all users, at the time of the row after four fifths; everybody is asked at
it. Most users of later are new then: peers answer them with what was popular in the last 365 days
(whose rows stand beside, with other windows), and a second table has the users known from before.
No bar holds there, and there is no stack: there are too few users to learn from or to tell by.

Peers: popularity; implicit's ALS (64 factors); EASE (l2 300), and EASE asked with a
recency-weighted history; a LightGBM lambdarank stack over EASE, recency EASE and ALS scores with
item, user and genre features, fitted on a history/target cut of the training part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import lightgbm
import numpy as np
from implicit.als import AlternatingLeastSquares
from reporting import Report
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from features import Histories
from recsys.config import Config, load_config
from recsys.dataset import Cut, Dataset, cut_histories, read_dataset
from recsys.evaluation import Evaluation, Truth, evaluate, paired_difference
from recsys.pipeline import evaluate as evaluate_bundle
from recsys.pipeline import train
from recsys.topk import TopK, top_k

METRICS = ("recall@20", "ndcg@20")
K = 20
DAY_US = 86_400 * 10**6
STACK = "LightGBM stack"
RECENT_DAYS = (30, 90, 365)
Scorer = Callable[[Histories], np.ndarray]


def popularity(histories: Histories, num_items: int, days: float = np.inf) -> Scorer:
    """Of the newest days, and among items that those do not know of all days."""
    age = (histories.timestamp.max() - histories.timestamp) / DAY_US
    counts = np.bincount(histories.item_index, age <= days, num_items + 1)
    counts += np.bincount(histories.item_index, minlength=num_items + 1) / histories.timestamp.size
    return lambda asked: np.tile(counts, (len(asked), 1))


class Ease:
    """Steck 2019, equation 8, written out on its own: the peer shares no code with the product."""

    def __init__(self, histories: Histories, num_items: int) -> None:
        matrix = histories.to_csr(num_items).toarray().astype(np.float64)
        inverse = np.linalg.inv(matrix.T @ matrix + 300.0 * np.eye(num_items + 1))
        self._weights = -inverse / np.diag(inverse)
        np.fill_diagonal(self._weights, 0.0)
        self._num_items = num_items

    def score(self, asked: Histories, half_life: float | None = None) -> np.ndarray:
        """[Q, N + 1]; with a half-life the asking history is weighted by recency."""
        age = np.repeat(asked.indptr[1:], asked.counts) - 1 - np.arange(asked.item_index.size)
        weight = np.ones(age.size) if half_life is None else 0.5 ** (age / half_life)
        return np.asarray(asked.to_csr(self._num_items, weight) @ self._weights)


def als(histories: Histories, num_items: int, seed: int) -> Scorer:
    model = AlternatingLeastSquares(
        factors=64, regularization=10.0, alpha=1.0, iterations=15, random_state=seed, num_threads=1
    )
    with threadpool_limits(1, "blas"):
        model.fit(csr_matrix(histories.to_csr(num_items)), show_progress=False)

    def score(asked: Histories) -> np.ndarray:
        users = model.recalculate_user(np.arange(len(asked)), csr_matrix(asked.to_csr(num_items)))
        return np.asarray(users @ model.item_factors.T)

    return score


class Stack:
    """LightGBM lambdarank over three retrievers' scores with item, user and genre features."""

    def __init__(self, data: Dataset, ease_of_past: Ease, ease_of_present: Ease) -> None:
        self._ease = (ease_of_past, ease_of_present)
        self._num_items = data.num_items
        genres = data.items.frame["genres"].to_list()
        names = sorted({name for row in genres for name in row})
        self._genre = np.zeros((data.num_items + 1, len(names)))
        for index, row in enumerate(genres, start=1):
            self._genre[index, [names.index(name) for name in row]] = 1.0
        year = data.items.frame["year"].to_numpy().astype(float)
        self._year = np.concatenate([[np.nan], year])

    def _rows(self, cut: Cut, ease: Ease, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        history, items = cut.history, self._num_items
        scores = [
            ease.score(history),
            ease.score(history, 10.0),
            als(history, items, seed)(history),
        ]
        seen = history.seen_mask(items)
        chosen = np.zeros_like(seen)
        for score in scores:
            best = top_k(score, 200, excluded=seen).item_index
            np.put_along_axis(chosen, np.maximum(best, 0), True, axis=1)
        chosen[:, 0] = False
        query, item = np.nonzero(chosen)
        count = np.bincount(history.item_index, minlength=items + 1)
        total = np.bincount(history.item_index, history.weight, items + 1)
        spent = csr_array(
            (np.ones(history.item_index.size), history.item_index, history.indptr),
            shape=(len(history), items + 1),
        )
        taste = (spent @ self._genre) / np.maximum(history.counts, 1)[:, None]
        length = np.maximum(self._genre.sum(axis=1), 1)
        affinity = (taste @ self._genre.T) / length
        mean_year = (spent @ np.nan_to_num(self._year, nan=1995.0)) / np.maximum(history.counts, 1)
        columns = [score[query, item] for score in scores]
        columns += [
            np.log1p(count[item]),
            (total[item] + 3.5 * 5) / (count[item] + 5),
            self._year[item],
            self._year[item] - mean_year[query],
            np.log1p(history.counts[query]),
            affinity[query, item],
        ]
        return query, item, np.column_stack(columns)

    def lists(self, past: Cut, present: Cut, seed: int) -> TopK:
        """Fitted on the past cut, asked at the present one."""
        query, item, features = self._rows(past, self._ease[0], seed)
        wanted = past.target.seen_mask(self._num_items)[query, item].astype(int)
        group = np.unique(query, return_counts=True)[1]
        settings = {
            "objective": "lambdarank",
            "learning_rate": 0.05,
            "num_leaves": 15,
            "min_data_in_leaf": 50,
            "lambda_l2": 10.0,
            "num_threads": 1,
            "seed": seed,
            "deterministic": True,
            "verbose": -1,
        }
        model = lightgbm.train(settings, lightgbm.Dataset(features, wanted, group=group), 200)
        query, item, features = self._rows(present, self._ease[1], seed)
        score = np.full((len(present.history), self._num_items + 1), -np.inf)
        score[query, item] = model.predict(features)
        return top_k(score, K)


def measured(lists: TopK, cut: Cut, data: Dataset, config: Config) -> Evaluation:
    return evaluate(
        lists,
        Truth.from_histories(cut.target),
        popularity=np.bincount(cut.history.item_index, minlength=data.num_items + 1),
        rng=np.random.default_rng(0),
        ks=(K,),
        metrics=("recall", "ndcg"),
        resamples=config.evaluation.bootstrap_samples,
    )


def interval_rows(
    values: Mapping[str, Sequence[np.ndarray]],
    seconds: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
) -> list[dict[str, object]]:
    """The table of systems by ndcg@20, of [users, 2] values of each seed."""
    rows = []
    mean = {name: np.mean(runs, axis=0) for name, runs in values.items()}
    for name, found in sorted(mean.items(), key=lambda pair: pair[1][:, 1].mean()):
        by_seed = [run.mean(axis=0) for run in values[name]]
        row: dict[str, object] = {"system": name, "users": len(found), "seeds": len(by_seed)}
        for column, metric in enumerate(METRICS):
            draws = rng.integers(len(found), size=(2000, len(found)))
            means = found[:, column][draws].mean(axis=1)
            row[metric] = round(float(found[:, column].mean()), 4)
            row[f"{metric} 95%"] = [round(float(q), 4) for q in np.quantile(means, [0.025, 0.975])]
            row[f"{metric} by seed"] = [round(float(run[column]), 4) for run in by_seed]
        row["seconds"] = round(float(np.mean(seconds[name])), 1)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("recsys.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--split", choices=("per_user", "time"), default="per_user")
    arguments = parser.parse_args()
    report = Report("funnel_quality", arguments, ("torch", "lightgbm", "implicit"))
    base = load_config(arguments.config)
    base = base.model_copy(
        update={"split": base.split.model_copy(update={"kind": arguments.split})}
    )
    data = read_dataset(base)
    split = data.split(base)
    present = cut_histories(
        data.histories(split.train), data.histories(split.test), together=base.split.at_once
    )
    known = (present.history.counts > 0)[present.target.counts > 0]
    told = "one cut in time" if base.split.at_once else "the last 20% of each user by time"
    report.data(
        f"events of {arguments.config}, {len(data.user_ids)} users, {data.num_items} items, "
        f"{len(split.train)} training and {len(split.test)} test events, {told}: {known.size} "
        f"users are asked, {known.sum()} of them known from before"
    )
    seen = present.history.seen_mask(data.num_items)
    ease = Ease(present.history, data.num_items)
    recent = popularity(present.history, data.num_items, RECENT_DAYS[-1])
    per_user: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}
    validation: list[dict[str, object]] = []

    def keep(name: str, result: Evaluation, took: float) -> None:
        per_user.setdefault(name, []).append(result.per_user.select(METRICS).to_numpy())
        seconds.setdefault(name, []).append(took)

    for seed in arguments.seeds:
        peers: dict[str, Callable[[], Scorer]] = {
            "popularity": lambda: popularity(present.history, data.num_items),
            "implicit ALS-64": lambda seed=seed: als(present.history, data.num_items, seed),  # type: ignore[misc]
            "EASE": lambda: ease.score,
            "EASE, recency-weighted history": lambda: lambda asked: ease.score(asked, 10.0),
        }
        if base.split.at_once:
            peers |= {
                f"popular, last {days} days": partial(
                    popularity, present.history, data.num_items, days
                )
                for days in RECENT_DAYS
            }
        for name, fit in peers.items():
            if name != "implicit ALS-64" and name in per_user:
                continue  # no randomness: the same numbers for every seed
            start = time.perf_counter()
            score = fit()(present.history)
            if not name.startswith("popular"):
                score = np.where(
                    present.history.counts[:, None] > 0, score, recent(present.history)
                )
            lists = top_k(score, K, excluded=seen)
            keep(name, measured(lists, present, data, base), time.perf_counter() - start)
        if not base.split.at_once:
            past = cut_histories(*present.history.head_fraction(base.split.fraction))
            start = time.perf_counter()
            stack = Stack(data, Ease(past.history, data.num_items), ease)
            lists = stack.lists(past, present, seed)
            keep(STACK, measured(lists, present, data, base), time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as directory:
            output = base.output.model_copy(update={"directory": Path(directory)})
            config = base.model_copy(update={"seed": seed, "output": output})
            start = time.perf_counter()
            bundle = train(config)
            results = evaluate_bundle(config, bundle)
            took = time.perf_counter() - start
            validation.append(dict(bundle.manifest.metrics["validation"]["ndcg@20"]))
        for name, result in results.items():
            label = {"funnel": "funnel: + listwise", "retrieval + trees": "funnel: + LightGBM"}
            keep(label.get(name, f"ours: {name} alone"), result, took)

    rng = np.random.default_rng(0)
    rows = interval_rows(per_user, seconds, rng)
    report.table(rows)
    of_known: list[dict[str, object]] = []
    if base.split.at_once:
        print("\nusers known from before:")
        of_known = interval_rows(
            {name: [run[known] for run in runs] for name, runs in per_user.items()}, seconds, rng
        )
        report.table(of_known)
    mean = {name: np.mean(runs, axis=0)[:, 1] for name, runs in per_user.items()}
    funnel = mean["funnel: + listwise"]
    gaps = {
        name: paired_difference(funnel, mean[name], rng=rng)
        for name in mean
        if name in ("EASE", STACK) or name.startswith("popular, last")
    }
    print()
    for name, gap in gaps.items():
        print(
            f"ndcg@20, funnel minus {name}: {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], "
            f"p {gap.p:.4f}, {gap.users} users"
        )
    print(
        "held-out ndcg@20 inside the training part, first seed: "
        + ", ".join(f"{name} {value:.4f}" for name, value in validation[0].items())
    )
    if not base.split.at_once:
        reached = float(funnel.mean())
        report.bar("ndcg@20 of the funnel minus that of EASE, low end", gaps["EASE"].low, above=0)
        report.bar("ndcg@20 of the funnel: the reference stack", reached, at_least=0.183)
        report.bar(
            "ndcg@20 of the funnel: the stack of this run",
            reached,
            at_least=float(mean[STACK].mean()),
        )
        report.bar("ndcg@20 of the funnel: the goal", reached, at_least=0.20)
    report.close(rows=rows, known=of_known)


if __name__ == "__main__":
    main()
