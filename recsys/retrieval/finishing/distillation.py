"""A light user tower for online use, distilled from the vectors of the full one."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.tables import Histories
from recsys.errors import ArtifactError, TooFewUsersError
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.towers.options import Score

__all__ = [
    "DistillationOptions",
    "UserStudent",
    "history_means",
]

log = logging.getLogger(__name__)


def history_means(
    histories: Histories,
    item_vector: Tensor,
    *,
    half_lives: Sequence[float] = (math.inf,),
    length: int | None = None,
) -> Tensor:
    """Means of the item vectors of each history, one a half-life, side by side.

    The event ``a`` places before the newest weighs ``0.5 ** (a / half_life)``, and the weights of
    a history sum to 1; a half-life of infinity is the plain mean.

    Args:
        histories: U rows; an empty one has the zero vector.
        item_vector: [N + 1, D] float32, row 0 zero.
        half_lives: P half-lives in events, > 0.
        length: newest events that count, >= 1. None: all.

    Returns:
        [U, P * D] float32.

    Raises:
        ValueError: a half-life or ``length`` is out of range.
    """
    _check_history(half_lives, length)
    if length is not None:
        histories = histories.last(length)
    counts, rows = histories.counts, histories.rows
    age = torch.from_numpy(histories.indptr[1:][rows] - 1 - np.arange(len(rows)))  # [E]
    items = torch.from_numpy(histories.item_index)
    offsets = torch.from_numpy(histories.indptr[:-1])
    found = []
    for half_life in half_lives:
        weight = 0.5 ** (age.double() / half_life)  # [E]
        total = torch.zeros(len(counts), dtype=torch.float64).index_add_(
            0, torch.from_numpy(rows), weight
        )
        share = (weight / total[rows]).to(item_vector)
        found.append(
            F.embedding_bag(items, item_vector, offsets, mode="sum", per_sample_weights=share)
        )
    return torch.cat(found, dim=1)


@dataclass(frozen=True)
class DistillationOptions:
    """How a student is made and trained.

    Attributes:
        hidden: width of its one hidden layer, >= 1.
        half_lives: recency means of the history it reads, see `history_means`.
        history_length: newest events it reads, >= 1. None: all.
        epochs: most passes over the users, >= 1.
        patience: epochs without a lower validation loss before it stops, >= 1.
        batch_size: users a step, >= 1.
        learning_rate: of Adam, > 0; falls to 0 along a cosine.
        validation: share of the users held out for stopping, in (0, 1).

    Raises:
        ValueError: a value is out of range.
    """

    hidden: int = 256
    half_lives: tuple[float, ...] = (math.inf,)
    history_length: int | None = None
    epochs: int = 100
    patience: int = 10
    batch_size: int = 256
    learning_rate: float = 5e-3
    validation: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if not 0.0 < self.validation < 1.0:
            raise ValueError(f"validation must be in (0, 1), got {self.validation}")
        _check_history(self.half_lives, self.history_length)


class UserStudent(nn.Module):
    """Two matrix products from the mean of a history's item vectors to a query vector.

        query = scale * (W2 gelu(W1 mean / spread + b1) + b2)

    Use `fit` or `load`. ``spread`` and ``scale`` are the sizes of means and teacher vectors, so
    that one learning rate does for unit vectors and for long ones. An empty history gets ``start``.

    Args:
        input_dim: width of the means, P * D.
        output_dim: width of the teacher's vectors.
        score: "cosine": `encode` gives unit rows; "dot": it does not.
        options: the shape.
        generator: draws the initial weights.

    Attributes:
        agreement: mean cosine with the teacher on the users held out by `fit`.
    """

    kind = "user_student"
    start: Tensor
    spread: Tensor
    scale: Tensor

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        score: Score,
        options: DistillationOptions,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.score_kind = score
        self.options = options
        self.agreement = math.nan

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(shape[1]))

        self.hidden_weight = drawn(options.hidden, input_dim)
        self.hidden_bias = nn.Parameter(torch.zeros(options.hidden))
        self.output_weight = drawn(output_dim, options.hidden)
        self.output_bias = nn.Parameter(torch.zeros(output_dim))
        self.register_buffer("start", torch.zeros(output_dim))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def fit(
        cls,
        history_means: Tensor,
        teacher: Tensor,
        *,
        generator: torch.Generator,
        score: Score = "cosine",
        options: DistillationOptions | None = None,
        start: Tensor | None = None,
    ) -> Self:
        """Learn the teacher's vectors from the means; the epoch best on held-out users is kept.

        The loss of a user is ``||s - t||^2 / mean ||t||^2 + 1 - cos(s, t)``.

        Args:
            history_means: [U, P * D] float32, of the users as they come in real traffic. Rows of
                zeros (empty histories) are left out.
            teacher: [U, D] float32 vectors as they are compared with the items: unit rows for a
                cosine.
            generator: draws weights, held-out users and batches.
            score: how the vectors are compared.
            options: None: the defaults of `DistillationOptions`.
            start: [D] what an empty history gets. None: the mean of ``teacher``.

        Raises:
            ValueError: shapes disagree or fewer than two users have a history.
            FloatingPointError: the loss is no longer finite.

        Source: "ScalingNote", arXiv 2411.15766, stage 2 (MSE + cosine, item tower frozen).
        """
        options = options or DistillationOptions()
        if history_means.ndim != 2 or teacher.ndim != 2 or len(history_means) != len(teacher):
            raise ValueError(
                f"history_means and teacher must have one row per user: got "
                f"{tuple(history_means.shape)} and {tuple(teacher.shape)}"
            )
        with_history = history_means.any(dim=1)
        means, wanted = history_means[with_history].float(), teacher[with_history].float()
        if len(means) < 2:
            raise TooFewUsersError(f"two users or more must have a history, got {len(means)}")
        student = cls(
            means.shape[1], wanted.shape[1], score=score, options=options, generator=generator
        )
        student.start.copy_(teacher.mean(dim=0) if start is None else start)
        student.spread.copy_(means.square().mean().sqrt())
        student.scale.copy_(wanted.square().mean().sqrt())
        student._train_on(means, wanted, generator)
        return student.eval()

    def forward(self, history_means: Tensor) -> Tensor:
        """[U, D]: the vectors before they are normalised and empty histories are filled in."""
        hidden = F.linear(history_means / self.spread, self.hidden_weight, self.hidden_bias)
        return self.scale * F.linear(F.gelu(hidden), self.output_weight, self.output_bias)

    @torch.no_grad()
    def encode(self, history_means: Tensor) -> Tensor:
        """Query vectors of means.

        Args:
            history_means: [U, P * D] float32; a row of zeros is an empty history.

        Returns:
            [U, D] float32; unit rows for a cosine.
        """
        empty = ~history_means.any(dim=1, keepdim=True)
        query = torch.where(empty, self.start, self(history_means))
        return F.normalize(query, dim=1) if self.score_kind == "cosine" else query

    def encode_histories(self, histories: Histories, item_vector: Tensor) -> Tensor:
        """`encode` of the means it was trained on; [U, D] float32.

        Args:
            histories: U rows.
            item_vector: [N + 1, D] float32, the vectors of training, row 0 zero.
        """
        means = history_means(
            histories,
            item_vector,
            half_lives=self.options.half_lives,
            length=self.options.history_length,
        )
        return self.encode(means)

    def save(self, directory: Path) -> None:
        """Write the weights."""
        options = vars(self.options) | {"half_lives": [str(h) for h in self.options.half_lives]}
        settings = {"score": self.score_kind, "agreement": self.agreement, "options": options}
        arrays = {name: value.detach().numpy() for name, value in self.state_dict().items()}
        write_model(directory, self.kind, settings, arrays)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, of another format, or the weights do not fit.
        """
        settings, arrays = read_model(directory, cls.kind)
        options = settings["options"]
        options["half_lives"] = tuple(float(half_life) for half_life in options["half_lives"])
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        try:
            student = cls(
                tensors["hidden_weight"].shape[1],
                len(tensors["output_weight"]),
                score=settings["score"],
                options=DistillationOptions(**options),
                generator=torch.Generator(),
            )
            student.load_state_dict(tensors)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{directory}: the tensors do not fit the settings ({error}); distil again"
            ) from error
        student.agreement = settings["agreement"]
        return student.eval()

    def _train_on(self, means: Tensor, teacher: Tensor, generator: torch.Generator) -> None:
        options = self.options
        order = torch.randperm(len(means), generator=generator)
        held_out = max(1, round(options.validation * len(means)))
        aside, rows = order[:held_out], order[held_out:]
        size = teacher.square().sum(dim=1).mean()
        optimizer = torch.optim.Adam(self.parameters(), lr=options.learning_rate)
        steps = options.epochs * math.ceil(len(rows) / options.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, best_epoch, kept = math.inf, 0, self.state_dict()
        for epoch in range(1, options.epochs + 1):
            shuffled = rows[torch.randperm(len(rows), generator=generator)]
            for batch in torch.split(shuffled, options.batch_size):
                loss = _distance(self(means[batch]), teacher[batch], size)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                now = float(_distance(self(means[aside]), teacher[aside], size))
            if not math.isfinite(now):
                raise FloatingPointError(
                    f"the distillation loss is {now} in epoch {epoch}; lower the learning rate"
                )
            if now < best:
                best, best_epoch = now, epoch
                kept = {name: value.clone() for name, value in self.state_dict().items()}
            elif epoch - best_epoch >= options.patience:
                break
        self.load_state_dict(kept)
        with torch.no_grad():
            cosine = F.cosine_similarity(self(means[aside]), teacher[aside], dim=1)
        self.agreement = float(cosine.mean())
        log.info("user student: epoch %d, agreement %.4f", best_epoch, self.agreement)


def _distance(student: Tensor, teacher: Tensor, size: Tensor) -> Tensor:
    apart = (student - teacher).square().sum(dim=1) / size
    return (apart + 1.0 - F.cosine_similarity(student, teacher, dim=1)).mean()


def _check_history(half_lives: Sequence[float], length: int | None) -> None:
    if not half_lives or not all(half_life > 0 for half_life in half_lives):
        raise ValueError(f"half_lives must be one or more numbers > 0, got {tuple(half_lives)}")
    if length is not None and length < 1:
        raise ValueError(f"length must be >= 1, got {length}; None reads all events")
