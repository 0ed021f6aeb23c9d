from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.packing import PackedField, PackedSchema
from recsys.config.serving import ServiceSettings
from serving.breaker import CircuitBreaker
from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.errors import NoGeneration, ServingError
from serving.messages import RecommendRequest, SimilarRequest
from serving.models.live import BoundedCalls, OneModel
from serving.request.service import RecommendationService
from serving.request.slate_rule import vectors_of_field
from serving.request.snapshot import BundledPopular
from serving.store import GenerationStore
from tests.serving.fake_models import FakeModel

USERS = {"ann": [5, 6, 7, 8], "bob": [9]}


def ids(answer):
    return [item.item_id for item in answer.items]


@pytest.fixture
def service(store, make, fake_clock):
    make.publish(
        store,
        "g1",
        USERS,
        neighbours=[make.user_batch({"i1": [2, 3], "i2": [1]})],
        source_names=("tower",),
    )
    service = RecommendationService(store, clock=fake_clock)
    yield service
    service.close()


def test_a_known_user_gets_the_list(service):
    answer = service.recommend(RecommendRequest("ann", k=3, request_id="r1"))
    assert ids(answer) == ["i5", "i6", "i7"]
    assert [item.score for item in answer.items] == [1.0, 0.875, 0.75]
    assert {item.source for item in answer.items} == {"tower"}
    assert {item.propensity for item in answer.items} == {1.0}
    assert (answer.source, answer.generation, answer.request_id) == ("cache", "g1", "r1")
    assert (answer.degraded, answer.reason) == (False, None)


def test_a_short_list_is_filled_with_popular_items(service):
    answer = service.recommend(RecommendRequest("bob", k=3))
    assert ids(answer) == ["i9", "i1", "i2"]
    assert [item.source for item in answer.items] == ["tower", "popular", "popular"]
    assert answer.source == "cache"
    assert len(answer.request_id) == 32


@pytest.mark.parametrize(("user_id", "reason"), [("stranger", "unknown_user"), (None, "no_user")])
def test_a_cold_user_gets_a_named_fallback(service, user_id, reason):
    answer = service.recommend(RecommendRequest(user_id, k=3))
    assert ids(answer) == ["i1", "i2", "i3"]
    assert (answer.source, answer.reason, answer.degraded) == ("popular", reason, False)


def test_exclude_and_only(service):
    answer = service.recommend(RecommendRequest("ann", k=2, exclude=["i5", "nope"]))
    assert ids(answer) == ["i6", "i7"]
    assert (answer.filtered.excluded, answer.filtered.unknown_exclude) == (1, 1)
    answer = service.recommend(RecommendRequest("ann", k=9, only=["i12", "i8", "i2", "nope"]))
    assert ids(answer) == ["i8", "i2", "i12"]  # candidate, popular, rest of the catalogue
    assert [item.source for item in answer.items] == ["tower", "popular", "catalogue"]
    assert answer.filtered.unknown_only == 1
    assert answer.filtered.not_in_only == 6  # 5, 6, 7 and the popular 1, 3, 4
    answer = service.recommend(RecommendRequest("ann", only=["nope"]))
    assert (ids(answer), answer.source) == ([], "none")
    answer = service.recommend(RecommendRequest("ann", only=[]))
    assert ids(answer) == []


def test_the_list_is_never_empty_while_something_is_allowed(service, make):
    left = "i11"
    exclude = [one for one in make.item_ids if one != left]
    answer = service.recommend(RecommendRequest("ann", exclude=exclude))
    assert ids(answer) == [left]
    assert (answer.source, answer.reason) == ("catalogue", "all_filtered")


def test_hidden_items_leave_at_once(service, store, fake_clock):
    assert ids(service.recommend(RecommendRequest("ann", k=1))) == ["i5"]
    store.set_alive("g1", [5, 1], False)
    fake_clock.advance(1.1)
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert ids(answer) == ["i6"]
    assert answer.filtered.hidden == 1
    assert ids(service.recommend(RecommendRequest("x", k=1))) == ["i2"]


def test_recent_items_are_not_shown_again(service):
    answer = service.recommend(RecommendRequest("ann", k=2, recent_items=["i6", "i5"]))
    assert (ids(answer), answer.source) == (["i7", "i8"], "cache")


