"""How a retriever's vectors lie in space and whom its lists favour, measured while it trains.

None of these numbers says how good a retriever is; together they say what went wrong. Choose
models by recall, and stop them by `collapse`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from recsys.evaluation.geometry import alignment, rankme, uniformity
from recsys.evaluation.metrics import coverage, head_share, recall
from recsys.evaluation.popularity import checked_popularity, head_items
from recsys.evaluation.truth import Truth, check_lists, judge

__all__ = [
    "RetrieverDiagnostics",
    "collapse",
    "diagnose_retriever",
    "global_auc",
    "occurrence_skewness",
    "tail_recall",
]

_MAX_PAIRS = 50_000
"""Wanted pairs, and random pairs, looked at; of so many the AUC's standard error is < .002."""

_NO_SPREAD = -0.5
"""Uniformity above which vectors share a direction; spread over a circle they have -1.6."""


@dataclass(frozen=True)
class RetrieverDiagnostics:
    """One retriever at one moment of its training.

    Attributes:
        num_users: user vectors measured, those not counted that are zero.
        num_items: the same for items.
        alignment: see `alignment`, over pairs of a user and a wanted item; None without truth.
        uniformity_users: see `uniformity`; None with fewer than two vectors.
        uniformity_items: the same for items, each of the catalogue counting once.
        rankme_users: see `rankme`; 0 without a vector.
        rankme_items: the same for items.
        global_auc: see `global_auc`, wanted pairs against random ones; None without truth.
        coverage: share of the catalogue that stands in a list.
        head_share: share of the lists that is among the most popular tenth of the catalogue.
        occurrence_skewness: see `occurrence_skewness`.
        tail_recall: see `tail_recall`; None without truth, or where nobody wants a tail item.
    """

    num_users: int
    num_items: int
    alignment: float | None
    uniformity_users: float | None
    uniformity_items: float | None
    rankme_users: float
    rankme_items: float
    global_auc: float | None
    coverage: float
    head_share: float
    occurrence_skewness: float
    tail_recall: float | None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, by the names of the attributes."""
        return asdict(self)


def diagnose_retriever(
    query_vectors: np.ndarray,
    item_vectors: np.ndarray,
    retrieved: np.ndarray,
    counts: np.ndarray,
    *,
    rng: np.random.Generator,
    truth: Truth | None = None,
    max_rows: int = 4_000,
) -> RetrieverDiagnostics:
    """Measure a retriever from its vectors and the lists it returned.

    A score is the dot product of the vectors as they are; normalise them where a cosine is
    served. RankMe depends on the number of rows, so compare only runs with equal ``max_rows``.

    Args:
        query_vectors: [Q, D] float, one row per user asked.
        item_vectors: [N + 1, D] float; row 0 is padding and ignored.
        retrieved: [Q, K] item indices, best first, -1 = nothing; K is the cutoff.
        counts: [N + 1] training events of each item.
        rng: draws the rows and pairs that are looked at.
        truth: Q rows of wanted items, usually of the validation events. None: unknown.
        max_rows: user vectors and item vectors looked at, >= 2.

    Raises:
        ValueError: shapes disagree, a vector is not finite, or ``max_rows`` < 2.
    """
    counts = checked_popularity(counts)
    _check_vectors(query_vectors, item_vectors, counts.size)
    for name, rows in (("retrieved", retrieved), ("truth", truth)):
        if rows is not None and len(rows) != len(query_vectors):
            raise ValueError(
                f"{name} must have one row per query: got {len(rows)} for {len(query_vectors)}"
            )
    if truth is not None and int(truth.item_index.max(initial=0)) >= counts.size:
        raise ValueError(
            f"truth must hold items of the catalogue: got item index {truth.item_index.max()} for "
            f"{counts.size} rows of counts"
        )
    if max_rows < 2:
        raise ValueError(f"max_rows must be >= 2, got {max_rows}")
    users = _not_zero(query_vectors[_some(len(query_vectors), max_rows, rng)])
    items = _not_zero(item_vectors[1 + _some(len(item_vectors) - 1, max_rows, rng)])
    k = retrieved.shape[1]
    aligned = auc = in_tail = None
    if truth is not None and truth.item_index.size:
        wanted = _some(truth.item_index.size, _MAX_PAIRS, rng)
        row, item = truth.rows[wanted], truth.item_index[wanted]
        query, positive = query_vectors[row], item_vectors[item]  # [P, D]
        any_query = query_vectors[rng.integers(len(query_vectors), size=_MAX_PAIRS)]
        any_item = item_vectors[rng.integers(1, len(item_vectors), size=_MAX_PAIRS)]
        aligned = alignment(query, positive)
        auc = global_auc(_dot(query, positive), _dot(any_query, any_item))
        in_tail = tail_recall(retrieved, truth, counts)
    return RetrieverDiagnostics(
        num_users=len(users),
        num_items=len(items),
        alignment=aligned,
        uniformity_users=uniformity(users) if len(users) > 1 else None,
        uniformity_items=uniformity(items) if len(items) > 1 else None,
        rankme_users=rankme(users) if len(users) else 0.0,
        rankme_items=rankme(items) if len(items) else 0.0,
        global_auc=auc,
        coverage=coverage(retrieved, k, counts),
        head_share=head_share(retrieved, k, counts),
        occurrence_skewness=occurrence_skewness(retrieved, counts.size - 1),
        tail_recall=in_tail,
    )


def collapse(diagnostics: RetrieverDiagnostics, dim: int, *, least: float = 0.5) -> str | None:
    """Whether users or items share too few directions to be told apart, and what to do.

    The alarm is a RankMe below ``least`` of what it could be, min(``dim``, vectors measured).

    Args:
        diagnostics: of the retriever.
        dim: D, the length of its vectors.
        least: share of the possible RankMe, in (0, 1).

    Returns:
        One sentence with the numbers, the likely cause and a remedy; None when all is well.

    Raises:
        ValueError: ``dim`` < 1 or ``least`` out of range.
    """
    if dim < 1:
        raise ValueError(f"dim must be >= 1, got {dim}")
    if not 0.0 < least < 1.0:
        raise ValueError(f"least must be above 0 and below 1, got {least}")
    sides = {
        "user": (diagnostics.rankme_users, diagnostics.num_users, diagnostics.uniformity_users),
        "item": (diagnostics.rankme_items, diagnostics.num_items, diagnostics.uniformity_items),
    }
    for side, (rank, rows, spread) in sides.items():
        if not rows:
            return f"the {side} vectors are all zero: lower the learning rates or the weight decay"
        possible = min(dim, rows)
        if rank >= least * possible:
            continue
        found = (
            f"the {side} vectors have collapsed: RankMe {rank:.1f} of at most {possible}, want >= "
            f"{least * possible:.1f}"
        )
        if spread is not None and spread > _NO_SPREAD:
            return (
                f"{found}; their uniformity is {spread:.3f}, all point the same way and nothing "
                "pushes them apart: raise gamma, take more negatives, or lower temperature"
            )
        return (
            f"{found}; they point different ways, but use few of their dimensions: lower the "
            "learning rates, take more negatives, or lower dim"
        )
    return None


def global_auc(positive_score: np.ndarray, random_score: np.ndarray) -> float:
    """Probability that a wanted pair scores above a random one, all users pooled; ties count half.

    Pooled scores also ask whether scores of different users can be compared, which the order of
    one user's list does not.

    Args:
        positive_score: [P] scores of pairs of a user and a wanted item, P >= 1.
        random_score: [R] scores of pairs of any user and any item, R >= 1.

    Raises:
        ValueError: one of them is empty.
    """
    if not positive_score.size or not random_score.size:
        raise ValueError(
            "positive_score and random_score must not be empty, got "
            f"{positive_score.size} and {random_score.size} scores"
        )
    ordered = np.sort(random_score)
    below = np.searchsorted(ordered, positive_score, side="left")
    not_above = np.searchsorted(ordered, positive_score, side="right")
    return float((below + not_above).mean() / (2 * ordered.size))


def occurrence_skewness(item_index: np.ndarray, num_items: int) -> float:
    """Skewness of the number of lists that each item stands in: high where a few are hubs.

    Args:
        item_index: [Q, K] lists, -1 = nothing.
        num_items: N; items in no list count 0.

    Returns:
        Third central moment over the cubed standard deviation; 0 where all occur equally often.

    Raises:
        ValueError: not lists of distinct items, or ``num_items`` is below the largest.

    Source: Radovanović et al., JMLR 11, 2010 (S of N_k).
    """
    check_lists(item_index)
    largest = int(item_index.max(initial=0))
    if num_items < max(largest, 1):
        raise ValueError(
            f"num_items must be >= 1 and cover every list: got {num_items} for item index {largest}"
        )
    occurrence = np.bincount(item_index[item_index >= 1], minlength=num_items + 1)[1:]
    deviation = occurrence - occurrence.mean()
    scale = float(np.sqrt((deviation**2).mean()))
    return 0.0 if scale == 0.0 else float((deviation**3).mean() / scale**3)


def tail_recall(item_index: np.ndarray, truth: Truth, counts: np.ndarray) -> float | None:
    """Mean recall at the length of the lists where only the less popular half is wanted.

    Args:
        item_index: [Q, K] lists, -1 = nothing.
        truth: Q rows of wanted items.
        counts: [N + 1] training events; the half is all but `head_items` with fraction one half.

    Returns:
        Mean over users who want an item of that half; None if nobody does.

    Raises:
        ValueError: as in `recsys.evaluation.judge`.
    """
    judged = judge(item_index, truth.only(items=~head_items(counts, fraction=0.5)))
    if not judged.row.size:
        return None
    return float(recall(judged, item_index.shape[1]).mean())


def _check_vectors(query_vectors: np.ndarray, item_vectors: np.ndarray, num_rows: int) -> None:
    if query_vectors.ndim != 2 or not query_vectors.size:
        raise ValueError(f"query_vectors must be [Q >= 1, D], got shape {query_vectors.shape}")
    wanted = (num_rows, query_vectors.shape[1])
    if item_vectors.shape != wanted:
        raise ValueError(f"item_vectors must be [N + 1, D] = {wanted}, got {item_vectors.shape}")
    for name, vectors in (("query_vectors", query_vectors), ("item_vectors", item_vectors)):
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{name} must be finite: {int(bad.sum())} rows are not, the first is row "
                f"{int(np.argmax(bad))}; lower the learning rates"
            )


def _some(size: int, at_most: int, rng: np.random.Generator) -> np.ndarray:
    """``at_most`` of the rows 0..size - 1 without repetition, or all of them."""
    return np.arange(size) if size <= at_most else rng.choice(size, at_most, replace=False)


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[B] float64 dot products of the rows."""
    scores: np.ndarray = np.einsum("bd,bd->b", left, right, dtype=np.float64)
    return scores


def _not_zero(vectors: np.ndarray) -> np.ndarray:
    """The rows that have a direction."""
    return vectors[vectors.any(axis=1)]
