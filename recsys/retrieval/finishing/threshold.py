"""Scores of different users on one scale, so that one threshold can say "do not show this"."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.errors import ArtifactError, TooFewUsersError
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.finishing.filtering import threshold_at_recall

__all__ = ["HeadInputs", "ThresholdHead"]

log = logging.getLogger(__name__)

HeadInputs = Literal["vector+activity", "vector", "activity", "none"]
_KIND = "threshold_head"
_LEAST_SLOPE = 1e-6  # keeps the slope above 0 where softplus underflows
_STEPS = 10  # L-BFGS steps between two looks at the held-out users
_ROUNDS = 30


class ThresholdHead:
    """A map of the retrieval score that differs by user and never changes a user's own order.

        logit = a_u * (score - mean) / spread + b_u      a_u = softplus(w_a . x_u + c_a) > 0
                                                         b_u = w_b . x_u + c_b

    ``x_u`` is the user's vector and the log of one plus its number of events, standardised. What is
    not clicked need not be irrelevant, so the logit is a calibration relative to the other users.

    Use `fit` or `load`.

    Args:
        inputs: what ``x_u`` is made of; "none": one map for all users.
        center: [F] means of ``x``.
        width: [F] standard deviations of ``x``, > 0.
        weight: [2, F] float64, ``w_a`` and ``w_b``.
        bias: [2] float64, ``c_a`` and ``c_b``.
        score_scale: mean and spread of the score.
        threshold: see the attribute.

    Attributes:
        threshold: logits below it are not shown; on the scale of `apply`.
    """

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        center: np.ndarray,
        width: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        score_scale: tuple[float, float],
        threshold: float = -math.inf,
    ) -> None:
        self.inputs = inputs
        self.threshold = threshold
        self._center, self._width = center, width
        self._weight, self._bias = weight, bias
        self._score_scale = score_scale

    @classmethod
    def fit(
        cls,
        user_vectors: np.ndarray,
        activity: np.ndarray,
        score: np.ndarray,
        label: np.ndarray,
        *,
        generator: torch.Generator,
        inputs: HeadInputs = "vector+activity",
        held_out: float = 0.4,
        l2: float = 1e-4,
        recall: float = 0.95,
    ) -> Self:
        """Fit the map on some users, stop by others, choose the threshold on yet others.

        Args:
            user_vectors: [Q, D] float32 query vectors, one user a row.
            activity: [Q] number of events of each user, >= 0.
            score: [Q, K] float32 scores of the retrieved candidates; not finite = no candidate.
            label: [Q, K] bool, True = the user went on to take it.
            generator: draws which users are held out.
            inputs: what the map may depend on.
            held_out: share of the users the map is not fitted on, in (0, 1): half of them stop the
                fit, the other half choose the threshold.
            l2: weight of the squared weights in the loss, >= 0.
            recall: see `choose_threshold`.

        Raises:
            ValueError: an argument is out of range or of another shape, or one of the three groups
                of users has no positive.
            FloatingPointError: the loss is not finite.

        Source: Rossi et al., "Relevance filtering for embedding-based retrieval" (Cosine Adapter),
            CIKM 2024, linear form; slope by softplus so that it cannot turn an order around.
        """
        if inputs not in get_args(HeadInputs):
            raise ValueError(f"inputs must be one of {get_args(HeadInputs)}, got {inputs!r}")
        if not 0.0 < held_out < 1.0:
            raise ValueError(f"held_out must be in (0, 1), got {held_out}")
        if l2 < 0:
            raise ValueError(f"l2 must be >= 0, got {l2}")
        _check(user_vectors, activity, score)
        if label.shape != score.shape or label.dtype != bool:
            raise ValueError(
                f"label must be bool of shape {score.shape}, got {label.dtype} of {label.shape}"
            )
        order = torch.randperm(len(score), generator=generator).numpy()
        aside = round(held_out * len(score))
        groups = {"stopping": order[: aside // 2], "choosing": order[aside // 2 : aside]}
        groups["fitting"] = order[aside:]
        for name, rows in groups.items():
            if not (label[rows] & np.isfinite(score[rows])).any():
                raise TooFewUsersError(
                    f"label must hold a positive among the {len(rows)} users for {name}, got none; "
                    "give more users"
                )
        fitting = groups["fitting"]
        known = score[fitting][np.isfinite(score[fitting])].astype(np.float64)
        x = _describe(user_vectors[fitting], activity[fitting], inputs)
        spread = x.std(axis=0)
        base = float(label[fitting][np.isfinite(score[fitting])].mean())
        head = cls(
            inputs,
            center=x.mean(axis=0),
            width=np.where(spread > 0, spread, 1.0),
            weight=np.zeros((2, x.shape[1])),
            bias=np.array([math.log(math.e - 1.0), math.log(base / (1.0 - base + 1e-12))]),
            score_scale=(float(known.mean()), float(known.std()) or 1.0),
        )
        arrays = (user_vectors, activity, score, label)
        train, stop = (
            head._tensors(*(array[groups[name]] for array in arrays))
            for name in ("fitting", "stopping")
        )
        head._minimise(train, stop, l2)
        choosing = groups["choosing"]
        head.choose_threshold(*(array[choosing] for array in arrays), recall=recall)
        return head

    def apply(
        self, user_vectors: np.ndarray, activity: np.ndarray, score: np.ndarray
    ) -> np.ndarray:
        """Calibrated logits of the candidates.

        Args:
            user_vectors: [Q, D] float32.
            activity: [Q] number of events of each user.
            score: [Q, K] float32, not finite = no candidate.

        Returns:
            [Q, K] float64, so that scores that differ stay different; -inf where there is no
            candidate.

        Raises:
            ValueError: shapes disagree or ``user_vectors`` has another width than at the fit.
        """
        _check(user_vectors, activity, score)
        slope, offset = self.maps(user_vectors, activity)
        real = np.isfinite(score)
        mean, spread = self._score_scale
        scaled = (np.where(real, score, mean).astype(np.float64) - mean) / spread
        return np.where(real, slope[:, None] * scaled + offset[:, None], -np.inf)

    def maps(self, user_vectors: np.ndarray, activity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``a_u`` > 0 and ``b_u``, each [Q] float64, of users [Q, D] with [Q] events."""
        x = _describe(user_vectors, activity, self.inputs)
        if x.shape[1] != len(self._center):
            raise ValueError(
                f"user_vectors must be as wide as at the fit: the head reads {len(self._center)} "
                f"inputs ({self.inputs}), got {x.shape[1]}"
            )
        raw = (x - self._center) / self._width @ self._weight.T + self._bias  # [Q, 2]
        return np.logaddexp(0.0, raw[:, 0]) + _LEAST_SLOPE, raw[:, 1]

    def keep(
        self,
        user_vectors: np.ndarray,
        activity: np.ndarray,
        score: np.ndarray,
        *,
        at_least: int = 0,
    ) -> np.ndarray:
        """[Q, K] bool: candidates at or above the threshold.

        Args:
            user_vectors: [Q, D] float32.
            activity: [Q] number of events of each user.
            score: [Q, K] float32, not finite = no candidate.
            at_least: the best so many of each user are kept whatever their logit; >= 0.

        Raises:
            ValueError: ``at_least`` < 0.
        """
        if at_least < 0:
            raise ValueError(f"at_least must be >= 0, got {at_least}")
        logit = self.apply(user_vectors, activity, score)
        kept: np.ndarray = logit >= self.threshold
        best = np.argsort(-logit, axis=1, kind="stable")[:, :at_least]
        np.put_along_axis(kept, best, True, axis=1)
        kept &= np.isfinite(logit)
        return kept

    def choose_threshold(
        self,
        user_vectors: np.ndarray,
        activity: np.ndarray,
        score: np.ndarray,
        label: np.ndarray,
        *,
        recall: float = 0.95,
    ) -> float:
        """Set and return the highest threshold that keeps ``recall`` of these users' positives.

        Args:
            user_vectors: [Q, D] float32 of users whom the map was not fitted on.
            activity: [Q] number of events of each user.
            score: [Q, K] float32, not finite = no candidate.
            label: [Q, K] bool.
            recall: share of the retrieved positives, in (0, 1].

        Raises:
            ValueError: see `apply` and `recsys.retrieval.finishing.filtering.threshold_at_recall`.
        """
        logit = self.apply(user_vectors, activity, score)
        self.threshold = threshold_at_recall(logit, label, recall=recall)
        return self.threshold

    def rescaled(self, score: np.ndarray) -> Self:
        """The same map and threshold for a model whose scores have another mean and spread.

        Args:
            score: [Q, K] float32 of that model's candidates, not finite = no candidate.

        Raises:
            ValueError: there is no candidate.
        """
        known = score[np.isfinite(score)].astype(np.float64)
        if not known.size:
            raise TooFewUsersError(f"score must hold a candidate, got none in shape {score.shape}")
        return type(self)(
            self.inputs,
            center=self._center,
            width=self._width,
            weight=self._weight,
            bias=self._bias,
            score_scale=(float(known.mean()), float(known.std()) or 1.0),
            threshold=self.threshold,
        )

    def save(self, directory: Path) -> None:
        """Write the map and the threshold."""
        settings = {"inputs": self.inputs, "threshold": str(self.threshold)}  # "-inf" too
        tensors = {
            "center": self._center,
            "width": self._width,
            "weight": self._weight,
            "bias": self._bias,
            "score_scale": np.array(self._score_scale),
        }
        write_model(directory, _KIND, settings, tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, of another format, or does not fit the others.
        """
        settings, tensors = read_model(directory, _KIND)
        try:
            mean, spread = tensors.pop("score_scale").tolist()
            head = cls(
                settings["inputs"],
                **tensors,
                score_scale=(mean, spread),
                threshold=float(settings["threshold"]),
            )
            if tensors["weight"].shape != (2, len(tensors["center"])):
                raise ValueError(f"weight has shape {tensors['weight'].shape}")
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{directory}: the tensors do not fit the settings ({error}); fit the head again"
            ) from error
        return head

    def _tensors(
        self, user_vectors: np.ndarray, activity: np.ndarray, score: np.ndarray, label: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Standardised x [Q, F], and of the M real candidates their row, score and label."""
        x = (_describe(user_vectors, activity, self.inputs) - self._center) / self._width
        row, column = np.nonzero(np.isfinite(score))
        mean, spread = self._score_scale
        scaled = (score[row, column].astype(np.float64) - mean) / spread
        wanted = label[row, column].astype(np.float64)
        return tuple(torch.from_numpy(array) for array in (x, row, scaled, wanted))  # type: ignore[return-value]

    def _minimise(self, train: tuple[Tensor, ...], stop: tuple[Tensor, ...], l2: float) -> None:
        """L-BFGS in rounds; the round with the lowest loss on ``stop`` is kept."""
        weight = torch.from_numpy(self._weight.copy()).requires_grad_()
        bias = torch.from_numpy(self._bias.copy()).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = _loss(weight, bias, *train) + l2 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        best, before = math.inf, math.inf
        for done in range(_ROUNDS):
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                now = float(_loss(weight, bias, *stop))
            if not math.isfinite(now):
                raise FloatingPointError(
                    f"the loss of the threshold head is {now} in round {done + 1}; the scores or "
                    "vectors are out of any reasonable range"
                )
            if now < best:
                best = now
                self._weight, self._bias = (t.detach().numpy().copy() for t in (weight, bias))
            if now > before - 1e-6:
                break
            before = now
        log.info("threshold head: held-out cross-entropy %.4f after %d rounds", best, done + 1)


def _loss(
    weight: Tensor, bias: Tensor, x: Tensor, row: Tensor, score: Tensor, label: Tensor
) -> Tensor:
    raw = x @ weight.T + bias  # [Q, 2]
    slope = F.softplus(raw[:, 0]) + _LEAST_SLOPE
    return F.binary_cross_entropy_with_logits(slope[row] * score + raw[row, 1], label)


def _describe(user_vectors: np.ndarray, activity: np.ndarray, inputs: HeadInputs) -> np.ndarray:
    """[Q, F] float64: what the map may depend on."""
    parts = [np.zeros((len(activity), 0))]
    if inputs in ("vector", "vector+activity"):
        parts.append(user_vectors.astype(np.float64))
    if inputs in ("activity", "vector+activity"):
        parts.append(np.log1p(activity.astype(np.float64))[:, None])
    return np.concatenate(parts, axis=1)


def _check(user_vectors: np.ndarray, activity: np.ndarray, score: np.ndarray) -> None:
    rows = score.shape[0] if score.ndim == 2 else -1
    if user_vectors.ndim != 2 or len(user_vectors) != rows or activity.shape != (rows,):
        raise ValueError(
            "user_vectors, activity and score must be [Q, D], [Q] and [Q, K]: got "
            f"{user_vectors.shape}, {activity.shape} and {score.shape}"
        )
    if not np.isfinite(user_vectors).all():
        raise ValueError("user_vectors must be finite; the model has diverged")
    if activity.size and activity.min() < 0:
        raise ValueError(f"activity must be >= 0, got {activity.min()}")
