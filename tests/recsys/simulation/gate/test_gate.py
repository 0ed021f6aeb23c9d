"""The gate: every rule alone, what comes first, and that worse evidence never helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.gate_rules import GateRules, rule_texts
from recsys.simulation.gate.decide import GRAVITY, decide
from recsys.simulation.gate.evidence import Evidence, UserValues
from recsys.simulation.report.parts import EstimateLine

USERS = np.array([f"u{n:03d}" for n in range(200)])
METRICS = ("ndcg@10", "recall@10")
RULES = GateRules()


def values(shift: float = 0.0, users: np.ndarray = USERS, base: float = 0.3) -> UserValues:
    """Every user has base + shift, moved by a fixed pattern of mean zero."""
    pattern = np.where(np.arange(users.size) % 2 == 0, 0.02, -0.02)
    return UserValues(users, {name: base + shift + pattern for name in METRICS})


def turned(shift: float = 0.0, users: np.ndarray = USERS, base: float = 0.3) -> UserValues:
    """As `values` with the pattern the other way round: a difference has a width."""
    pattern = np.where(np.arange(users.size) % 2 == 0, -0.02, 0.02)
    return UserValues(users, {name: base + shift + pattern for name in METRICS})


def evidence(name: str = "old", **changes) -> Evidence:
    return replace(
        Evidence(
            name=name,
            data="d",
            split="s",
            k=10,
            users=values(),
            slices={"tail items": values(users=USERS[:80]), "cold items": values(users=USERS[:9])},
            lists=np.array([f"{name}-{user}" for user in USERS], dtype=object),
            coverage=0.5,
            head_share=0.4,
            exposure_gap=0.2,
            calibration_error=0.01,
            latency_p99_ms=20.0,
        ),
        **changes,
    )


OLD = evidence()
NEW = evidence("new", users=turned(0.005), slices={
    "tail items": turned(users=USERS[:80]), "cold items": turned(users=USERS[:9])
})  # fmt: skip


def line(estimator: str, value: float, half: float = 0.01, verdict: str = "ok") -> EstimateLine:
    return EstimateLine("p", estimator, value, value - half, value + half, verdict=verdict)


def found(candidate: Evidence, incumbent: Evidence | None = OLD, **rules):
    decision = decide(candidate, incumbent, RULES.but(**rules))
    return decision.verdict, [one.rule for one in decision.reasons if one.verdict != "PROMOTE"]


def test_nothing_against_it():
    decision = decide(NEW, OLD, RULES)
    assert decision.verdict == "PROMOTE"
    assert [one.rule for one in decision.reasons] == ["relevance_held", "relevance_held"]
    effect = decision.effects[0]
    assert (effect.name, effect.num_units) == ("ndcg@10", 200)
    assert effect.value == pytest.approx(0.005)
    # Differences are 0.005 +- 0.04; Student's t with 199 degrees of freedom.
    half = 1.971957 * 0.04 * np.sqrt(200 / 199) / np.sqrt(200)
    assert effect.low == pytest.approx(0.005 - half, abs=1e-8)
    assert effect.high == pytest.approx(0.005 + half, abs=1e-8)
    assert [one.name for one in decision.slices] == ["tail items"]
    assert any("cold items: 9 users are too few" in said for said in decision.unsaid)
    assert any("no log with propensities" in said for said in decision.unsaid)


# Rule, what the candidate changes, what the rules change, the verdict.
TABLE = [
    ("other_data", {"data": "other"}, {}, "SUSPICIOUS"),
    ("other_split", {"split": "other"}, {}, "SUSPICIOUS"),
    ("other_users", {"users": turned(users=np.array([*USERS[:-1], "x"]))}, {}, "SUSPICIOUS"),
    ("leakage", {"leakage": ("feature f has AUC 1",)}, {}, "SUSPICIOUS"),
    ("near_perfect", {"users": turned(0.66)}, {"max_gain": 9.0}, "SUSPICIOUS"),
    ("too_good", {"users": turned(0.091)}, {}, "SUSPICIOUS"),
    ("same_lists", {"lists": OLD.lists}, {}, "SUSPICIOUS"),
    ("relevance_drop", {"users": turned(-0.031)}, {}, "HOLD"),
    ("relevance_drop", {"users": turned(-0.0255)}, {}, "HOLD"),  # the interval reaches too far
    ("no_gain", {"users": turned(0.004)}, {"require_gain": True}, "HOLD"),
    ("too_few_users", {}, {"min_users": 201}, "HOLD"),
    ("slice_drop", {"slices": {**NEW.slices, "tail items": turned(-0.04, USERS[:80])}}, {}, "HOLD"),
    ("slice_missing", {"slices": {}}, {}, "HOLD"),
    ("slice_missing", {"slices": {**NEW.slices, "tail items": turned(users=USERS[1:81])}}, {},
     "HOLD"),
    ("coverage_drop", {"coverage": 0.39}, {}, "HOLD"),
    ("coverage_drop", {"coverage": None}, {}, "HOLD"),
    ("head_share_rise", {"head_share": 0.51}, {}, "HOLD"),
    ("exposure_gap_rise", {"exposure_gap": 0.31}, {}, "HOLD"),
    ("calibration_rise", {"calibration_error": 0.031}, {}, "HOLD"),
    ("latency_rise", {"latency_p99_ms": 25.1}, {}, "HOLD"),
    ("latency_rise", {"latency_p99_ms": None}, {}, "HOLD"),
]  # fmt: skip
# The same, just within the bound: nothing may be found.
WITHIN = [
    ({"users": turned(0.64)}, {"max_gain": 9.0}),
    ({"users": turned(0.089)}, {}),
    ({"users": turned(-0.024)}, {}),
    ({"users": turned(0.006)}, {"require_gain": True}),
    ({}, {"min_users": 200}),
    ({"slices": {**NEW.slices, "tail items": turned(-0.029, USERS[:80])}}, {}),
    ({"slices": {**NEW.slices, "cold items": turned(-0.2, USERS[:9])}}, {}),  # too few to judge
    ({"coverage": 0.41}, {}),
    ({"head_share": 0.49}, {}),
    ({"exposure_gap": 0.29}, {}),
    ({"calibration_error": 0.029}, {}),
    ({"latency_p99_ms": 24.9}, {}),
    ({"lists": np.array([*OLD.lists[:198], "x", "y"], dtype=object)}, {}),
]


@pytest.mark.parametrize(("rule", "changes", "rules", "verdict"), TABLE)
def test_every_rule_alone(rule, changes, rules, verdict):
    assert found(replace(NEW, **changes), **rules)[0] == verdict
    assert set(found(replace(NEW, **changes), **rules)[1]) == {rule}


@pytest.mark.parametrize(("changes", "rules"), WITHIN)
def test_just_within_the_bounds(changes, rules):
    assert found(replace(NEW, **changes), **rules) == ("PROMOTE", [])


def test_what_cannot_be_compared_is_not_compared():
    decision = decide(replace(NEW, data="other", users=turned(-0.2)), OLD, RULES)
    assert [one.rule for one in decision.reasons] == ["other_data"]
    assert decision.effects == ()


def test_an_incumbent_that_knows_the_answer_is_not_compared_with():
    decision = decide(NEW, replace(OLD, leakage=("3 held-out events",)), RULES)
    assert [one.rule for one in decision.reasons] == ["leakage"]
    assert decision.verdict == "SUSPICIOUS"
    assert decision.effects == ()


def test_a_slice_that_may_lose_is_no_finding():
    """A large loss whose interval holds zero, since users differ much."""
    users = USERS[:50]
    wide = UserValues(users, {name: np.where(np.arange(50) == 0, -2.0, 0.3) for name in METRICS})
    slices = {"tail items": wide}
    old = replace(OLD, slices={"tail items": values(users=users)})
    assert found(replace(NEW, slices=slices), old) == ("PROMOTE", [])


def test_intervals_of_slices_are_corrected_for_their_number():
    def width(count: int) -> float:
        part = {f"s{n}": USERS[:80] for n in range(count)}
        old = replace(OLD, slices={name: values(users=users) for name, users in part.items()})
        new = replace(NEW, slices={name: turned(users=users) for name, users in part.items()})
        first = decide(new, old, RULES).slices[0]
        return first.high - first.low

    # t quantiles with 79 degrees of freedom at .975 and at 1 - .05 / 10 / 2.
    assert width(10) / width(1) == pytest.approx(2.88698 / 1.99045, abs=1e-3)


def test_without_an_incumbent():
    assert found(NEW, None) == ("PROMOTE", [])
    assert decide(NEW, None, RULES).reasons[0].rule == "no_incumbent"
    assert found(replace(NEW, leakage=("x",)), None) == ("SUSPICIOUS", ["leakage"])


def test_a_broken_incumbent_is_suspicious():
    broken = replace(OLD, users=values(base=0.0))
    verdict, rules = found(NEW, broken)
    assert (verdict, rules) == ("SUSPICIOUS", ["too_good", "too_good"])
    assert "rose from zero to" in decide(NEW, broken, RULES).reasons[0].says


def test_users_in_another_order_are_the_same():
    order = np.random.default_rng(1).permutation(USERS.size)
    mixed = UserValues(
        NEW.users.user_id[order], {name: v[order] for name, v in NEW.users.values.items()}
    )
    moved = replace(NEW, users=mixed, lists=NEW.lists[order])
    assert decide(moved, OLD, RULES).effects[0].low == pytest.approx(
        decide(NEW, OLD, RULES).effects[0].low, abs=1e-12
    )
    swapped = replace(moved, lists=OLD.lists[order])
    assert found(swapped)[1] == ["same_lists"]


def test_estimates_from_a_log():
    old = replace(OLD, estimates=(line("snips", 1.0), line("dr", 1.0)))

    def judged(*lines: EstimateLine):
        return found(replace(NEW, estimates=lines), old)

    assert judged(line("snips", 1.0), line("dr", 1.0)) == ("PROMOTE", [])
    assert judged(line("snips", 0.95)) == ("PROMOTE", [])  # within the margin
    assert judged(line("snips", 0.93)) == ("HOLD", ["value_drop"])
    assert judged(line("snips", 0.5, half=0.5)) == ("PROMOTE", [])  # not sure
    assert judged(line("snips", 0.93, verdict="weak")) == ("HOLD", ["value_drop"])
    assert judged(line("snips", 1.0, verdict="unusable")) == ("HOLD", ["value_unknown"])
    assert judged(line("snips", 1.0, verdict="")) == ("HOLD", ["value_unknown"])
    assert judged() == ("HOLD", ["value_unknown"])
    # A half-width of .01 is 1.96 standard errors: .02 apart are 3.9 of them, .01 are 1.96.
    assert judged(line("snips", 1.0), line("dr", 1.02)) == ("SUSPICIOUS", ["estimates_disagree"])
    assert judged(line("snips", 1.0), line("dr", 1.01)) == ("PROMOTE", [])
    assert judged(line("snips", 1.0), line("dr", 9.0, verdict="unusable")) == ("PROMOTE", [])
    # A log for the candidate alone says nothing of a fall, but still whether it can say anything.
    assert found(replace(NEW, estimates=(line("snips", 0.1),))) == ("PROMOTE", [])
    assert found(replace(NEW, estimates=(line("ips", 0.1, verdict="unusable"),)))[0] == "HOLD"


def test_gravest_first_and_the_rest_in_order():
    bad = replace(
        NEW, coverage=0.1, leakage=("x",), head_share=0.9, users=turned(-0.1), lists=OLD.lists
    )
    reasons = decide(bad, OLD, RULES).reasons
    assert [one.rule for one in reasons] == [
        "leakage",
        "same_lists",
        "relevance_drop",
        "relevance_drop",
        "coverage_drop",
        "head_share_rise",
    ]
    assert [one.verdict for one in reasons] == ["SUSPICIOUS"] * 2 + ["HOLD"] * 4
    assert reasons[4]._asdict() == {
        "rule": "coverage_drop",
        "verdict": "HOLD",
        "says": "The recommended share of the catalogue fell from 0.5 to 0.1; allowed is 0.4.",
        "value": 0.1,
        "bound": pytest.approx(0.4),
        "slice": "",
    }


WORSE = st.fixed_dictionaries(
    {},
    optional={
        "coverage": st.floats(0, 0.5),
        "head_share": st.floats(0.4, 1),
        "exposure_gap": st.floats(0.2, 1),
        "calibration_error": st.floats(0.01, 1),
        "latency_p99_ms": st.floats(20, 500),
        "leakage": st.just(("x",)),
        "data": st.just("other"),
        "lists": st.just(OLD.lists),
        "slices": st.just({}),
        "estimates": st.just((line("snips", 1.0, verdict="unusable"),)),
    },
)


@given(first=WORSE, more=WORSE)
def test_worse_evidence_never_upgrades_the_verdict(first, more):
    """Whatever is already wrong, one thing more does not make it better."""
    worst = {"coverage": min}
    both = dict(first)
    for name, value in more.items():
        pick = worst.get(name, max)
        number = isinstance(value, float)
        both[name] = pick(value, both[name]) if number and name in both else value
    before = found(replace(NEW, **first))[0]
    after = found(replace(NEW, **both))[0]
    assert GRAVITY.index(after) <= GRAVITY.index(before)


@given(shift=st.floats(-0.3, 0.05), fall=st.floats(0, 0.3))
def test_a_fall_of_relevance_never_upgrades_the_verdict(shift, fall):
    """Below the bound of what is too good, lower is never better."""
    before = found(replace(NEW, users=turned(shift)))[0]
    after = found(replace(NEW, users=turned(shift - fall)))[0]
    assert GRAVITY.index(after) <= GRAVITY.index(before)


@given(changes=WORSE, factor=st.floats(0.001, 1))
def test_tighter_bounds_never_upgrade_the_verdict(changes, factor):
    names = [
        "max_drop",
        "slice_margin",
        "max_coverage_drop",
        "max_head_share_rise",
        "max_exposure_gap_rise",
        "max_calibration_rise",
        "max_latency_rise",
        "max_gain",
        "max_same_lists",
    ]
    tight = RULES.but(**{name: factor * getattr(RULES, name) for name in names})
    before = decide(replace(NEW, **changes), OLD, RULES).verdict
    after = decide(replace(NEW, **changes), OLD, tight).verdict
    assert GRAVITY.index(after) <= GRAVITY.index(before)


@given(changes=WORSE)
def test_reasons_are_ordered_and_the_first_decides(changes):
    decision = decide(replace(NEW, **changes), OLD, RULES)
    order = [GRAVITY.index(one.verdict) for one in decision.reasons]
    assert order == sorted(order)
    assert decision.reasons[0].verdict == decision.verdict
    assert all(one.says.rstrip().endswith(".") for one in decision.reasons if one.rule != "leakage")


def test_what_is_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"gate.metrics must be measured .* old has no ndcg@5, it"):
        decide(replace(NEW, users=UserValues(USERS, {"ndcg@5": USERS.astype("U1") == "u"})), OLD,
               RULES.but(metrics=("ndcg@5",)))  # fmt: skip
    with pytest.raises(ValueError, match="user_id must hold every user once"):
        UserValues(np.array(["a", "a"]), {})
    with pytest.raises(ValueError, match=r"values\['x'\] must be one finite number a user"):
        UserValues(USERS, {"x": np.zeros(3)})
    with pytest.raises(ValueError, match="must be one finite number"):
        UserValues(USERS, {"x": np.full(200, np.nan)})


def test_every_bound_is_a_setting_with_a_reason():
    texts = rule_texts()
    assert list(GateRules.model_fields) == [text.name for text in texts]
    for text in texts:
        assert len(text.meaning) > 15
        assert len(text.why) > 15
    with pytest.raises(ValueError, match="each metric may appear once, got ndcg twice"):
        GateRules(metrics=("ndcg", "ndcg"))
    with pytest.raises(ValueError, match="max_drop"):
        GateRules(max_drop=-1)
