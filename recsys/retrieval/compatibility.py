"""Training a new model whose vectors can be compared with an older model's.

A new user tower may then query the old item index during a roll-out, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from features.histories import Histories
from features.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.retrieval.losses import in_batch_softmax
from recsys.retrieval.two_tower import Score, TwoTowerRetriever

__all__ = ["OldSpace", "compatibility_loss", "load_old_space"]

_SIDES = ("item", "user")


def compatibility_loss(
    new: Tensor,
    old: Tensor,
    *,
    temperature: float = 0.1,
    index: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean InfoNCE of each new vector to its own old vector, against the other old ones.

    Row i of ``old`` is the frozen vector of the same thing as row i of ``new``; no gradient flows
    into it. Scores are dot products: normalise both first for a cosine. Added to the training loss
    with a weight of about 0.1 for each side; a large one makes the new model a copy of the old.

    Args:
        new: [B, D] float.
        old: [B, D] float.
        temperature: logits are divided by it; > 0. 0.1 is the published mu = 10.
        index: [B] int64 rows of the things. Two examples of one thing are left out of each other's
            denominator (with -inf: a factor of 0 would leave a term exp(0)). None: all differ.
        weight: [B] weights of the examples, >= 0; one of weight 0 is still a negative. None: equal.

    Returns:
        Scalar, in nats. All-zero vectors of different things give log(B), of one thing 0.

    Raises:
        ValueError: shapes disagree or temperature <= 0.

    Source: the alignment term of Biondi et al., "Stationary representations", CVPR 2024 (HOC), as
        InfoNCE: the own old vector counts in the denominator.
    """
    if new.ndim != 2 or new.shape != old.shape:
        raise ValueError(
            f"new and old must both be [B, D]: got {tuple(new.shape)} and {tuple(old.shape)}"
        )
    if index is not None and index.shape != new.shape[:1]:
        raise ValueError(
            f"index must have one entry per row of new: got shape {tuple(index.shape)} for "
            f"{new.shape[0]} rows"
        )
    return in_batch_softmax(
        new, old.detach(), temperature=temperature, candidate_index=index, weight=weight
    )


