from __future__ import annotations

import polars as pl
import pytest

from serving.errors import NoGeneration, StageUnavailable
from serving.messages import RecommendRequest
from serving.process.warm_up import replay, sample_questions


@pytest.fixture
def bundle(tmp_path):
    for part in ("candidates", "data"):
        (tmp_path / part).mkdir()
    users = pl.DataFrame({"user_id": [f"u{number}" for number in range(500)]})
    users.write_parquet(tmp_path / "candidates" / "users.parquet")
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"]})
    items.write_parquet(tmp_path / "data" / "items.parquet")
    return tmp_path


def test_questions_are_of_known_users_and_items(bundle):
    questions = sample_questions(bundle, 100, seed=1)
    assert len({one.user_id for one in questions}) == 100
    assert [bool(one.recent_items) for one in questions] == [False, True] * 50
    assert {item for one in questions for item in one.recent_items} == {"a", "b", "c", "d"}
    assert questions == sample_questions(bundle, 100, seed=1)
    assert questions != sample_questions(bundle, 100, seed=2)
    assert not any(one.recent_items for one in sample_questions(bundle, live=False))


def test_a_bundle_without_candidates_has_no_questions(tmp_path, caplog):
    assert sample_questions(tmp_path) == []
    assert "no questions to warm up with" in caplog.text
    assert replay(pytest.fail, [], limit_s=1.0).questions == 0


def ask_in(clock, seconds):
    """A request path that takes as long as ``seconds`` says of each call."""
    calls = []

    def ask(question):
        calls.append(question)
        clock.advance(seconds(len(calls)))

    return ask, calls


QUESTIONS = [RecommendRequest(f"u{number}") for number in range(30)]


def test_it_goes_on_until_answers_are_no_longer_getting_faster(fake_clock):
    ask, calls = ask_in(
        fake_clock, lambda call: 0.1 if call <= 20 else 0.02 if call <= 40 else 0.01
    )
    report = replay(ask, QUESTIONS, limit_s=60, clock=fake_clock)
    # Rounds of .1, .02, .01, .01, .01: the fourth and the fifth are as fast as the one before.
    assert report.questions == len(calls) == 100
    assert report.steady
    assert (report.first_ms, report.last_ms) == pytest.approx((100, 10))
    assert report.seconds == pytest.approx(2 + 0.4 + 0.6)
    assert calls[30] == QUESTIONS[0], "questions are asked again"


def test_it_ends_at_the_limit(fake_clock):
    ask, _ = ask_in(fake_clock, lambda call: 1 / call)
    report = replay(ask, QUESTIONS, limit_s=2.5, clock=fake_clock)
    assert not report.steady
    assert 2.5 <= report.seconds < 2.75
    assert replay(ask, QUESTIONS, limit_s=0.0, clock=fake_clock).questions == 0


def test_failures_are_counted_and_do_not_end_it(fake_clock):
    def ask(question):
        fake_clock.advance(0.01)
        if question.user_id == "u3":
            raise StageUnavailable("away", stage="store")

    report = replay(ask, QUESTIONS, limit_s=60, clock=fake_clock)
    assert (report.questions, report.failed) == (60, 2)


def test_without_a_generation_there_is_nothing_to_replay(fake_clock, caplog):
    def ask(question):
        raise NoGeneration("nothing is published")

    report = replay(ask, QUESTIONS, limit_s=60, clock=fake_clock)
    assert report.questions == 0
    assert not report.steady
    assert "nothing is published" in caplog.text
