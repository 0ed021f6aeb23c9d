"""The margins that an objective may learn: one number in [0, 1] of each user and of each item.

Source: MAWU, Park et al., CIKM 2023 (margin-aware alignment).
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import LocalTables, TableSpec

__all__ = ["MARGINS", "clamp_margins", "margin_specs", "margins_of"]

Tables = ShardedTables | LocalTables
MARGINS = ("user_margin", "item_margin")
"""Names of their tables; a margin is the mean of its row, for tables are at least 4 wide."""


def margin_specs(*, num_users: int, num_items: int) -> list[TableSpec]:
    """The tables of the margins, row 0 for nobody."""
    return [
        TableSpec(name, number + 1, 4)
        for name, number in zip(MARGINS, (num_users, num_items), strict=True)
    ]


def margins_of(tables: Tables, row: Tensor, item_index: Tensor) -> tuple[Tensor, Tensor]:
    """[B] margins of the users of history rows ``row`` [B], and of the items [B]."""
    found = tables({"user_margin": row + 1, "item_margin": item_index})
    return found["user_margin"].mean(dim=1), found["item_margin"].mean(dim=1)


@torch.no_grad()
def clamp_margins(tables: Tables) -> None:
    """Bring margins back into [0, 1] after an update; only whole tables have any."""
    if isinstance(tables, LocalTables):
        for name in MARGINS:
            tables.weight[name].clamp_(0.0, 1.0)
