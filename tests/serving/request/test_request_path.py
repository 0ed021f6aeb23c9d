from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from features.packing import PackedField, PackedSchema
from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.config.experiment_design import Arm, ArmSettings, Experiment
from recsys.config.serving import ServiceSettings
from serving.errors import CursorExpired, CursorMismatch, NotSupported
from serving.events.event_stream import EventStream
from serving.events.sessions import Sessions
from serving.messages import (
    Event,
    ExplainRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
)
from serving.models.live import OneModel
from serving.request.cursor import decode_cursor, encode_cursor
from serving.request.experiments import Experiments
from serving.request.service import RecommendationService
from tests.serving.fake_models import FakeModel

NOW = 1_900_000_000.0
USERS = {"ann": [5, 6, 7, 8, 9, 10], "bob": [9]}
PATIENT = {"deadline_s": 30.0, "live_timeout_s": 30.0}


def ids(answer: Any) -> list[str]:
    return [item.item_id for item in answer.items]


@pytest.fixture
def model() -> FakeModel:
    as_of_us = round((NOW - 3600) * 1e6)
    return FakeModel(as_of_us=as_of_us, item_fields=("price",))


@pytest.fixture
def make_service(store: Any, make: Any, model: FakeModel) -> Iterator[Any]:
    made = []

    def build(*, models: Any = "own", clock: Any = lambda: NOW, **options: Any) -> Any:
        settings = options.pop("settings", {})
        sessions = Sessions(store.client, store.keys, clock=clock)
        service = RecommendationService(
            store,
            models=OneModel(model) if models == "own" else models,
            sessions=sessions,
            stream=EventStream(store.client, store.keys, sessions=sessions, clock=clock),
            settings=ServiceSettings(**{**PATIENT, **settings}),
            wall_clock=clock,
            **options,
        )
        made.append(service)
        return service

    make.publish(store, "g1", USERS, neighbours=[make.user_batch({"i1": [2, 3], "i4": [1]})])
    yield build
    for service in made:
        service.close()


def event(item_id: str, ago_s: float = 10.0, user_id: str = "ann", **fields: Any) -> Event:
    return Event(user_id, item_id, NOW - ago_s, **fields)


# -- sessions and feedback ------------------------------------------------------------------------


def test_what_a_user_did_is_not_shown_again_and_is_known_to_the_model(
    make_service: Any, model: FakeModel
) -> None:
    service = make_service()
    assert service.recommend(RecommendRequest("ann", k=2)).source == "cache"
    report = service.record([event("i12"), event("i6", event="buy", weight=3.0), event("i12")])
    assert (report.accepted, report.duplicates, report.unknown_items) == (2, 1, 0)
    answer = service.recommend(RecommendRequest("ann", k=2))
    assert (ids(answer), answer.source) == (["i11", "i3"], "live")
    fresh = {one.item_id: one for one in model.asked[0].fresh}
    assert (fresh["i6"].event, fresh["i6"].weight) == ("buy", 3.0)
    assert fresh["i12"].happened_us == round((NOW - 10) * 1e6)
    assert service.recommend(RecommendRequest("bob", k=1)).source == "cache"


def test_what_a_user_did_is_shown_again_as_the_rule_of_its_kind_says(make_service: Any) -> None:
    repeats = RepeatRule("allow", {"buy": "after 2h"})
    rules = EventRules(kinds={"view": 1.0, "buy": 1.0, "hide": -1.0})
    service = make_service(models=None, repeats=repeats, rules=rules)
    asked = RecommendRequest("ann", k=3)
    assert ids(service.recommend(asked)) == ["i5", "i6", "i7"]
    service.record(
        [
            event("i5", 60.0, event="view"),
            event("i6", 3600.0, event="buy"),
            event("i7", 3 * 3600.0, event="buy"),
            event("i8", 3 * 3600.0, event="hide"),
        ]
    )
    assert ids(service.recommend(asked)) == ["i5", "i7", "i9"]
    told = RecommendRequest("ann", k=2, recent_items=("i7",))
    assert ids(service.recommend(told)) == ["i5", "i7"]
    similar = service.similar(SimilarRequest("i4", k=3))
    assert "i4" not in ids(similar)


