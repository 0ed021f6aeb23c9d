"""A small network on the mean of a history says what the full user tower says."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from features.tables import Histories
from recsys.errors import ArtifactError, NotFittedError
from recsys.retrieval.finishing.distillation import DistillationOptions, UserStudent, history_means
from recsys.retrieval.finishing.distilled_two_tower import DistilledTwoTower, distil_user_tower
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower

N, DIM = 60, 8
QUICK = DistillationOptions(hidden=16, epochs=2, batch_size=16)
MakeHistories = Callable[[list[list[int]]], Histories]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def made_teacher(score: str = "cosine", **shape: object) -> TwoTowerRetriever:
    """A tower that bends the mean of the history: its residual layer is not small."""
    options = TowerOptions(dim=DIM, half_lives=(math.inf,), hidden_dim=16, **shape)
    tower = TwoTower(options, content_dim=0, generator=seeded())
    with torch.no_grad():
        tower.output_weight.copy_(drawn(DIM, 16, seed=1))
        tower.hidden_weight.mul_(6.0)
    tables = {"item": drawn(N + 1, DIM, seed=2)}
    if options.use_user_id:
        tables["user"] = 3 * drawn(4, DIM, seed=3)
    for table in tables.values():
        table[0] = 0.0
    return TwoTowerRetriever.from_tables(tower, tables, score=score)


@pytest.fixture
def users(make_histories: MakeHistories) -> Histories:
    rng = np.random.default_rng(0)
    return make_histories([list(rng.integers(1, N + 1, rng.integers(2, 9))) for _ in range(700)])


@pytest.fixture
def few(make_histories: MakeHistories) -> Histories:
    return make_histories([[1, 2, 3], [], [9], [4, 4, 5, 6, 7, 8]])


def test_means_by_hand(few: Histories) -> None:
    item = drawn(N + 1, DIM, seed=4)
    plain, recent = history_means(few, item, half_lives=(math.inf, 1.0)).split(DIM, dim=1)
    torch.testing.assert_close(plain[0], item[[1, 2, 3]].mean(dim=0))
    torch.testing.assert_close(recent[0], (item[1] + 2 * item[2] + 4 * item[3]) / 7)
    torch.testing.assert_close(plain[2], item[9])
    torch.testing.assert_close(recent[2], item[9])
    assert not plain[1].any()
    assert not recent[1].any()
    newest = history_means(few, item, length=2)
    torch.testing.assert_close(newest[3], item[[7, 8]].mean(dim=0))
    torch.testing.assert_close(newest[0], item[[2, 3]].mean(dim=0))
    nobody = few.take([1, 1])
    torch.testing.assert_close(history_means(nobody, item), torch.zeros(2, DIM))
    assert history_means(few.take([]), item).shape == (0, DIM)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the items in the rows of ``a`` that are in the same row of ``b``."""
    return float((a[:, :, None] == b[:, None, :]).any(axis=2).mean())


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_student_finds_what_the_teacher_finds(score: str, users: Histories) -> None:
    teacher = made_teacher(score)
    known, fresh = users.take(range(600)), users.take(range(600, 700))
    options = DistillationOptions(hidden=64, batch_size=64, epochs=60, learning_rate=5e-3)
    student = distil_user_tower(teacher, known, generator=seeded(), options=options)
    wanted = teacher.retrieve(fresh, 10).item_index
    items = torch.from_numpy(teacher.item_vectors)
    untrained = (history_means(fresh, items) @ items[1:].T).topk(10).indices.numpy() + 1
    found = overlap(student.retrieve(fresh, 10).item_index, wanted)
    assert found > 0.75
    assert found > 1.4 * overlap(untrained, wanted)
    cosine = torch.cosine_similarity(
        *(torch.from_numpy(r.user_vectors(fresh)) for r in (student, teacher))
    )
    assert float(cosine.mean()) > 0.93
    # The held-out users of the training say the same as users it never saw.
    assert student.student.agreement == pytest.approx(float(cosine.mean()), abs=0.02)
    length = np.linalg.norm(student.user_vectors(fresh), axis=1)
    if score == "cosine":
        np.testing.assert_allclose(length, 1.0, atol=1e-5)
    else:
        wanted_length = np.linalg.norm(teacher.user_vectors(fresh), axis=1)
        assert np.corrcoef(length, wanted_length)[0, 1] > 0.8


