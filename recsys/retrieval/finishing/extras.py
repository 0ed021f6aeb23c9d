"""What is made of trained towers: a soup, a light user tower for live requests, a threshold.

past of the training part    train_soup  -> finish_towers(validation) -> save
whole training part          train_soup(plan) -> finish_towers(past)  -> save
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch

from features.tables import Histories
from recsys.errors import ArtifactError, NotFittedError, TooFewUsersError
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.finishing.distillation import DistillationOptions, UserStudent
from recsys.retrieval.finishing.distilled_two_tower import DistilledTwoTower, distil_user_tower
from recsys.retrieval.finishing.options import TowerExtras
from recsys.retrieval.finishing.threshold import ThresholdHead
from recsys.retrieval.finishing.tower_soup import SoupPlan, train_soup
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.topk import TopK

__all__ = ["FinishedTowers", "SoupPlan", "finish_towers", "train_soup"]

_LIGHT, _THRESHOLD, _ACTIVITY, _SOUP = "light_user_tower", "threshold", "activity", "soup.json"
_LEARNED_ROWS = 50_000  # users that student and head learn from
_ASKED_ROWS = 2_048  # users whose candidates are found at a time
_CANDIDATES = 200  # of each user, that the head learns from


@dataclass(frozen=True, eq=False)
class FinishedTowers:
    """A retriever and what was made of it.

    Attributes:
        retriever: the full towers; they answer for the batch job.
        light: the same items asked by the light user tower. None: there is none.
        head: tells which candidates are worth showing, by the vectors and scores of `online`.
            None: there is none.
        soup: how the retriever came about. None: by one training.
        activity: [U + 1] int64 events of each user of the training data, row 0 is 0: a live
            request may bring only a few of them. There is one where there is a head.
    """

    retriever: TwoTowerRetriever
    light: DistilledTwoTower | None = None
    head: ThresholdHead | None = None
    soup: SoupPlan | None = None
    activity: np.ndarray | None = None

    @property
    def online(self) -> TwoTowerRetriever:
        """What answers live requests: the light towers where there are some."""
        return self.retriever if self.light is None else self.light

    @property
    def knows_users(self) -> bool:
        """Whether anything here asks for the rows of known users."""
        return self.retriever.tower.options.use_user_id or self.activity is not None

    def likely(
        self,
        histories: Histories,
        score: np.ndarray,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> np.ndarray:
        """Which candidates the head holds for likely enough to be shown.

        Args:
            histories: Q rows.
            score: [Q, C] float32 scores that `online` gives the candidates; not finite = none.
            moment: see `TwoTowerRetriever.user_vectors`.
            user_index: see there; also tells how active a user is whose history is not whole.

        Returns:
            [Q, C] bool.

        Raises:
            NotFittedError: there is no head.
        """
        if self.head is None:
            raise NotFittedError("there is no threshold head; make one with finish_towers")
        query = self.online.user_vectors(histories, moment, user_index=user_index)
        activity = histories.counts
        if self.activity is not None and user_index is not None:
            activity = np.maximum(activity, self.activity[user_index])
        return self.head.keep(query, activity, score)

    def save(self, directory: Path) -> None:
        """Write all but the retriever beside what `TwoTowerRetriever.save` wrote there."""
        if self.light is not None:
            self.light.student.save(directory / _LIGHT)
        if self.head is not None:
            self.head.save(directory / _THRESHOLD)
        if self.activity is not None:
            write_model(directory / _ACTIVITY, _ACTIVITY, {}, {"activity": self.activity})
        if self.soup is not None:
            self.soup.save(directory / _SOUP)

    @classmethod
    def load(cls, directory: Path, retriever: TwoTowerRetriever | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            directory: the retriever's.
            retriever: it, when it is loaded already; its index and int8 copy are shared, so set
                them first. None: loaded from there.

        Raises:
            ArtifactError: a file is damaged, of another format, or does not fit the retriever.
        """
        retriever = retriever or TwoTowerRetriever.load(directory)
        light = None
        if (directory / _LIGHT).is_dir():
            try:
                light = _joined(retriever, UserStudent.load(directory / _LIGHT))
            except ValueError as error:
                raise ArtifactError(f"{directory / _LIGHT}: {error}") from error
        head, activity = None, None
        if (directory / _THRESHOLD).is_dir():
            head = ThresholdHead.load(directory / _THRESHOLD)
            activity = read_model(directory / _ACTIVITY, _ACTIVITY)[1]["activity"]
        soup = SoupPlan.load(directory / _SOUP) if (directory / _SOUP).is_file() else None
        return cls(retriever, light, head, soup, activity)


