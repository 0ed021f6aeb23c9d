"""The two towers: items from id, content and Semantic ID; queries from item vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.embeddings.tables import TableSpec
from recsys.retrieval.windows import pool_weights

__all__ = ["Lookup", "TowerOptions", "TwoTower", "table_specs"]

Lookup = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class TowerOptions:
    """The shape of the towers.

    Attributes:
        embedding_dim: D, a multiple of 4 so that the tables can be sharded.
        history_length: newest events a query sees, >= 1.
        half_lives: recency pools of the history, half-lives in events (inf: plain mean).
        hidden_dim: width of the query tower's residual layer; 0 leaves it out.
        user_table: whether known users get a row of their own on top of their history.
        id_dropout: share of item ids hidden in each training step, so that content and Semantic
            ID learn to stand in for them; in [0, 1].

    Raises:
        ValueError: a value is out of range.
    """

    embedding_dim: int = 64
    history_length: int = 100
    half_lives: tuple[float, ...] = (20.0, 5.0, 2.0)
    hidden_dim: int = 128
    user_table: bool = False
    id_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.embedding_dim < 4 or self.embedding_dim % 4:
            raise ValueError(
                f"embedding_dim must be a positive multiple of 4, got {self.embedding_dim}"
            )
        if self.history_length < 1:
            raise ValueError(f"history_length must be >= 1, got {self.history_length}")
        if not self.half_lives or not all(half_life > 0 for half_life in self.half_lives):
            raise ValueError(f"half_lives must be one or more numbers > 0, got {self.half_lives}")
        if self.hidden_dim < 0:
            raise ValueError(f"hidden_dim must be >= 0, got {self.hidden_dim}")
        if not 0.0 <= self.id_dropout <= 1.0:
            raise ValueError(f"id_dropout must be in [0, 1], got {self.id_dropout}")


def table_specs(
    options: TowerOptions, *, num_items: int, num_users: int, num_prefix_tokens: int
) -> list[TableSpec]:
    """The id tables the towers look up: ``item``, and ``prefix`` and ``user`` where used."""
    specs = [TableSpec("item", num_items + 1, options.embedding_dim)]
    if num_prefix_tokens:
        specs.append(TableSpec("prefix", num_prefix_tokens + 1, options.embedding_dim))
    if options.user_table:
        specs.append(TableSpec("user", num_users + 1, options.embedding_dim))
    return specs


class TwoTower(nn.Module):
    """The dense part of both towers; the id tables come in as a lookup.

        item   = id row + projected content + sum of Semantic-ID prefix rows
        pool_p = sum over the history of weight_p * item,  one p a half-life
        query  = start + sum_p gate_p pool_p + user row + W2 gelu(W1 [pool_1 .. pool_P])

    ``start`` is what a query with an empty history asks for. An unknown user is encoded from the
    history alone, an item without interactions from content and prefix alone.

    Args:
        options: the shape.
        content_dim: width of the items' content vectors; 0: none.
        generator: draws the initial weights.
    """

    def __init__(
        self, options: TowerOptions, *, content_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.options = options
        self.content_dim = content_dim
        dim, pools, hidden = options.embedding_dim, len(options.half_lives), options.hidden_dim

        def drawn(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * std)

        self.content_weight = (
            drawn(dim, content_dim, std=1 / math.sqrt(3 * content_dim)) if content_dim else None
        )
        self.start = drawn(dim, std=0.1)
        self.gate = nn.Parameter(torch.full((pools,), 1.0 / pools))
        if hidden:
            self.hidden_weight = drawn(hidden, pools * dim, std=1 / math.sqrt(3 * pools * dim))
            self.hidden_bias = nn.Parameter(torch.zeros(hidden))
            self.output_weight = nn.Parameter(torch.zeros(dim, hidden))

    def items(
        self,
        lookup: Lookup,
        item_index: Tensor,
        *,
        content: Tensor | None = None,
        prefix_tokens: Tensor | None = None,
        keep_id: Tensor | None = None,
    ) -> Tensor:
        """Item vectors; row 0 of every input is zero, so item 0 (padding) is the zero vector.

        Args:
            lookup: rows of the tables ``item`` and ``prefix``.
            item_index: [M] int64 items.
            content: [M, content_dim] float32 content of those items; needed when the tower has it.
            prefix_tokens: [M, L] int64 prefix tokens of those items, 0 = none.
            keep_id: [M] bool, False = leave the id row out. None: all kept.

        Returns:
            [M, D] float32.

        Raises:
            ValueError: ``content`` is missing or unexpected.
        """
        wanted = {"item": item_index if keep_id is None else item_index * keep_id}
        if prefix_tokens is not None:
            wanted["prefix"] = prefix_tokens
        found = lookup(wanted)
        vector = found["item"]  # [M, D]
        if prefix_tokens is not None:
            vector = vector + found["prefix"].sum(dim=1)
        if (content is None) != (self.content_weight is None):
            raise ValueError(
                f"content must be given exactly when the tower has content: content_dim is "
                f"{self.content_dim}, content is {'missing' if content is None else 'given'}"
            )
        if content is not None and self.content_weight is not None:
            vector = vector + content @ self.content_weight.T
        return vector

    def queries(
        self,
        item_vector: Tensor,
        place: Tensor,
        *,
        user_vector: Tensor | None = None,
    ) -> Tensor:
        """Query vectors of histories.

        Args:
            item_vector: [M, D] float32 vectors of distinct items, row 0 the padding.
            place: [B, T] int64 rows of ``item_vector``, newest event last, 0 = padding.
            user_vector: [B, D] rows of the table ``user``. None: histories alone.

        Returns:
            [B, D] float32.
        """
        weight = pool_weights(place, self.options.half_lives)  # [P, B, T]
        pools = [
            F.embedding_bag(place, item_vector, mode="sum", per_sample_weights=w, padding_idx=0)
            for w in weight
        ]
        query = self.start + torch.einsum("p,pbd->bd", self.gate, torch.stack(pools))
        if user_vector is not None:
            query = query + user_vector
        if self.options.hidden_dim:
            hidden = F.linear(torch.cat(pools, dim=1), self.hidden_weight, self.hidden_bias)
            query = query + F.linear(F.gelu(hidden), self.output_weight)
        return query