def test_what_the_log_of_the_model_has_already_does_not_count_as_fresh(
    make_service: Any, model: FakeModel
) -> None:
    service = make_service()
    service.record([event("i5", ago_s=7200)])  # before the model's log ended
    answer = service.recommend(RecommendRequest("ann", k=2))
    assert (ids(answer), answer.source) == (["i6", "i7"], "cache")
    assert model.asked == []


def test_without_a_model_the_last_item_finds_similar_ones(make_service: Any) -> None:
    service = make_service(models=None)
    service.record([event("i4", user_id="new"), event("i1", 5.0, user_id="new")])
    answer = service.recommend(RecommendRequest("new", k=3))
    assert (ids(answer), answer.source) == (["i2", "i3"], "similar_to_last_item")
    assert answer.reason == "unknown_user"


def test_likes_alone_find_similar_ones_and_what_counts_for_nothing_hides_nothing(
    make_service: Any,
) -> None:
    rules = EventRules(kinds={"click": 1.0, "scroll": 0.0, "hide": -1.0})
    service = make_service(models=None, rules=rules)
    service.record(
        [
            event("i1", 9.0, user_id="new", event="click"),
            event("i4", 5.0, user_id="new", event="hide"),
            event("i2", 3.0, user_id="new", event="scroll"),
        ]
    )
    answer = service.recommend(RecommendRequest("new", k=2))
    assert (ids(answer), answer.source) == (["i2", "i3"], "similar_to_last_item")
    every = service.recommend(RecommendRequest("new", k=20))
    assert {"i1", "i4"} & set(ids(every)) == set()


def test_feedback_needs_a_stream(store: Any, make: Any) -> None:
    make.publish(store, "g1", USERS)
    with pytest.raises(NotSupported, match="takes no feedback"):
        RecommendationService(store).record([event("i1")])


def test_a_process_that_knows_no_catalogue_takes_feedback_in(make_service: Any) -> None:
    service = make_service()
    assert service.record([event("what")]).unknown_items == 0
    service.warm_up()
    assert service.record([event("who")]).unknown_items == 1


# -- ranking again --------------------------------------------------------------------------------


def test_a_list_is_ranked_again_always(make_service: Any, model: FakeModel) -> None:
    service = make_service(settings={"rerank": "always"})
    answer = service.recommend(RecommendRequest("ann", k=3, debug=True))
    assert ids(answer) == ["i10", "i9", "i8"]
    assert [item.score for item in answer.items] == [10.0, 9.0, 8.0]
    assert (answer.source, answer.degraded) == ("cache", False)
    assert [one.stage for one in answer.stages] == ["read_user", "live", "rerank", "cache"]
    assert all(one.ms >= 0 for one in answer.stages)
    assert [one.outcome for one in answer.stages] == ["done", "empty", "done", "answered"]


def test_a_list_is_ranked_again_when_live_fails_and_something_is_fresh(
    make_service: Any, model: FakeModel
) -> None:
    service = make_service()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no towers")

    model.recommend = broken  # type: ignore[method-assign]
    answer = service.recommend(RecommendRequest("ann", k=2, recent_items=["i10"]))
    assert (ids(answer), answer.source) == (["i9", "i8"], "cache")
    assert (answer.degraded, answer.reason) == (True, "live_unavailable")
    never = make_service(settings={"rerank": "never"})
    assert ids(never.recommend(RecommendRequest("ann", k=2, recent_items=["i10"]))) == ["i5", "i6"]


def test_a_broken_ranker_leaves_the_published_order(make_service: Any, model: FakeModel) -> None:
    service = make_service(settings={"rerank": "always"})
    model.error = RuntimeError("boom")
    answer = service.recommend(RecommendRequest("ann", k=2, debug=True))
    assert (ids(answer), answer.source) == (["i5", "i6"], "cache")
    assert (answer.degraded, answer.reason) == (True, "live_unavailable")
    assert [one.detail for one in answer.stages if one.outcome == "failed"] == ["live_unavailable"]


def test_a_model_of_another_generation_ranks_nothing(make_service: Any, model: FakeModel) -> None:
    model.generation = "g0"
    service = make_service(settings={"rerank": "always"})
    answer = service.recommend(RecommendRequest("ann", k=2))
    assert (ids(answer), answer.degraded, model.asked) == (["i5", "i6"], False, [])


