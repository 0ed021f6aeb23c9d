"""Training a new model whose vectors can be compared with an older model's.

A new user tower may then query the old item index during a roll-out, and the other way round.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.retrieval.losses import in_batch_softmax
from recsys.retrieval.sampling.pieces import Asked
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.devices import move
from recsys.retrieval.training.examples import EventStream

__all__ = ["compatibility_loss", "compatibility_pull"]


def compatibility_loss(
    new: Tensor,
    old: Tensor,
    *,
    temperature: float = 0.1,
    index: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean InfoNCE of each new vector to its own old vector, against the other old ones.

    Row i of ``old`` is the frozen vector of the same thing as row i of ``new``; no gradient flows
    into it. Scores are dot products: normalise both first for a cosine. Added to the training loss
    with a weight of about 0.1 for each side; a large one makes the new model a copy of the old.

    Args:
        new: [B, D] float.
        old: [B, D] float.
        temperature: logits are divided by it; > 0. 0.1 is the published mu = 10.
        index: [B] int64 rows of the things. Two examples of one thing are left out of each other's
            denominator (with -inf: a factor of 0 would leave a term exp(0)). None: all differ.
        weight: [B] weights of the examples, >= 0; one of weight 0 is still a negative. None: equal.

    Returns:
        Scalar, in nats. All-zero vectors of different things give log(B), of one thing 0.

    Raises:
        ValueError: shapes disagree or temperature <= 0.

    Source: the alignment term of Biondi et al., "Stationary representations", CVPR 2024 (HOC), as
        InfoNCE: the own old vector counts in the denominator.
    """
    if new.ndim != 2 or new.shape != old.shape:
        raise ValueError(
            f"new and old must both be [B, D]: got {tuple(new.shape)} and {tuple(old.shape)}"
        )
    if index is not None and index.shape != new.shape[:1]:
        raise ValueError(
            f"index must have one entry per row of new: got shape {tuple(index.shape)} for "
            f"{new.shape[0]} rows"
        )
    return in_batch_softmax(
        new, old.detach(), temperature=temperature, candidate_index=index, weight=weight
    )


def compatibility_pull(
    batch: Batch,
    asked: Asked,
    stream: EventStream,
    length: int,
    old: TwoTowerRetriever,
    device: torch.device,
) -> Tensor:
    """The pull of a step's positives, and of its queries, towards an older model's vectors.

    What the older model does not know is left out. Of a piece that is read at once the last query
    speaks for all.

    Args:
        batch: the step's vectors.
        asked: its examples.
        stream: what they are of.
        length: newest events that a query sees.
        old: the older model, on the CPU.
        device: where the batch is.
    """
    known = batch.positive_index < len(old.item_vectors)
    items = batch.positive_index[known]
    then = move(torch.from_numpy(old.item_vectors)[items], device)
    index = move(items, device)
    loss = compatibility_loss(batch.positive[move(known, device)], then, index=index)
    examples = torch.arange(len(asked.events)) if asked.last is None else asked.last
    events = asked.events[examples]
    window = stream.window(events, length)
    window = window * (window < len(old.item_vectors))
    time = stream.times(events, length) if old.tower.options.pooling == "sequence" else None
    user = old.tables.get("user")
    row = stream.row[events] + 1
    known_row = torch.ones(len(row), dtype=torch.bool) if user is None else row < len(user)
    with torch.no_grad():
        then = old.encode_windows(window, time=time, user_index=row * known_row)
    then, index = move(then[known_row], device), move(row[known_row], device)
    query = batch.query[move(examples[known_row], device)]
    return loss + compatibility_loss(query, then, index=index)