def test_an_unknown_user_with_recent_items_gets_similar_ones(service):
    answer = service.recommend(RecommendRequest("x", k=3, recent_items=["i2", "i1", "what"]))
    assert ids(answer) == ["i3", "i4"]  # like i1: 2 and 3, 2 is recent; then popular
    assert (answer.source, answer.reason) == ("similar_to_last_item", "unknown_user")
    assert [item.source for item in answer.items] == ["similar_to_last_item", "popular"]


def test_the_previous_generation_answers_for_who_is_missing(service, store, make, fake_clock):
    service.recommend(RecommendRequest("ann"))
    make.publish(store, "g2", {"ann": [1]}, item_ids=["z1", *make.item_ids])
    fake_clock.advance(1.1)
    answer = service.recommend(RecommendRequest("bob", k=1))
    assert (ids(answer), answer.generation) == (["i9"], "g1")  # by g1's vocabulary, not g2's
    assert (answer.source, answer.reason) == ("previous_generation", "unknown_user")
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (ids(answer), answer.generation, answer.source) == (["z1"], "g2", "cache")


def test_a_flip_is_seen_within_the_head_ttl(service, store, make, fake_clock):
    service.recommend(RecommendRequest("ann"))
    make.publish(store, "g2", {"ann": [1]})
    assert service.recommend(RecommendRequest("ann")).generation == "g1"
    fake_clock.advance(1.1)
    assert service.recommend(RecommendRequest("ann")).generation == "g2"
    store.rollback()
    fake_clock.advance(1.1)
    assert service.recommend(RecommendRequest("ann")).generation == "g1"


def test_no_answer_mixes_generations(store, make):
    """Readers run while generations with reversed vocabularies are published and rolled back."""
    catalogues = {
        f"g{number}": make.item_ids[::-1] if number % 2 else make.item_ids for number in range(6)
    }
    make.publish(store, "g0", USERS, item_ids=catalogues["g0"])
    service = RecommendationService(store, settings=ServiceSettings(head_ttl_s=0.001))
    answers = []
    done = threading.Event()

    def read():
        while not done.is_set():
            answers.append(service.recommend(RecommendRequest("ann", k=4)))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for generation in list(catalogues)[1:]:
        make.publish(store, generation, USERS, item_ids=catalogues[generation])
        store.rollback()
        store.rollback()
    done.set()
    for reader in readers:
        reader.join()
    assert len({answer.generation for answer in answers}) > 1
    for answer in answers:
        assert not answer.degraded
        catalogue = catalogues[answer.generation]
        assert ids(answer) == [catalogue[index - 1] for index in USERS["ann"]]


def test_similar(service):
    answer = service.similar(SimilarRequest("i1", k=3))
    assert ids(answer) == ["i2", "i3", "i4"]
    assert [item.source for item in answer.items] == ["similar", "similar", "popular"]
    assert (answer.source, answer.reason, answer.generation) == ("similar", None, "g1")
    assert ids(service.similar(SimilarRequest("i1", k=1, exclude=["i2"]))) == ["i3"]
    assert ids(service.similar(SimilarRequest("i2", k=2, only=["i1", "i2"]))) == ["i1"]
    answer = service.similar(SimilarRequest("what", k=2))
    assert (ids(answer), answer.source) == (["i1", "i2"], "popular")
    assert (answer.reason, answer.degraded) == ("unknown_item", False)
    assert service.similar(SimilarRequest("i7")).reason == "no_neighbours"


# -- live ---------------------------------------------------------------------------------------


@pytest.fixture
def live_service(store, make):
    make.publish(store, "g1", USERS)
    live = FakeModel(("i10", "i11", "i1"))
    service = RecommendationService(
        store, models=OneModel(live), settings=ServiceSettings(live_timeout_s=0.05, live_workers=1)
    )
    yield service, live
    live.gate.set()
    service.close()


def test_recent_items_go_to_the_live_recommender(live_service):
    service, live = live_service
    answer = service.recommend(
        RecommendRequest("ann", k=2, recent_items=["i1"], exclude=["i10"], only=["i11", "i2"])
    )
    assert ids(answer) == ["i11", "i2"]
    assert [item.source for item in answer.items] == ["tower", "popular"]
    assert (answer.source, answer.degraded, answer.generation) == ("live", False, "g1")
    assert live.calls == [(["i1"], 2, "ann", {"i10", "i1"}, {"i11", "i2"})]
    service.recommend(RecommendRequest("ann"))
    assert len(live.calls) == 1


