from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import DataError
from recsys.simulation import (
    LoggedFeedback,
    UnusableError,
    evaluate_policies,
    from_impressions,
    problems,
    read_feedback_parquet,
    read_open_bandit,
    weight_diagnostics,
)

LOGGING = np.array([0.5, 0.3, 0.15, 0.05])
TARGET = np.array([0.1, 0.2, 0.3, 0.4])
MEANS = np.array([0.2, 0.4, 0.6, 0.8])


def log_of(n: int = 4000, *, logging: np.ndarray = LOGGING, seed: int = 0) -> LoggedFeedback:
    rng = np.random.default_rng(seed)
    action = rng.choice(4, p=logging, size=n)
    reward = (rng.random(n) < MEANS[action]).astype(np.float64)
    return LoggedFeedback(
        action,
        reward,
        logging[action],
        4,
        position=np.ones(n, dtype=np.int64),
        unit=np.arange(n) // 2,
        time=np.arange(n, dtype=np.float64),
    )


def changed(log: LoggedFeedback, **columns: np.ndarray) -> LoggedFeedback:
    return LoggedFeedback(
        **{
            "action": log.action,
            "reward": log.reward,
            "propensity": log.propensity,
            "num_actions": log.num_actions,
            "position": log.position,
            "unit": log.unit,
            "time": log.time,
            **columns,
        }
    )


def test_a_sound_log_has_no_problems() -> None:
    log = log_of()
    assert problems(log, chosen=TARGET[log.action], reward_range=(0.0, 1.0)) == []


@pytest.mark.parametrize(
    ("column", "value", "kind", "fatal"),
    [
        ("reward", np.nan, "not_finite", True),
        ("reward", 7.0, "reward_range", True),
        ("propensity", 0.0, "propensity_range", True),
        ("propensity", 1.5, "propensity_range", True),
        ("propensity", np.nan, "not_finite", True),
        ("time", np.inf, "not_finite", True),
        ("action", 4, "action_range", True),
        ("action", -1, "action_range", True),
        ("position", 0, "position_range", True),
    ],
)
def test_a_bad_value_is_named_with_its_rows(
    column: str, value: float, kind: str, fatal: bool
) -> None:
    log = log_of(1000)
    values = getattr(log, column).copy()
    values[[3, 10, 20, 30, 40, 50]] = value
    found = problems(changed(log, **{column: values}), reward_range=(0.0, 1.0))
    one = next(p for p in found if p.kind == kind)
    assert (one.num_rows, one.rows, one.fatal) == (6, (3, 10, 20, 30, 40), fatal)
    assert column in one.message
    assert "(6 rows: 3, 10, 20, 30, 40, ...)" in str(one)


def test_rounds_that_come_twice_are_named() -> None:
    log = log_of(1000)
    twice = log.take(np.concatenate([np.arange(1000), [7, 9]]))
    (found,) = problems(twice)
    assert (found.kind, found.num_rows, found.rows) == ("duplicate_rounds", 2, (1000, 1001))
    assert problems(changed(twice, time=None)) == []


def test_a_policy_that_changes_with_time_is_named() -> None:
    first, last = log_of(3000), log_of(1000, logging=LOGGING[::-1].copy(), seed=1)
    both = LoggedFeedback(
        np.concatenate([first.action, last.action]),
        np.concatenate([first.reward, last.reward]),
        np.concatenate([first.propensity, last.propensity]),
        4,
    )
    found = [one for one in problems(both) if one.kind == "drift"]
    assert found
    assert all(one.rows[0] == 3000 and one.num_rows == 1000 for one in found)
    assert all("block 4 of 4" in one.message for one in found)


def test_drift_is_rarely_seen_where_there_is_none() -> None:
    alarms = sum(bool(problems(log_of(2000, seed=seed))) for seed in range(200))
    assert alarms <= 2


def test_propensities_that_are_all_one_are_no_exploration() -> None:
    log = changed(log_of(500), propensity=np.ones(500))
    found = problems(log)
    assert found[0].kind == "no_exploration"
    assert found[0].fatal
    table = evaluate_policies(log, {"a": TARGET}, rng=np.random.default_rng(0))
    assert table.policies["a"].verdict == "unusable"


def test_a_target_beyond_the_log_is_refused() -> None:
    # .35 of the target's choices have no chance: the mean weight is .65.
    logging = np.array([0.5, 0.3, 0.2, 0.0])
    target = np.array([0.25, 0.2, 0.2, 0.35])
    log = log_of(4000, logging=logging)
    table = evaluate_policies(log, {"a": target}, rng=np.random.default_rng(0), logging=logging)
    one = table.policies["a"]
    assert one.verdict == "unusable"
    assert one.diagnostics.mean.value == pytest.approx(0.65, abs=0.02)
    assert one.diagnostics.coverage == pytest.approx(0.65)
    assert "goes where this log has no rounds" in one.reasons[0].text
    with pytest.raises(UnusableError, match="no estimate of 'a' from this log: mean weight"):
        one.estimates()
    with pytest.raises(UnusableError):
        one.sensitivity()
    assert one.estimates(force=True)["snips"].value > 0
    assert "snips" not in table.text()
    assert "snips" in table.text(force=True)
    (found,) = problems(log, chosen=target[log.action])
    assert (found.kind, found.fatal) == ("support", True)


