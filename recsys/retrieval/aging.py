"""Time in what retrievers that count learn from, and in the histories they are asked with."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from features.tables import Histories
from recsys.files.headers import read_header, write_header
from recsys.retrieval.blocks import AskedRetriever, moments_of
from recsys.retrieval.protocol import Question, Retriever

__all__ = ["AgedRetriever", "asked_by_days", "decayed", "learned_part", "with_age"]

AGE = "age.json"
FORMAT = 1
DAY_US = 86_400 * 1_000_000


def decayed(histories: Histories, moment: np.ndarray, half_life_days: float) -> Histories:
    """The same events, each weighing ``weight * 0.5 ** (age / half_life)`` at its row's moment.

    Args:
        histories: Q rows.
        moment: [Q] int64 microseconds; what happens later weighs as if it happened then.
        half_life_days: > 0.

    Raises:
        ValueError: half_life_days <= 0.
    """
    if half_life_days <= 0:
        raise ValueError(f"half_life_days must be > 0, got {half_life_days}; None turns it off")
    age = np.repeat(moment, histories.counts) - histories.timestamp
    share = 0.5 ** (np.maximum(age, 0) / (half_life_days * DAY_US))
    return replace(histories, weight=(histories.weight * share).astype(np.float32))


def learned_part(
    histories: Histories, *, days: float | None, half_life_days: float | None
) -> Histories:
    """What a retriever learns from: the newest days of a log, older events weighing less.

    Args:
        histories: U rows.
        days: only events of the last so many days before the newest one. None: all.
        half_life_days: of their weight. None: their age does not count.

    Raises:
        ValueError: days <= 0 or half_life_days <= 0.
    """
    if days is not None and days <= 0:
        raise ValueError(f"days must be > 0, got {days}; None takes all of them")
    if not histories.timestamp.size or (days is None and half_life_days is None):
        return histories
    newest = int(histories.timestamp.max())
    if days is not None:
        histories = histories.at_moment(newest - round(days * DAY_US))[1]
    if half_life_days is not None:
        histories = decayed(histories, np.full(len(histories), newest), half_life_days)
    return histories


class AgedRetriever(AskedRetriever):
    """A retriever that is asked with histories whose older events weigh less.

    Attributes:
        name: how answers name this source.
        inner: who answers.
        half_life_days: of the asking history, before the moment of the question.
    """

    def __init__(self, inner: Retriever, half_life_days: float) -> None:
        self.name = inner.name
        self.inner = inner
        self.half_life_days = half_life_days

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> Question:
        """See `recsys.retrieval.protocol.Retriever`."""
        aged = decayed(histories, moments_of(histories, moment), self.half_life_days)
        return self.inner.ask(aged, moment=moment, user_index=user_index)

    def save(self, directory: Path, **options: Any) -> None:
        """Write the retriever that answers, and `AGE` beside its files.

        Args:
            directory: one retriever's own.
            options: of the saving of the one that answers.
        """
        self.inner.save(directory, **options)
        write_header(directory / AGE, FORMAT, {"half_life_days": self.half_life_days})


def asked_by_days(inner: Retriever, half_life_days: float) -> AgedRetriever:
    """The same retriever asked with histories that fade by days, no longer by events."""
    if getattr(inner, "half_life", None) is not None:
        inner = copy(inner)
        inner.half_life = None  # type: ignore[attr-defined]
    return AgedRetriever(inner, half_life_days)


def with_age(inner: Retriever, directory: Path) -> Retriever:
    """What was saved in ``directory``, of which ``inner`` was read.

    Raises:
        ArtifactError: `AGE` is damaged or of another format.
    """
    if not (directory / AGE).is_file():
        return inner
    header = read_header(directory / AGE, FORMAT, remedy="train again")
    return AgedRetriever(inner, float(header["half_life_days"]))