def test_with_a_threshold_a_live_answer_stands_however_short(store, make):
    make.publish(store, "g1", USERS)
    live = FakeModel(("i10", "i11", "i1"))
    patient = ServiceSettings(live_timeout_s=20.0, deadline_s=30.0)
    service = RecommendationService(store, models=OneModel(live), settings=patient)
    asked = RecommendRequest("ann", k=5, recent_items=["i1"], threshold=True)
    answer = service.recommend(asked)
    assert live.threshold
    assert (ids(answer), answer.source, answer.reason) == (["i10", "i11"], "live", None)
    live.liked = ()
    answer = service.recommend(asked)
    assert (ids(answer), answer.source, answer.degraded) == ([], "live", False)
    assert (answer.reason, answer.generation) == ("nothing_likely", "g1")
    live.liked = ("i10",)
    service.hide(["i10"])
    answer = service.recommend(asked)
    assert (ids(answer), answer.reason, answer.filtered.hidden) == ([], "all_filtered", 1)
    service.restore(["i10"])
    # Nothing but the live stage knows a threshold, and the answer says whose it is.
    live.error = RuntimeError("no head")
    answer = service.recommend(asked)
    assert (len(answer.items), answer.source) == (5, "cache")
    answer = service.recommend(RecommendRequest("ann", k=5, threshold=True))
    assert (len(answer.items), answer.source) == (5, "cache")
    live.error, live.liked = None, ("i10",)
    filled = service.recommend(RecommendRequest("ann", k=5, recent_items=["i1"]))
    assert not live.threshold
    assert len(filled.items) > 1
    service.close()


def test_a_broken_live_recommender_costs_nothing_but_a_flag(live_service):
    service, live = live_service
    live.error = RuntimeError("boom")
    answer = service.recommend(RecommendRequest("ann", k=1, recent_items=["i1"]))
    assert (ids(answer), answer.source) == (["i5"], "cache")
    assert (answer.degraded, answer.reason) == (True, "live_unavailable")
    assert b'stage="live"' in service.telemetry.exposition()


def test_a_slow_live_recommender_misses_its_deadline(live_service):
    service, live = live_service
    live.gate.clear()
    asked = RecommendRequest("ann", k=1, recent_items=["i1"])
    started = time.monotonic()
    answer = service.recommend(asked)
    assert time.monotonic() - started < 2
    assert (answer.source, answer.reason) == ("cache", "live_deadline")
    answer = service.recommend(asked)
    assert (answer.source, answer.reason) == ("cache", "live_deadline")  # its worker is busy
    reasons = [service.recommend(asked).reason for _ in range(8)]
    assert reasons[-1] == "live_unavailable"  # nobody waits for it any more
    assert len(live.calls) == 1


def test_calls_of_the_model_take_turns():
    calls = BoundedCalls(1)
    gate = threading.Event()
    first = threading.Thread(target=lambda: calls.run(lambda: gate.wait(5), 5.0))
    first.start()
    threading.Timer(0.05, gate.set).start()
    assert calls.run(lambda: "done", 5.0) == "done"
    first.join()
    calls.close()


def test_an_ignorant_live_recommender_is_passed_over(live_service):
    service, live = live_service
    live.liked = ()
    answer = service.recommend(RecommendRequest("x", k=1, recent_items=["?"]))
    assert (answer.source, answer.reason) == ("popular", "unknown_recent_items")
    assert not answer.degraded


def test_a_request_over_its_deadline_is_answered_from_memory(store, make):
    make.publish(store, "g1", USERS)
    service = RecommendationService(store, settings=ServiceSettings(deadline_s=1e-9))
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (answer.source, answer.reason, answer.degraded) == ("popular", "deadline", True)


def test_load_shedding_asks_nobody(service):
    service.warm_up()
    service.recommend(RecommendRequest("ann"))
    service._reader._store = None  # any call would fail
    answer = service.recommend(RecommendRequest("ann", k=1), local_only=True)
    assert (ids(answer), answer.source, answer.reason) == (["i5"], "cache", "overloaded")
    answer = service.recommend(RecommendRequest("bob", k=1), local_only=True)
    assert (ids(answer), answer.degraded) == (["i1"], True)
    assert service.similar(SimilarRequest("i1", k=1), local_only=True).source == "popular"