def test_an_exploration_floor_makes_it_an_estimate() -> None:
    deterministic = np.array([1.0, 0.0, 0.0, 0.0])
    logging = 0.9 * deterministic + 0.1 / 4
    target = np.array([0.65, 0.35, 0.0, 0.0])
    table = evaluate_policies(
        log_of(8000, logging=logging), {"a": target}, rng=np.random.default_rng(0)
    )
    one = table.policies["a"]
    assert one.verdict != "unusable"
    for name in ("ips", "snips", "dr", "sndr"):
        found = one.estimates()[name]
        assert abs(found.value - target @ MEANS) < 2 * found.standard_error, name


def test_few_heavy_weights_are_weak_or_unusable() -> None:
    weight = np.full(10_000, 1e-3)
    weight[:5] = 2000.0
    found = weight_diagnostics(weight)
    assert found.verdict == "unusable"
    assert found.effective_size == pytest.approx(5, abs=0.1)
    assert found.top_share == pytest.approx(1.0, abs=0.01)
    assert found.largest == 2000.0
    weight[:300] = 33.0
    found = weight_diagnostics(weight)
    assert (found.verdict, [r.kind for r in found.reasons]) == ("weak", ["effective_size"])
    weight = np.zeros(10_000)
    weight[:50] = 200.0  # 50 rounds count, half a percent
    found = weight_diagnostics(weight)
    assert (found.verdict, found.effective_share) == ("unusable", pytest.approx(0.005))
    assert weight_diagnostics(np.ones(1000)).verdict == "ok"


def test_every_estimator_answers_and_is_near_the_truth() -> None:
    log = log_of(20_000)
    cells = [np.arange(4), np.array([0, 0, 1, 1])]
    table = evaluate_policies(
        log, {"a": TARGET}, rng=np.random.default_rng(0), logging=LOGGING, cells=cells
    )
    one = table.policies["a"]
    assert one.verdict == "ok", one.reasons
    found = one.estimates()
    assert set(found) == {
        "ips", "snips", "clipped_ips", "sg_ips", "dm", "dr", "sndr", "switch_dr", "dr_os", "sg_dr",
        "mips", "snmips",
    }  # fmt: skip
    for name in ("ips", "snips", "dr", "sndr", "dm"):
        assert found[name].value == pytest.approx(TARGET @ MEANS, abs=0.03), name
    assert one.lift.value == pytest.approx((TARGET - LOGGING) @ MEANS, abs=0.03)
    assert one.lift.low > 0
    assert set(one.sensitivity()) == {5.0, 10.0, 50.0, np.inf}
    assert table.a_a_passes is True


def test_replay_answers_for_a_choice_on_a_uniform_log() -> None:
    log = log_of(4000, logging=np.full(4, 0.25))
    table = evaluate_policies(log, {"third": np.eye(4)[2]}, rng=np.random.default_rng(0))
    found = table.policies["third"].estimates()["replay"]
    assert found.value == pytest.approx(log.reward[log.action == 2].mean())


def test_propensities_of_another_policy_fail_the_a_a_check() -> None:
    log = log_of(4000)
    table = evaluate_policies(log, {}, rng=np.random.default_rng(0), logging=TARGET)
    assert table.a_a_passes is False
    assert any("A/A check fails" in note for note in table.notes)


def test_the_best_of_many_equal_policies_is_believed_on_the_held_out_half() -> None:
    rng = np.random.default_rng(0)
    best, held = [], []
    for seed in range(25):
        log = changed(log_of(400, logging=np.full(4, 0.25), seed=seed))
        reward = (rng.random(400) < 0.5).astype(np.float64)  # every policy earns .5
        policies = {f"p{i}": rng.dirichlet(np.ones(4)) for i in range(10)}
        table = evaluate_policies(changed(log, reward=reward), policies, rng=rng)
        winners = [one for one in table.policies.values() if one.held_out is not None]
        assert len(winners) == 1
        assert winners[0].held_out is not None
        held.append(winners[0].held_out.value)
        best.append(max(one.estimates()["snips"].value for one in table.policies.values()))
    assert np.mean(best) > 0.525
    assert abs(np.mean(held) - 0.5) < 0.02
    assert any("10 policies" in note for note in table.notes)