def finish_towers(
    retriever: TwoTowerRetriever,
    histories: Histories,
    validation: Histories | None,
    extras: TowerExtras,
    *,
    seed: int,
    soup: SoupPlan | None = None,
    past: FinishedTowers | None = None,
) -> FinishedTowers:
    """Make what ``extras`` asks for of a trained retriever.

    The light user tower learns from the histories alone. The threshold head learns from what
    users took after them, so it is fitted where there is validation, and carried over from
    ``past`` where there is none: it reads a user's activity and the score, whose scale is measured
    anew, and not the vectors, which mean something else after each training. (MovieLens small,
    pooled AUC after the retraining: score alone .562, activity .718, and .720 if it could be
    fitted anew; with vectors .698, and 9 % of the wanted items lost instead of 5 %.)

    Args:
        retriever: trained on ``histories``.
        histories: U rows, in the order of the retriever's user table if it has one.
        validation: later events of the same users. None: there are none.
        extras: what to make; its ``soup`` is the business of `train_soup`.
        seed: of student and head.
        soup: how the retriever came about, kept with it.
        past: what was made of the retriever of the past.

    Raises:
        ValueError: a head is asked for without validation and without a past retriever.
        TooFewUsersError: too few users have a history, or a positive among their candidates; or
            the past has no head, for that reason.
    """
    light = _distilled(retriever, histories, seed) if extras.light_user_tower else None
    made = FinishedTowers(retriever, light, soup=soup)
    if not extras.threshold_head:
        return made
    made = replace(made, activity=np.concatenate([[0], histories.counts]))
    if validation is not None:
        return replace(made, head=_fitted_head(made.online, histories, validation, seed))
    if past is None or past.head is None:
        error = ValueError if past is None else TooFewUsersError
        raise error(
            "validation must be given to fit the threshold head, or past with a fitted one; got "
            "neither: finish the retriever of the past first"
        )
    return replace(made, head=_carried_over(past.head, made.online, histories, seed))


def _joined(retriever: TwoTowerRetriever, student: UserStudent) -> DistilledTwoTower:
    """The ranker knows the scores by the name of the full towers, so the light ones take it."""
    light = DistilledTwoTower.from_teacher(retriever, student)
    light.name = retriever.name
    return light


def _distilled(retriever: TwoTowerRetriever, histories: Histories, seed: int) -> DistilledTwoTower:
    """Learn from whole histories, and without a user table also from their beginnings.

    A live request often knows a few events only. Where users have rows the student learns to say
    what the rows say, and only a whole history stands for that. It reads what the full tower reads
    of a history, or the mean where that reads nothing.
    """
    towers = retriever.tower.options
    options = DistillationOptions()
    if towers.pooling != "none":
        options = replace(
            options, half_lives=towers.half_lives, history_length=towers.history_length
        )
    rows = _drawn(np.flatnonzero(histories.counts), _LEARNED_ROWS, seed)
    moment = histories.timestamp[histories.indptr[1:][rows] - 1] + 1
    if not towers.use_user_id:
        rng = np.random.default_rng(seed)
        event = histories.indptr[rows] + rng.integers(0, histories.counts[rows])
        rows, moment = np.tile(rows, 2), np.concatenate([moment, histories.timestamp[event]])
    light = distil_user_tower(
        retriever,
        histories.take(rows),
        generator=torch.Generator().manual_seed(seed),
        options=options,
        moment=moment,
        user_index=rows + 1,
    )
    return _joined(retriever, light.student)


def _fitted_head(
    online: TwoTowerRetriever, histories: Histories, validation: Histories, seed: int
) -> ThresholdHead:
    asked = np.flatnonzero((histories.counts > 0) & (validation.counts > 0))
    rows = _drawn(asked, _LEARNED_ROWS, seed)
    vectors, lists = _candidates(online, histories, rows)
    label = np.concatenate(
        [
            np.take_along_axis(
                validation.take(rows[block]).seen_mask(online.num_items),
                np.maximum(lists.item_index[block], 0),
                axis=1,
            )
            for block in _blocks(rows.size)
        ]
    )
    return ThresholdHead.fit(
        vectors,
        histories.counts[rows],
        lists.score,
        label,
        generator=torch.Generator().manual_seed(seed),
        inputs="activity",
    )


def _carried_over(
    head: ThresholdHead, online: TwoTowerRetriever, histories: Histories, seed: int
) -> ThresholdHead:
    """The same map on the scale that the scores of ``online`` have now."""
    rows = _drawn(np.flatnonzero(histories.counts), _ASKED_ROWS, seed)
    score = _candidates(online, histories, rows)[1].score
    return head.rescaled(score)


def _candidates(
    online: TwoTowerRetriever, histories: Histories, rows: np.ndarray
) -> tuple[np.ndarray, TopK]:
    """Query vectors [Q, D] of the users ``rows`` [Q], and the best items they may be shown."""
    vectors, items, scores = [], [], []
    for block in _blocks(rows.size):
        seen = histories.take(rows[block])
        query = online.user_vectors(seen, user_index=rows[block] + 1)
        lists = online.search(query, _CANDIDATES, excluded=seen.hidden_mask(online.num_items))
        vectors.append(query)
        items.append(lists.item_index)
        scores.append(lists.score)
    return np.concatenate(vectors), TopK(np.concatenate(items), np.concatenate(scores))


def _blocks(size: int) -> list[slice]:
    return [slice(start, start + _ASKED_ROWS) for start in range(0, max(size, 1), _ASKED_ROWS)]


def _drawn(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of ``rows``, in their order."""
    if rows.size <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
