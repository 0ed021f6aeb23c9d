"""What every `LiveModel`, and every holder of them, must do; a new one is a line in its dict.

The fake that other tests put in the place of a model is one of them, so that what they show of the
service holds with a real one.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from recsys.bundle import latest
from recsys.recommender import Recommender
from recsys.recommender.past import FreshEvent
from serving.models.holder import ModelHolder
from serving.models.live import LiveModel, LiveModels, LiveQuestion, OneModel
from serving.models.loaded import LoadedModel, load_model
from tests.serving.fake_models import FakeModel
from tests.serving.stores import ITEM_IDS

RUN = Path(__file__).parents[1] / "fixtures" / "older_run.tar.gz"


class Case(NamedTuple):
    """A model and what it knows: the vocabulary, rows from 1, and a user."""

    model: LiveModel
    item_ids: list[str]
    user_id: str


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with both ranking stages."""
    home = tmp_path_factory.mktemp("run")
    with tarfile.open(RUN) as archive:
        archive.extractall(home, filter="data")
    return latest(home / "artifacts").path


def of_a_bundle(path: Path, *, mapped: bool) -> Case:
    recommender = Recommender.load(path, mapped=mapped)
    ids = recommender.item_ids.ids(np.arange(1, len(recommender.item_ids) + 1))
    model = load_model(path) if mapped else LoadedModel(recommender)
    return Case(model, ids, "2")


# Each from what gives the value of a fixture.
BUILDERS: dict[str, Callable[[Callable[[str], Any]], Case]] = {
    "loaded": lambda value: of_a_bundle(value("bundle"), mapped=True),
    "loaded_without_log": lambda value: of_a_bundle(value("bundle"), mapped=False),
    "fake": lambda _: Case(FakeModel(item_fields=("price",)), ITEM_IDS, "ann"),
    "fake_indifferent": lambda _: Case(FakeModel((), slope=0.0), ITEM_IDS, "ann"),
}
RECOMMENDS_NOTHING = {"fake_indifferent"}


