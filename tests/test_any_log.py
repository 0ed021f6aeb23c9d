"""Where validate has no objection, a run ends with a bundle that answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import DataError
from recsys.pipeline import evaluate, train
from recsys.pipeline.fitness import EVALUATION
from recsys.recommender import Recommender
from serving.assembly import find_problems
from tests.any_log import any_log


def check(seed: int, directory: Path) -> bool:
    """Whether the log of a seed has no problem; then it is trained with, and asked."""
    config = any_log(seed, directory)
    found = find_problems(config)
    if found.problems:
        with pytest.raises(DataError):
            train(config)
        return False
    bundle = train(config)
    assert bundle.left_out()[: len(found.left_out)] == found.left_out
    recommender = Recommender.load(bundle.path)
    for user in ("u0", "nobody"):
        items = [one.item_id for one in recommender.recommend(user, 5).items]
        assert len(set(items)) == len(items)
    first = recommender.item_ids.ids([1])[0]
    assert first not in [one.item_id for one in recommender.similar(first, 5)]
    if not any(one.stage == EVALUATION for one in bundle.left_out()):
        assert "funnel" in evaluate(config, bundle)
    return True


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_a_log_without_problems_trains(first: int, tmp_path: Path) -> None:
    clean = 0
    for seed in range(first, first + 10):
        directory = tmp_path / str(seed)
        directory.mkdir()
        clean += check(seed, directory)
    assert clean >= 5  # the rest have nothing to learn from


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 1_500, 50))
def test_many_more_logs_train(first: int, tmp_path: Path) -> None:
    clean = 0
    for seed in range(first, first + 50):
        directory = tmp_path / str(seed)
        directory.mkdir()
        clean += check(seed, directory)
    assert clean >= 25
