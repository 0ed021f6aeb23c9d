"""One process's model in training: what a step draws, computes and updates."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import LocalTables
from recsys.retrieval.losses import unit_rows, weighted_mean
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
from recsys.retrieval.sampling.propensity import normalised
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower, table_specs
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.compatibility import compatibility_pull
from recsys.retrieval.training.devices import move, training_device
from recsys.retrieval.training.examples import EventStream
from recsys.retrieval.training.feature_masking import feature_masking_loss, mutual_information
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.margins import MARGINS, clamp_margins, margin_specs, margins_of
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
        self.content = move(as_tensor(inputs.content, torch.float32), self.device)
        self.tokens = move(as_tensor(inputs.prefix_tokens, torch.int64), self.device)
        self.fields = move(fields, self.device)
        self.tower = TwoTower(
            towers,
            content_dim=0 if self.content is None else self.content.shape[1],
            generator=self.shared,
        ).to(self.device)
        specs = table_specs(
            towers,
            num_items=inputs.num_items,
            num_users=len(histories),
            num_prefix_tokens=0 if self.tokens is None else inputs.num_prefix_tokens,
            num_field_tokens=0 if self.fields is None else inputs.num_field_tokens,
        )
        if self.objective.margins:
            specs += margin_specs(num_users=len(histories), num_items=inputs.num_items)
        rate = training.table_learning_rate
        self.tables: ShardedTables | LocalTables = (
            ShardedTables(specs, learning_rate=rate, generator=self.shared)
            if grouped
            else LocalTables(specs, learning_rate=rate, generator=self.shared, device=self.device)
        )
        self.trained_item = torch.from_numpy(self.events.counts > 0)
        self.trained_item[0] = False
        self.trained_user = torch.from_numpy(np.concatenate([[False], histories.counts > 0]))
        self.old = inputs.old
        self.graph = GraphSmoothing(histories, inputs.num_items) if training.smoothing else None
        self.adam = torch.optim.Adam(
            self.tower.parameters(),
            lr=training.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.steps = 0
        if inputs.start is not None:
            self.load(inputs.start)
            for name, trained in (("item", self.trained_item), ("user", self.trained_user)):
                if name in inputs.start.tables:
                    known = inputs.start.tables[name].any(dim=1)
                    trained[: len(known)] |= known

    def load(self, retriever: TwoTowerRetriever) -> None:
        """Begin from another model's weights; rows it lacks keep their initial values."""
        self.tower.load_state_dict(retriever.tower.state_dict())
        state = self.tables.full_state()
        for name, rows in state.items():
            known = retriever.tables.get(name)
            if known is not None:
                rows[: len(known)] = known[: len(rows)]
        self.tables.load_full_state(state)

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
        order = self.events.order()
        total, norm, steps = 0.0, 0.0, 0
        for events in torch.split(order, training.batch_size):
            if len(events) < 2 * self.world:
                continue
            pool_size = training.pool_size if denoising == "pld" else 1
            if denoising == "pld" or training.users == "alike":
                events = self.events.pools(len(events), pool_size)  # [B, k]
            mine = events[: len(events) // self.world * self.world][self.rank :: self.world]
            if self.options.pooling == "none":  # a user's events together: one query for them all
                row = self.events.row[mine].view(len(mine), -1)[:, 0]
                mine = mine[row.argsort(stable=True)]
            negatives = self.events.negatives(mine) if drawing else _NO_NEGATIVES
            if denoising == "pld":
                mine = self._resampled(mine, negatives)
            elif mine.ndim == 2:
                mine = mine[:, 0]
            loss, length = self._step(mine, negatives, denoising, drop_rate)
            self.events.trained_on(mine)
            total, norm, steps = total + loss, norm + length, steps + 1
        if self.graph is not None:
            self._smooth(self.graph, training.smoothing * share)
        mean = torch.tensor([total, norm]) / max(steps, 1)
        if self.world > 1:
            dist.all_reduce(mean)
        return float(mean[0]) / self.world, float(mean[1]) / self.world

    def _set_learning_rates(self, share: float) -> None:
        self.tables.learning_rate = self.training.table_learning_rate * share
        for group in self.adam.param_groups:
            group["lr"] = self.training.learning_rate * share

    def _smooth(self, graph: GraphSmoothing, share: float) -> None:
        if not isinstance(self.tables, LocalTables):
            raise ValueError("smoothing must be 0 in a process group; the tables are sharded")
        if not self.inputs.frozen_items:
            graph.smooth_items(self.tables.weight["item"], share)
        if "user" in self.tables.weight:
            graph.smooth_users(self.tables.weight["user"][1:], share)

    def _step(
        self,
        events: Tensor,
        negatives: tuple[Tensor, Tensor],
        denoising: str,
        drop_rate: float,
    ) -> tuple[float, float]:
        training = self.training
        self.steps += 1
        batch, vectors = self._forward(events, negatives, training=True)
        if denoising == "truncated":
            batch.weight.mul_(keep_small_losses(example_losses(batch).detach(), drop_rate))
        elif denoising == "reweighted":
            losses = example_losses(batch).detach()
            batch.weight.mul_(reweight_small_losses(losses, training.reweight_power))
        if self.hard is None:
            loss = training_loss(self.objective, batch)
        else:
            loss = self._hard_loss(batch, self.hard)
        if self.fields is not None and self.relation is not None:
            loss = loss + training.masking_weight * self._masking_loss(self.fields)
        if training.compatibility_weight and self.old is not None:
            seen = self._window(events, training=False)
            pull = compatibility_pull(batch, seen, self.old, self.device)
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
            average_gradients(list(self.tower.parameters()))
        if any(parameter.grad is not None for parameter in self.tower.parameters()):
            self.adam.step()
        self.tables.step()
        if self.objective.margins:
            clamp_margins(self.tables)
        return value, math.sqrt(square)

    def _forward(
        self, events: Tensor, negatives: tuple[Tensor, Tensor], *, training: bool
    ) -> tuple[Batch, list[Tensor]]:
        """The examples ``events`` [B] with the shared negatives, and the vectors they come from."""
        negative_index, log_q = negatives
        positives = self.events.item[events]
        window = self._window(events, training=training)
        item_index, places = distinct_items(
            self.inputs.num_items, positives, negative_index, window
        )
        vector = self._items(item_index, training=training)  # [M, D]
        places = [move(place, self.device) for place in places]
        row = self.events.row[events]
        asked, query_of = row, None
        if self.options.pooling == "none" and bool((row[1:] >= row[:-1]).all()):
            asked, query_of = torch.unique_consecutive(row, return_inverse=True)
        query = self.tower.queries(
            vector, places[2][: len(asked)], user_vector=self._users(asked, training)
        )
        vectors = [vector, query]
        query, vector = self._scored(query), self._scored(vector)
        distinct_query, distinct_row = None, None
        if query_of is not None:
            distinct_query, distinct_row = query, asked
            query_of = move(query_of, self.device)
            query = query.index_select(0, query_of)
        margins = (
            margins_of(self.tables, row, positives) if self.objective.margins else (None, None)
        )
        batch = Batch(
            query=query,
            positive=vector.index_select(0, places[0]),
            negative=vector.index_select(0, places[1]),
            row=row,
            positive_index=positives,
            negative_index=negative_index,
            negative_log_q=move(log_q, self.device),
            positive_log_q=move(self.events.positive_log_q(positives), self.device),
            known=self.events.known,
            weight=move(normalised(self.events.weight[events]), self.device),
            settings=self.training,
            user_margin=margins[0],
            item_margin=margins[1],
            content=rows_of(self.content, positives),
            negative_content=rows_of(self.content, negative_index),
            generator=self.own,
            low_precision=self.training.low_precision,
            normalised=self.training.score == "cosine",
            distinct_query=distinct_query,
            distinct_row=distinct_row,
            query_of=query_of,
        )
        return batch, vectors

    def _window(self, events: Tensor, *, training: bool) -> Tensor:
        """[B, T] what the query of each event sees; [B, 0] when histories are not looked at."""
        if self.options.pooling == "none":
            return torch.zeros(len(events), 0, dtype=torch.int64)
        window = self.events.window(events, self.options.history_length)
        if training and self.training.history_dropout:
            drawn = torch.rand(window.shape, generator=self.own)
            window = window * (drawn >= self.training.history_dropout)
        return window

    def _items(self, item_index: Tensor, *, training: bool) -> Tensor:
        keep = self.trained_item[item_index]
        if training and self.options.id_dropout:
            drawn = torch.rand(len(item_index), generator=self.own)
            keep = keep & (drawn >= self.options.id_dropout)
        vector = self.tower.items(
            self.tables,
            item_index,
            content=rows_of(self.content, item_index),
            prefix_tokens=rows_of(self.tokens, item_index),
            fields=rows_of(self.fields, item_index),
            keep_id=keep,
        )
        return vector.detach() if self.inputs.frozen_items else vector

    def _scored(self, vector: Tensor) -> Tensor:
        """Rows whose products are the scores."""
        return unit_rows(vector) if self.training.score == "cosine" else vector

    def _users(self, row: Tensor, training: bool) -> Tensor | None:
        if not self.options.use_user_id:
            return None
        wanted = row + 1
        if training and self.options.user_dropout:
            drawn = torch.rand(len(row), generator=self.own)
            wanted = wanted * (drawn >= self.options.user_dropout)
        return self.tables({"user": wanted})["user"]

    def _hard_loss(self, batch: Batch, hard: HardNegatives) -> Tensor:
        """The softmax with each query's own hard negatives beside the shared ones."""
        drawn = hard.draw(batch.row, self.training.hard_negatives, generator=self.own)  # [B, H]
        item_index, place = torch.unique(drawn, return_inverse=True)
        vector = self._scored(self._items(item_index, training=True))
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
            self.tower,
            self.tables,
            item_index,
            content=rows_of(self.content, item_index),
            prefix_tokens=rows_of(self.tokens, item_index),
            fields=fields[item_index],
            mi=self.relation,
            generator=self.own,
        )

    @torch.no_grad()
    def _resampled(self, pool: Tensor, negatives: tuple[Tensor, Tensor]) -> Tensor:
        """[B] events: of each row of ``pool`` [B, k] one, rather one with a small loss."""
        batch, _ = self._forward(pool.flatten(), negatives, training=False)
        loss = example_losses(batch).view(pool.shape)
        column = resample(loss, temperature=self.training.denoise_temperature, generator=self.own)
        return pool[torch.arange(len(pool)), column.cpu()]

    def retriever(self, epoch: int) -> TwoTowerRetriever | None:
        """The model as it stands, on process 0."""
        tables = self.tables.full_state()
        if self.rank:
            return None
        for name in MARGINS:
            tables.pop(name, None)
        tables["item"][~self.trained_item] = 0.0
        if "user" in tables:
            tables["user"][~self.trained_user] = 0.0
        tower = TwoTower(
            self.options, content_dim=self.tower.content_dim, generator=torch.Generator()
        )
        tower.load_state_dict(self.tower.state_dict())  # onto the CPU
        return TwoTowerRetriever.from_tables(
            tower,
            tables,
            content=move(self.content, torch.device("cpu")),
            prefix_tokens=move(self.tokens, torch.device("cpu")),
            fields=move(self.fields, torch.device("cpu")),
            score=self.training.score,
            best_epoch=epoch,
        )