# -- the slate ----------------------------------------------------------------------------------


def reverse_slate(item_index, score, k, *, vectors=None, diversity=0.0):
    """Stands in for MMR: checks what it is given and turns the pool round."""
    assert item_index.dtype == np.int64
    assert score.dtype == np.float32
    assert vectors.shape == (len(item_index), 1)
    np.testing.assert_array_equal(vectors[:, 0], item_index)
    assert diversity == 0.5
    return np.arange(len(item_index) - 1, -1, -1)[:k]


def test_diversity_reads_item_rows_and_uses_the_slate_rule(store, make):
    rows = [bytes([number]) for number in range(1, 13)]
    make.publish(store, "g1", USERS, item_rows=rows, item_schema="one-byte")

    def row_vectors(rows, schema):
        assert schema == "one-byte"
        return np.array([[row[0]] for row in rows], dtype=np.float32)

    service = RecommendationService(store, row_vectors=row_vectors, build_slate=reverse_slate)
    answer = service.recommend(RecommendRequest("ann", k=2, diversity=0.5))
    assert ids(answer) == ["i8", "i7"]
    assert ids(service.recommend(RecommendRequest("ann", k=2))) == ["i5", "i6"]
    bad = RecommendationService(
        store, row_vectors=lambda rows, schema: np.zeros(3), build_slate=reverse_slate
    )
    answer = bad.recommend(RecommendRequest("ann", k=2, diversity=0.5))
    assert (ids(answer), answer.reason) == (["i5", "i6"], "slate_unavailable")


def test_vectors_come_out_of_packed_rows():
    schema = PackedSchema((PackedField("year"), PackedField("content", "float16", 2)))
    columns = {"year": np.array([1.0, 2.0]), "content": np.array([[1.0, 2.0], [3.0, 4.0]])}
    one, two = schema.pack(columns)
    text = json.dumps(schema.to_dict())
    found = vectors_of_field("content")([two, None, one], text)
    assert found.dtype == np.float32
    assert found.tolist() == [[3, 4], [0, 0], [1, 2]]
    with pytest.raises(ServingError, match="no readable field 'colour'"):
        vectors_of_field("colour")([one], text)


# -- the store goes away -------------------------------------------------------------------------


def test_survives_the_store_and_recovers(own_directory, make, fake_clock):
    url = EmbeddedStore.ensure(own_directory)
    store = GenerationStore(connect(url, timeout_s=0.5))
    make.publish(store, "g1", USERS, neighbours=[make.user_batch({"i1": [2]})])
    service = RecommendationService(store, clock=fake_clock)
    assert service.recommend(RecommendRequest("ann", k=1)).source == "cache"

    make.kill(own_directory)
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (ids(answer), answer.source, answer.generation) == (["i5"], "cache", "g1")  # remembered
    assert (answer.degraded, answer.reason) == (True, "store_unavailable")
    answer = service.recommend(RecommendRequest("bob", k=2))
    assert (ids(answer), answer.source) == (["i1", "i2"], "popular")
    assert (answer.degraded, answer.reason) == (True, "store_unavailable")
    assert service.similar(SimilarRequest("i1", k=1)).reason == "store_unavailable"
    assert service.not_ready() is None  # answers, flagged: better than nobody

    EmbeddedStore.ensure(own_directory)
    assert service.recommend(RecommendRequest("bob", k=1)).degraded  # still left alone
    fake_clock.advance(0.6)
    answer = service.recommend(RecommendRequest("bob", k=1))
    assert (ids(answer), answer.source, answer.degraded) == (["i9"], "cache", False)