def test_bootstrap_intervals_are_those_of_the_generator() -> None:
    log = log_of(500)

    def run(seed: int) -> object:
        table = evaluate_policies(
            log, {"a": TARGET}, rng=np.random.default_rng(seed), resamples=100
        )
        return table.policies["a"].estimates()["snips"]

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_a_log_with_a_fatal_problem_is_not_judged() -> None:
    log = log_of(100)
    with pytest.raises(ValueError, match="propensity must be in"):
        evaluate_policies(
            changed(log, propensity=np.zeros(100)), {"a": TARGET}, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize(
    ("policy", "said"),
    [(np.ones(4), "sum to 1"), (np.ones(7), r"must be \[100, 4\], \[4\] or \[100\]")],
)
def test_a_policy_of_no_probabilities_is_named(policy: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate_policies(log_of(100), {"a": policy}, rng=np.random.default_rng(0))


def test_a_log_of_wrong_shapes_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"reward must be \[n\] with n = 2"):
        LoggedFeedback(np.zeros(2, np.int64), np.zeros(3), np.ones(2), 2)
    with pytest.raises(TypeError, match="action must be int64"):
        LoggedFeedback(np.zeros(2), np.zeros(2), np.ones(2), 2)


def impressions() -> pl.DataFrame:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "request_id": ["r1", "r1", "r2", "r3"],
            "user_id": ["u", "u", None, "u"],
            "item_id": ["b", "a", "c", "a"],
            "timestamp": [start + timedelta(seconds=10 * i) for i in (0, 0, 1, 2)],
            "position": [1, 2, 1, 1],
            "policy": ["epsilon"] * 4,
            "propensity": [0.5, 1.0, 0.25, 0.9],
            "generation": ["g1"] * 4,
            "arms": ["order=a", "order=a", None, "order=b"],
            "reward": [1.0, 0.0, 0.0, 2.0],
            "num_events": [1, 0, 0, 1],
        }
    )


def test_the_impression_log_becomes_rounds() -> None:
    table = from_impressions(impressions(), item_ids=["a", "b", "c", "d"])
    log = table.log
    assert log.num_actions == 4
    assert [table.item_ids[a] for a in log.action] == ["b", "c", "a"]
    assert log.reward.tolist() == [1.0, 0.0, 2.0]
    assert log.propensity.tolist() == [0.5, 0.25, 0.9]
    assert log.unit is not None
    assert log.time is not None
    assert log.unit[0] == log.unit[2] != log.unit[1]
    assert np.diff(log.time).tolist() == [10.0, 10.0]
    assert table.frame["arms"].to_list() == ["order=a", None, "order=b"]
    strangers = from_impressions(impressions().with_columns(user_id=pl.lit(None, pl.String))).log
    assert strangers.unit is not None
    assert len(set(strangers.unit.tolist())) == 3
    whole = from_impressions(impressions(), max_position=2).log
    assert whole.position is not None
    assert whole.position.tolist() == [1, 2, 1, 1]
    assert whole.num_actions == 3


def test_impressions_without_a_propensity_are_named() -> None:
    frame = impressions().with_columns(propensity=pl.Series([None, 1.0, 0.5, None]))
    with pytest.raises(DataError, match=r"propensity \(propensity\) must not be null: 2 of 3"):
        from_impressions(frame)
    with pytest.raises(DataError, match=r"the log must have the columns \['reward'\]"):
        from_impressions(impressions().drop("reward"))
    with pytest.raises(DataError, match="1 rows are not, such as"):
        from_impressions(impressions(), item_ids=["a", "b"])


def test_any_parquet_file_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    impressions().write_parquet(path)
    names = {"action": "item_id", "reward": "reward", "propensity": "propensity"}
    table = read_feedback_parquet(path, columns=names, context=["num_events"])
    assert len(table.log) == 4
    assert table.item_ids == ("a", "b", "c")
    assert table.log.context is not None
    assert table.log.context.shape == (4, 1)
    assert table.log.unit is None
    with pytest.raises(DataError, match=r"unknown \['price'\], missing \['propensity'\]"):
        read_feedback_parquet(path, columns={"action": "a", "reward": "b", "price": "c"})
    with pytest.raises(DataError, match="item_id must hold numbers"):
        read_feedback_parquet(path, columns={**names, "reward": "item_id"})


OPEN_BANDIT = Path(os.environ.get("RECSYS_DATA", "")) / "obd_small"


@pytest.mark.skipif(not OPEN_BANDIT.is_dir(), reason="RECSYS_DATA has no obd_small")
def test_the_open_bandit_log_back_to_its_random_policy_is_refused() -> None:
    table = read_open_bandit(OPEN_BANDIT, campaign="women", policy="bts")
    log = table.log
    assert (len(log), log.num_actions, table.item_ids[:3]) == (10_000, 46, ("0", "1", "2"))
    found = weight_diagnostics(1 / 46 / log.propensity)
    assert found.verdict == "unusable"
    assert found.largest == pytest.approx(21_739, abs=1)
    assert found.mean.value == pytest.approx(3.13, abs=0.01)
    random = read_open_bandit(OPEN_BANDIT, campaign="women", policy="random").log
    assert set(random.propensity.tolist()) == {1 / 46}
    assert random.reward.mean() == pytest.approx(0.0046)
