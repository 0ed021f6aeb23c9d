"""Both ranking stages joined: trees over all candidates, the listwise network over the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header
from recsys.ranking.fusion import ShareFusion
from recsys.ranking.gbdt import GbdtRanker
from recsys.ranking.listwise import ListwiseRanker
from recsys.ranking.options import GbdtOptions, ListwiseOptions, ListwiseStage

__all__ = ["Ranker", "RankerFit", "RankingRows", "fit_ranker", "lists_of"]

FORMAT = 1
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
TREE_SHARES = (0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class RankingRows:
    """Candidates with their features, rows of one request together.

    Attributes:
        features: [R, F] float32; NaN = missing.
        label: [R] int, 0 = not wanted.
        request_index: [R] int64, never falling.
        feature_names: [F].
    """

    features: np.ndarray
    label: np.ndarray
    request_index: np.ndarray
    feature_names: tuple[str, ...]

    def take(self, mask: np.ndarray) -> RankingRows:
        """The rows where ``mask`` [R] is True."""
        return RankingRows(
            self.features[mask], self.label[mask], self.request_index[mask], self.feature_names
        )


class RankerFit(NamedTuple):
    """A ranker and what its choices rest on.

    Attributes:
        ranker: trained on all rows.
        held_out_first: [R] first-stage scores of rows the trees did not train on.
        held_out: [R] scores of both stages, likewise out of fold.
        num_trees: chosen out of fold.
        strength: of the listwise stage, chosen out of fold; 0 where it does not pay.
        first_value: the measure of the first stage, by number of trees.
        listwise_value: the measure of both stages, by strength.
    """

    ranker: Ranker
    held_out_first: np.ndarray
    held_out: np.ndarray
    num_trees: int
    strength: float
    first_value: dict[int, float]
    listwise_value: dict[float, float]


def lists_of(score: np.ndarray, request_index: np.ndarray, top: int) -> np.ndarray:
    """[Q, top] int64 row numbers of each request's best rows, best first, padded with -1.

    Args:
        score: [R]; ties go to the earlier row.
        request_index: [R] int, never falling; Q distinct values.
        top: most rows of a list, >= 1.
    """
    if score.size and request_index[0] == request_index[-1]:
        best = np.argsort(-score, kind="stable")[:top]
        return np.append(best, np.full(top - best.size, -1))[None].astype(np.int64, copy=False)
    _, counts = np.unique(request_index, return_counts=True)
    query = np.repeat(np.arange(counts.size), counts)
    order = np.lexsort((-score, query))
    place = np.arange(score.size) - np.repeat(np.cumsum(counts) - counts, counts)
    lists = np.full((counts.size, top), -1, dtype=np.int64)
    kept = place < top
    lists[query[kept], place[kept]] = order[kept]
    return lists


class Ranker:
    """Orders candidates: LambdaMART scores all, a listwise network reorders the ``top`` best.

    The score keeps the trees' scale: the best rows share out the values the trees gave them, in
    the order the network put them in. So scores fall along the list, compare between requests,
    and nothing below ``top`` can overtake.

    Attributes:
        gbdt: the first stage; a `ShareFusion` where there was nothing to learn from.
        listwise: the second one. None: there is none.
        top: candidates that it sees.
    """

    def __init__(
        self,
        gbdt: GbdtRanker | ShareFusion,
        listwise: ListwiseRanker | None,
        *,
        top: int = ListwiseStage.default("top"),
    ) -> None:
        self.gbdt = gbdt
        self.listwise = listwise
        self.top = top

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns of ``features``, in order."""
        return self.gbdt.feature_names

    def score(self, features: np.ndarray, request_index: np.ndarray) -> np.ndarray:
        """[R] float64 scores, higher is better within a request.

        Args:
            features: [R, F] float32, columns as in ``feature_names``.
            request_index: [R] int, never falling.
        """
        first = self.gbdt.predict(features)
        return self.reorder(features, first, request_index)

    def reorder(
        self, features: np.ndarray, first: np.ndarray, request_index: np.ndarray
    ) -> np.ndarray:
        """[R] scores after the listwise stage, from the first stage's ``first`` [R]."""
        if self.listwise is None or self.listwise.strength == 0.0 or first.size == 0:
            return first
        lists = lists_of(first, request_index, self.top)
        mask = lists >= 0
        second = self.listwise.predict(features[lists], first[lists], mask)
        return _shared_out(first, lists, second)

    def save(self, directory: Path) -> None:
        """Write both stages below ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        self.gbdt.save(directory / "gbdt")
        if self.listwise is not None:
            self.listwise.save(directory / "listwise")
        header: dict[str, int | bool | str] = {
            "top": self.top,
            "listwise": self.listwise is not None,
        }
        if isinstance(self.gbdt, ShareFusion):
            header["first"] = "fusion"
        write_header(directory / "ranker.json", FORMAT, header)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or of another format.
        """
        try:
            header = read_header(directory / "ranker.json", FORMAT, remedy="train again")
        except FileNotFoundError as error:
            raise ArtifactError(f"no ranker in {directory}; train again") from error
        listwise = ListwiseRanker.load(directory / "listwise") if header["listwise"] else None
        first: type[GbdtRanker | ShareFusion] = GbdtRanker
        if header.get("first") == "fusion":
            first = ShareFusion
        return cls(first.load(directory / "gbdt"), listwise, top=header["top"])


