"""Training a soup: branches of one checkpoint, averaged where that helps."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from features.tables import Histories
from recsys.errors import ArtifactError
from recsys.evaluation import Truth, judge
from recsys.evaluation.metrics import recall
from recsys.retrieval.finishing.soup import SoupMember, average, greedy_soup, start_digest
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.training import TrainingOptions

__all__ = ["Branch", "SoupPlan", "SoupTowers", "TrainsTowers", "train_soup"]

log = logging.getLogger(__name__)

_START_SHARE = 0.6  # of the epochs, trained once for all branches
_RATES = (1.0, 2.0, 0.5)  # of the learning rates, one a branch, over and over
_MEASURED_AT = 20
_MEASURED_ROWS = 4_096


class TrainsTowers(Protocol):
    """`recsys.retrieval.training.train_two_tower` with its data given."""

    def __call__(
        self, training: TrainingOptions, *, seed: int, start: TwoTowerRetriever | None
    ) -> TwoTowerRetriever:
        """Train from ``start``, or from where the run begins when it is None."""
        ...


class Branch(NamedTuple):
    """A branch in a soup: which one it was, from 0, and for how many epochs it trained."""

    number: int
    epochs: int


@dataclass(frozen=True)
class SoupPlan:
    """How a soup came about, so that the same can be trained again on more data.

    Attributes:
        start_epochs: of the training all branches began from.
        kept: the branches in the soup, the best one first.
    """

    start_epochs: int
    kept: tuple[Branch, ...]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            values = json.loads(path.read_text())
            kept = tuple(Branch(int(number), int(epochs)) for number, epochs in values["kept"])
            return cls(int(values["start_epochs"]), kept)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is no plan of a soup ({error}); train again") from error


class SoupTowers(NamedTuple):
    """What `train_soup` made.

    Attributes:
        retriever: the soup.
        plan: how it came about.
        recall: recall@20 of it on the validation events; None without them.
        branch_recall: of each branch alone, by number; empty without validation.
    """

    retriever: TwoTowerRetriever
    plan: SoupPlan
    recall: float | None
    branch_recall: tuple[float, ...]


def train_soup(
    train: TrainsTowers,
    training: TrainingOptions,
    histories: Histories,
    validation: Histories | None,
    *,
    branches: int,
    seed: int,
    plan: SoupPlan | None = None,
    content: np.ndarray | None = None,
    prefix_tokens: np.ndarray | None = None,
    fields: np.ndarray | None = None,
) -> SoupTowers:
    """Train to a checkpoint, branch from it, and average the branches that help each other.

    The start takes 60 % of the epochs, each branch the rest with its own order of the data and 1,
    2, 1/2, 1, ... times the learning rates. The decay of the learning rate belongs to the
    branches. Tables and weights of both towers are averaged together, and all items encoded anew.

    With validation the soup is the greedy one, so it is never worse there than the best branch.
    Without, nothing can be chosen: ``plan``, chosen on the past of the same data, is trained
    again, the same branches for as many epochs, and all of it averaged.

    Args:
        train: trains on ``histories``; on the same validation, if there is one.
        training: how; ``epochs`` >= 2.
        histories: training events of U users.
        validation: later events of the same users. None: ``plan`` says what is done.
        branches: how many, >= 2; a plan names its own.
        seed: of the start; the branches' own follow from it.
        plan: of an earlier soup. None: chosen on ``validation``.
        content: what the items are encoded from, as in `train_two_tower`.
        prefix_tokens: see ``content``.
        fields: see ``content``.

    Raises:
        ValueError: an argument is out of range, hard negatives are asked for, or not exactly one
            of ``validation`` and ``plan`` is given.

    Source: Wortsman et al., "Model soups", ICML 2022.
    """
    if (validation is None) == (plan is None):
        raise ValueError(
            "validation or plan must be given, and not both: a soup is chosen by one or repeated "
            f"from the other; got {'neither' if plan is None else 'both'}"
        )
    if plan is None and branches < 2:
        raise ValueError(f"branches must be >= 2, got {branches}; train once instead")
    if training.epochs < 2:
        raise ValueError(f"epochs must be >= 2 for a soup, got {training.epochs}")
    if training.hard_epochs:
        raise ValueError(
            f"hard_epochs must be 0 for a soup, got {training.hard_epochs}; refine one training"
        )
    share = max(1, min(training.epochs - 1, round(_START_SHARE * training.epochs)))
    first = share if plan is None else plan.start_epochs
    start = train(training.but(epochs=first, final_learning_rate=1.0), seed=seed, start=None)
    wanted = (
        [Branch(number, training.epochs - share) for number in range(branches)]
        if plan is None
        else list(plan.kept)
    )
    made = [
        train(
            _branch_options(training, branch, first), seed=_branch_seed(seed, branch), start=start
        )
        for branch in wanted
    ]
    origin = start_digest(_state(start))
    members = [
        SoupMember(str(branch.number), _state(model), origin)
        for branch, model in zip(wanted, made, strict=True)
    ]

    def joined(state: Mapping[str, Tensor], epochs: int = 0) -> TwoTowerRetriever:
        return _from_state(
            start,
            state,
            content=content,
            prefix_tokens=prefix_tokens,
            fields=fields,
            best_epoch=start.best_epoch + epochs,
        )

    if validation is None or plan is not None:
        state = average([member.state for member in members])
        epochs = max(branch.epochs for branch in wanted)
        kept = SoupPlan(first, tuple(wanted))
        return SoupTowers(joined(state, epochs), kept, None, ())
    result = greedy_soup(members, lambda state: _recall(joined(state), histories, validation))
    kept = SoupPlan(
        start.best_epoch,
        tuple(Branch(int(name), made[int(name)].best_epoch) for name in result.kept),
    )
    alone = tuple(result.member_score[str(number)] for number in range(branches))
    log.info(
        "soup of branches %s of %d: validation recall@20 %.4f, the branches alone %s",
        ", ".join(result.kept),
        branches,
        result.score,
        " ".join(f"{value:.4f}" for value in alone),
    )
    epochs = max(branch.epochs for branch in kept.kept)
    return SoupTowers(joined(result.state, epochs), kept, result.score, alone)


def _branch_options(training: TrainingOptions, branch: Branch, before: int) -> TrainingOptions:
    """Denoising goes on as if the epochs ``before`` belonged to the same training."""
    rate = _RATES[branch.number % len(_RATES)]
    return training.but(
        epochs=branch.epochs,
        learning_rate=rate * training.learning_rate,
        table_learning_rate=rate * training.table_learning_rate,
        warmup_epochs=max(0, training.warmup_epochs - before),
    )


def _branch_seed(seed: int, branch: Branch) -> int:
    """Far from the start's and from its processes' own, which follow it one by one."""
    return seed + 10_007 * (branch.number + 1)


def _state(retriever: TwoTowerRetriever) -> dict[str, Tensor]:
    tower = {f"tower.{name}": value for name, value in retriever.tower.state_dict().items()}
    return tower | {f"table.{name}": value for name, value in retriever.tables.items()}


def _from_state(
    like: TwoTowerRetriever,
    state: Mapping[str, Tensor],
    *,
    content: np.ndarray | None,
    prefix_tokens: np.ndarray | None,
    fields: np.ndarray | None,
    best_epoch: int,
) -> TwoTowerRetriever:
    """The towers of ``state``, shaped as ``like``, with every item encoded."""
    parts: dict[str, dict[str, Tensor]] = {"tower": {}, "table": {}}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    tower = TwoTower(
        like.tower.options, content_dim=like.tower.content_dim, generator=torch.Generator()
    )
    tower.load_state_dict(parts["tower"])
    return TwoTowerRetriever.from_tables(
        tower,
        parts["table"],
        content=None if content is None else torch.from_numpy(content).float(),
        prefix_tokens=None if prefix_tokens is None else torch.from_numpy(prefix_tokens).long(),
        fields=None if fields is None else torch.from_numpy(fields).long(),
        score=like.score_kind,
        best_epoch=best_epoch,
    )


def _recall(retriever: TwoTowerRetriever, histories: Histories, validation: Histories) -> float:
    """Mean recall@20 over (at most 4,096) users with validation events, as training measures it."""
    rows = np.flatnonzero(validation.counts)[:_MEASURED_ROWS]
    if not rows.size:
        raise ValueError("validation must hold at least one event, got none")
    seen = histories.take(rows)
    lists = retriever.retrieve(
        seen,
        _MEASURED_AT,
        excluded=seen.hidden_mask(retriever.num_items),
        user_index=rows + 1,
    )
    truth = Truth.from_histories(validation.take(rows))
    return float(recall(judge(lists, truth), _MEASURED_AT).mean())