def test_items_are_the_teachers_to_the_bit(few: Histories, users: Histories) -> None:
    teacher = made_teacher()
    before = teacher.item_vectors.copy()
    teacher.quantize()
    student = distil_user_tower(teacher, users, generator=seeded(), options=QUICK)
    assert student.item_vectors.tobytes() == before.tobytes() == teacher.item_vectors.tobytes()
    assert student.int8 is teacher.int8
    assert student.name != teacher.name
    assert not np.array_equal(student.user_vectors(few), teacher.user_vectors(few))


def test_score_is_the_product(few: Histories, users: Histories) -> None:
    student = distil_user_tower(made_teacher(), users, generator=seeded(), options=QUICK)
    scores = student.score(few, np.tile(np.arange(N + 1), (4, 1)))
    np.testing.assert_allclose(
        scores[:, 1:], (student.user_vectors(few) @ student.item_vectors.T)[:, 1:], atol=1e-6
    )


def test_an_empty_history_gets_the_teachers_answer(few: Histories, users: Histories) -> None:
    teacher = made_teacher()
    student = distil_user_tower(teacher, users, generator=seeded(), options=QUICK)
    nobody = few.take([1])
    np.testing.assert_allclose(student.user_vectors(nobody), teacher.user_vectors(nobody))
    means, wanted = drawn(20, DIM), drawn(20, DIM, seed=1)
    alone = UserStudent.fit(means, wanted, score="dot", options=QUICK, generator=seeded())
    torch.testing.assert_close(alone.encode(torch.zeros(1, DIM))[0], wanted.mean(dim=0))


