"""What is reported of each epoch."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EpochReport"]


class EpochReport(NamedTuple):
    """One finished epoch.

    What needs validation events, or more than one user, is None without them.

    Attributes:
        epoch: from 1.
        num_epochs: as many as there can be.
        loss: mean over the steps.
        recall: recall@20 on the validation events.
        seconds: since the epoch began, validation included.
        training_seconds: of the steps alone.
        gradient_norm: mean over the steps of the length of the gradient of all vectors.
        alignment: see `recsys.evaluation.diagnostics`, as all that follow.
        uniformity_users: of the validation users.
        uniformity_items: of the catalogue.
        rankme_users: dimensions the users' vectors use.
        rankme_items: dimensions the items' vectors use.
        coverage: share of the catalogue in somebody's 20.
        head_share: share of the 20 that is among the 10 % most popular items.
        tail_recall: recall@20 of the less popular half of the catalogue.
    """

    epoch: int
    num_epochs: int
    loss: float
    recall: float | None
    seconds: float
    training_seconds: float = 0.0
    gradient_norm: float | None = None
    alignment: float | None = None
    uniformity_users: float | None = None
    uniformity_items: float | None = None
    rankme_users: float | None = None
    rankme_items: float | None = None
    coverage: float | None = None
    head_share: float | None = None
    tail_recall: float | None = None

    def __str__(self) -> str:
        shown = "" if self.recall is None else f", validation recall@20 {self.recall:.4f}"
        return (
            f"two-tower epoch {self.epoch}/{self.num_epochs}: loss {self.loss:.4f}{shown}, "
            f"{self.seconds:.1f} s"
        )
