"""A plain SASRec (ICDM 2018), as the published comparisons have it, with three losses to choose.

Two pre-norm blocks of causal attention over learned places, tied item vectors, Adam at .001; the
newest 200 events of each user, every one of them a target.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Literal["bce", "sampled", "full"]
_NEGATIVES = 256


class SasRec(nn.Module):
    """[B, T, D] outputs of windows [B, T] of items, oldest first, 0 = nothing."""

    def __init__(
        self, num_items: int, *, dim: int, length: int, blocks: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.item = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.place = nn.Embedding(length, dim)
        for table in (self.item, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.drop = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            dim, heads, dim, dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, blocks, norm=nn.LayerNorm(dim), enable_nested_tensor=False
        )

    def forward(self, window: Tensor) -> Tensor:
        """[B, T, D]."""
        length = window.shape[1]
        x = self.drop(self.item(window) + self.place.weight[:length])
        unseen = torch.ones(length, length, dtype=torch.bool).triu(1)
        found: Tensor = self.blocks(x, mask=unseen, is_causal=True)
        return found


def train_sasrec(
    sequences: list[np.ndarray],
    num_items: int,
    *,
    loss: Loss,
    seconds: float,
    validate: Callable[[Callable[[list[np.ndarray]], np.ndarray], np.ndarray], float],
    dim: int = 64,
    length: int = 200,
    batch: int = 128,
    seed: int = 0,
) -> tuple[Callable[[list[np.ndarray]], np.ndarray], np.ndarray, int]:
    """Train until ``seconds`` have passed, the best epoch on validation kept.

    Args:
        sequences: items of each user, oldest first.
        num_items: N.
        loss: "bce", one negative an event; "sampled", the softmax over 256 uniform negatives
            shared by a step; "full", the softmax over all items.
        seconds: of training; judging is not counted.
        validate: value of a way to encode sequences and the item vectors [N + 1, D].
        dim: D.
        length: newest events that are read.
        batch: sequences a step.
        seed: of the weights and the order.

    Returns:
        That way, the item vectors, and the epochs trained.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = SasRec(num_items, dim=dim, length=length, blocks=2, heads=2, dropout=0.2)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))

    @torch.no_grad()
    def encode(rows: list[np.ndarray]) -> np.ndarray:
        model.eval()
        found = []
        for first in range(0, len(rows), 256):
            window, count = _windows(rows[first : first + 256], length)
            found.append(model(window)[torch.arange(len(count)), count - 1])
        return torch.cat(found).numpy()

    best, best_value, spent, epochs = {}, -1.0, 0.0, 0
    while spent < seconds:
        began = time.perf_counter()
        model.train()
        for rows in np.array_split(rng.permutation(len(sequences)), -(-len(sequences) // batch)):
            chosen = [sequences[row][-length - 1 :] for row in rows]
            window, _ = _windows([one[:-1] for one in chosen], length)
            target, _ = _windows([one[1:] for one in chosen], length)
            with torch.autocast("cpu", torch.bfloat16):
                out = model(window)
            real = target > 0
            value = _loss(loss, out[real].float(), target[real], model.item.weight)
            adam.zero_grad()
            value.backward()
            adam.step()
        spent += time.perf_counter() - began
        epochs += 1
        value = validate(encode, model.item.weight.detach().numpy())
        if value > best_value:
            best_value = value
            best = {name: one.clone() for name, one in model.state_dict().items()}
    model.load_state_dict(best)
    return encode, model.item.weight.detach().numpy(), epochs


def _loss(kind: Loss, query: Tensor, target: Tensor, items: Tensor) -> Tensor:
    num_items = len(items) - 1
    if kind == "full":
        with torch.autocast("cpu", torch.bfloat16):
            logit = query @ items[1:].T
        return F.cross_entropy(logit.float(), target - 1)
    positive = (query * items[target]).sum(dim=1)
    if kind == "bce":
        other = torch.randint(1, num_items + 1, target.shape)
        negative = (query * items[other]).sum(dim=1)
        return F.softplus(-positive).mean() + F.softplus(negative).mean()
    other = torch.randint(1, num_items + 1, (_NEGATIVES,))
    logit = query @ items[other].T
    logit = logit.masked_fill(other == target[:, None], -torch.inf)
    return F.cross_entropy(torch.cat([positive[:, None], logit], dim=1), torch.zeros_like(target))


def _windows(rows: list[np.ndarray], length: int) -> tuple[Tensor, Tensor]:
    """[B, T] the newest ``length`` items of each row, padded on the right, and how many [B]."""
    kept = [row[-length:] for row in rows]
    count = np.array([len(row) for row in kept])
    window = np.zeros((len(kept), int(count.max())), dtype=np.int64)
    window[np.arange(window.shape[1]) < count[:, None]] = np.concatenate(kept)
    return torch.from_numpy(window), torch.from_numpy(count)
