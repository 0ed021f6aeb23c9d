"""The weights of a training run and the vectors they give while it runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import LocalTables
from recsys.retrieval.losses import unit_rows
from recsys.retrieval.sampling.pieces import Asked
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower, table_specs
from recsys.retrieval.towers.sequence import Noise
from recsys.retrieval.training.devices import move
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.margins import MARGINS, margin_specs
from recsys.retrieval.training.options import TrainingOptions
from recsys.retrieval.training.step_tensors import as_tensor, rows_of

__all__ = ["TrainedWeights"]


class TrainedWeights:
    """The dense weights, the id tables and what describes the items, on the training's device.

    Args:
        inputs: the data; the weights begin from its ``start``, if there is one.
        towers: the shape of the model.
        training: how it is trained.
        counts: [N + 1] events of each item.
        margins: whether each user and item has a learned margin.
        shared: draws the initial weights, alike in all processes.
        own: draws what is left out of a step.
        device: where they live.
        sharded: whether the tables are sharded over the processes of a group.

    Attributes:
        trained_item: [N + 1] bool, the items whose row training has moved.
        trained_user: [U + 1] bool, the same of the users.
    """

    def __init__(
        self,
        inputs: TrainingInputs,
        towers: TowerOptions,
        training: TrainingOptions,
        *,
        counts: np.ndarray,
        margins: bool,
        shared: torch.Generator,
        own: torch.Generator,
        device: torch.device,
        sharded: bool,
    ) -> None:
        self.options, self.training, self.device = towers, training, device
        self._own, self._frozen_items = own, inputs.frozen_items
        self.content = move(as_tensor(inputs.content, torch.float32), device)
        self.tokens = move(as_tensor(inputs.prefix_tokens, torch.int64), device)
        self.fields = move(as_tensor(inputs.fields, torch.int64), device)
        self.tower = TwoTower(
            towers,
            content_dim=0 if self.content is None else self.content.shape[1],
            generator=shared,
        ).to(device)
        num_users, num_items = len(inputs.histories), inputs.num_items
        specs = table_specs(
            towers,
            num_items=num_items,
            num_users=num_users,
            num_prefix_tokens=0 if self.tokens is None else inputs.num_prefix_tokens,
            num_field_tokens=0 if self.fields is None else inputs.num_field_tokens,
        )
        if margins:
            specs += margin_specs(num_users=num_users, num_items=num_items)
        rate = training.table_learning_rate
        self.tables: ShardedTables | LocalTables = (
            ShardedTables(specs, learning_rate=rate, generator=shared)
            if sharded
            else LocalTables(specs, learning_rate=rate, generator=shared, device=device)
        )
        # A row that is hidden in every step is not trained either.
        self.trained_item = torch.from_numpy((counts > 0) & (towers.id_dropout < 1.0))
        self.trained_user = torch.from_numpy(np.concatenate([[False], inputs.histories.counts > 0]))
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

    def items(self, item_index: Tensor, *, training: bool) -> Tensor:
        """[M, D] vectors of items [M]; in training some go without their id row."""
        keep = self.trained_item[item_index]
        if training and self.options.id_dropout:
            drawn = torch.rand(len(item_index), generator=self._own)
            keep = keep & (drawn >= self.options.id_dropout)
        vector = self.tower.items(
            self.tables,
            item_index,
            content=rows_of(self.content, item_index),
            prefix_tokens=rows_of(self.tokens, item_index),
            fields=rows_of(self.fields, item_index),
            keep_id=keep,
        )
        return vector.detach() if self._frozen_items else vector

    def queries(self, asked: Asked, vector: Tensor, seen: Tensor, *, training: bool) -> Tensor:
        """[Q, D] the queries over the places ``seen`` of ``vector`` [M, D] that they read."""
        if asked.place is None or asked.time is None or asked.window_row is None:
            user = self.users(asked.row, training)
            return self.tower.queries(vector, seen, user_vector=user)
        noise = Noise(self.options.reader_dropout, self._own, self.training.low_precision)
        read = self.tower.read(
            vector,
            seen,
            move(asked.time, self.device),
            user_vector=self.users(asked.window_row, training),
            noise=noise if training else None,
        )
        return read.flatten(0, 1).index_select(0, move(asked.place, self.device))

    def users(self, row: Tensor, training: bool) -> Tensor | None:
        """[B, D] user rows of history rows [B]; None without such a table."""
        if not self.options.use_user_id:
            return None
        wanted = row + 1
        if training and self.options.user_dropout:
            drawn = torch.rand(len(row), generator=self._own)
            wanted = wanted * (drawn >= self.options.user_dropout)
        return self.tables({"user": wanted})["user"]

    def scored(self, vector: Tensor) -> Tensor:
        """Rows whose products are the scores."""
        return unit_rows(vector) if self.training.score == "cosine" else vector

    def retriever(self, tables: dict[str, Tensor], epoch: int) -> TwoTowerRetriever:
        """The model as it stands after ``epoch``, with its whole tables."""
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