@dataclass(frozen=True, eq=False)
class OldSpace:
    """The vectors of an older model, by the rows that a new vocabulary continues.

    Attributes:
        items: the old item vocabulary, N_old ids.
        item_vector: [N_old + 1, D] float32, row 0 zero; unit rows for a cosine.
        score: how the old model compares vectors; the new one must do the same.
        users: the old users in the order of ``user_vector``. None: no user vectors.
        user_vector: [U_old + 1, D] float32, row 0 zero, for models with a row per user.

    Raises:
        ValueError: shapes disagree, row 0 is not zero, or only one of ``users`` and
            ``user_vector`` is given.
    """

    items: Vocabulary
    item_vector: Tensor
    score: Score
    users: Vocabulary | None = None
    user_vector: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.users is None) != (self.user_vector is None):
            raise ValueError("users and user_vector must be given together, got only one")
        for side in _SIDES:
            ids, vector = getattr(self, f"{side}s"), getattr(self, f"{side}_vector")
            if ids is None:
                continue
            wanted = (ids.size, self.item_vector.shape[-1])
            if vector.shape != wanted:
                raise ValueError(
                    f"{side}_vector must be {wanted}, one row per old {side} and row 0, got "
                    f"{tuple(vector.shape)}"
                )
            if bool(vector[0].any()):
                raise ValueError(f"row 0 of {side}_vector must be zero (padding)")

    @property
    def dim(self) -> int:
        """D, which the new model must share."""
        return self.item_vector.shape[1]

    def check(
        self, items: Vocabulary, *, dim: int, score: Score, users: Vocabulary | None = None
    ) -> None:
        """Check that a new model can be compared with this one row by row.

        Args:
            items: the new item vocabulary; must begin with the old ids in their order.
            dim: width of the new vectors.
            score: how the new model compares vectors.
            users: the new user vocabulary, with the same rule. None: users are not compared.

        Raises:
            ArtifactError: the new vocabularies do not continue the old ones, or the vectors are
                not comparable.
        """
        _check_appended("item", self.items, items)
        if users is not None and self.users is not None:
            _check_appended("user", self.users, users)
        if (dim, score) != (self.dim, self.score):
            raise ArtifactError(
                f"the new vectors must be compared as the old ones, {self.dim} wide by "
                f"{self.score}, got {dim} wide by {score}; train with the old settings or without "
                "compatibility"
            )

    def item_loss(
        self,
        new: Tensor,
        item_index: Tensor,
        *,
        temperature: float = 0.1,
        weight: Tensor | None = None,
    ) -> Tensor:
        """`compatibility_loss` of new item vectors; padding and items without an old one are out.

        Args:
            new: [B, D] float new item vectors as the tower gives them; normalised here if the
                score is a cosine.
            item_index: [B] int64 rows of the new item vocabulary.
            temperature: see `compatibility_loss`.
            weight: [B], see `compatibility_loss`.

        Returns:
            Scalar; 0 if no item is old.
        """
        return self._loss(self.item_vector, new, item_index, temperature, weight)

    def user_loss(
        self,
        new: Tensor,
        user_index: Tensor,
        *,
        temperature: float = 0.1,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The same for the new vectors [B, D] of the users ``user_index`` [B].

        Raises:
            ValueError: the old space has no user vectors.
        """
        if self.user_vector is None:
            raise ValueError(
                "user_vector must be there for a user loss; load the old space with users"
            )
        return self._loss(self.user_vector, new, user_index, temperature, weight)

    def _loss(
        self,
        table: Tensor,
        new: Tensor,
        index: Tensor,
        temperature: float,
        weight: Tensor | None,
    ) -> Tensor:
        old = (index > 0) & (index < len(table))
        vector, rows = new[old], index[old]
        if not len(rows):
            return new.sum() * 0.0
        if self.score == "cosine":
            vector = F.normalize(vector, dim=1)
        return compatibility_loss(
            vector,
            table[rows.to(table.device)].to(vector),
            temperature=temperature,
            index=rows,
            weight=None if weight is None else weight[old],
        )


def load_old_space(
    retriever: TwoTowerRetriever,
    items: Vocabulary,
    *,
    users: Vocabulary | None = None,
    histories: Histories | None = None,
) -> OldSpace:
    """The vectors a trained retriever serves, as a space to stay compatible with.

    Args:
        retriever: the old model.
        items: the vocabulary it was trained with.
        users: the users of its training rows, in their order. None: items only.
        histories: [U_old] what those users did; needed with ``users``.

    Raises:
        ValueError: ``users`` and ``histories`` are not given together or differ in length.
        ArtifactError: ``items`` is not the vocabulary of ``retriever``.
    """
    if len(items) != retriever.num_items:
        raise ArtifactError(
            f"items must be the vocabulary of the old model with {retriever.num_items:,} items, "
            f"got {len(items):,}; load both from one bundle"
        )
    item_vector = torch.from_numpy(retriever.item_vectors)
    if users is None and histories is None:
        return OldSpace(items, item_vector, retriever.score_kind)
    if users is None or histories is None or len(users) != len(histories):
        raise ValueError(
            f"users and histories must be given together and be equally long: got "
            f"{None if users is None else len(users)} users and "
            f"{None if histories is None else len(histories)} histories"
        )
    row = np.arange(1, users.size, dtype=np.int64)
    vector = torch.from_numpy(retriever.user_vectors(histories, user_index=row))
    padded = torch.cat([torch.zeros(1, vector.shape[1]), vector])
    return OldSpace(items, item_vector, retriever.score_kind, users, padded)


def _check_appended(side: str, old: Vocabulary, new: Vocabulary) -> None:
    before, after = old.to_series(), new.to_series().head(len(old))
    if after.equals(before):
        return
    if len(after) < len(before):
        raise ArtifactError(
            f"{side}s must begin with the {len(old):,} old {side} ids, got only {len(new):,}; "
            f"extend the old vocabulary"
        )
    place = int((before != after).arg_true()[0])
    raise ArtifactError(
        f"{side}s must begin with the old {side} ids: index {place + 1} was {before[place]!r} and "
        f"is {after[place]!r}; extend the old vocabulary instead of numbering anew"
    )
