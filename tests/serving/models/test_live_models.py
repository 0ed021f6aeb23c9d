from __future__ import annotations

import logging
import threading
import time

import pytest

from serving.models.holder import ModelHolder


class Bundles:
    """Generations on a pretend disk: a model is its name, and some are damaged."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.stamps: dict[str, int] = {}
        self.loads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def load(self, generation: str) -> str:
        self.begun.set()
        self.gate.wait(10)
        self.loads.append(generation)
        if generation not in self.good:
            raise FileNotFoundError(f"ranking/gbdt.txt of {generation} is missing")
        return f"model of {generation}, {self.stamps.get(generation, 0)}"

    def stamp(self, generation: str) -> object:
        return self.stamps.get(generation, 0)


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not come to pass")
        time.sleep(0.002)


@pytest.fixture
def hold():
    held = []

    def make(bundles, **options):
        options = {"stamp": bundles.stamp, "poll_s": 0.005, "retry_s": 0.01, **options}
        held.append(ModelHolder(bundles.load, **options))
        return held[-1]

    yield make
    for holder in held:
        holder.close()


def test_the_served_generation_is_loaded_beside_the_requests(hold):
    bundles = Bundles("g1")
    bundles.gate.clear()
    holder = hold(bundles)
    holder.serve("g1")
    assert bundles.begun.wait(10)
    assert holder.current() is None
    assert holder.status().loading == "g1"
    bundles.gate.set()
    assert holder.wait(10)
    assert holder.current() == holder.current("g1") == "model of g1, 0"
    assert holder.problem() is None
    assert holder.status()[:4] == ("g1", "g1", ("g1",), None)


def test_the_old_model_answers_until_the_new_one_is_warm(hold):
    bundles = Bundles("g1", "g2")
    holder = hold(bundles)
    holder.serve("g1")
    assert holder.wait(10)
    bundles.gate.clear()
    bundles.begun.clear()
    holder.serve("g2")
    assert bundles.begun.wait(10)
    assert holder.current() == "model of g1, 0"
    assert holder.current("g2") is None
    bundles.gate.set()
    assert holder.wait(10)
    assert holder.current() == "model of g2, 0"
    assert holder.current("g1") == "model of g1, 0"  # for a rollback


def test_a_rollback_loads_nothing_and_the_abandoned_generation_goes_first(hold):
    bundles = Bundles("g1", "g2", "g3")
    holder = hold(bundles)
    for generation in ("g1", "g2"):
        holder.serve(generation)
        assert holder.wait(10)
    holder.serve("g1")
    until(lambda: holder.current() == "model of g1, 0")
    assert bundles.loads == ["g1", "g2"]
    holder.serve("g3")
    assert holder.wait(10)
    until(lambda: holder.status().loaded == ("g1", "g3"))


def test_a_damaged_bundle_leaves_the_old_model_and_heals_itself(hold, caplog):
    bundles = Bundles("g1")
    holder = hold(bundles)
    holder.serve("g1")
    assert holder.wait(10)
    with caplog.at_level(logging.WARNING):
        holder.serve("g2")
        assert not holder.wait(10)
        until(lambda: bundles.loads.count("g2") >= 3)
    assert holder.current() == "model of g1, 0"
    assert "ranking/gbdt.txt of g2 is missing" in str(holder.problem())
    assert holder.status().failures >= 3
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 1, "the same problem is logged once"
    assert "that of g1 goes on" in told[0]
    bundles.good.add("g2")
    until(lambda: holder.current() == "model of g2, 0")
    assert holder.problem() is None


def test_retries_become_rarer_until_the_files_change(hold, fake_clock):
    bundles = Bundles()
    holder = hold(bundles, clock=fake_clock, retry_s=1.0, retry_max_s=4.0)
    holder.serve("g1")
    for count, wait_s in enumerate((1, 2, 4, 4), start=1):
        until(lambda count=count: holder.status().failures == count and not holder.status().loading)
        fake_clock.advance(wait_s - 0.01)
        time.sleep(0.03)  # several looks
        assert holder.status().failures == count
        fake_clock.advance(0.01)
    until(lambda: holder.status().failures == 5)
    bundles.good.add("g1")
    bundles.stamps["g1"] = 1
    until(lambda: holder.current() == "model of g1, 1")


def test_a_generation_whose_files_change_is_read_again(hold):
    bundles = Bundles("g1")
    holder = hold(bundles)
    holder.serve("g1")
    assert holder.wait(10)
    bundles.good.clear()
    bundles.stamps["g1"] = 1
    until(lambda: holder.problem() is not None)
    assert holder.current() == "model of g1, 0"
    bundles.good.add("g1")
    until(lambda: holder.current() == "model of g1, 1")
    bundles.stamps["g1"] = None
    time.sleep(0.03)
    assert holder.current() == "model of g1, 1", "files that are gone are no reason to load"


def test_pinned_generations_take_the_places_that_are_left(hold, fake_clock, caplog):
    bundles = Bundles("g1", "g2", "g3")
    holder = hold(bundles, keep=2, clock=fake_clock)
    holder.serve("g1")
    assert holder.wait(10)
    holder.want("g2")
    until(lambda: holder.current("g2") is not None)
    holder.want("g3")
    until(lambda: "generation g3 gets no model" in caplog.text)
    assert "serving.live_models = 2" in caplog.text
    assert holder.current("g3") is None
    fake_clock.advance(50)
    holder.want("g3")
    fake_clock.advance(20)  # nobody asked for g2 for more than a minute
    until(lambda: holder.current("g3") is not None)
    assert holder.current("g2") is None
    assert holder.current() == "model of g1, 0"


def test_the_served_generation_always_has_a_place(hold):
    bundles = Bundles("g1", "g2", "g3")
    holder = hold(bundles, keep=1)
    holder.serve("g1")
    assert holder.wait(10)
    holder.serve("g2")
    assert holder.wait(10)
    until(lambda: holder.status().loaded == ("g2",))
    holder.want("g3")
    time.sleep(0.03)
    assert holder.status().loaded == ("g2",)


def test_it_follows_the_head_and_outlives_its_absence(hold):
    bundles = Bundles("g1", "g2")
    head = {"generation": None}

    def served():
        if head["generation"] == "away":
            raise ConnectionError("the store is away")
        return head["generation"]

    holder = hold(bundles)
    holder.follow(served)
    assert not holder.wait(0.02)
    head["generation"] = "g1"
    until(lambda: holder.current() == "model of g1, 0")
    head["generation"] = "away"
    time.sleep(0.03)
    assert holder.current() == "model of g1, 0"
    head["generation"] = "g2"
    until(lambda: holder.current() == "model of g2, 0")


def test_a_closed_holder_loads_no_more(hold):
    bundles = Bundles("g1")
    bundles.gate.clear()
    holder = hold(bundles)
    holder.serve("g1")
    assert bundles.begun.wait(10)
    holder.close()
    bundles.gate.set()
    holder._thread.join(10)
    assert not holder._thread.is_alive()
    assert holder.current() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep must be >= 1, got 0"),
        ({"poll_s": 0.0}, "poll_s and retry_s must be > 0"),
        ({"retry_s": 2.0, "retry_max_s": 1.0}, "retry_max_s >= retry_s"),
    ],
)
def test_limits_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ModelHolder(str, **options)
