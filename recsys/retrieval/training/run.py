"""A training run in one process: epochs, validation, early stopping, and what is reported."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from recsys.errors import CollapseError
from recsys.evaluation import RetrieverDiagnostics, Truth, collapse, diagnose_retriever, judge
from recsys.evaluation.metrics import recall
from recsys.retrieval.sampling.hard_negatives import HardNegatives, mine_hard_negatives
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.options import TrainingOptions
from recsys.retrieval.training.step import TrainingStep

__all__ = ["OnEpoch", "Watch", "run_training"]

log = logging.getLogger(__name__)

_MAX_VALIDATION_ROWS = 4_096
_MEASURED_AT = 20
_RANK_OF_SEQUENCES = 0.5  # their queries agree on what comes next and need fewer dimensions
_ROWS_A_DIMENSION = 8  # users and items, below which the collapse alarm says nothing

OnEpoch = Callable[[EpochReport], None]
Watch = Callable[[EpochReport, TwoTowerRetriever], bool]


def run_training(
    inputs: TrainingInputs,
    *,
    towers: TowerOptions,
    training: TrainingOptions,
    seed: int,
    on_epoch: OnEpoch | None = None,
    watch: Watch | None = None,
) -> TwoTowerRetriever | None:
    """This process's part of a training run.

    With a ``torch.distributed`` group every process calls this with the same arguments, takes its
    share of each batch, and the id tables are sharded; without one it is the whole run.

    Args:
        inputs: the data.
        towers: the shape of the model.
        training: how it is trained.
        seed: same seed and same number of processes, same weights to the bit on CPU.
        on_epoch: called after each epoch, on process 0.
        watch: called after each epoch with the model as it stands, on process 0; True ends the
            training.

    Returns:
        The retriever with the best epoch's weights (the last epoch's without validation); None
        on processes other than 0.

    Raises:
        FloatingPointError: the loss is not finite; names step and loss.
        CollapseError: the vectors use too few of their dimensions, two epochs in a row.
    """
    run = _Run(inputs, towers, training, seed, on_epoch, watch)
    best = run.train(training.epochs, patience=training.patience)
    if training.hard_epochs:
        best = run.train_hard(best)
    return best


class _Run:
    def __init__(
        self,
        inputs: TrainingInputs,
        towers: TowerOptions,
        training: TrainingOptions,
        seed: int,
        on_epoch: OnEpoch | None,
        watch: Watch | None,
    ) -> None:
        self.inputs, self.training = inputs, training
        self.step = TrainingStep(inputs, towers, training, seed)
        self.on_epoch, self.watch = on_epoch, watch
        self.rng = np.random.default_rng(seed)
        self.rows = _asked(inputs)
        self.total = training.epochs + training.hard_epochs
        self.done = 0
        self.alarms = 0
        self.best_recall = -1.0

    def train(self, epochs: int, *, patience: int) -> TwoTowerRetriever | None:
        """Up to ``epochs`` epochs; the best of them, None when none beat ``best_recall``."""
        best: TwoTowerRetriever | None = None
        waited = 0
        for number in range(1, epochs + 1):
            began = time.perf_counter()
            self.done += 1
            loss, norm = self.step.epoch(self.done)
            trained = time.perf_counter() - began
            last = number == epochs
            measured = self.inputs.validation is not None or self.watch is not None or last
            retriever = self.step.retriever(self.done) if measured else None
            found, value = self._measure(retriever, last=last)
            if retriever is not None and (value is None or value > self.best_recall):
                best, waited = retriever, 0
            else:
                waited += 1
            self.best_recall = max(self.best_recall, value or 0.0)
            report = _report(self.done, self.total, loss, norm, value, found, trained, began)
            stop = self._tell(report, retriever)
            stop = stop or (bool(patience) and value is not None and waited >= patience)
            self._check_collapse(found)
            if self._agree(stop):
                break
        return best

    def train_hard(self, best: TwoTowerRetriever | None) -> TwoTowerRetriever | None:
        """A few epochs more against hard negatives; adopted only where validation gains."""
        training, step = self.training, self.step
        if best is None:
            raise ValueError("hard_epochs must be 0 with several processes; use workers=1")
        before = self.best_recall
        step.weights.load(best)
        adopted = None
        for _ in range(training.hard_epochs):
            current = step.retriever(self.done) or best
            histories = self.inputs.histories
            mined = mine_hard_negatives(
                current.user_vectors(histories, user_index=np.arange(1, len(histories) + 1)),
                current.item_vectors,
                step.events.known,
                skip=training.hard_skip,
                pool=training.hard_pool,
            )
            step.hard = HardNegatives(mined)
            adopted = self.train(1, patience=0) or adopted
        step.hard = None
        if adopted is None:
            log.warning(
                "hard negatives did not raise the validation recall@20 of %.4f; kept the model "
                "without them",
                before,
            )
        return adopted or best

    def _measure(
        self, retriever: TwoTowerRetriever | None, *, last: bool
    ) -> tuple[RetrieverDiagnostics | None, float | None]:
        """Diagnostics, and mean recall@20 over (at most 4,096) users with validation events."""
        validation = self.inputs.validation
        if retriever is None or (validation is None and not last):
            return None, None
        seen = self.inputs.histories.take(self.rows)
        query = retriever.user_vectors(seen, user_index=self.rows + 1)
        excluded = None if validation is None else seen.hidden_mask(self.inputs.num_items)
        lists = retriever.search(query, _MEASURED_AT, excluded=excluded)
        truth = None if validation is None else Truth.from_histories(validation.take(self.rows))
        found = diagnose_retriever(
            query,
            retriever.item_vectors,
            lists.item_index,
            self.step.events.counts,
            rng=self.rng,
            truth=truth,
        )
        value = None if truth is None else float(recall(judge(lists, truth), _MEASURED_AT).mean())
        return found, value

    def _check_collapse(self, found: RetrieverDiagnostics | None) -> None:
        least = self.training.least_rank
        if found is None or not least:
            return
        if self.step.weights.options.pooling == "sequence":
            least *= _RANK_OF_SEQUENCES
        dim = self.step.weights.options.dim
        if min(found.num_users, found.num_items) < _ROWS_A_DIMENSION * dim:
            return  # a small catalogue has few directions to use
        problem = collapse(found, dim, least=least)
        self.alarms = self.alarms + 1 if problem else 0
        if self.alarms == 2:
            raise CollapseError(f"after epoch {self.done}, step {self.step.steps}: {problem}")

    def _tell(self, report: EpochReport, retriever: TwoTowerRetriever | None) -> bool:
        if self.step.rank:
            return False
        log.info("%s", report)
        if self.on_epoch is not None:
            self.on_epoch(report)
        return self.watch is not None and retriever is not None and self.watch(report, retriever)

    def _agree(self, stop: bool) -> bool:
        """Process 0's decision, on every process."""
        if self.step.world == 1:
            return stop
        decision = torch.tensor([int(stop)])
        dist.broadcast(decision, src=0)
        return bool(decision.item())


def _asked(inputs: TrainingInputs) -> np.ndarray:
    """The rows that are looked at after each epoch."""
    if inputs.validation is None:
        return np.flatnonzero(inputs.histories.counts)[:_MAX_VALIDATION_ROWS]
    rows = np.flatnonzero(inputs.validation.counts)[:_MAX_VALIDATION_ROWS]
    if not rows.size:
        raise ValueError("validation must hold at least one event, got none")
    return rows


def _report(
    epoch: int,
    num_epochs: int,
    loss: float,
    norm: float,
    recall_at_20: float | None,
    found: RetrieverDiagnostics | None,
    training_seconds: float,
    began: float,
) -> EpochReport:
    measured = {} if found is None else found.as_dict()
    names = set(EpochReport._fields) & set(measured)
    return EpochReport(
        epoch,
        num_epochs,
        loss,
        recall_at_20,
        time.perf_counter() - began,
        training_seconds,
        norm,
        **{name: measured[name] for name in names},
    )