def test_packed_item_features_reach_the_ranker(
    store: Any, make: Any, make_service: Any, model: FakeModel
) -> None:
    schema = PackedSchema((PackedField("price"), PackedField("weight")))
    prices = np.arange(12, dtype=np.float32)
    rows = schema.pack({"price": prices, "weight": prices * 2})
    text = json.dumps(schema.to_dict())
    make.publish(store, "g2", USERS, item_rows=rows, item_schema=text)
    model.generation = "g2"
    service = make_service(settings={"rerank": "always"})
    service.recommend(RecommendRequest("ann", k=2))
    assert list(model.values[0]) == ["price"]
    assert model.values[0]["price"].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    model.item_fields = ("price", "not published")
    service.recommend(RecommendRequest("ann", k=2))
    assert model.values[1] is None  # the model's own


# -- pages ----------------------------------------------------------------------------------------


def test_pages_never_repeat_and_are_the_same_when_asked_again(make_service: Any) -> None:
    service = make_service()
    first = service.recommend(RecommendRequest("ann", k=2))
    asked = RecommendRequest("ann", k=2, cursor=first.cursor)
    second = service.recommend(asked)
    third = service.recommend(RecommendRequest("ann", k=4, cursor=second.cursor))
    assert ids(first) + ids(second) + ids(third) == [
        *("i5", "i6", "i7", "i8", "i9", "i10"),
        *("i1", "i2"),
    ]
    assert ids(service.recommend(asked)) == ids(second)
    everything = service.recommend(RecommendRequest("ann", k=9, cursor=third.cursor))
    assert ids(everything) == ["i3", "i4"]
    assert everything.cursor is None
    assert second.filtered.excluded == 0


def test_what_the_user_does_meanwhile_does_not_move_the_pages(make_service: Any) -> None:
    moment = [NOW]
    service = make_service(clock=lambda: moment[0])
    first = service.recommend(RecommendRequest("ann", k=2))
    moment[0] = NOW + 5
    service.record([Event("ann", "i7", NOW + 2)])
    second = service.recommend(RecommendRequest("ann", k=2, cursor=first.cursor))
    assert (ids(second), second.source) == (["i7", "i8"], "cache")
    assert service.recommend(RecommendRequest("ann", k=2)).source == "live"


def test_pages_stay_with_their_generation(
    store: Any, make: Any, make_service: Any, fake_clock: Any
) -> None:
    service = make_service(settings={"head_ttl_s": 0.001})
    first = service.recommend(RecommendRequest("ann", k=2))
    make.publish(store, "g2", {"ann": [1, 2, 3]})
    asked = RecommendRequest("ann", k=2, cursor=first.cursor)
    answer = service.recommend(asked)
    assert (ids(answer), answer.generation) == (["i7", "i8"], "g1")
    store.client.delete(store.keys.manifest("g1"))
    fresh = make_service()
    with pytest.raises(CursorExpired, match="pages of generation g1 are gone"):
        fresh.recommend(asked)


def test_a_cursor_belongs_to_its_question(make_service: Any) -> None:
    service = make_service()
    cursor = service.recommend(RecommendRequest("ann", k=2)).cursor
    with pytest.raises(CursorMismatch, match="must come with the question"):
        service.recommend(RecommendRequest("bob", k=2, cursor=cursor))
    with pytest.raises(CursorMismatch, match="must come with the question"):
        service.recommend(RecommendRequest("ann", k=2, exclude=["i1"], cursor=cursor))
    with pytest.raises(CursorMismatch, match="cannot be read"):
        service.recommend(RecommendRequest("ann", k=2, cursor="AAAA"))
    page = decode_cursor(cursor)
    assert encode_cursor(page) == cursor
    assert page.shown == (5, 6)


# -- arms -----------------------------------------------------------------------------------------


def one_arm(**settings: Any) -> Experiments:
    arm = Arm("b", 1.0, ArmSettings(**settings))
    return Experiments([Experiment("test", (arm, Arm("z", 1e-12)))])


def test_an_arm_is_said_and_changes_the_answer(make_service: Any) -> None:
    answer = make_service(experiments=one_arm(rerank="always")).recommend(
        RecommendRequest("ann", k=2)
    )
    assert (ids(answer), dict(answer.arms)) == (["i10", "i9"], {"test": "b"})
    assert answer.policy == "ranker"
    popular = make_service(experiments=one_arm(ranker="popular"))
    answer = popular.recommend(RecommendRequest("ann", k=2))
    assert (ids(answer), answer.source, answer.policy) == (["i1", "i2"], "popular", "popular")
    noop = make_service(experiments=one_arm(ranker="noop"), settings={"rerank": "always"})
    assert ids(noop.recommend(RecommendRequest("ann", k=2))) == ["i5", "i6"]
    assert dict(noop.recommend(RecommendRequest(None, k=2)).arms) == {}