def _shared_out(first: np.ndarray, lists: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``first`` with the values of each list handed out in the order of ``second`` [Q, C]."""
    mask = lists >= 0
    order = np.argsort(-second, axis=1, kind="stable")  # padding is -inf and stays last
    reordered = np.take_along_axis(lists, order, axis=1)
    score = first.copy()
    score[reordered[mask]] = first[lists[mask]]
    return score


def fit_ranker(
    rows: RankingRows,
    fold: np.ndarray,
    measure: Callable[[np.ndarray], float],
    *,
    gbdt: GbdtOptions | None = None,
    listwise: ListwiseOptions | None = None,
    top: int = ListwiseStage.default("top"),
    gains: Sequence[float] = (1.0,),
    seed: int = 0,
    on_step: Callable[[str], None] | None = None,
) -> RankerFit:
    """Train both stages; choose their sizes on requests they did not train on.

    The trees are grown once without each fold and score that fold; the number of trees is the one
    whose held-out scores measure best. The network then learns on held-out scores only (on scores
    of its own training rows the trees look better than they are), again once without each fold;
    its strength is the one that measures best, 0 included. Both are then trained on everything.

    Args:
        rows: all requests.
        fold: [R] int, the same within a request; at least two values.
        measure: [R] held-out scores -> quality, higher is better.
        gbdt: options of the trees; ``num_trees`` is the most.
        listwise: options of the network; None: no second stage. Neither is there one where the
            best candidates of too few requests hold a wanted one.
        top: candidates that the network sees.
        gains: what labels 1, 2, ... are worth, to both stages.
        seed: of everything.
        on_step: called with a short text before each training.

    Raises:
        ValueError: fewer than two folds, or as `GbdtRanker.fit`.
    """
    options = gbdt or GbdtOptions()
    folds = np.unique(fold)
    if fold.shape != rows.label.shape or folds.size < 2:
        raise ValueError(
            f"fold must give each of the {rows.label.size} rows one of at least two folds, got "
            f"shape {fold.shape} with {folds.size} values"
        )

    def note(text: str) -> None:
        if on_step is not None:
            on_step(text)

    def grow(part: RankingRows, limits: GbdtOptions) -> GbdtRanker:
        return GbdtRanker.fit(
            part.features,
            part.label,
            part.request_index,
            feature_names=part.feature_names,
            options=limits,
            gains=gains if len(gains) > 1 else None,
            seed=seed,
        )

    sizes = sorted({max(1, round(share * options.num_trees)) for share in TREE_SHARES})
    by_size = {size: np.zeros(rows.label.size) for size in sizes}
    for held_out in folds:
        note(f"trees without fold {held_out}")
        inside = fold != held_out
        trees = grow(rows.take(inside), options)
        for size, scores in by_size.items():
            scores[~inside] = trees.predict(rows.features[~inside], num_trees=size)
    first_value = {size: measure(scores) for size, scores in by_size.items()}
    num_trees = max(first_value, key=lambda size: (first_value[size], -size))
    note("trees on all requests")
    final_trees = grow(rows, options.but(num_trees=num_trees))
    first = by_size[num_trees]
    lists = lists_of(first, rows.request_index, top)
    mask = lists >= 0
    list_fold = fold[lists[:, 0]]
    worth = np.array([0.0, *gains], dtype=np.float32)
    label = np.where(mask, worth[rows.label[lists]], 0.0).astype(np.float32)
    if listwise is None or np.unique(list_fold[(label > 0).any(axis=1)]).size < 2:
        ranker = Ranker(final_trees, None, top=top)
        return RankerFit(ranker, first, first, num_trees, 0.0, first_value, {})

    def train_lists(part: np.ndarray) -> ListwiseRanker:
        return ListwiseRanker.fit(
            rows.features[lists[part]],
            first[lists[part]],
            label[part],
            mask[part],
            options=listwise,
            generator=torch.Generator().manual_seed(seed),
        )

    by_strength = {strength: first.copy() for strength in STRENGTHS}
    for held_out in folds:
        note(f"listwise network without fold {held_out}")
        inside = list_fold != held_out
        network = train_lists(inside)
        outside = lists[~inside]
        for strength, scores in by_strength.items():
            if strength == 0.0:
                continue
            second = network.predict(
                rows.features[outside], first[outside], outside >= 0, strength=strength
            )
            moved = _shared_out(first, outside, second)
            scores[outside[outside >= 0]] = moved[outside[outside >= 0]]
    listwise_value = {strength: measure(scores) for strength, scores in by_strength.items()}
    strength = max(listwise_value, key=lambda each: (listwise_value[each], -each))
    note("listwise network on all requests")
    final_network = train_lists(np.ones(len(lists), dtype=bool))
    final_network.strength = strength
    return RankerFit(
        Ranker(final_trees, final_network, top=top),
        first,
        by_strength[strength],
        num_trees,
        strength,
        first_value,
        listwise_value,
    )
