"""The towers of a run: the settings of the configuration as options, and one training with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.tables import Histories
from recsys.config import RetrievalConfig
from recsys.errors import ConfigError, TooFewUsersError
from recsys.pipeline.fitness import fields_problem
from recsys.progress import Progress
from recsys.retrieval.finishing.extras import (
    FinishedTowers,
    SoupPlan,
    finish_towers,
    train_soup,
)
from recsys.retrieval.finishing.options import TowerExtras
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training import TrainingOptions, train_two_tower
from recsys.retrieval.training.devices import training_device
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.retrieval.training.objectives import refused_by
from recsys.threads import torch_threads

__all__ = [
    "CURVE",
    "ONE_TRAINING",
    "ItemInputs",
    "Plan",
    "fit_towers",
    "plan_of_past",
    "training_options",
    "validation_recall",
    "write_curve",
]

log = logging.getLogger(__name__)

ONE_TRAINING: Mapping[str, Any] = {
    "int8": False,
    "light_user_tower": False,
    "threshold_head": False,
    "soup": 1,
}
"""What towers are made with that are only compared with others."""
_EXTRAS = ("threshold_head", "light_user_tower")
CURVE = "curve.json"
"""What was measured after each epoch, beside the retrievers of a stage."""


@dataclass(frozen=True, eq=False)
class ItemInputs:
    """What is known of the items besides who met them.

    Attributes:
        content: [N + 1, D] float32 content vectors, row 0 zero. None: nothing tells items apart.
        prefix_tokens: [N + 1, L] int64 Semantic-ID prefix tokens, row 0 zero. None: there are no
            Semantic IDs.
        num_prefix_tokens: largest token of the table.
        fields: [N + 1, F] int64 tokens of categorical fields, row 0 zero.
        num_field_tokens: largest token of the fields.
        field_names: [F] columns of the items that the fields are made of.
    """

    content: np.ndarray | None
    prefix_tokens: np.ndarray | None
    num_prefix_tokens: int
    fields: np.ndarray
    num_field_tokens: int
    field_names: tuple[str, ...] = ()

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.fields) - 1

    def category(self, column: str) -> np.ndarray:
        """[N + 1] int64 tokens of a field, 0 where it is missing.

        Args:
            column: that the field is made of. "": the first; of items without fields all are alike.

        Raises:
            ConfigError: no field is made of it.
        """
        if not column:
            first = self.fields[:, 0] if self.fields.shape[1] else np.zeros(len(self.fields))
            return first.astype(np.int64)
        if column not in self.field_names:
            raise ConfigError(
                "retrieval.category_column must be one of the columns that tell items apart, "
                f"{', '.join(self.field_names) or 'of which there are none'}; got {column!r}"
            )
        return self.fields[:, self.field_names.index(column)]


@dataclass(frozen=True, eq=False)
class Plan:
    """What one training of the towers is told besides the settings.

    Attributes:
        epochs: instead of the configured number. None: that.
        hard_epochs: the same of the epochs with hard negatives.
        start: the model it begins from. None: fresh weights.
        frozen_items: train what makes queries alone; needs ``start``.
        old: a model whose vectors the new ones stay comparable with. None: free.
        past: what was made of the towers of the past; soup and threshold head follow it where
            there is no validation. None: nothing was.
    """

    epochs: int | None = None
    hard_epochs: int | None = None
    start: TwoTowerRetriever | None = None
    frozen_items: bool = False
    old: TwoTowerRetriever | None = None
    past: FinishedTowers | None = None


def training_options(
    settings: RetrievalConfig, *, epochs: int | None = None, hard_epochs: int | None = None
) -> TrainingOptions:
    """How the towers are trained as configured; ``epochs`` and ``hard_epochs`` go first."""
    given = {"epochs": epochs, "hard_epochs": hard_epochs}
    options = settings.only(TrainingOptions)
    return options.but(**{name: value for name, value in given.items() if value is not None})


def fit_towers(
    histories: Histories,
    items: ItemInputs,
    settings: RetrievalConfig,
    *,
    seed: int,
    plan: Plan | None = None,
    validation: Histories | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> FinishedTowers:
    """Train the towers and make of them what the settings ask for.

    Args:
        histories: training events, U rows.
        items: content, Semantic IDs and fields.
        settings: of the stage.
        seed: of the training.
        plan: what it begins from and for how long it goes on. None: the settings say all.
        validation: later events of the same rows; chooses the epoch.
        workers: processes.
        progress: shows a bar.
        on_epoch: called after each epoch; those of a soup are counted through.

    Raises:
        ConfigError: settings that do not fit the catalogue, the processes or the data.
        CollapseError: see `train_two_tower`.
        FloatingPointError: the loss is no longer finite.
    """
    plan, progress = plan or Plan(), progress or Progress()
    if problem := refused_by(settings, workers):
        raise ConfigError(f"retrieval.{problem}; leave --workers out")
    try:
        training_device(settings.device)
    except ValueError as error:
        raise ConfigError(f"retrieval.{error}") from None
    tokens = _fields(settings, items)
    training = training_options(settings, epochs=plan.epochs, hard_epochs=plan.hard_epochs)
    if plan.frozen_items:
        training = training.but(masking_weight=0.0)  # it is about items alone
    trainings = 1 if plan.frozen_items else settings.soup
    total = trainings * training.epochs + training.hard_epochs
    done = 0
    with (
        progress.bar(total, "train the towers", unit="epoch") as advance,
        torch_threads(settings.num_threads),
    ):

        def report(epoch: EpochReport) -> None:
            nonlocal done
            done += 1
            advance(1)
            if on_epoch is not None:
                on_epoch(epoch if trainings == 1 else epoch._replace(epoch=done, num_epochs=total))

        def train(
            training: TrainingOptions, *, seed: int, start: TwoTowerRetriever | None = None
        ) -> TwoTowerRetriever:
            return train_two_tower(
                histories,
                num_items=items.num_items,
                content=items.content,
                prefix_tokens=items.prefix_tokens,
                num_prefix_tokens=items.num_prefix_tokens,
                fields=tokens,
                num_field_tokens=None if tokens is None else items.num_field_tokens,
                validation=validation,
                towers=settings.only(TowerOptions),
                training=training,
                start=plan.start if start is None else start,
                frozen_items=plan.frozen_items,
                old=plan.old,
                seed=seed,
                workers=workers,
                on_epoch=report,
            )

        soup: SoupPlan | None = None
        if trainings == 1:
            retriever = train(training, seed=seed)
        else:
            retriever, soup, *_ = train_soup(
                train,
                training,
                histories,
                validation,
                branches=trainings,
                seed=seed,
                plan=None if plan.past is None else plan.past.soup,
                content=items.content,
                prefix_tokens=items.prefix_tokens,
                fields=tokens,
            )
        if settings.int8:
            retriever.quantize()
        return _finish(retriever, histories, validation, settings, seed, soup, plan.past)


def validation_recall(
    histories: Histories,
    items: ItemInputs,
    settings: RetrievalConfig,
    *,
    seed: int,
    validation: Histories,
    workers: int = 1,
    progress: Progress | None = None,
) -> float:
    """Recall@20 on ``validation`` after the best epoch of one training; see `fit_towers`."""
    curve: list[float] = []
    fit_towers(
        histories,
        items,
        settings.model_copy(update=dict(ONE_TRAINING)),
        seed=seed,
        validation=validation,
        workers=workers,
        progress=progress,
        on_epoch=lambda epoch: curve.append(epoch.recall or 0.0),
    )
    return max(curve)


def write_curve(curve: list[EpochReport], directory: Path) -> None:
    """What was measured after each epoch, for the report and for `plan_of_past`."""
    text = json.dumps([epoch._asdict() for epoch in curve]) + "\n"
    (directory / CURVE).write_text(text, encoding="utf-8")


def plan_of_past(directory: Path, settings: RetrievalConfig) -> Plan:
    """How to train on all of the training part what did best on its past.

    Hard negatives are used again if the towers of the past gained by them, and for as long.

    Args:
        directory: output of the stage ``retrieval-past``.
        settings: it was run with.

    Raises:
        ArtifactError: the towers of the past are missing or damaged.
    """
    past = FinishedTowers.load(directory / TwoTowerRetriever.name)
    if past.soup is not None:
        return Plan(past=past)
    curve = json.loads((directory / CURVE).read_text(encoding="utf-8"))
    best, usual = past.retriever.best_epoch, curve[: len(curve) - settings.hard_epochs]
    if best <= len(usual):
        return Plan(epochs=best, hard_epochs=0, past=past)
    before = max(usual, key=lambda epoch: float(epoch["recall"]))
    return Plan(epochs=before["epoch"], hard_epochs=best - len(usual), past=past)


def _fields(settings: RetrievalConfig, items: ItemInputs) -> np.ndarray | None:
    """The fields' tokens, if the towers are to have them."""
    if not settings.use_fields:
        return None
    problem = fields_problem(settings, items.fields.shape[1])
    if problem is not None:
        raise ConfigError(problem)
    return items.fields


def _finish(
    retriever: TwoTowerRetriever,
    histories: Histories,
    validation: Histories | None,
    settings: RetrievalConfig,
    seed: int,
    soup: SoupPlan | None,
    past: FinishedTowers | None,
) -> FinishedTowers:
    """What the settings ask for, less what there are too few users for."""
    extras = settings.only(TowerExtras)
    for gone in ((), ("threshold_head",), ("light_user_tower",), _EXTRAS):
        less = extras.but(**dict.fromkeys(gone, False))
        try:
            return finish_towers(
                retriever,
                histories,
                validation,
                less,
                seed=seed,
                soup=soup,
                past=past,
            )
        except TooFewUsersError as error:
            log.warning("%s", error)
        except ValueError as error:
            raise ConfigError(
                "retrieval.threshold_head and light_user_tower must be false for these data: "
                f"{error}"
            ) from error
    raise RuntimeError("towers of which nothing more is asked were not finished")
