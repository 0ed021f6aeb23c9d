"""Tensors of a training step: rows of optional tables, distinct items, shared gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

__all__ = ["as_tensor", "average_gradients", "cosine_share", "distinct_items", "rows_of"]


def as_tensor(values: np.ndarray | None, kind: torch.dtype) -> Tensor | None:
    """``values`` as a tensor of ``kind``; shared memory where the kind is theirs."""
    return None if values is None else torch.from_numpy(values).to(kind)


def rows_of(table: Tensor | None, index: Tensor) -> Tensor | None:
    """The rows ``index`` of ``table``, where the table is."""
    return None if table is None else table[index.to(table.device)]


def distinct_items(num_items: int, *item_index: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The distinct items [M], 0 first, and where each item stands among them."""
    flat = torch.cat([torch.zeros(1, dtype=torch.int64), *(i.flatten() for i in item_index)])
    if len(flat) < num_items // 16:
        distinct, place = torch.unique(flat, return_inverse=True)
        parts = place[1:].split([i.numel() for i in item_index])
        return distinct, [p.view(i.shape) for p, i in zip(parts, item_index, strict=True)]
    wanted = torch.zeros(num_items + 1, dtype=torch.bool)
    wanted[flat] = True
    distinct = wanted.nonzero()[:, 0]
    where = torch.zeros(num_items + 1, dtype=torch.int64)
    where[distinct] = torch.arange(len(distinct))
    return distinct, [where[i] for i in item_index]


def average_gradients(parameters: Sequence[Parameter]) -> None:
    """Replace every gradient by its mean over the processes of the group; none counts as zero."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def cosine_share(epoch: int, epochs: int, low: float) -> float:
    """Share of the learning rates in an epoch, from 1: from 1 to ``low`` along a half cosine."""
    done = min(1.0, (epoch - 1) / max(1, epochs - 1))
    return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * done))