def test_an_arm_may_choose_from_more(make_service: Any) -> None:
    """`slate_pool` of an arm, larger and smaller than the service's own."""
    offered = []

    def first(item_index: np.ndarray, score: np.ndarray, k: int, **options: Any) -> np.ndarray:
        offered.append(item_index.size)
        return np.arange(k)

    for pool in (4, 3):
        service = make_service(
            experiments=one_arm(slate_pool=pool, diversity=0.5),
            settings={"slate_pool": 2 if pool == 4 else 4},
            build_slate=first,
        )
        assert ids(service.recommend(RecommendRequest("ann", k=1))) == ["i5"]
    assert offered == [4, 3]


def test_a_pinned_generation(store: Any, make: Any, make_service: Any) -> None:
    make.publish(store, "g2", {"ann": [1, 2, 3]})
    service = make_service(experiments=one_arm(generation="g1"))
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (ids(answer), answer.generation, answer.degraded) == (["i5"], "g1", False)
    gone = make_service(experiments=one_arm(generation="g0"))
    answer = gone.recommend(RecommendRequest("ann", k=1))
    assert (ids(answer), answer.generation) == (["i1"], "g2")
    assert (answer.degraded, answer.reason) == (True, "pinned_generation_gone")


@pytest.mark.parametrize("ranker", ["shuffle", "epsilon", "softmax"])
def test_slates_are_drawn_with_their_propensity(make_service: Any, ranker: str) -> None:
    service = make_service(experiments=one_arm(ranker=ranker, top=4))
    firsts = []
    for _ in range(40):
        answer = service.recommend(RecommendRequest("ann", k=2))
        firsts.append(answer.items[0])
        assert set(ids(answer)) <= {"i5", "i6", "i7", "i8"}
        assert answer.policy == ranker
    if ranker == "shuffle":
        assert {one.propensity for one in firsts} == {0.25}
        assert len({one.item_id for one in firsts}) > 1
    else:
        assert all(0 < one.propensity <= 1 for one in firsts)
    one = service.recommend(RecommendRequest("ann", k=2))
    asked = RecommendRequest("ann", k=4, cursor=one.cursor)
    page = service.recommend(asked)
    assert ids(service.recommend(asked)) == ids(page)  # the same page twice
    assert not set(ids(page)) & set(ids(one))
    assert ids(page)[2:] == ["i9", "i10"]  # those that take part in no draw
    assert [item.propensity for item in page.items[2:]] == [1.0, 1.0]