def test_teacher_is_asked_as_of_the_moment_and_for_its_known_users(users: Histories) -> None:
    teacher = made_teacher(use_user_id=True)
    moment = np.full(len(users), 4_000_000)

    def student_of(histories: Histories, **arguments: object) -> np.ndarray:
        made = distil_user_tower(teacher, histories, generator=seeded(), options=QUICK, **arguments)
        return made.user_vectors(users)

    plain = student_of(users)
    np.testing.assert_array_equal(plain, student_of(users))
    np.testing.assert_array_equal(
        student_of(users.before(moment)), student_of(users, moment=moment)
    )
    assert not np.array_equal(plain, student_of(users, moment=moment))
    assert not np.array_equal(plain, student_of(users, user_index=np.ones(len(users), np.int64)))


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_save_and_load_keep_every_vector(score: str, users: Histories, tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, half_lives=(math.inf, 2.0), history_length=5)
    made = distil_user_tower(made_teacher(score), users, generator=seeded(), options=options)
    made.quantize().save(tmp_path)
    loaded = DistilledTwoTower.load(tmp_path)
    np.testing.assert_array_equal(loaded.user_vectors(users), made.user_vectors(users))
    np.testing.assert_array_equal(loaded.item_vectors, made.item_vectors)
    np.testing.assert_array_equal(
        loaded.retrieve(users, 5).item_index, made.retrieve(users, 5).item_index
    )
    assert loaded.int8 is not None
    assert loaded.student.options == options
    assert loaded.student.agreement == made.student.agreement
    with pytest.raises(ArtifactError, match="must hold a 'two_tower' model"):
        TwoTowerRetriever.load(tmp_path)
    header = json.loads((tmp_path / "student/model.json").read_text())
    header["settings"]["options"]["hidden"] = 17
    (tmp_path / "student/model.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="distil again"):
        DistilledTwoTower.load(tmp_path)


BEND = drawn(DIM, DIM, seed=5)


def learned(means: Tensor, **changed: object) -> UserStudent:
    options = dataclasses.replace(
        DistillationOptions(hidden=32, batch_size=32, epochs=30, learning_rate=5e-3), **changed
    )
    return UserStudent.fit(
        means, torch.tanh(means @ BEND), score="dot", options=options, generator=seeded()
    )


def test_every_option_is_heard() -> None:
    means = drawn(200, DIM)
    base = learned(means)
    same = learned(means)
    assert torch.equal(base.encode(means), same.encode(means))
    for changed in (
        {"hidden": 31},
        {"batch_size": 31},
        {"learning_rate": 4e-3},
        {"validation": 0.2},
        {"epochs": 31},
    ):
        assert not torch.equal(base.encode(means), learned(means, **changed).encode(means))
    assert learned(means, epochs=1).agreement < base.agreement - 0.05


def test_training_stops_when_held_out_users_stop_gaining() -> None:
    means, noise = drawn(60, DIM), drawn(60, DIM, seed=8)  # nothing to learn

    def fitted(**changed: int) -> UserStudent:
        options = DistillationOptions(hidden=64, batch_size=8, validation=0.3, **changed)
        return UserStudent.fit(means, noise, score="dot", options=options, generator=seeded())

    patient, hasty = fitted(patience=100, epochs=100), fitted(patience=1, epochs=100)
    # Stopping early or going on ends in the same best epoch: the weights after it are dropped.
    assert torch.equal(patient.hidden_weight, fitted(patience=20, epochs=100).hidden_weight)
    learned_by_heart = torch.cosine_similarity(patient.encode(means), noise).mean()
    assert float(learned_by_heart) < 0.6
    assert hasty.agreement < 0.3


def test_left_out_are_users_without_a_history() -> None:
    means, teacher = drawn(40, DIM), drawn(40, DIM, seed=1)
    empty = torch.cat([means, torch.zeros(5, DIM)]), torch.cat([teacher, drawn(5, DIM, seed=2)])
    arguments = {"score": "dot", "options": QUICK, "start": torch.ones(DIM)}
    plain = UserStudent.fit(means, teacher, generator=seeded(), **arguments)
    padded = UserStudent.fit(*empty, generator=seeded(), **arguments)
    assert torch.equal(plain.encode(means), padded.encode(means))
    assert torch.equal(padded.encode(torch.zeros(1, DIM)), torch.ones(1, DIM))


@pytest.mark.parametrize("size", [1e-2, 1e3])
def test_the_unit_of_length_does_not_matter(size: float) -> None:
    means, teacher = drawn(100, DIM), drawn(100, DIM, seed=1)
    one, other = (
        UserStudent.fit(means * s, teacher * s, score="dot", options=QUICK, generator=seeded())
        for s in (1.0, size)
    )
    torch.testing.assert_close(
        one.encode(means), other.encode(means * size) / size, rtol=1e-3, atol=1e-3
    )


def test_a_student_must_fit_its_teacher() -> None:
    teacher = made_teacher("cosine")
    with pytest.raises(NotFittedError, match="from_teacher"):
        DistilledTwoTower(teacher.tower, teacher.tables, torch.zeros(N + 1, DIM)).student  # noqa: B018
    for width, score, message in ((4, "cosine", "got 4 wide"), (DIM, "dot", "wide for dot")):
        other = UserStudent.fit(
            drawn(9, 3), drawn(9, width), score=score, options=QUICK, generator=seeded()
        )
        with pytest.raises(ValueError, match=message):
            DistilledTwoTower.from_teacher(teacher, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DistillationOptions(hidden=0), "hidden must be >= 1"),
        (lambda: DistillationOptions(epochs=0), "epochs must be >= 1"),
        (lambda: DistillationOptions(patience=0), "patience must be >= 1"),
        (lambda: DistillationOptions(batch_size=0), "batch_size must be >= 1"),
        (lambda: DistillationOptions(learning_rate=0.0), "learning_rate must be > 0"),
        (lambda: DistillationOptions(validation=1.0), r"validation must be in \(0, 1\)"),
        (lambda: DistillationOptions(half_lives=()), "half_lives must be one or more"),
        (lambda: DistillationOptions(half_lives=(0.0,)), "half_lives must be one or more"),
        (lambda: DistillationOptions(history_length=0), "length must be >= 1"),
        (
            lambda: UserStudent.fit(drawn(3, 2), drawn(4, 2), generator=seeded()),
            "one row per user",
        ),
        (
            lambda: UserStudent.fit(torch.eye(3)[:, :1], drawn(3, 2), generator=seeded()),
            "two users or more must have a history, got 1",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_diverged_teacher_is_named() -> None:
    teacher = drawn(20, DIM)
    teacher[:] = math.nan
    with pytest.raises(FloatingPointError, match="nan in epoch 1"):
        UserStudent.fit(drawn(20, DIM), teacher, options=QUICK, generator=seeded())
