"""One threshold for all users: their scores on one scale, their own order untouched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ArtifactError
from recsys.retrieval.finishing.filtering import filter_report, pooled_auc, threshold_at_recall
from recsys.retrieval.finishing.threshold import ThresholdHead


class Lists(NamedTuple):
    """The arguments of `ThresholdHead.fit`."""

    user_vectors: np.ndarray
    activity: np.ndarray
    score: np.ndarray
    label: np.ndarray

    def take(self, rows: slice) -> Lists:
        return Lists(*(array[rows] for array in self))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(num_users: int = 1200, seed: int = 0) -> Lists:
    """Relevance is one cosine-like number z; each user sees it stretched and shifted.

    The shift follows the vector, how often anything is clicked the activity.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num_users, 4))
    activity = np.round(np.exp(rng.normal(3, 1, num_users)))
    z = rng.normal(size=(num_users, 20))
    logit = 1.5 * z - 3.0 + 1.2 * (np.log1p(activity) - 3)[:, None]
    label = rng.random(z.shape) < 1 / (1 + np.exp(-logit))
    stretch = np.exp(0.3 * vectors[:, 1])[:, None]
    score = 0.1 * (stretch * z + 2.0 * vectors[:, :1]) + 0.5
    score[:, -2:] = np.where(rng.random((num_users, 2)) < 0.5, -np.inf, score[:, -2:])
    return Lists(vectors.astype(np.float32), activity, score.astype(np.float32), label)


WORLD = planted()
KNOWN, FRESH = WORLD.take(slice(0, 800)), WORLD.take(slice(800, None))


@pytest.fixture(scope="module")
def head() -> ThresholdHead:
    return ThresholdHead.fit(*KNOWN, generator=seeded())


def test_users_on_one_scale_are_told_apart_better(head: ThresholdHead) -> None:
    raw = filter_report(
        FRESH.score, FRESH.label, threshold_at_recall(KNOWN.score, KNOWN.label, recall=0.95)
    )
    found = filter_report(head.apply(*FRESH[:3]), FRESH.label, head.threshold)
    assert found.auc > raw.auc + 0.08
    assert found.filtered_share > 0.1 + raw.filtered_share
    assert found.precision > 1.15 * raw.precision
    assert found.recall == pytest.approx(0.95, abs=0.03)  # on users nothing was fitted on
    assert raw.recall == pytest.approx(0.95, abs=0.03)


def test_each_input_carries_what_was_planted_in_it() -> None:
    auc = {}
    for inputs in ("none", "activity", "vector", "vector+activity"):
        head = ThresholdHead.fit(*KNOWN, generator=seeded(), inputs=inputs)
        auc[inputs] = pooled_auc(head.apply(*FRESH[:3]), FRESH.label)
    assert auc["none"] == pytest.approx(pooled_auc(FRESH.score, FRESH.label), abs=1e-9)
    assert auc["activity"] > auc["none"] + 0.03
    assert auc["vector"] > auc["none"] + 0.03
    assert auc["vector+activity"] > max(auc["activity"], auc["vector"]) + 0.03