def test_starts_without_the_store(own_directory, make, fake_clock):
    url = EmbeddedStore.ensure(own_directory)
    EmbeddedStore.stop(own_directory)
    store = GenerationStore(connect(url, timeout_s=0.5))
    bare = RecommendationService(store, clock=fake_clock)
    bare.warm_up()
    assert bare.not_ready() == "no_generation"
    assert bare.served_generation() is None
    with pytest.raises(NoGeneration, match="nothing is published"):
        bare.recommend(RecommendRequest("ann"))

    service = RecommendationService(
        store, bundled=BundledPopular(["i4", "i2"], [2.0, 1.0], "g0"), clock=fake_clock
    )
    answer = service.recommend(RecommendRequest("ann", k=5, recent_items=["i2"]))
    assert (ids(answer), answer.source, answer.generation) == (["i4"], "popular", "g0")
    assert (answer.degraded, answer.reason) == (True, "store_unavailable")
    assert service.not_ready() == "store_unavailable"

    EmbeddedStore.ensure(own_directory)
    fake_clock.advance(0.6)
    assert service.not_ready() == "no_generation"
    make.publish(store, "g1", USERS)
    fake_clock.advance(0.6)
    assert ids(service.recommend(RecommendRequest("bob", k=1))) == ["i9"]
    assert service.not_ready() is None


def test_an_expired_generation_is_flagged(service, store, fake_clock):
    service.recommend(RecommendRequest("ann"))
    for key in store._client.scan_iter(f"{store.keys.namespace}:*:g1*"):
        store._client.delete(key)
    fake_clock.advance(1.1)
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (ids(answer), answer.source) == (["i5"], "cache")  # remembered
    assert (answer.degraded, answer.reason) == (True, "generation_expired")


def test_a_damaged_value_is_passed_over(service, store):
    service.warm_up()
    store._client.set(store.keys.user("g1", "ann"), b"x" * 40)
    answer = service.recommend(RecommendRequest("ann", k=1))
    assert (answer.source, answer.reason, answer.degraded) == ("popular", "corrupt_value", True)
    assert not service.recommend(RecommendRequest("bob", k=1)).degraded


def test_memory_of_users_is_bounded(store, make):
    make.publish(store, "g1", USERS)
    for size, kept in ((0, 0), (1, 1)):
        service = RecommendationService(store, settings=ServiceSettings(remembered_users=size))
        for user_id in USERS:
            service.recommend(RecommendRequest(user_id))
        assert len(service._reader._remembered) == kept


def test_breaker(fake_clock):
    breaker = CircuitBreaker(0.5, fake_clock)
    assert breaker.allow()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allow()
    fake_clock.advance(0.6)
    assert breaker.allow()  # the trial
    assert not breaker.allow()  # everybody else
    breaker.failed()
    assert not breaker.allow()
    fake_clock.advance(0.6)
    assert breaker.allow()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.allow()
    with pytest.raises(ValueError, match="retry_after_s must be > 0"):
        CircuitBreaker(0, fake_clock)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RecommendRequest("a", k=0), r"k must be in 1..500, got 0"),
        (lambda: SimilarRequest("a", k=501), r"k must be in 1..500, got 501"),
        (lambda: RecommendRequest("a", diversity=1.5), r"diversity must be in 0..1, got 1.5"),
        (lambda: ServiceSettings(head_ttl_s=0), "head_ttl_s must be > 0"),
        (lambda: ServiceSettings(diversity=2), "diversity must be <= 1"),
        (lambda: ServiceSettings(remembered_users=-1), "remembered_users must be >= 0"),
        (lambda: BundledPopular(["a"], []), "got 0 for 1 ids"),
        (lambda: BundledPopular(["a", "a"], [1, 1]), "must be different"),
    ],
)
def test_bad_values_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


some_ids = st.lists(st.sampled_from([f"i{n}" for n in range(1, 15)]), max_size=14)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    user_id=st.sampled_from(["ann", "bob", "stranger", None]),
    k=st.integers(1, 20),
    exclude=some_ids,
    only=st.none() | some_ids,
    recent=some_ids,
)
def test_every_answer_keeps_the_rules(service, make, user_id, k, exclude, only, recent):
    request = RecommendRequest(user_id, k, exclude, only, recent)
    answer = service.recommend(request)
    shown = ids(answer)
    allowed = set(make.item_ids) - set(exclude) - set(recent)
    if only is not None:
        allowed &= set(only)
    assert len(shown) == len(set(shown)) <= k
    assert set(shown) <= allowed
    assert bool(shown) == bool(allowed)
    if only is not None:
        assert len(shown) == min(k, len(allowed))
    for one, following in zip(answer.items, answer.items[1:], strict=False):
        assert one.source != following.source or one.score >= following.score
    assert ids(service.recommend(request)) == shown
