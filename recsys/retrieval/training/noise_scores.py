"""How much each training event looks like noise: its loss beside the same user's other losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from features.tables import ITEM, TIMESTAMP, USER, WEIGHT, Histories, Vocabulary
from recsys.retrieval.losses import softmax_losses
from recsys.retrieval.losses.inputs import check_at_least
from recsys.retrieval.sampling.negatives import KnownPositives
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.towers.windows import ends_before_own_time

__all__ = ["NoiseScores", "event_losses", "noise_scores"]


@dataclass(frozen=True, eq=False)
class NoiseScores:
    """What the losses of E training events say about each of them.

    A score compares an event with the other events of its user only: a user whom the model
    understands badly has large losses everywhere, and no noise for that reason. It says that an
    event is unlike the rest, which a click by mistake is, and a rare but genuine taste as well.
    On MovieLens-1M with random items added until they were 15% of the events, three in four of
    the tenth of the events with the highest noise were such.

    Attributes:
        loss: [E] float32 in nats, from `event_losses` or another such loss.
        usual_loss: [E] float32 median loss of the event's user.
        noise: [E] float32 in [0, 1]. Of two events, this one and one with the user's usual loss,
            the probability that denoising trains on the other one. 0.5: as usual for this user;
            near 1: far worse explained by the rest of the user's history than is usual.
        keep_ratio: [E] float32, how much more often than an average event of its user this one
            would be trained on if every draw was from the user's whole history; its mean over the
            events of a user is 1.
        rank_in_user: [E] int64, 1 = the smallest loss of the user, equal ones in their order.
    """

    loss: np.ndarray
    usual_loss: np.ndarray
    noise: np.ndarray
    keep_ratio: np.ndarray
    rank_in_user: np.ndarray

    def to_frame(
        self, histories: Histories, user_ids: Sequence[str], items: Vocabulary
    ) -> pl.DataFrame:
        """One row an event, in the order of ``histories``; read it by falling ``noise``.

        Args:
            histories: the events scored.
            user_ids: [U] the id of each row.
            items: names the items.

        Returns:
            user_id and item_id String, timestamp Datetime("us") UTC without zone, weight, loss,
            usual_loss, noise, keep_ratio Float32, rank_in_user and events_of_user Int64.

        Raises:
            ValueError: there is not one score an event, or not one id a row.
        """
        if histories.item_index.size != self.loss.size:
            raise ValueError(
                f"histories must hold the events that were scored: got "
                f"{histories.item_index.size} for {self.loss.size} scores"
            )
        if len(user_ids) != len(histories):
            raise ValueError(
                f"user_ids must have one id per row: got {len(user_ids)} for {len(histories)} rows"
            )
        row = histories.rows
        return pl.DataFrame(
            {
                USER: pl.Series(user_ids, dtype=pl.String).gather(row),
                ITEM: items.to_series().gather(histories.item_index - 1),
                TIMESTAMP: pl.Series(histories.timestamp).cast(pl.Datetime("us")),
                WEIGHT: histories.weight,
                "loss": self.loss,
                "usual_loss": self.usual_loss,
                "noise": self.noise,
                "keep_ratio": self.keep_ratio,
                "rank_in_user": self.rank_in_user,
                "events_of_user": histories.counts[row],
            }
        )


def noise_scores(loss: np.ndarray, indptr: np.ndarray, *, temperature: float = 1.0) -> NoiseScores:
    """The place of each event's loss among the losses of its user.

    ``noise = 1 / (1 + exp(-(loss - usual_loss) / temperature))``, and ``keep_ratio`` is the user's
    number of events times ``softmax(-loss / temperature)``: what
    `recsys.retrieval.sampling.denoising. resample` does, with the whole history for a pool.

    Args:
        loss: [E] loss of each event.
        indptr: [U + 1] int64, row r of the users is ``[indptr[r]:indptr[r + 1]]``.
        temperature: a difference of this many nats counts as much, > 0. Training resamples at
            0.1, where hardly any event is between 0 and 1: 1 is for reading.

    Raises:
        ValueError: temperature <= 0, a loss is not finite, or ``indptr`` does not end at E.

    Source: Zhang et al., "Personalized denoising implicit feedback for robust recommender system"
        (PLD), WWW 2025, for the comparison within a user; the median is ours.
    """
    check_at_least(0, above=True, temperature=temperature)
    if loss.ndim != 1 or int(indptr[-1]) != loss.size:
        raise ValueError(
            f"loss must be [E] with E = indptr[-1] = {int(indptr[-1])}, got shape {loss.shape}"
        )
    if not np.isfinite(loss).all():
        raise ValueError("loss must be finite; the model has diverged")
    counts = np.diff(indptr)
    filled = np.flatnonzero(counts)
    count, first = counts[filled], indptr[:-1][filled]
    place = np.repeat(np.arange(filled.size), count)  # [E] row among the filled ones
    exact = loss.astype(np.float64)
    order = np.lexsort((exact, place))
    rank = np.empty(loss.size, dtype=np.int64)
    rank[order] = np.arange(loss.size) - first[place] + 1
    rising = exact[order]
    if not loss.size:
        usual = least = total = exact
    else:
        usual = (rising[first + (count - 1) // 2] + rising[first + count // 2]) / 2
        least = rising[first]
        total = np.add.reduceat(np.exp((least[place] - exact) / temperature), first)
    keep = np.exp((least[place] - exact) / temperature) / total[place] * count[place]
    apart = np.clip((exact - usual[place]) / temperature, -700.0, 700.0)  # exp stays finite
    return NoiseScores(
        loss=loss.astype(np.float32),
        usual_loss=usual[place].astype(np.float32),
        noise=(1.0 / (1.0 + np.exp(-apart))).astype(np.float32),
        keep_ratio=keep.astype(np.float32),
        rank_in_user=rank,
    )


@torch.no_grad()
def event_losses(
    retriever: TwoTowerRetriever,
    histories: Histories,
    *,
    temperature: float,
    generator: torch.Generator,
    num_negatives: int = 1024,
    user_index: np.ndarray | None = None,
    block_events: int = 4096,
) -> np.ndarray:
    """The softmax loss of every event under a trained model, against one sample of negatives.

    The query of an event sees the strictly older events of its row, as in training, so never the
    event itself. An early event has little history to be explained by, so expect a larger loss
    there. What the rows of users and items have learnt from an event stays in them.

    Args:
        retriever: the model.
        histories: U rows.
        temperature: scores are divided by it, as in training; > 0.
        generator: draws the negatives, uniformly; a row's own items are left out.
        num_negatives: shared by all events, >= 1.
        user_index: [U] int64 rows of the user table (training row + 1), 0 = unknown. None: all
            unknown; give ``np.arange(U) + 1`` for the training histories of a model that has one.
        block_events: events at a time; memory is ``block_events`` times ``num_negatives`` and
            the history length.

    Returns:
        [E] float32, in nats.

    Raises:
        ValueError: temperature <= 0, or ``num_negatives``, ``block_events`` or ``user_index``
            does not fit.
    """
    check_at_least(1, num_negatives=num_negatives, block_events=block_events)
    if user_index is not None and user_index.shape != (len(histories),):
        raise ValueError(
            f"user_index must have one entry per row: got shape {user_index.shape} for "
            f"{len(histories)} rows"
        )
    num_items = retriever.num_items
    vector = torch.from_numpy(retriever.item_vectors)
    negatives = torch.randint(1, num_items + 1, (num_negatives,), generator=generator)
    known = KnownPositives(histories.indptr, histories.item_index, num_items)
    row, end = histories.rows, ends_before_own_time(histories)
    begin = np.maximum(histories.indptr[:-1][row], end - retriever.tower.options.history_length)
    losses: list[Tensor] = []
    for first in range(0, row.size, block_events):
        block = slice(first, first + block_events)
        query = retriever.user_vectors(
            _spans(histories, begin[block], end[block]),
            user_index=None if user_index is None else user_index[row[block]],
        )
        losses.append(
            softmax_losses(
                torch.from_numpy(query),
                vector[torch.from_numpy(histories.item_index[block])],
                vector[negatives],
                temperature=temperature,
                known_positive=known.mask(torch.from_numpy(row[block]), negatives),
            )
        )
    return torch.cat([torch.zeros(0), *losses]).numpy()


def _spans(histories: Histories, begin: np.ndarray, end: np.ndarray) -> Histories:
    """Rows of the events ``[begin, end)`` each, which all lie in one row of ``histories``."""
    counts = end - begin
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    event = np.arange(indptr[-1]) + np.repeat(begin - indptr[:-1], counts)
    return Histories(
        indptr,
        histories.item_index[event],
        histories.timestamp[event],
        histories.weight[event],
    )
