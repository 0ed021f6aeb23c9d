"""How good are recommendations for a shop, whose customers buy again what they bought?

Online Retail II, first year (see the README beside the data): customer known, quantity and price
above 0, five-digit codes, one line a customer, code and invoice; cut at the time of the row after
four fifths. All of a customer's later items are wanted, of customers known from before; the full
catalogue is ranked at the cut. "new" leaves out what the customer had bought and judges the rest.
ndcg with the ideal cut at min(k, wanted); intervals are bootstraps over customers of the mean of
the seeds.

References are those of the README, and LightGBM lambdarank over them and 21 plain features (see
shop_peers.py), labels from the 64th to the 80th percentile, the mean of two seeds. Ours is the
funnel of examples/shop.toml, source by source and whole; nothing of it was chosen on what is
judged here.

    python benchmarks/shop_quality.py [--seeds 3] [--quick]

--quick: one seed.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from reporting import Report, say
from retrieval_data import DATA
from shop_peers import DAY, Log, scores, stacked

from features.moments import microseconds
from recsys.config import Config
from recsys.dataset import Dataset, read_dataset
from recsys.dataset.tables import cut_moment
from recsys.evaluation import Truth, bootstrap_mean, judge, paired_difference, repeat_slices
from recsys.evaluation.metrics import ndcg, recall
from recsys.pipeline import train
from recsys.pipeline.measuring import ask_funnel
from recsys.topk import TopK, top_k

K = 20
LABELS_FROM = 0.64
EXAMPLE = Path(__file__).parent.parent / "examples" / "shop.toml"
Values = Mapping[str, np.ndarray]


def cleaned(directory: Path) -> pl.DataFrame:
    """One line a customer, code and invoice, oldest first."""
    raw = pl.read_parquet(directory / "online-retail-2010" / "transactions.parquet")
    sold = raw.filter(
        pl.col("Customer ID").is_not_null(),
        pl.col("Quantity") > 0,
        pl.col("Price") > 0,
        pl.col("StockCode").str.contains(r"^\d{5}"),
    ).with_columns(pl.col("StockCode").str.to_uppercase())
    key = ["Customer ID", "StockCode", "Invoice"]
    lines = sold.group_by(key).agg(pl.col("InvoiceDate").min(), pl.col("Description").first())
    return lines.sort("InvoiceDate", *key)


def shop(lines: pl.DataFrame, directory: Path, seed: int) -> Config:
    """The configuration of the example over the cleaned log."""
    events = lines.select(
        user_id=pl.col("Customer ID").cast(pl.String),
        item_id="StockCode",
        timestamp="InvoiceDate",
    ).unique(maintain_order=True)
    events.write_parquet(directory / "events.parquet")
    items = lines.group_by("StockCode", maintain_order=True).agg(pl.col("Description").last())
    items.select(item_id="StockCode", title=pl.col("Description").fill_null("")).write_parquet(
        directory / "items.parquet"
    )
    example: dict[str, Any] = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    kept = {name: example[name] for name in ("split", "slate", "retrieval")}
    return Config.model_validate(
        {
            **kept,
            "seed": seed,
            "data": {
                "events": directory / "events.parquet",
                "items": directory / "items.parquet",
                "item_columns": {"title": "title", "text": ["title"]},
            },
            "output": {"directory": directory / f"artifacts-{seed}"},
        }
    )


def plain_log(config: Config, data: Dataset) -> tuple[Log, float, float]:
    """The log for the references, the cut, and where their labels begin."""
    frame = data.interactions.frame
    user, item = data.user_ids.index(frame["user_id"]), data.item_ids.index(frame["item_id"])
    day = frame["timestamp"].to_physical().to_numpy() / 1e6 / DAY
    _, basket = np.unique(np.stack([user, np.round(day * DAY)]), axis=1, return_inverse=True)
    log = Log(user - 1, item - 1, day, basket.ravel(), len(data.user_ids), data.num_items)
    moments = [
        microseconds(cut_moment(data.interactions, fraction)) / 1e6 / DAY
        for fraction in (config.split.fraction, LABELS_FROM)
    ]
    return log, moments[0], moments[1]


class Judge:
    """Lists against what customers went on to buy.

    Args:
        truth: Q customers known from before.
        met: their histories.
    """

    def __init__(self, truth: Truth, met: Any) -> None:
        self.truth, (_, new) = truth, repeat_slices(truth, met)
        self.new = new.of(truth)

    def __call__(self, lists: TopK, new_lists: TopK) -> Values:
        """Metric -> [customers]."""
        found: dict[str, np.ndarray] = {}
        for name, given, wanted in (
            ("all", lists, self.truth),
            ("new", new_lists, self.new),
        ):
            judged = judge(given, wanted)
            found[f"{name}: ndcg@10"] = ndcg(judged, 10)
            found[f"{name}: ndcg@20"] = ndcg(judged, K)
            found[f"{name}: recall@20"] = recall(judged, K)
        return found


def mean_of(runs: list[Values]) -> Values:
    """The mean over runs, customer by customer."""
    return {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}


def run(arguments: argparse.Namespace) -> None:
    report = Report("shop_quality", arguments, ("lightgbm", "scipy"))
    lines = cleaned(DATA)
    values: dict[str, list[Values]] = {}
    seeds = range(1, 2 if arguments.quick else arguments.seeds + 1)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            config = shop(lines, Path(scratch), seed)
            say(f"funnel, seed {seed}")
            bundle = train(config)
            data = read_dataset(config)
            answer = ask_funnel(config, bundle, data)
            known = answer.cut.history.counts > 0
            judged = Judge(answer.truth.only(users=known), answer.cut.history)
            own = {
                "ours: funnel": (answer.lists(answer.score), answer.new_lists(answer.score)),
                "ours: trees alone": (answer.lists(answer.trees), answer.new_lists(answer.trees)),
            }
            for source in answer.pool.names:
                score = answer.pool.score[source][answer.pool.real]
                own[f"ours: {source} alone"] = (answer.lists(score), answer.new_lists(score))
            for name, lists in own.items():
                values.setdefault(name, []).append(judged(*lists))
    customers = int((judged.truth.counts > 0).sum())
    report.data(
        f"online-retail-2010, {len(lines):,} lines, {customers:,} customers, "
        f"{data.num_items:,} items"
    )
    log, cut, labels_from = plain_log(config, data)
    past = log.between(-np.inf, cut)
    users = np.arange(log.num_users)
    met = past.matrix().toarray() > 0
    catalogue = np.bincount(past.item, minlength=log.num_items) > 0
    peers = dict(scores(past, cut))
    say("LightGBM over the references")
    peers["LightGBM over these scores"] = stacked(past, labels_from, cut, users, seeds=2)
    for name, score in peers.items():
        hidden = np.pad(~np.broadcast_to(catalogue, score.shape), ((0, 0), (1, 0)))
        padded = np.pad(score, ((0, 0), (1, 0)))
        lists = top_k(padded, K, excluded=hidden)
        new = top_k(padded, K, excluded=hidden | np.pad(met, ((0, 0), (1, 0))))
        values[name] = [judged(lists, new)]
    means = {name: mean_of(runs) for name, runs in values.items()}
    rng = np.random.default_rng(0)
    rows = []
    for name in [*peers, *(name for name in values if name.startswith("ours"))]:
        row: dict[str, Any] = {"system": name}
        for metric, found in means[name].items():
            interval = bootstrap_mean(found, rng=rng, resamples=2000)
            row[metric] = f"{interval.mean:.4f}"
            if metric.endswith("@10"):
                row[f"{metric} 95%"] = f"{interval.low:.4f}..{interval.high:.4f}"
        row["seeds"] = len(values[name])
        rows.append(row)
    report.table(rows)
    gaps = {}
    for part, bar in (("all", 0.425), ("new", 0.155)):
        metric = f"{part}: ndcg@10"
        ours, theirs = means["ours: funnel"][metric], means["LightGBM over these scores"][metric]
        report.bar(f"ndcg@10 of {part}", float(ours.mean()), at_least=bar)
        gap = paired_difference(ours, theirs, rng=rng)
        gaps[part] = gap._asdict()
        print(
            f"{part}: ours minus LightGBM {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], "
            f"{gap.users} customers"
        )
        report.bar(f"low end of ours minus LightGBM, {part}", gap.low, above=0.0)
    report.close(rows=rows, gaps=gaps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
