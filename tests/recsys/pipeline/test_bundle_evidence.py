"""What an evaluation finds that lets the answer into the inputs."""

from __future__ import annotations

import numpy as np
import pytest

from features.tables import Histories
from recsys.dataset import Cut
from recsys.pipeline import evidence as bundle_evidence
from recsys.pipeline.evidence import find_leakage
from recsys.ranking.ranker import RankingRows

LONG_AGO = np.iinfo(np.int64).min


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def histories(timestamp: list[int]) -> Histories:
    """Two users with two events each, at these moments."""
    return Histories(
        indptr=np.array([0, 2, 4]),
        item_index=np.array([1, 2, 3, 4]),
        timestamp=np.array(timestamp, dtype=np.int64),
        weight=np.ones(4, dtype=np.float32),
    )


def labelled(requests: int, leak: float, rng: np.random.Generator) -> RankingRows:
    """Ten candidates a request, one of them wanted; the second feature holds ``leak`` of it."""
    label = np.tile([1] + [0] * 9, requests)
    noise = rng.normal(size=(label.size, 2)).astype(np.float32)
    noise[:, 1] = leak * label + (1 - leak) * noise[:, 1]
    return RankingRows(noise, label, np.repeat(np.arange(requests), 10), ("age", "answer"))


def test_nothing_is_found_in_honest_data(rng: np.random.Generator) -> None:
    cut = Cut(histories([1, 2, 3, 4]), histories([10, 11, 12, 13]), np.array([10, 12]))
    until = np.array([2, 4])
    assert find_leakage(cut, labelled(100, 0.0, rng), until) == []
    assert find_leakage(cut, labelled(100, 0.5, rng), until) == []


def test_each_leak_is_found(rng: np.random.Generator) -> None:
    cut = Cut(histories([1, 2, 3, 4]), histories([10, 11, 12, 13]), np.array([10, 12]))
    until = np.array([LONG_AGO, LONG_AGO])
    honest = labelled(100, 0.0, rng)
    (said,) = find_leakage(cut, labelled(100, 1.0, rng), until)
    assert "answer (AUC 1.0000)" in said
    (said,) = find_leakage(cut, honest, np.array([11, LONG_AGO]))
    assert said.startswith("1 held-out events of 1 users are from before the end of what")
    late = Cut(histories([1, 2, 3, 12]), cut.target, cut.moment)
    (said,) = find_leakage(late, honest, until)
    assert "1 history events are at or after the moment" in said
    assert len(find_leakage(late, labelled(100, 1.0, rng), np.array([11, 99]))) == 3


def test_few_wanted_candidates_are_no_proof(rng: np.random.Generator) -> None:
    cut = Cut(histories([1, 2, 3, 4]), histories([10, 11, 12, 13]), np.array([10, 12]))
    until = np.array([LONG_AGO, LONG_AGO])
    assert find_leakage(cut, labelled(49, 1.0, rng), until) == []
    assert len(find_leakage(cut, labelled(50, 1.0, rng), until)) == 1


def test_whole_requests_are_read(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_evidence, "MOST_ROWS", 605)
    rows = labelled(100, 1.0, rng)
    rows.label[rows.request_index < 20] = 0  # nothing is wanted there
    kept = bundle_evidence._enough_rows(rows)
    assert kept is not None
    assert sorted(set(kept.request_index.tolist())) == list(range(20, 80))
    assert kept.label.size == 600