# -- the log --------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.rows: list[Any] = []

    def record(self, *row: Any, **options: Any) -> bool:
        self.rows.append((row, options))
        return True

    def stats(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.rows.append("closed")


def test_slates_and_feedback_are_logged(make_service: Any) -> None:
    shown, told = Log(), Log()
    service = make_service(impressions=shown, feedback=told)
    asked = RecommendRequest("ann", k=2, request_id="r1")
    first = service.recommend(asked)
    next_page = dataclasses.replace(asked, cursor=first.cursor)
    second = service.recommend(next_page)
    assert shown.rows == [
        ((asked, first, NOW), {"first_position": 1}),
        ((next_page, second, NOW), {"first_position": 3}),
    ]
    events = [event("i5", request_id="r1")]
    service.record(events)
    assert told.rows == [((events,), {})]
    service.close()
    assert shown.rows[-1] == told.rows[-1] == "closed"


# -- other questions ------------------------------------------------------------------------------


def test_several_questions_take_one_read(make_service: Any, monkeypatch: Any) -> None:
    service = make_service()
    reads = []
    read = service._reader.users
    monkeypatch.setattr(service._reader, "users", lambda *args: reads.append(args) or read(*args))
    asked = [RecommendRequest(one, k=2) for one in ("ann", "bob", "nobody", None)]
    answers = service.recommend_many(asked)
    assert len(reads) == 1
    assert reads[0][1] == ["ann", "bob", "nobody"]
    alone = [service.recommend(one) for one in asked]
    assert [ids(one) for one in answers] == [ids(one) for one in alone]


def test_a_given_list_is_ranked(make_service: Any, model: FakeModel) -> None:
    service = make_service()
    answer = service.rank(RankRequest("ann", ["i2", "zzz", "i9", "i5", "yyy"]))
    assert ids(answer) == ["i9", "i5", "i2", "zzz", "yyy"]
    assert [item.source for item in answer.items] == ["rank"] * 3 + ["given_order"] * 2
    assert (answer.source, answer.degraded, answer.reason) == ("rank", False, None)
    model.error = RuntimeError("boom")
    answer = service.rank(RankRequest("ann", ["i2", "i9"]))
    assert (ids(answer), answer.source) == (["i2", "i9"], "given_order")
    assert (answer.degraded, answer.reason) == (True, "live_unavailable")
    answer = make_service(models=None).rank(RankRequest(None, ["i2", "i9"]))
    assert (ids(answer), answer.reason) == (["i2", "i9"], "no_model")
    answer = make_service().rank(RankRequest(None, ["zzz"]))
    assert (ids(answer), answer.degraded, answer.reason) == (["zzz"], False, "unknown_items")
    with pytest.raises(ValueError, match="different"):
        RankRequest("ann", ["i1", "i1"])
    with pytest.raises(ValueError, match=r"1\.\.1000"):
        RankRequest("ann", [])


def test_an_explanation(store: Any, make_service: Any) -> None:
    service = make_service()
    service.hide(["i6"])
    found = service.explain(ExplainRequest("ann", ["i5", "i6", "i4", "i3", "zzz"]))
    by_id = {one.item_id: one for one in found.items}
    assert [one.held_back for one in found.items] == [
        None,
        "hidden",
        "not_a_candidate",
        "seen",
        "unknown",
    ]
    assert (by_id["i5"].place, by_id["i5"].score) == (1, 5.0)
    assert by_id["i5"].retrieval == {"tower": (0.5, 2)}
    assert by_id["i4"].retrieval == {"tower": (0.5, None)}
    assert by_id["i5"].contributions == {"price": 0.4, "age": -0.1}
    assert (by_id["zzz"].score, by_id["zzz"].place) == (None, None)
    assert (found.generation, found.source, found.reason) == ("g1", "cache", None)
    with pytest.raises(NotSupported, match="has not loaded it"):
        make_service(models=None).explain(ExplainRequest("ann", ["i5"]))


def test_hidden_items_leave_this_process_at_once_and_come_back(
    store: Any, make: Any, make_service: Any
) -> None:
    make.publish(store, "g2", USERS)
    service = make_service(models=None)
    assert ids(service.recommend(RecommendRequest("ann", k=1))) == ["i5"]
    report = service.hide(["i5", "zzz"])
    assert (report.changed, report.unknown) == (1, ("zzz",))
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (ids(answer), answer.filtered.hidden) == (["i6"], 1)
    store.rollback()  # hidden in the generation before as well
    other = make_service(models=None)
    assert ids(other.recommend(RecommendRequest("ann", k=1))) == ["i6"]
    make.publish(store, "g3", USERS, item_ids=[*make.item_ids, "zzz"])  # and in the next one
    assert ids(make_service(models=None).recommend(RecommendRequest("ann", k=1))) == ["i6"]
    assert not store.alive("g3", 13)[[5, 13]].any()
    service.restore(["i5"])
    assert ids(service.recommend(RecommendRequest("ann", k=1))) == ["i5"]
    assert store.hidden_items() == {"zzz"}
    assert [store.alive(one, 12)[5] for one in ("g1", "g2", "g3")] == [True] * 3


def test_popular_items_of_a_segment(store: Any, make: Any, make_service: Any) -> None:
    make.publish(store, "g2", USERS, popular_segments={"de": make.popular([11, 12])})
    service = make_service(models=None)
    answer = service.recommend(RecommendRequest("new", k=3, segment="de"))
    assert (ids(answer), answer.source) == (["i11", "i12", "i1"], "popular_in_segment")
    assert [one.source for one in answer.items] == ["popular_in_segment"] * 2 + ["popular"]
    assert ids(service.recommend(RecommendRequest("new", k=1, segment="xx"))) == ["i1"]
    assert ids(service.recommend(RecommendRequest("bob", k=2, segment="de"))) == ["i9", "i11"]


def test_similar_items_know_no_user(make_service: Any) -> None:
    assert ids(make_service().similar(SimilarRequest("i1", k=2))) == ["i2", "i3"]
