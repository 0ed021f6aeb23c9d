"""What a training step is fed: events in order, what their queries see, negatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from features.tables import Histories
from recsys.retrieval.aging import DAY_US, decayed
from recsys.retrieval.sampling.denoising import draw_pool
from recsys.retrieval.sampling.frequency import StreamingFrequency, counted_log_q, item_counts
from recsys.retrieval.sampling.negative_queue import NegativeQueue, merge_repeats, mixed_negatives
from recsys.retrieval.sampling.negatives import KnownPositives, NegativeSampler
from recsys.retrieval.sampling.pieces import Asked, ask_pieces, cut, in_batches
from recsys.retrieval.sampling.propensity import exposure_propensities, inverse_propensity_weights
from recsys.retrieval.towers.windows import ends_before_own_time, window_before
from recsys.retrieval.training.options import TrainingOptions

__all__ = ["EventStream"]


class EventStream:
    """The training events, drawn as `TrainingOptions` say. An event is its place in the log.

    Args:
        histories: U rows of events.
        num_items: N.
        training: how events and negatives are drawn.
        generator: draws what all processes of a run draw alike.

    Attributes:
        row: [E] int64 row of each event.
        item: [E] int64 its item.
        weight: [E] float32 its weight, >= 0.
        counts: [N + 1] int64 events of each item.
        log_share: [N + 1] float32 log share of the events of each item, see `counted_log_q`.
        known: the pairs that must not serve as negatives.
    """

    def __init__(
        self,
        histories: Histories,
        num_items: int,
        training: TrainingOptions,
        *,
        generator: torch.Generator,
    ) -> None:
        self.training = training
        self.row = torch.from_numpy(histories.rows)
        self.item = torch.from_numpy(histories.item_index).long()
        self.counts = item_counts(histories.item_index, num_items)
        self.weight = _event_weights(histories, self.counts, training)
        self.known = KnownPositives(histories.indptr, histories.item_index, num_items)
        self.log_share = counted_log_q(self.counts)
        self._item_index, self._timestamp = histories.item_index, histories.timestamp
        self._indptr = histories.indptr
        self._start = histories.indptr[:-1][histories.rows]
        self._end = ends_before_own_time(histories)
        self._first = torch.from_numpy(_first_examples(histories, training))  # of each row
        self._stop = torch.from_numpy(histories.indptr[1:])
        self._active_rows = (self._first < self._stop).nonzero()[:, 0]
        self._sampler = NegativeSampler(self.counts, power=training.negative_power)
        self._every_item = torch.arange(1, num_items + 1)
        self._queue = NegativeQueue(training.queue_size)
        self._streaming = (
            StreamingFrequency(num_items + 1) if training.frequency == "streaming" else None
        )
        self._generator = generator

    def __len__(self) -> int:
        return len(self.item)

    def order(self) -> Tensor:
        """[E] the examples, shuffled; those of a user in groups of up to ``events_per_user``."""
        size, generator = self.training.events_per_user, self._generator
        event = (torch.arange(len(self.item)) >= self._first[self.row]).nonzero()[:, 0]
        if size == 1:
            return event[torch.randperm(len(event), generator=generator)]
        row = self.row[event]
        drawn = torch.rand(len(event), dtype=torch.float64, generator=generator)
        order = torch.argsort(row + drawn)  # shuffled within each row
        begin = torch.searchsorted(row, row)
        place_in_row = torch.arange(len(event)) - begin
        first = begin + place_in_row - place_in_row % size  # place of the event's group
        group = torch.rand(len(event), dtype=torch.float64, generator=generator)
        return event[order[torch.argsort(group[first], stable=True)]]

    def pools(self, size: int, pool_size: int) -> Tensor:
        """[size, pool_size] events: each row some of the events of a user drawn uniformly."""
        drawn = torch.randint(len(self._active_rows), (size,), generator=self._generator)
        row = self._active_rows[drawn]
        first = self._first[row]
        pool = draw_pool(self._stop[row] - first, pool_size, generator=self._generator)
        return first[:, None] + pool

    def pieces(self, length: int) -> list[Tensor]:
        """The examples in batches of pieces [P, 3]; see `recsys.retrieval.sampling.pieces.cut`."""
        pieces = cut(
            self._indptr, length, asked_from=self._first.numpy(), generator=self._generator
        )
        return in_batches(pieces, self.training.batch_size, generator=self._generator)

    def ask_pieces(self, pieces: Tensor) -> Asked:
        """What is asked of ``pieces`` [P, 3]; see `recsys.retrieval.sampling.pieces.ask_pieces`."""
        return ask_pieces(
            pieces,
            row=self.row,
            start=self._start,
            end=self._end,
            item_index=self._item_index,
            timestamp=self._timestamp,
        )

    def ask(self, events: Tensor, length: int) -> Asked:
        """A query for each of ``events`` [B] that sees ``length`` events.

        With ``length`` 0 one for all that a user's events ask for, if users come one by one.
        """
        row = self.row[events]
        if length:
            return Asked(events, row, self.window(events, length))
        query_of = None
        if bool((row[1:] >= row[:-1]).all()):
            row, query_of = torch.unique_consecutive(row, return_inverse=True)
        return Asked(events, row, torch.zeros(len(row), 0, dtype=torch.int64), query_of)

    def window(self, events: Tensor, length: int) -> Tensor:
        """[B, length] items of the same user strictly before each event, newest last."""
        event = events.numpy()
        return window_before(self._item_index, self._start[event], self._end[event], length)

    def times(self, events: Tensor, length: int) -> Tensor:
        """[B, length] int64 microseconds of the events of `window`."""
        event = events.numpy()
        return window_before(self._timestamp, self._start[event], self._end[event], length)

    def negatives(self, events: Tensor) -> tuple[Tensor, Tensor]:
        """[C] distinct items for a step on ``events``, and the log probability [C] of each."""
        training = self.training
        if training.negative_source == "queue" and len(self._queue):
            return merge_repeats(self._queue.items(), self.log_share)
        if training.negatives >= len(self._every_item):
            return self._every_item, torch.zeros(len(self._every_item))
        drawn = self._sampler.sample(training.negatives, generator=self._generator)
        if training.negative_source == "mixed":
            positives = self.item[events].flatten()
            return mixed_negatives(drawn, self._sampler.log_q, positives, self.log_share)
        return merge_repeats(drawn, self._sampler.log_q)

    def trained_on(self, events: Tensor) -> None:
        """Take note of the events of a finished step."""
        if self.training.negative_source == "queue":
            self._queue.push(self.item[events])
        if self._streaming is not None:
            self._streaming.update(self.item[events])

    def positive_log_q(self, item_index: Tensor) -> Tensor:
        """[B] log probability of each item ``item_index`` [B] at the next event."""
        if self._streaming is None:
            return self.log_share[item_index]
        return self._streaming.log_q(item_index)


def _first_examples(histories: Histories, training: TrainingOptions) -> np.ndarray:
    """[U] int64 first event of each row that is trained on; one past its last where none is."""
    first = histories.indptr[:-1]
    if training.example_events is not None:
        first = np.maximum(first, histories.indptr[1:] - training.example_events)
    if training.example_days is not None and histories.timestamp.size:
        oldest = histories.timestamp.max() - round(training.example_days * DAY_US)
        older = np.bincount(histories.rows[histories.timestamp < oldest], minlength=len(histories))
        first = np.maximum(first, histories.indptr[:-1] + older)
    return first


def _event_weights(histories: Histories, counts: np.ndarray, training: TrainingOptions) -> Tensor:
    """[E] float32: less for old events and active users, more for seldom shown items."""
    if training.example_half_life_days is not None:
        newest = histories.timestamp.max(initial=0)
        moment = np.full(len(histories), newest)
        histories = decayed(histories, moment, training.example_half_life_days)
    age = histories.indptr[1:][histories.rows] - 1 - np.arange(histories.item_index.size)
    weight = histories.weight * (0.5 ** (age / training.positive_half_life))
    if histories.target is not None:  # the others are seen, and not learned
        weight = weight * histories.target
    if training.user_power:
        weight = weight * histories.counts[histories.rows] ** -training.user_power
    if training.propensity_power:
        propensity = exposure_propensities(counts, power=training.propensity_power)
        inverse = inverse_propensity_weights(propensity, clip=training.propensity_clip)
        weight = weight * inverse[histories.item_index]
    return torch.from_numpy(weight.astype(np.float32))
