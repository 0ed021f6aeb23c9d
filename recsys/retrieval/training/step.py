"""One process's model in training: what a step draws, computes and updates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.embeddings.tables import LocalTables
from recsys.retrieval.losses import weighted_mean
from recsys.retrieval.sampling.denoising import (
    keep_small_losses,
    ramped_drop_rate,
    resample,
    reweight_small_losses,
)
from recsys.retrieval.sampling.hard_negatives import (
    HardNegatives,
    hard_softmax_losses,
    suspected_positives,
)
from recsys.retrieval.sampling.pieces import Asked, next_items
from recsys.retrieval.sampling.propensity import normalised
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.compatibility import compatibility_pull
from recsys.retrieval.training.devices import move, training_device
from recsys.retrieval.training.examples import EventStream
from recsys.retrieval.training.feature_masking import feature_masking_loss, mutual_information
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.margins import clamp_margins, margins_of
from recsys.retrieval.training.objectives import example_losses, objective_of, training_loss
from recsys.retrieval.training.options import TrainingOptions
from recsys.retrieval.training.smoothing import GraphSmoothing
from recsys.retrieval.training.step_tensors import (
    as_tensor,
    average_gradients,
    cosine_share,
    distinct_items,
    rows_of,
)
from recsys.retrieval.training.weights import TrainedWeights

__all__ = ["TrainingStep"]


_NO_NEGATIVES = (torch.zeros(0, dtype=torch.int64), torch.zeros(0))


class TrainingStep:
    """The weights and the draws of one training run in one process.

    With a ``torch.distributed`` group each process takes its share of every batch, and the id
    tables are sharded.

    Args:
        inputs: the data.
        towers: the shape of the model.
        training: how it is trained.
        seed: same seed and same number of processes, same weights to the bit on CPU.
    """

    def __init__(
        self, inputs: TrainingInputs, towers: TowerOptions, training: TrainingOptions, seed: int
    ) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if grouped else 0
        self.world = dist.get_world_size() if grouped else 1
        self.inputs, self.options, self.training = inputs, towers, training
        self.objective = objective_of(training.loss)
        self.shared = torch.Generator().manual_seed(seed)  # draws alike on every process
        self.own = torch.Generator().manual_seed(seed + 1 + self.rank)
        self.device = torch.device("cpu") if grouped else training_device(training.device)
        histories = inputs.histories
        self.events = EventStream(histories, inputs.num_items, training, generator=self.shared)
        self.hard: HardNegatives | None = None
        fields = as_tensor(inputs.fields, torch.int64)
        self.relation = (
            mutual_information(fields, generator=self.shared)
            if training.masking_weight and fields is not None and not inputs.frozen_items
            else None
        )
        self.weights = TrainedWeights(
            inputs,
            towers,
            training,
            counts=self.events.counts,
            margins=self.objective.margins,
            shared=self.shared,
            own=self.own,
            device=self.device,
            sharded=grouped,
        )
        self.old = inputs.old
        self.graph = GraphSmoothing(histories, inputs.num_items) if training.smoothing else None
        self.adam = torch.optim.Adam(
            self.weights.tower.parameters(),
            lr=training.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self._width = 0 if towers.pooling == "none" else towers.history_length
        self.steps = 0

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Train one pass; the means over its steps of the loss and of the gradient's norm."""
        training = self.training
        share = cosine_share(epoch, training.epochs, training.final_learning_rate)
        self._set_learning_rates(share)
        denoising = training.denoising if epoch > training.warmup_epochs else "none"
        drop_rate = ramped_drop_rate(
            max(0, epoch - training.warmup_epochs),
            drop_rate=training.drop_rate,
            ramp=max(1, training.warmup_epochs),
        )
        drawing = (
            self.objective.negatives
            or denoising != "none"
            or self.hard is not None
            or training.mann_whitney_weight > 0
        )
        total, norm, steps = 0.0, 0.0, 0
        for drawn in self._batches():
            if self.options.pooling == "sequence":
                asked = self.events.ask_pieces(self._share(drawn))
                negatives = self.events.negatives(asked.events) if drawing else _NO_NEGATIVES
            else:
                pool_size = training.pool_size if denoising == "pld" else 1
                if denoising == "pld" or training.users == "alike":
                    drawn = self.events.pools(len(drawn), pool_size)  # [B, k]
                mine = self._share(drawn)
                if self.options.pooling == "none":  # a user's events together: one query for all
                    row = self.events.row[mine].view(len(mine), -1)[:, 0]
                    mine = mine[row.argsort(stable=True)]
                negatives = self.events.negatives(mine) if drawing else _NO_NEGATIVES
                if denoising == "pld":
                    mine = self._resampled(mine, negatives)
                elif mine.ndim == 2:
                    mine = mine[:, 0]
                asked = self.events.ask(mine, self._width)
            loss, length = self._step(asked, negatives, denoising, drop_rate)
            self.events.trained_on(asked.events)
            total, norm, steps = total + loss, norm + length, steps + 1
        if self.graph is not None:
            self._smooth(self.graph, training.smoothing * share)
        mean = torch.tensor([total, norm]) / max(steps, 1)
        if self.world > 1:
            dist.all_reduce(mean)
        return float(mean[0]) / self.world, float(mean[1]) / self.world

    def _batches(self) -> Iterator[Tensor]:
        """The batches of a pass, each enough for every process: events [B], or pieces [P, 3]."""
        batches: Sequence[Tensor]
        if self.options.pooling == "sequence":
            batches, least = self.events.pieces(self._width), self.world
        else:
            batches = torch.split(self.events.order(), self.training.batch_size)
            least = 2 * self.world
        return (batch for batch in batches if len(batch) >= least)

    def _share(self, drawn: Tensor) -> Tensor:
        """This process's rows of a batch."""
        return drawn[: len(drawn) // self.world * self.world][self.rank :: self.world]

    def _set_learning_rates(self, share: float) -> None:
        self.weights.tables.learning_rate = self.training.table_learning_rate * share
        for group in self.adam.param_groups:
            group["lr"] = self.training.learning_rate * share

    def _smooth(self, graph: GraphSmoothing, share: float) -> None:
        if not isinstance(self.weights.tables, LocalTables):
            raise ValueError("smoothing must be 0 in a process group; the tables are sharded")
        if not self.inputs.frozen_items:
            graph.smooth_items(self.weights.tables.weight["item"], share)
        if "user" in self.weights.tables.weight:
            graph.smooth_users(self.weights.tables.weight["user"][1:], share)

    def _step(
        self,
        asked: Asked,
        negatives: tuple[Tensor, Tensor],
        denoising: str,
        drop_rate: float,
    ) -> tuple[float, float]:
        training = self.training
        self.steps += 1
        batch, vectors = self._forward(asked, negatives, training=True)
        if denoising == "truncated":
            batch.weight.mul_(
                keep_small_losses(example_losses(self.objective, batch).detach(), drop_rate)
            )
        elif denoising == "reweighted":
            losses = example_losses(self.objective, batch).detach()
            batch.weight.mul_(reweight_small_losses(losses, training.reweight_power))
        if self.hard is None:
            loss = training_loss(self.objective, batch)
        else:
            loss = self._hard_loss(batch, self.events.row[asked.events], self.hard)
        if self.weights.fields is not None and self.relation is not None:
            loss = loss + training.masking_weight * self._masking_loss(self.weights.fields)
        if training.compatibility_weight and self.old is not None:
            pull = compatibility_pull(
                batch, asked, self.events, self.options.history_length, self.old, self.device
            )
            loss = loss + training.compatibility_weight * pull
        value = loss.detach().item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"loss {training.loss!r} is {value} at step {self.steps}; lower "
                f"learning_rate ({training.learning_rate}) or table_learning_rate "
                f"({training.table_learning_rate}), or raise temperature "
                f"({training.temperature})"
            )
        for vector in vectors:
            if vector.requires_grad:
                vector.retain_grad()
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        square = sum(v.grad.square().sum().item() for v in vectors if v.grad is not None)
        if self.world > 1:
            average_gradients(list(self.weights.tower.parameters()))
        if any(parameter.grad is not None for parameter in self.weights.tower.parameters()):
            self.adam.step()
        self.weights.tables.step()
        if self.objective.margins:
            clamp_margins(self.weights.tables)
        return value, math.sqrt(square)

    def _forward(
        self, asked: Asked, negatives: tuple[Tensor, Tensor], *, training: bool
    ) -> tuple[Batch, list[Tensor]]:
        """The examples with the shared negatives, and the vectors they come from."""
        events, row, query_of = asked.events, asked.row, asked.query_of
        negative_index, log_q = negatives
        positives = self.events.item[events]
        window = asked.window
        if training and self.training.history_dropout and window.numel():
            drawn = torch.rand(window.shape, generator=self.own)
            window = window * (drawn >= self.training.history_dropout)
        item_index, places = distinct_items(
            self.inputs.num_items, positives, negative_index, window
        )
        vector = self.weights.items(item_index, training=training)  # [M, D]
        places = [move(place, self.device) for place in places]
        query = self.weights.queries(asked, vector, places[2], training=training)
        vectors = [vector, query]
        query, vector = self.weights.scored(query), self.weights.scored(vector)
        distinct_query, known = None, self.events.known
        if query_of is None:
            known_row = row
        else:
            distinct_query = query
            if asked.place is not None:  # a query's positives are what comes next, and no more
                known = next_items(query_of, positives, self.inputs.num_items)
                row = torch.arange(len(row))
            known_row = row[query_of]
            query = query.index_select(0, move(query_of, self.device))
        margins = (
            margins_of(self.weights.tables, self.events.row[events], positives)
            if self.objective.margins
            else (None, None)
        )
        batch = Batch(
            query=query,
            positive=vector.index_select(0, places[0]),
            negative=vector.index_select(0, places[1]),
            row=known_row,
            positive_index=positives,
            negative_index=negative_index,
            negative_log_q=move(log_q, self.device),
            positive_log_q=move(self.events.positive_log_q(positives), self.device),
            known=known,
            weight=move(normalised(self.events.weight[events]), self.device),
            settings=self.training,
            user_margin=margins[0],
            item_margin=margins[1],
            content=rows_of(self.weights.content, positives),
            negative_content=rows_of(self.weights.content, negative_index),
            generator=self.own,
            low_precision=self.training.low_precision,
            normalised=self.training.score == "cosine",
            distinct_query=distinct_query,
            distinct_row=None if distinct_query is None else row,
            query_of=None if query_of is None else move(query_of, self.device),
        )
        return batch, vectors

    def _hard_loss(self, batch: Batch, row: Tensor, hard: HardNegatives) -> Tensor:
        """The softmax with the hard negatives of each example's history row beside the shared."""
        drawn = hard.draw(row, self.training.hard_negatives, generator=self.own)  # [B, H]
        item_index, place = torch.unique(drawn, return_inverse=True)
        vector = self.weights.scored(self.weights.items(item_index, training=True))
        vector = vector[move(place, self.device)]  # [B, H, D]
        score = torch.einsum("bd,bhd->bh", batch.query, vector).detach()
        positive = (batch.query * batch.positive).sum(dim=1).detach()
        losses = hard_softmax_losses(
            batch.query,
            batch.positive,
            batch.negative,
            vector,
            temperature=batch.settings.temperature,
            log_q=batch.negative_log_q,
            known_positive=batch.known_negatives(),
            left_out=move(drawn == 0, self.device) | suspected_positives(positive, score),
        )
        return weighted_mean(losses, batch.weight)

    def _masking_loss(self, fields: Tensor) -> Tensor:
        drawn = torch.randint(
            1, self.inputs.num_items + 1, (self.training.masking_batch,), generator=self.own
        )
        item_index = move(torch.unique(drawn), self.device)
        return feature_masking_loss(
            self.weights.tower,
            self.weights.tables,
            item_index,
            content=rows_of(self.weights.content, item_index),
            prefix_tokens=rows_of(self.weights.tokens, item_index),
            fields=fields[item_index],
            mi=self.relation,
            generator=self.own,
        )

    @torch.no_grad()
    def _resampled(self, pool: Tensor, negatives: tuple[Tensor, Tensor]) -> Tensor:
        """[B] events: of each row of ``pool`` [B, k] one, rather one with a small loss."""
        asked = self.events.ask(pool.flatten(), self._width)
        batch, _ = self._forward(asked, negatives, training=False)
        loss = example_losses(self.objective, batch).view(pool.shape)
        column = resample(loss, temperature=self.training.denoise_temperature, generator=self.own)
        return pool[torch.arange(len(pool)), column.cpu()]

    def retriever(self, epoch: int) -> TwoTowerRetriever | None:
        """The model as it stands, on process 0."""
        tables = self.weights.tables.full_state()
        return None if self.rank else self.weights.retriever(tables, epoch)
