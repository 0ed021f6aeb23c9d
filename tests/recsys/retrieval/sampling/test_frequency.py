"""Frequencies from counts and from the stream: by hand, event by event, against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.retrieval.sampling.frequency import StreamingFrequency, counted_log_q, item_counts


def one_at_a_time(stream: list[int], rate: float) -> dict[int, float]:
    """Mean gap of each item, event by event: Yi et al., algorithm 2, with an even start."""
    last: dict[int, int] = {}
    gap: dict[int, float] = {}
    hits: dict[int, int] = {}
    for time, item in enumerate(stream, start=1):
        hits[item] = hits.get(item, 0) + 1
        share = max(rate, 1 / hits[item])
        gap[item] = (1 - share) * gap.get(item, 0.0) + share * (time - last.get(item, 0))
        last[item] = time
    return gap


def drawn_items(share: Tensor, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(share, size, replacement=True, generator=generator)


@given(
    stream=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    rate=st.sampled_from([1.0, 0.5, 0.3, 0.1]),
    batch=st.integers(1, 60),
)
@settings(max_examples=60)
def test_a_batch_at_once_is_one_event_at_a_time(stream: list[int], rate: float, batch: int) -> None:
    frequency = StreamingFrequency(5, rate=rate)
    for part in torch.split(torch.tensor(stream), batch):
        frequency.update(part)
    assert frequency.time == len(stream)
    gap = one_at_a_time(stream, rate)
    found = frequency.log_q(torch.tensor(sorted(gap))).tolist()
    assert found == pytest.approx([-math.log(gap[item]) for item in sorted(gap)], abs=1e-6)


def test_the_stream_gives_the_shares() -> None:
    """Items that occur several times a batch, too; a share's error is about sqrt(rate / 2)."""
    share = torch.softmax(torch.linspace(0.0, 4.0, 30, dtype=torch.float64), 0)
    frequency = StreamingFrequency(30, rate=0.005)
    for part in torch.split(drawn_items(share, 100_000), 512):
        frequency.update(part)
    error = frequency.log_q(torch.arange(30)) - share.log()
    assert float(error.abs().max()) < 4 * math.sqrt(0.005 / 2)
    assert float(error.abs().mean()) < 1.5 * math.sqrt(0.005 / 2)


def test_the_stream_follows_a_drift() -> None:
    before, after = torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.9])
    frequency = StreamingFrequency(2, rate=0.02)
    for share in (before, after):
        frequency.update(drawn_items(share, 5_000))
        found = frequency.log_q(torch.arange(2)).exp()
        torch.testing.assert_close(found, share, rtol=0.35, atol=0.0)


def test_an_item_never_seen_is_rarer_than_all() -> None:
    frequency = StreamingFrequency(4)
    assert frequency.log_q(torch.tensor([3])).tolist() == [0.0]
    frequency.update(torch.tensor([0, 1, 1, 2]))
    frequency.update(torch.tensor([], dtype=torch.int64))
    found = frequency.log_q(torch.arange(4))
    assert float(found[3]) == pytest.approx(-math.log(5))
    assert int(found.argmin()) == 3


def test_more_tables_undo_collisions() -> None:
    share = torch.softmax(2.0 * torch.randn(300, generator=torch.Generator().manual_seed(1)), 0)
    stream = drawn_items(share, 60_000)
    often = torch.nonzero(share * len(stream) > 50).flatten()
    excess = []
    for tables in (1, 2, 4):
        frequency = StreamingFrequency(128, num_tables=tables)
        for part in torch.split(stream, 1024):
            frequency.update(part)
        excess.append(float((frequency.log_q(often) - share.log()[often]).clamp(min=0).mean()))
    assert excess[0] > 2 * excess[1] > 2 * excess[2]


def test_counts_by_hand() -> None:
    counts = item_counts(np.array([1, 3, 3]), 4)
    assert counts.tolist() == [0, 1, 0, 2, 0]
    log_q = counted_log_q(counts)
    assert log_q.dtype == torch.float32
    assert log_q.exp().tolist() == pytest.approx([0.0, 0.2, 0.2, 0.4, 0.2])


@pytest.mark.parametrize(
    ("num_slots", "options", "message"),
    [
        (0, {}, "num_slots and num_tables must be >= 1"),
        (3, {"num_tables": 0}, "num_slots and num_tables must be >= 1"),
        (3, {"rate": 0.0}, "rate must be in"),
        (3, {"rate": 1.5}, "rate must be in"),
    ],
)
def test_the_estimator_refuses(num_slots: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingFrequency(num_slots, **options)


def test_wrong_items_and_counts_are_refused() -> None:
    frequency = StreamingFrequency(3)
    with pytest.raises(ValueError, match=r"item_index must be \[B\] and >= 0"):
        frequency.update(torch.tensor([1, -1]))
    with pytest.raises(ValueError, match=r"item_index must be \[B\] and >= 0"):
        frequency.log_q(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"item_index must be 0\.\.2, got 1\.\.3"):
        item_counts(np.array([1, 3]), 2)
    with pytest.raises(ValueError, match="N >= 1"):
        counted_log_q(np.array([1]))
    with pytest.raises(ValueError, match="counts must be >= 0, got -2"):
        counted_log_q(np.array([0, -2]))
