"""The two towers: items from id, fields, content and Semantic ID; queries from item vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.embeddings.tables import TableSpec
from recsys.retrieval.towers.options import TowerOptions
from recsys.retrieval.towers.pooling import AttentionPooling, pool_events
from recsys.retrieval.towers.sequence import Noise, SequenceReader
from recsys.retrieval.towers.windows import begun_left, pool_weights

__all__ = ["Lookup", "TwoTower", "lookup_in", "table_specs"]

_ITEM_BLOCK = 16_384  # items encoded at a time

Lookup = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def table_specs(
    options: TowerOptions,
    *,
    num_items: int,
    num_users: int,
    num_prefix_tokens: int,
    num_field_tokens: int = 0,
) -> list[TableSpec]:
    """The id tables that are looked up: ``item``, and ``prefix``, ``field``, ``user`` if used."""
    specs = [TableSpec("item", num_items + 1, options.dim)]
    if num_prefix_tokens:
        specs.append(TableSpec("prefix", num_prefix_tokens + 1, options.dim))
    if num_field_tokens:
        specs.append(TableSpec("field", num_field_tokens + 1, options.dim))
    if options.use_user_id:
        specs.append(TableSpec("user", num_users + 1, options.dim))
    return specs


def lookup_in(tables: Mapping[str, Tensor]) -> Lookup:
    """The lookup of whole tables."""

    def lookup(index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tables[name][rows] for name, rows in index.items()}

    return lookup


class TwoTower(nn.Module):
    """The dense part of both towers; the id tables come in as a lookup.

        item   = id row + projected content + sum of Semantic-ID prefix rows + sum of field rows
        pool_p = sum over the history of weight_p * item,  one p a half-life
        query  = start + sum_p gate_p pool_p + user row + W2 gelu(W1 [pool_1 .. pool_P])

    ``start`` is what a query with an empty history asks for. An unknown user is encoded from the
    history alone, an item without interactions from content, prefix and fields alone. With
    attention the weights are learned instead of added to: they start as those of the half-lives,
    so the recency pools would only be there twice. A sequence has no pools: its query is what the
    reader says after the last event (`recsys.retrieval.towers.sequence`), and the user row. Without
    pooling the query is the user row, and ``start`` for a user without one.

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
        dim, pools, hidden = options.dim, len(options.half_lives), options.hidden_dim

        def drawn(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * std)

        self.content_weight = (
            drawn(dim, content_dim, std=1 / math.sqrt(3 * content_dim)) if content_dim else None
        )
        self.start = drawn(dim, std=0.1)
        if options.pooling == "none":
            if not options.user_dropout:  # no query trains it: it must not look as if one had
                self.start.data.zero_()
            return
        if options.pooling == "sequence":
            self.reader = SequenceReader(
                dim,
                blocks=options.reader_blocks,
                heads=options.reader_heads,
                history_length=options.history_length,
                generator=generator,
            )
            return
        self.gate = nn.Parameter(torch.full((pools,), 1.0 / pools))
        if hidden:
            self.hidden_weight = drawn(hidden, pools * dim, std=1 / math.sqrt(3 * pools * dim))
            self.hidden_bias = nn.Parameter(torch.zeros(hidden))
            self.output_weight = nn.Parameter(torch.zeros(dim, hidden))
        if options.pooling == "attention":
            self.attention = AttentionPooling(
                dim,
                options.half_lives,
                history_length=options.history_length,
                generator=generator,
            )

    def items(
        self,
        lookup: Lookup,
        item_index: Tensor,
        *,
        content: Tensor | None = None,
        prefix_tokens: Tensor | None = None,
        fields: Tensor | None = None,
        keep_id: Tensor | None = None,
        keep_field: Tensor | None = None,
    ) -> Tensor:
        """Item vectors; row 0 of every input is zero, so item 0 (padding) is the zero vector.

        Args:
            lookup: rows of the tables ``item``, ``prefix`` and ``field``.
            item_index: [M] int64 items.
            content: [M, content_dim] float32 content of those items; needed when the tower has it.
            prefix_tokens: [M, L] int64 prefix tokens of those items, 0 = none.
            fields: [M, F] int64 field tokens of those items, 0 = missing; the tokens of two fields
                differ, see `recsys.retrieval.towers.item_fields`.
            keep_id: [M] bool, False = leave the id row out. None: all kept.
            keep_field: [M, F] bool, False = take that field as missing. None: all kept.

        Returns:
            [M, D] float32.

        Raises:
            ValueError: ``content`` is missing or unexpected.
        """
        if (content is None) != (self.content_weight is None):
            raise ValueError(
                f"content must be given exactly when the tower has content: content_dim is "
                f"{self.content_dim}, content is {'missing' if content is None else 'given'}"
            )
        wanted = {"item": item_index if keep_id is None else item_index * keep_id}
        if prefix_tokens is not None:
            wanted["prefix"] = prefix_tokens
        if fields is not None:
            wanted["field"] = fields if keep_field is None else fields * keep_field
        found = lookup(wanted)
        vector = found["item"]  # [M, D]
        for name in ("prefix", "field"):
            if name in wanted:
                vector = vector + found[name].sum(dim=1)
        if content is not None and self.content_weight is not None:
            vector = vector + content @ self.content_weight.T
        return vector

    def catalogue(
        self,
        tables: Mapping[str, Tensor],
        *,
        content: Tensor | None = None,
        prefix_tokens: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> Tensor:
        """[N + 1, D] vectors of every item of the table ``item``, in blocks; see `items`."""
        lookup = lookup_in(tables)
        blocks = torch.split(torch.arange(len(tables["item"])), _ITEM_BLOCK)
        return torch.cat(
            [
                self.items(
                    lookup,
                    block,
                    content=None if content is None else content[block],
                    prefix_tokens=None if prefix_tokens is None else prefix_tokens[block],
                    fields=None if fields is None else fields[block],
                )
                for block in blocks
            ]
        )

    def queries(
        self,
        item_vector: Tensor,
        place: Tensor,
        *,
        time: Tensor | None = None,
        user_vector: Tensor | None = None,
    ) -> Tensor:
        """Query vectors of histories.

        Args:
            item_vector: [M, D] float32 vectors of distinct items, row 0 the padding.
            place: [B, T] int64 rows of ``item_vector``, newest event last, 0 = padding. Without
                pooling only B counts and T may be 0.
            time: [B, T] int64 microseconds of the events; a sequence wants it.
            user_vector: [B, D] rows of the table ``user``, zero for an unknown user. None: all
                unknown.

        Returns:
            [B, D] float32.

        Raises:
            ValueError: a sequence is read without ``time``.
        """
        if self.options.pooling == "none":
            if user_vector is None:
                return self.start.expand(len(place), -1)
            return torch.where(user_vector.any(dim=1, keepdim=True), user_vector, self.start)
        if self.options.pooling == "sequence":
            if time is None:
                raise ValueError("time must be given to read a sequence, got None")
            place, time, count = begun_left(place, time)
            return self.read(item_vector, place, time, user_vector=user_vector, row=count)
        weight = (
            self.attention(item_vector, place)
            if self.options.pooling == "attention"
            else pool_weights(place, self.options.half_lives)
        )  # [P, B, T]
        pools = pool_events(item_vector, place, weight)  # [P, B, D]
        query = self.start + torch.einsum("p,pbd->bd", self.gate, pools)
        if user_vector is not None:
            query = query + user_vector
        if self.options.hidden_dim:
            side_by_side = pools.transpose(0, 1).flatten(1)  # [B, P * D]
            hidden = F.linear(side_by_side, self.hidden_weight, self.hidden_bias)
            query = query + F.linear(F.gelu(hidden), self.output_weight)
        return query

    def read(
        self,
        item_vector: Tensor,
        place: Tensor,
        time: Tensor,
        *,
        user_vector: Tensor | None = None,
        noise: Noise | None = None,
        row: Tensor | None = None,
    ) -> Tensor:
        """The queries of a sequence before its first event and after each.

        Args:
            item_vector: [M, D] float32, row 0 the padding.
            place: [B, T] int64 rows of ``item_vector``, oldest event first, 0 = not to be read.
            time: [B, T] int64 microseconds.
            user_vector: as in `queries`.
            noise: of a step in training.
            row: [B] int64, after how many events the one query that is wanted asks. None: all.

        Returns:
            [B, T + 1, D] float32, or [B, D] of one query each.
        """
        seen = F.embedding(place, item_vector, padding_idx=0)
        vector = torch.cat([self.start.expand(len(place), 1, -1), seen], dim=1)
        real = F.pad(place > 0, (1, 0), value=True)
        query: Tensor = self.reader(vector, real, F.pad(time, (1, 0)), noise=noise, row=row)
        if user_vector is None:
            return query
        return query + (user_vector[:, None] if row is None else user_vector)
