"""One process's part of a training run: batches, steps, validation, early stopping."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from features.histories import Histories
from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import LocalTables
from recsys.retrieval.denoising import draw_pool, keep_small_losses, resample
from recsys.retrieval.negatives import KnownPositives, NegativeSampler
from recsys.retrieval.objectives import OBJECTIVES, Batch, example_losses
from recsys.retrieval.towers import TowerOptions, TwoTower, table_specs
from recsys.retrieval.training_inputs import TrainingInputs
from recsys.retrieval.training_options import EpochReport, TrainingOptions
from recsys.retrieval.two_tower import TwoTowerRetriever
from recsys.retrieval.windows import ends_before_own_time, window_before

__all__ = ["run_training"]

log = logging.getLogger(__name__)

_MAX_VALIDATION_ROWS = 4_096
_VALIDATION_K = 20


def run_training(
    inputs: TrainingInputs,
    *,
    towers: TowerOptions,
    training: TrainingOptions,
    seed: int,
    on_epoch: Callable[[EpochReport], None] | None = None,
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

    Returns:
        The retriever with the best epoch's weights (the last epoch's without validation); None
        on processes other than 0.

    Raises:
        FloatingPointError: the loss is not finite; names step and loss.
    """
    run = _Run(inputs, towers, training, seed)
    best: TwoTowerRetriever | None = None
    best_recall, waited = -1.0, 0
    for epoch in range(1, training.epochs + 1):
        began = time.perf_counter()
        loss = run.epoch(epoch)
        recall = None
        if inputs.validation is not None or epoch == training.epochs:
            retriever = run.retriever(epoch)
            if retriever is not None:
                recall = run.validation_recall(retriever)
                if recall is None or recall > best_recall:
                    best = retriever
        waited = 0 if recall is None or recall > best_recall else waited + 1
        best_recall = max(best_recall, recall or 0.0)
        report = EpochReport(epoch, training.epochs, loss, recall, time.perf_counter() - began)
        if run.rank == 0:
            log.info("%s", report)
            if on_epoch is not None:
                on_epoch(report)
        if run.agree(bool(training.patience) and waited >= training.patience):
            break
    return best