def test_the_planted_map_is_found(head: ThresholdHead) -> None:
    slope, offset = head.maps(FRESH.user_vectors, FRESH.activity)
    assert (slope > 0).all()
    vector, activity = FRESH.user_vectors.astype(float), np.log1p(FRESH.activity)
    # logit = 1.5 (10 (score - 0.5) - 2 v_0) / e^(0.3 v_1) - 3 + ...: flatter where v_1 is large.
    assert np.corrcoef(slope, np.exp(-0.3 * vector[:, 1]))[0, 1] > 0.85
    assert np.corrcoef(offset, -3.0 * vector[:, 0] + 1.2 * activity)[0, 1] > 0.95
    # Calibrated: of the candidates given probability p, about p are positive (not exactly: the
    # planted offset is bent where the head's is straight).
    real = np.isfinite(FRESH.score)
    probability = 1 / (1 + np.exp(-head.apply(*FRESH[:3])[real]))
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 1.0)):
        inside = (probability >= low) & (probability < high)
        share = FRESH.label[real][inside].mean()
        assert share == pytest.approx(probability[inside].mean(), abs=0.06)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([1e-3, 1.0, 100.0]),
    weight=st.floats(-500, 500),
)
def test_the_order_of_a_user_never_changes(seed: int, size: float, weight: float) -> None:
    rng = np.random.default_rng(seed)
    head = ThresholdHead(
        "vector",
        center=np.zeros(3),
        width=np.ones(3),
        weight=weight * rng.normal(size=(2, 3)),
        bias=rng.normal(size=2),
        score_scale=(0.2, 0.1),
    )
    vectors = rng.normal(size=(5, 3)).astype(np.float32)
    score = (size * rng.normal(size=(5, 30))).round(3).astype(np.float32)  # with ties
    score[rng.random(score.shape) < 0.1] = -np.inf
    logit = head.apply(vectors, np.ones(5), score)
    np.testing.assert_array_equal(np.isneginf(logit), np.isneginf(score))
    np.testing.assert_array_equal(
        np.argsort(-logit, axis=1, kind="stable"), np.argsort(-score, axis=1, kind="stable")
    )
    kept = head.keep(vectors, np.ones(5), score, at_least=2)
    assert score[kept].size >= 10
    assert np.isfinite(score[kept]).all()
    worst_kept = np.where(kept, score, np.inf).min(axis=1)
    best_left = np.where(kept, -np.inf, score).max(axis=1)
    assert (worst_kept >= best_left).all()


def test_the_threshold_is_chosen_on_users_the_map_never_saw(
    head: ThresholdHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Lists] = []
    choose = ThresholdHead.choose_threshold

    def spy(self: ThresholdHead, *lists: np.ndarray, recall: float) -> float:
        seen.append(Lists(*lists))
        return choose(self, *lists, recall=recall)

    monkeypatch.setattr(ThresholdHead, "choose_threshold", spy)
    again = ThresholdHead.fit(*KNOWN, generator=seeded(), held_out=0.5)
    assert len(seen[0].score) == 200
    changed = KNOWN._replace(label=KNOWN.label.copy())
    chosen = {row.tobytes() for row in seen[0].user_vectors}
    rows = np.array([row.tobytes() in chosen for row in KNOWN.user_vectors])
    changed.label[rows] = np.random.default_rng(0).random(changed.label[rows].shape) < 0.3
    other = ThresholdHead.fit(*changed, generator=seeded(), held_out=0.5)
    np.testing.assert_array_equal(again.apply(*FRESH[:3]), other.apply(*FRESH[:3]))
    assert again.threshold != other.threshold


