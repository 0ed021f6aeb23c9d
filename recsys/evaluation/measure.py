"""One call from result lists to the whole set of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from features.tables import USER, Histories
from recsys.evaluation.metrics import LIST_METRICS, USER_METRICS, MetricName, parse_metric
from recsys.evaluation.options import EvaluationOptions
from recsys.evaluation.popularity import checked_popularity, popularity_rank
from recsys.evaluation.result import Evaluation, Exposure, SliceResult
from recsys.evaluation.significance import (
    Difference,
    Interval,
    bootstrap_means,
    paired_difference,
)
from recsys.evaluation.slices import Slice, item_slices, repeat_slices, user_slices
from recsys.evaluation.truth import Judged, Truth, judge
from recsys.lookup import lookup
from recsys.topk import TopK

__all__ = ["DEFAULT_METRICS", "compare", "evaluate"]

DEFAULT_METRICS = (
    "recall",
    "ndcg",
    "hit_rate",
    "mrr",
    "map",
    "precision",
    "coverage",
    "novelty",
    "head_share",
)
POPULARITY_GROUPS = 10


def evaluate(
    recommend: TopK | Callable[[int], TopK],
    truth: Truth,
    *,
    popularity: np.ndarray,
    rng: np.random.Generator,
    ks: Sequence[int] = EvaluationOptions.default("ks"),
    metrics: Sequence[str] = DEFAULT_METRICS,
    history_length: np.ndarray | None = None,
    met: Histories | None = None,
    new_lists: Callable[[], TopK] | None = None,
    user_ids: Sequence[str] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Evaluation:
    """Judge one system's lists for Q users.

    Every relevance metric is computed per user and averaged over the users who have a relevant
    item, without weights; the others are left out and counted.

    Args:
        recommend: the lists, or a function that returns them for a given length; it is called
            once, with the largest of ``ks``. Seen items are the caller's to leave out.
        truth: Q rows, in the order of the lists.
        popularity: [N + 1] training counts of the items.
        rng: draws of the bootstrap.
        ks: cutoffs, each >= 1 and at most the length of the lists.
        metrics: names without cutoff, or with one ("recall@50"), which then holds beside ``ks``.
        history_length: [Q] training events of each user, for the slices by history. None: no
            such slices.
        met: Q histories, for the slices of what is wanted again and of what is new, and, where they
            hold what users disliked or returned, for the share of lists with such an item. None: no
            such slices, and no share.
        new_lists: gives the same system's lists with what users had met left out, for a slice of
            what is new to them that is judged by these; called where somebody wanted anything
            again. None: no such slice.
        user_ids: Q outside ids for the table of users. None: the row numbers as text.
        resamples: of the bootstrap.
        level: of its intervals.

    Raises:
        ValueError: sizes disagree, no user has a relevant item, or as in `judge`, `Truth` and
            `bootstrap_means`.
        ConfigError: a name in ``metrics`` is unknown.
    """
    names = _names(metrics, ks)
    longest = max(name.k for name in names)
    lists = recommend if isinstance(recommend, TopK) else recommend(longest)
    counts = checked_popularity(popularity)
    _check_sizes(truth, counts, user_ids)
    judged = judge(lists, truth)
    if judged.row.size == 0:
        raise ValueError(
            f"truth must hold a relevant item for at least one user, all {len(truth)} have none"
        )
    per_user_names = [name for name in names if name.is_per_user]
    values = _values(judged, per_user_names)
    headline_k = 20 if any(name.k == 20 for name in names) else longest

    def intervals(of: np.ndarray) -> dict[str, Interval]:
        found = bootstrap_means(of, rng=rng, resamples=resamples, level=level)
        return {str(name): interval for name, interval in zip(per_user_names, found, strict=True)}

    def measured(part: Slice, lists: TopK = lists) -> SliceResult:
        restricted = part.of(truth)
        inside = judge(lists, restricted)
        numbers = intervals(_values(inside, per_user_names)) if inside.row.size else {}
        relevant = int(restricted.counts.sum())
        return SliceResult(part.name, part.description, inside.row.size, relevant, numbers)

    slices = item_slices(counts)
    if history_length is not None:
        slices += user_slices(history_length, truth)
    repeats = [] if met is None else repeat_slices(truth, met)
    results = [measured(part) for part in (*slices, *repeats)]
    if repeats and new_lists is not None:
        new = replace(
            repeats[-1],
            name="new, repeats left out",
            description=f"{repeats[-1].description}, in lists without those they had",
        )
        results.append(measured(new, new_lists()))
    list_metrics = {
        str(name): lookup(LIST_METRICS, name.name, "metric")(lists.item_index, name.k, counts)
        for name in names
        if not name.is_per_user
    }
    if met is not None and met.refused is not None and met.refused.item_index.size:
        for k in dict.fromkeys(name.k for name in names):
            list_metrics[f"refused@{k}"] = _refused_share(lists.item_index[:, :k], met.refused)
    ids = [str(row) for row in range(len(truth))] if user_ids is None else list(user_ids)
    return Evaluation(
        per_user=_user_table(judged, ids, history_length, per_user_names, values),
        metrics=intervals(values),
        list_metrics=list_metrics,
        slices=tuple(results),
        recall_curve=_recall_curve(judged),
        exposure=_exposure(lists.item_index[:, :headline_k], truth, counts),
        users=judged.row.size,
        left_out=judged.left_out,
        num_items=counts.size - 1,
        headline_k=headline_k,
        level=level,
    )


def compare(
    a: Evaluation,
    b: Evaluation,
    metric: str,
    *,
    rng: np.random.Generator,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap of ``metric`` of ``a`` minus that of ``b``, user by user.

    Args:
        a: one system.
        b: another, judged on the same users.
        metric: such as "ndcg@20"; both must have it per user.
        rng: the draws.
        resamples: of the bootstrap.
        level: of the interval.

    Raises:
        ValueError: the users differ, or one has no such metric per user.
    """
    for name, evaluation in (("a", a), ("b", b)):
        if metric not in evaluation.metrics:
            known = ", ".join(evaluation.metrics)
            raise ValueError(f"metric must be one {name} has per user ({known}), got {metric!r}")
    if not a.per_user[USER].equals(b.per_user[USER]):
        raise ValueError(
            f"a and b must be judged on the same users in the same order: got {a.users} and "
            f"{b.users} users or other ids"
        )
    return paired_difference(
        a.per_user[metric].to_numpy(),
        b.per_user[metric].to_numpy(),
        rng=rng,
        resamples=resamples,
        level=level,
    )


