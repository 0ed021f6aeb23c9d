"""Which events are trained on, and how much they count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.retrieval.training.examples import EventStream
from recsys.retrieval.training.options import TrainingOptions

DAY = 86_400_000_000
LOG = Histories(
    np.array([0, 5, 5, 7], dtype=np.int64),
    np.arange(1, 8, dtype=np.int64),  # every event its own item
    np.array([0, 1, 2, 3, 4, 3, 10], dtype=np.int64) * DAY,
    np.ones(7, dtype=np.float32),
)
CHOICES = [
    ({}, [0, 1, 2, 3, 4, 5, 6]),
    ({"example_events": 2}, [3, 4, 5, 6]),
    ({"example_events": 9}, [0, 1, 2, 3, 4, 5, 6]),
    ({"example_days": 7.0}, [3, 4, 5, 6]),
    ({"example_days": 6.5}, [4, 6]),
    ({"example_days": 7.0, "example_events": 1}, [4, 6]),
]


def stream_of(**changed: object) -> EventStream:
    training = TrainingOptions().but(**changed)
    return EventStream(LOG, 7, training, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("changed", "wanted"), CHOICES)
@pytest.mark.parametrize("together", [1, 2])
def test_each_example_is_drawn_once(
    changed: dict[str, object], wanted: list[int], together: int
) -> None:
    stream = stream_of(events_per_user=together, **changed)
    orders = [stream.order() for _ in range(9)]
    assert all(sorted(order.tolist()) == wanted for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) > 1


@pytest.mark.parametrize(("changed", "wanted"), CHOICES)
def test_pieces_ask_for_each_example_once_and_read_what_is_older(
    changed: dict[str, object], wanted: list[int]
) -> None:
    pieces = torch.cat(stream_of(**changed).pieces(4)).tolist()
    assert sorted(event for _, a, e in pieces for event in range(a, e)) == wanted
    for first, asked, end in pieces:
        begin = 0 if end <= 5 else 5
        assert begin <= first <= asked
        assert first == begin or first < asked


@pytest.mark.parametrize(("changed", "wanted"), CHOICES)
def test_pools_hold_examples_alone(changed: dict[str, object], wanted: list[int]) -> None:
    drawn = stream_of(**changed).pools(400, 3)
    assert set(drawn.flatten().tolist()) == set(wanted)


def test_what_is_not_trained_on_is_seen_and_no_negative() -> None:
    stream = stream_of(example_events=1)
    assert stream.window(torch.tensor([4]), 8).tolist() == [[0, 0, 0, 0, 1, 2, 3, 4]]
    assert bool(stream.known.contains(torch.tensor([0]), torch.tensor([1])).all())


def test_old_examples_weigh_less_by_their_days() -> None:
    weight = stream_of(example_half_life_days=2.0).weight.numpy()
    age = 10 - LOG.timestamp / DAY
    np.testing.assert_allclose(weight, 0.5 ** (age / 2.0), rtol=1e-6)