def test_a_higher_recall_removes_less(head: ThresholdHead) -> None:
    before = head.threshold
    thresholds = [head.choose_threshold(*FRESH, recall=r) for r in (0.5, 0.9, 0.99, 1.0)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert head.threshold == thresholds[-1]
    logit = head.apply(*FRESH[:3])
    for recall, threshold in zip((0.5, 0.9, 0.99, 1.0), thresholds, strict=True):
        report = filter_report(logit, FRESH.label, threshold)
        assert recall <= report.recall < recall + 0.01
    head.threshold = before
    strict = ThresholdHead.fit(*KNOWN, generator=seeded(), recall=0.5)
    assert strict.threshold > before
    np.testing.assert_array_equal(strict.apply(*FRESH[:3]), logit)


def test_some_are_always_kept_if_asked(head: ThresholdHead) -> None:
    three = FRESH.take(slice(0, 3))
    before, head.threshold = head.threshold, math.inf
    score = three.score.copy()
    score[1] = -np.inf
    assert not head.keep(*three[:2], score).any()
    kept = head.keep(*three[:2], score, at_least=4)
    head.threshold = before
    assert kept.sum(axis=1).tolist() == [4, 0, 4]
    assert set(np.flatnonzero(kept[0])) == set(np.argsort(-score[0])[:4])


def test_same_generator_same_head_and_other_arguments_another() -> None:
    def logit(**changed: object) -> np.ndarray:
        arguments = {"generator": seeded(), **changed}
        return ThresholdHead.fit(*KNOWN, **arguments).apply(*FRESH[:3])

    base = logit()
    np.testing.assert_array_equal(base, logit())
    for changed in ({"generator": seeded(1)}, {"held_out": 0.3}, {"l2": 1.0}):
        assert not np.array_equal(base, logit(**changed))
    # So much weight decay leaves one map for all.
    flat = ThresholdHead.fit(*KNOWN, generator=seeded(), l2=1e6).maps(*FRESH[:2])
    assert np.ptp(flat[0]) < 1e-3
    assert np.ptp(flat[1]) < 1e-3


def test_few_users_do_not_make_it_wild() -> None:
    """60 users and 48 inputs: held-out users stop the fit before it knows them by heart."""
    world = planted(60, seed=3)
    noise = np.random.default_rng(0).normal(size=(60, 44)).astype(np.float32)
    wide = world._replace(user_vectors=np.concatenate([world.user_vectors, noise], axis=1))
    head = ThresholdHead.fit(*wide, generator=seeded())
    fresh_noise = np.random.default_rng(1).normal(size=(400, 44)).astype(np.float32)
    vectors = np.concatenate([FRESH.user_vectors, fresh_noise], axis=1)
    logit = head.apply(vectors, FRESH.activity, FRESH.score)
    assert pooled_auc(logit, FRESH.label) > pooled_auc(FRESH.score, FRESH.label) - 0.03
    assert np.abs(logit[np.isfinite(logit)]).max() < 30


@pytest.mark.parametrize("inputs", ["none", "vector+activity"])
def test_save_and_load_keep_every_logit(inputs: str, tmp_path: Path) -> None:
    head = ThresholdHead.fit(*KNOWN, generator=seeded(), inputs=inputs)
    head.save(tmp_path)
    loaded = ThresholdHead.load(tmp_path)
    np.testing.assert_array_equal(loaded.apply(*FRESH[:3]), head.apply(*FRESH[:3]))
    assert (loaded.threshold, loaded.inputs) == (head.threshold, inputs)
    header = json.loads((tmp_path / "model.json").read_text())
    del header["settings"]["threshold"]
    (tmp_path / "model.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="fit the head again"):
        ThresholdHead.load(tmp_path)


def fit(generator_seed: int = 0, **changed: object) -> ThresholdHead:
    lists = {name: changed.pop(name, value) for name, value in KNOWN._asdict().items()}
    return ThresholdHead.fit(**lists, generator=seeded(generator_seed), **changed)


def with_nan() -> np.ndarray:
    vectors = KNOWN.user_vectors.copy()
    vectors[0, 0] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(inputs="vectors"), "inputs must be one of"),
        (lambda: fit(held_out=0.0), r"held_out must be in \(0, 1\)"),
        (lambda: fit(l2=-1.0), "l2 must be >= 0"),
        (lambda: fit(recall=0.0), r"recall must be in \(0, 1\]"),
        (lambda: fit(label=KNOWN.label.astype(int)), "label must be bool"),
        (lambda: fit(label=KNOWN.label[:, :3]), "label must be bool of shape"),
        (lambda: fit(label=np.zeros_like(KNOWN.label)), "users for stopping, got none"),
        (lambda: fit(activity=KNOWN.activity[:5]), "user_vectors, activity and score must be"),
        (lambda: fit(activity=-1 - KNOWN.activity), "activity must be >= 0"),
        (lambda: fit(user_vectors=with_nan()), "user_vectors must be finite"),
        (
            lambda: fit().apply(FRESH.user_vectors[:, :2], *FRESH[1:3]),
            "user_vectors must be as wide as at the fit",
        ),
        (lambda: fit().keep(*FRESH[:3], at_least=-1), "at_least must be >= 0"),
        (
            lambda: fit().rescaled(np.full((2, 3), -np.inf, dtype=np.float32)),
            r"score must hold a candidate, got none in shape \(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