def _names(metrics: Sequence[str], ks: Sequence[int]) -> list[MetricName]:
    names: list[MetricName] = []
    for text in metrics:
        wanted = [text] if "@" in text else [f"{text}@{k}" for k in ks]
        names += [name for name in map(parse_metric, wanted) if name not in names]
    if not any(name.is_per_user for name in names):
        raise ValueError(
            f"metrics and ks must name at least one metric per user ({', '.join(USER_METRICS)}), "
            f"got {list(metrics)} at {list(ks)}"
        )
    return names


def _check_sizes(truth: Truth, counts: np.ndarray, user_ids: Sequence[str] | None) -> None:
    if user_ids is not None and len(user_ids) != len(truth):
        raise ValueError(
            f"user_ids must have one entry per row of the truth: got {len(user_ids)} for "
            f"{len(truth)}"
        )
    largest = int(truth.item_index.max(initial=0))
    if largest >= counts.size:
        raise ValueError(
            f"popularity must cover every item of the truth: got {counts.size} rows for item "
            f"index {largest}"
        )


def _values(judged: Judged, names: Sequence[MetricName]) -> np.ndarray:
    """[U, M] one column per name."""
    columns = [lookup(USER_METRICS, name.name, "metric")(judged, name.k) for name in names]
    return np.stack(columns, axis=1)


def _user_table(
    judged: Judged,
    user_ids: Sequence[str],
    history_length: np.ndarray | None,
    names: Sequence[MetricName],
    values: np.ndarray,
) -> pl.DataFrame:
    columns: dict[str, pl.Series] = {
        USER: pl.Series([user_ids[row] for row in judged.row], dtype=pl.String),
        "num_relevant": pl.Series(judged.num_relevant),
    }
    if history_length is not None:
        length = np.asarray(history_length)[judged.row]
        columns["history_length"] = pl.Series(length.astype(np.int64))
    for column, name in enumerate(names):
        columns[str(name)] = pl.Series(np.ascontiguousarray(values[:, column]))
    return pl.DataFrame(columns)


def _refused_share(shown: np.ndarray, refused: Histories) -> float:
    """Share of the lists [Q, k] that hold an item which their user had disliked or returned."""
    width = 1 + max(int(one.max(initial=0)) for one in (shown, refused.item_index))
    place = np.arange(len(refused))[:, None] * width + shown
    held = np.isin(place, refused.rows * width + refused.item_index) & (shown > 0)
    return float(held.any(axis=1).mean())


def _recall_curve(judged: Judged) -> tuple[float, ...]:
    hits = np.cumsum(judged.grade > 0, axis=1)  # [U, K]
    return tuple((hits / judged.num_relevant[:, None]).mean(axis=0).tolist())


def _exposure(shown: np.ndarray, truth: Truth, counts: np.ndarray) -> Exposure:
    num_items = counts.size - 1
    groups = min(POPULARITY_GROUPS, num_items)
    group = popularity_rank(counts) * groups // num_items  # [N + 1], row 0 is never looked up

    def shares(item_index: np.ndarray) -> tuple[float, ...]:
        found = np.bincount(group[item_index[item_index >= 1]], minlength=groups)
        return tuple((found / max(1, found.sum())).tolist())

    return Exposure(recommended=shares(shown), wanted=shares(truth.item_index))