@pytest.fixture(scope="module", params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def case(name: str, request: pytest.FixtureRequest) -> Case:
    return BUILDERS[name](request.getfixturevalue)


def questions(case: Case) -> list[LiveQuestion]:
    """Nobody, somebody, and what they did just now."""
    recent, fresh = case.item_ids[:2], case.item_ids[4]
    later = case.model.as_of_us + 60_000_000
    return [
        LiveQuestion(None),
        LiveQuestion(case.user_id),
        LiveQuestion("never heard of", recent),
        LiveQuestion(case.user_id, recent, [FreshEvent(fresh, later)]),
        LiveQuestion(case.user_id, (), [FreshEvent(fresh, later)], later + 5_000_000),
    ]


def recommended(case: Case, asked: LiveQuestion, k: int, **limits: Any) -> list[Any]:
    return case.model.recommend(asked, k, **{"exclude": (), "only": None, **limits})


class TestLiveModelContract:
    def test_says_what_it_is(self, case: Case) -> None:
        model = case.model
        assert isinstance(model.generation, str)
        assert isinstance(model.as_of_us, int)
        assert isinstance(model.item_fields, tuple)
        assert all(isinstance(one, str) for one in model.item_fields)

    @pytest.mark.parametrize("k", [1, 3, 500])
    def test_recommends_at_most_k_different_items_best_first(
        self, name: str, case: Case, k: int
    ) -> None:
        for asked in questions(case):
            found = recommended(case, asked, k)
            assert (found == []) == (name in RECOMMENDS_NOTHING)
            assert len(found) <= k
            for item, score, source in found:
                assert (type(item), type(score), type(source)) == (str, float, str)
                assert np.isfinite(score)
            items = [item for item, _, _ in found]
            assert len(set(items)) == len(items)
            assert set(items) <= set(case.item_ids)
            scores = [score for _, score, _ in found]
            assert scores == sorted(scores, reverse=True)

    def test_limits_are_kept(self, case: Case) -> None:
        for asked in questions(case):
            best = [item for item, _, _ in recommended(case, asked, 3)]
            unwanted = {*best[:2], "never heard of"}
            left = {item for item, _, _ in recommended(case, asked, 500, exclude=unwanted)}
            assert not left & unwanted
            wanted = {*best[1:], "never heard of"}
            within = {item for item, _, _ in recommended(case, asked, 500, only=wanted)}
            assert within == set(best[1:])
            assert recommended(case, asked, 3, only=()) == []
            assert recommended(case, asked, 3, only=best[:1], exclude=best[:1]) == []

    def test_what_it_does_not_know_is_ignored(self, case: Case) -> None:
        nobody = recommended(case, LiveQuestion(None), 5)
        later = case.model.as_of_us + 1
        for asked in (
            LiveQuestion("never heard of"),
            LiveQuestion(None, ["never heard of"]),
            LiveQuestion(None, (), [FreshEvent("never heard of", later)], case.model.as_of_us),
        ):
            assert recommended(case, asked, 5) == nobody

    def test_the_same_question_has_the_same_answer(self, case: Case) -> None:
        rows = np.array([3, 1, 7])
        for asked in questions(case):
            assert recommended(case, asked, 5) == recommended(case, asked, 5)
            np.testing.assert_array_equal(
                case.model.rank(asked, rows), case.model.rank(asked, rows)
            )

    def test_ranks_what_it_is_given_in_whatever_order(self, case: Case) -> None:
        rows = np.array([9, 2, 12, 5, 1, 7])
        for asked in questions(case):
            score = case.model.rank(asked, rows)
            assert score.shape == (6,)
            assert np.isfinite(score).all()
            order = np.array([4, 0, 2, 5, 1, 3])
            np.testing.assert_array_equal(case.model.rank(asked, rows[order]), score[order])
            assert rows.tolist() == [9, 2, 12, 5, 1, 7]
            assert case.model.rank(asked, rows[:1]).shape == (1,)
            assert case.model.rank(asked, rows[:0]).shape == (0,)

    def test_item_values_may_come_along(self, case: Case) -> None:
        rows = np.array([9, 2, 12])
        values = {field: np.ones(3, dtype=np.float32) for field in case.model.item_fields}
        asked = questions(case)[3]
        assert case.model.rank(asked, rows, values or None).shape == (3,)
        assert case.model.rank(asked, rows, None).shape == (3,)

    def test_explains_what_it_is_given_in_the_order_asked(self, case: Case) -> None:
        for asked in questions(case):
            found = case.model.explain(asked, np.array([9, 2, 12]))
            assert [one.item_index for one in found] == [9, 2, 12]
            for one in found:
                assert np.isfinite(one.score)
                assert one.place >= 1
                assert set(one.contributions) <= set(one.features)
                total = one.base + sum(one.contributions.values())
                assert total == pytest.approx(one.trees, rel=1e-4, abs=1e-5)
            in_place = [one.score for one in sorted(found, key=lambda one: one.place)]
            assert in_place == sorted(in_place, reverse=True)


def holder() -> ModelHolder[FakeModel]:
    made = ModelHolder(lambda generation: FakeModel(generation=generation), poll_s=0.01)
    made.serve("g1")
    assert made.wait(10)
    return made


HOLDERS: dict[str, Callable[[], Any]] = {
    "one": lambda: OneModel(FakeModel(generation="g1")),
    "holder": holder,
}
KEEPS_OTHERS = {"holder"}


class TestLiveModelsContract:
    @pytest.fixture(params=HOLDERS)
    def held(self, request: pytest.FixtureRequest) -> Iterator[tuple[str, LiveModels]]:
        models = HOLDERS[request.param]()
        yield request.param, models
        if hasattr(models, "close"):
            models.close()

    def test_the_served_model_is_current(self, held: tuple[str, LiveModels]) -> None:
        _, models = held
        model = models.current()
        assert model is not None
        assert model.generation == "g1"
        assert models.current("g1") is model
        assert models.current(None) is model
        assert models.current("g2") is None

    def test_another_generation_is_wanted_without_waiting(
        self, held: tuple[str, LiveModels]
    ) -> None:
        name, models = held
        served = models.current()
        began = time.monotonic()
        for _ in range(3):
            models.want("g2")
        assert time.monotonic() - began < 1.0
        deadline = time.monotonic() + (10.0 if name in KEEPS_OTHERS else 0.05)
        while (other := models.current("g2")) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert (other is not None) == (name in KEEPS_OTHERS)
        assert other is None or other.generation == "g2"
        assert models.current() is served
        models.want("g1")
        assert models.current("g1") is served