class _Run:
    """The state of one training run in one process."""

    def __init__(
        self, inputs: TrainingInputs, towers: TowerOptions, training: TrainingOptions, seed: int
    ) -> None:
        self.grouped = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.grouped else 0
        self.world = dist.get_world_size() if self.grouped else 1
        self.inputs, self.options, self.training = inputs, towers, training
        self.shared = torch.Generator().manual_seed(seed)  # draws alike on every process
        self.own = torch.Generator().manual_seed(seed + 1 + self.rank)
        histories = inputs.histories
        self.row = torch.from_numpy(histories.rows)
        self.item = torch.from_numpy(histories.item_index).long()
        self.start = histories.indptr[:-1][histories.rows]
        self.end = ends_before_own_time(histories)
        self.weight = _example_weights(histories, training.positive_half_life)
        self.active_rows = torch.from_numpy(np.flatnonzero(histories.counts))
        self.indptr = torch.from_numpy(histories.indptr)
        self.known = KnownPositives(histories.indptr, histories.item_index, inputs.num_items)
        counts = np.bincount(histories.item_index, minlength=inputs.num_items + 1)
        self.sampler = NegativeSampler(counts, power=training.negative_power)
        self.log_share = torch.from_numpy(np.log(np.maximum(counts, 1) / counts.sum())).float()
        self.content = None if inputs.content is None else torch.from_numpy(inputs.content).float()
        self.tokens = (
            None if inputs.prefix_tokens is None else torch.from_numpy(inputs.prefix_tokens).long()
        )
        self.tower = TwoTower(
            towers,
            content_dim=0 if self.content is None else self.content.shape[1],
            generator=self.shared,
        )
        specs = table_specs(
            towers,
            num_items=inputs.num_items,
            num_users=len(histories),
            num_prefix_tokens=0 if self.tokens is None else inputs.num_prefix_tokens,
        )
        make = ShardedTables if self.grouped else LocalTables
        self.tables = make(specs, learning_rate=training.table_learning_rate, generator=self.shared)
        self.trained_item = torch.from_numpy(counts > 0)
        self.trained_item[0] = False
        self.adam = torch.optim.Adam(self.tower.parameters(), lr=training.learning_rate)
        self.steps = 0

    def epoch(self, epoch: int) -> float:
        """Train one pass; mean loss of its steps."""
        training = self.training
        denoising = training.denoising if epoch > training.warmup_epochs else "none"
        order = torch.randperm(len(self.item), generator=self.shared)
        total, steps = 0.0, 0
        for events in torch.split(order, training.batch_size):
            if len(events) < 2 * self.world:
                continue
            if denoising == "pld":
                events = self._pool_of_rows(len(events))  # [B, k]
            mine = events[: len(events) // self.world * self.world][self.rank :: self.world]
            negatives = self.sampler.sample(training.num_negatives, generator=self.shared)
            if denoising == "pld":
                mine = self._resampled(mine, negatives)
            total += self._step(mine, negatives, truncate=denoising == "truncated")
            steps += 1
        mean = torch.tensor([total / max(steps, 1)])
        if self.world > 1:
            dist.all_reduce(mean)
        return float(mean) / self.world

    def _step(self, events: Tensor, negatives: Tensor, *, truncate: bool) -> float:
        self.steps += 1
        batch = self._forward(events, negatives, training=True)
        if truncate:
            kept = keep_small_losses(example_losses(batch), self.training.drop_rate)
            batch.weight.mul_(kept)
        loss = OBJECTIVES[self.training.loss](batch)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FloatingPointError(
                f"loss {self.training.loss!r} is {value} at step {self.steps}; lower "
                f"learning_rate ({self.training.learning_rate}) or table_learning_rate "
                f"({self.training.table_learning_rate}), or raise temperature "
                f"({self.training.temperature})"
            )
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._average_dense_gradients()
        self.adam.step()
        self.tables.step()
        return value

    def _forward(self, events: Tensor, negatives: Tensor, *, training: bool) -> Batch:
        """Vectors of the examples ``events`` [B] and of the shared negatives [C]."""
        event = events.numpy()
        window = window_before(
            self.inputs.histories.item_index,
            self.start[event],
            self.end[event],
            self.options.history_length,
        )  # [B, T]
        if training and self.training.history_dropout:
            drawn = torch.rand(window.shape, generator=self.own)
            window = window * (drawn >= self.training.history_dropout)
        positives = self.item[events]
        item_index, place = _distinct(self.inputs.num_items, positives, negatives, window)
        keep = self.trained_item[item_index]
        if training and self.options.id_dropout:
            drawn = torch.rand(len(item_index), generator=self.own)
            keep = keep & (drawn >= self.options.id_dropout)
        vector = self.tower.items(
            self.tables,
            item_index,
            content=None if self.content is None else self.content[item_index],
            prefix_tokens=None if self.tokens is None else self.tokens[item_index],
            keep_id=keep,
        )  # [M, D]
        row = self.row[events]
        user_vector = self.tables({"user": row + 1})["user"] if self.options.user_table else None
        query = self.tower.queries(vector, place[window], user_vector=user_vector)
        if self.training.score == "cosine":
            query, vector = F.normalize(query, dim=1), F.normalize(vector, dim=1)
        return Batch(
            query=query,
            positive=vector[place[positives]],
            negative=vector[place[negatives]],
            row=row,
            positive_index=positives,
            negative_index=negatives,
            negative_log_q=self.sampler.log_q[negatives],
            positive_log_q=self.log_share[positives],
            known=self.known,
            weight=self.weight[events].clone(),
            temperature=self.training.temperature,
            gamma=self.training.gamma,
        )

    def _pool_of_rows(self, size: int) -> Tensor:
        """[B, k] events: k positives of each of B users drawn uniformly."""
        drawn = torch.randint(len(self.active_rows), (size,), generator=self.shared)
        row = self.active_rows[drawn]
        first = self.indptr[row]
        pool = draw_pool(
            self.indptr[row + 1] - first, self.training.pool_size, generator=self.shared
        )
        return first[:, None] + pool

    @torch.no_grad()
    def _resampled(self, pool: Tensor, negatives: Tensor) -> Tensor:
        """[B] events: of each row of ``pool`` [B, k] one, rather one with a small loss."""
        batch = self._forward(pool.flatten(), negatives, training=False)
        loss = example_losses(batch).view(pool.shape)
        column = resample(loss, temperature=self.training.denoise_temperature, generator=self.own)
        return pool[torch.arange(len(pool)), column]

    def _average_dense_gradients(self) -> None:
        if self.world == 1:
            return
        parameters = list(self.tower.parameters())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.world
        parts = torch.split(flat, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def retriever(self, epoch: int) -> TwoTowerRetriever | None:
        """The model as it stands, on process 0."""
        tables = self.tables.full_state()
        if self.rank:
            return None
        tables["item"][~self.trained_item] = 0.0
        tower = TwoTower(
            self.options, content_dim=self.tower.content_dim, generator=torch.Generator()
        )
        tower.load_state_dict(self.tower.state_dict())
        return TwoTowerRetriever.from_tables(
            tower,
            tables,
            content=self.content,
            prefix_tokens=self.tokens,
            score=self.training.score,
            best_epoch=epoch,
        )

    def validation_recall(self, retriever: TwoTowerRetriever) -> float | None:
        """Mean recall@20 over (at most 4,096) users with validation events, seen items masked."""
        if self.inputs.validation is None:
            return None
        rows = np.flatnonzero(self.inputs.validation.counts)[:_MAX_VALIDATION_ROWS]
        if not rows.size:
            raise ValueError("validation must hold at least one event, got none")
        seen = self.inputs.histories.take(rows)
        target = self.inputs.validation.take(rows)
        found = retriever.retrieve(
            seen,
            _VALIDATION_K,
            excluded=seen.seen_mask(self.inputs.num_items),
            user_index=rows + 1,
        ).item_index
        relevant = target.to_csr(self.inputs.num_items)
        wanted = KnownPositives(target.indptr, target.item_index, self.inputs.num_items)
        line = torch.arange(len(rows))[:, None].expand(found.shape)
        hits = wanted.contains(line, torch.from_numpy(found)).sum(dim=1).numpy()
        return float(np.mean(hits / np.diff(relevant.indptr)))

    def agree(self, stop: bool) -> bool:
        """Process 0's decision, on every process."""
        if self.world == 1:
            return stop
        decision = torch.tensor([int(stop)])
        dist.broadcast(decision, src=0)
        return bool(decision.item())


def _example_weights(histories: Histories, half_life: float) -> Tensor:
    """[E] float32: the events' weights, halved every ``half_life`` events back in their row."""
    age = histories.indptr[1:][histories.rows] - 1 - np.arange(histories.item_index.size)
    return torch.from_numpy(histories.weight * (0.5 ** (age / half_life)).astype(np.float32))


def _distinct(num_items: int, *item_index: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct items [M], 0 first, and where each item stands among them [N + 1]."""
    wanted = torch.zeros(num_items + 1, dtype=torch.bool)
    wanted[0] = True
    for index in item_index:
        wanted[index.flatten()] = True
    distinct = wanted.nonzero().flatten()
    place = torch.zeros(num_items + 1, dtype=torch.int64)
    place[distinct] = torch.arange(len(distinct))
    return distinct, place
