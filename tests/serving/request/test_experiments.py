from __future__ import annotations

import json
import re
import threading
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import redis
from scipy import stats
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.config.experiment_design import Arm, ArmSettings, Experiment, lay_out
from serving.assembly import open_experiments, open_feedback_log, open_impression_log
from serving.cli import app
from serving.impressions import read_feedback, read_impressions
from serving.messages import Event, Recommendations, RecommendedItem, RecommendRequest
from serving.request.experiments import Experiments, KillSwitch
from serving.request.slate_rule import draw_slate
from serving.store.keys import Keys

USERS = [f"user-{number}" for number in range(20_000)]
ROOT = Path(__file__).resolve().parents[3]
A_B = (Arm("a"), Arm("b"))
NOW = 1_700_000_000.0


def arms_of(experiments: Experiments, name: str, users: list[str] = USERS) -> dict[str, str]:
    found = {user: experiments.assign(user, NOW).arms.get(name) for user in users}
    return {user: arm for user, arm in found.items() if arm is not None}


# -- who is in which arm ------------------------------------------------------------------------


def test_arms_are_as_large_as_their_weights() -> None:
    arms = (Arm("a", 1), Arm("b", 2), Arm("c", 5))
    counts = Counter(arms_of(Experiments([Experiment("x", arms)]), "x").values())
    assert sum(counts.values()) == len(USERS)
    expected = [len(USERS) * weight / 8 for weight in (1, 2, 5)]
    assert stats.chisquare([counts["a"], counts["b"], counts["c"]], expected).pvalue > 0.001


def test_the_assignment_is_the_same_everywhere() -> None:
    # Pinned: a release that moves users from arm to arm ruins experiments that run.
    one = Experiments([Experiment("x", A_B, traffic=0.5)])
    found = "".join(one.assign(user, NOW).arms.get("x", "-") for user in USERS[:40])
    assert found == "aa----b-a--a-a---ab--b----aaab-----b---a"
    assert one.assign("ü\ud800", NOW) == one.assign("ü\ud800", NOW + 1)


def test_experiments_of_different_layers_are_independent() -> None:
    both = Experiments([Experiment("x", A_B), Experiment("y", (Arm("c", 1), Arm("d", 3)))])
    joint = Counter(tuple(both.assign(user, NOW).arms.values()) for user in USERS)
    observed = [[joint["a", "c"], joint["a", "d"]], [joint["b", "c"], joint["b", "d"]]]
    assert sum(map(sum, observed)) == len(USERS)
    assert stats.chi2_contingency(observed).pvalue > 0.001


def test_the_arm_does_not_depend_on_being_let_in() -> None:
    small = arms_of(Experiments([Experiment("x", A_B, traffic=0.3)]), "x")
    counts = Counter(small.values())
    assert stats.binomtest(counts["a"], len(small), 0.5).pvalue > 0.001
    assert stats.binomtest(len(small), len(USERS), 0.3).pvalue > 0.001


def test_more_traffic_adds_users_and_moves_nobody() -> None:
    earlier: dict[str, str] = {}
    for traffic in (0.0, 0.01, 0.2, 0.5, 1.0):
        found = arms_of(Experiments([Experiment("x", A_B, traffic=traffic)]), "x")
        assert earlier.items() <= found.items()
        assert len(found) >= len(earlier)
        earlier = found
    assert len(earlier) == len(USERS)


def test_another_salt_assigns_anew() -> None:
    before = arms_of(Experiments([Experiment("x", A_B)]), "x")
    after = arms_of(Experiments([Experiment("x", A_B, salt="again")]), "x")
    moved = sum(before[user] != after[user] for user in USERS)
    assert stats.binomtest(moved, len(USERS), 0.5).pvalue > 0.001


def test_a_layer_holds_each_user_once() -> None:
    shared = [
        Experiment("x", A_B, traffic=0.25, layer="page"),
        Experiment("y", A_B, traffic=0.5, layer="page"),
        Experiment("z", A_B, traffic=0.25, layer="page"),
        Experiment("free", A_B),
    ]
    one = Experiments(shared)
    taken = Counter(frozenset(one.assign(user, NOW).arms) - {"free"} for user in USERS)
    assert set(taken) == {frozenset("x"), frozenset("y"), frozenset("z")}
    shares = [taken[frozenset(name)] for name in "xyz"]
    assert stats.chisquare(shares, [5000, 10_000, 5000]).pvalue > 0.001


def test_with_offsets_traffic_grows_beside_another_experiment() -> None:
    def layer(traffic: float) -> Experiments:
        return Experiments(
            [
                Experiment("x", A_B, traffic=traffic, layer="page", offset=0.0),
                Experiment("y", A_B, traffic=0.3, layer="page", offset=0.7),
            ]
        )

    small, large = layer(0.1), layer(0.6)
    assert arms_of(small, "y") == arms_of(large, "y")
    assert arms_of(small, "x").items() < arms_of(large, "x").items()


def test_start_and_end_are_moments_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    one = Experiments(
        [
            Experiment(
                "x",
                (Arm("a"),),
                start=datetime(2024, 5, 1, 12),
                end=datetime(2024, 5, 1, 15, tzinfo=east),
            )
        ]
    )
    noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc).timestamp()  # noqa: UP017
    states = {
        moment: (one.states(moment)[0].state, dict(one.assign("u", moment).arms))
        for moment in (noon - 0.001, noon, noon + 3599.9, noon + 3600)
    }
    assert list(states.values()) == [
        ("not started", {}),
        ("running", {"x": "a"}),
        ("running", {"x": "a"}),
        ("ended", {}),
    ]


def test_nobody_takes_part_in_nothing() -> None:
    one = Experiments([Experiment("x", A_B)])
    assert one.assign(None, NOW).arms == {}
    assert one.assign(None, NOW).settings == ArmSettings()
    assert Experiments([]).assign("u", NOW).arms == {}


def test_settings_of_several_layers_come_together() -> None:
    one = Experiments(
        [
            Experiment("order", (Arm("soft", 1, ArmSettings(ranker="softmax", top=5)),)),
            Experiment("model", (Arm("new", 1, ArmSettings(generation="g2")),)),
        ]
    )
    given = one.assign("u", NOW)
    assert given.arms == {"order": "soft", "model": "new"}
    assert given.settings == ArmSettings(ranker="softmax", top=5, generation="g2")
    assert given.settings.policy == "softmax"
    assert ArmSettings(diversity=0.5).policy == ArmSettings(ranker="default").policy == "ranker"


# -- what does not go together ------------------------------------------------------------------


def with_settings(name: str, layer: str | None = None, **settings: object) -> Experiment:
    return Experiment(name, (Arm("a"), Arm("b", 1, ArmSettings(**settings))), layer=layer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        (
            lambda: [with_settings("x", diversity=0.1), with_settings("y", diversity=0.2)],
            "experiments 'x' and 'y' can meet in one user .* arms 'b' and 'b': both set diversity; "
            "put them in one layer",
        ),
        (
            lambda: [with_settings("x", ranker="shuffle"), with_settings("y", diversity=0.2)],
            "diversity and slate_pool must stand beside ranker = 'default', got 'shuffle'",
        ),
        (
            lambda: [with_settings("x", ranker="noop"), with_settings("y", rerank="always")],
            "rerank must not stand beside ranker = 'noop'",
        ),
        (
            lambda: [Experiment("x", A_B, salt="s"), Experiment("y", A_B, salt="s")],
            "'x' and 'y' must have different salts.* both have 's'",
        ),
        (lambda: [Experiment("x", A_B)] * 2, "different names, got 'x' twice"),
        (
            lambda: [
                Experiment("x", A_B, traffic=0.6, layer="l"),
                Experiment("y", A_B, traffic=0.6, layer="l"),
            ],
            "'y' must fit into its layer 'l': it begins at 0.6 and takes 0.6",
        ),
        (
            lambda: [
                Experiment("x", A_B, traffic=0.6, layer="l"),
                Experiment("y", A_B, traffic=0.1, layer="l", offset=0.5),
            ],
            "must not take the same part of layer 'l'; give the second an offset of 0.6 or more",
        ),
        (lambda: [Experiment("x", ())], "'x' must have at least one arm"),
        (lambda: [Experiment("x", (Arm("a"), Arm("a")))], "different names, got a, a"),
        (lambda: [Experiment("x", (Arm("a", 0),))], "weights must be > 0, got 0"),
        (lambda: [Experiment("x", A_B, traffic=1.1)], r"traffic must be in 0\.\.1, got 1\.1"),
        (lambda: [Experiment("x", A_B, offset=0.5)], r"offset 0\.5 needs a layer"),
        (lambda: [Experiment("x", A_B, layer="l", offset=2)], r"offset must be in 0\.\.1, got 2"),
        (
            lambda: [Experiment("x", A_B, start=datetime(2024, 1, 2), end=datetime(2024, 1, 2))],
            "start 2024-01-02 00:00:00 must be before end",
        ),
        (lambda: [with_settings("x", ranker="best")], "ranker must be one of default, noop"),
        (lambda: [with_settings("x", epsilon=0.1)], "epsilon must stand beside ranker = 'epsilon'"),
        (lambda: [with_settings("x", ranker="epsilon", epsilon=2)], "epsilon must be in 0..1"),
        (lambda: [with_settings("x", ranker="softmax", temperature=0)], "temperature must be > 0"),
        (lambda: [with_settings("x", ranker="shuffle", top=0)], "top must be >= 1, got 0"),
        (lambda: [with_settings("x", slate_pool=0)], "slate_pool must be >= 1, got 0"),
        (lambda: [with_settings("x", diversity=2)], "diversity must be in 0..1, got 2"),
    ],
)
def test_what_does_not_go_together_is_refused(experiments: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lay_out(experiments())  # type: ignore[operator]


def test_experiments_that_never_meet_may_change_the_same() -> None:
    may = datetime(2024, 5, 1)
    early = Experiment("x", (Arm("b", 1, ArmSettings(diversity=0.1)),), end=may)
    late = Experiment("y", (Arm("b", 1, ArmSettings(diversity=0.2)),), start=may)
    assert [span.first for span in lay_out([early, late])] == [0, 0]
    lay_out([with_settings("x", "l", diversity=0.1)])
    halves = [
        Experiment("x", (Arm("b", 1, ArmSettings(diversity=0.1)),), traffic=0.5, layer="l"),
        Experiment("y", (Arm("b", 1, ArmSettings(diversity=0.2)),), traffic=0.5, layer="l"),
    ]
    assert [(span.first, span.stop) for span in lay_out(halves)] == [(0, 5000), (5000, 10_000)]


# -- the kill switch ----------------------------------------------------------------------------


class Store:
    """A hash that can be away."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.away = False
        self.reads = 0

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        self.reads += 1
        if self.away:
            raise redis.ConnectionError("refused")
        return dict(self.values)


def test_the_switch_is_read_once_a_ttl_and_remembered_while_the_store_is_away() -> None:
    store, clock = Store(), [0.0]
    switch = KillSwitch(store, "k", ttl_s=1.0, clock=lambda: clock[0])  # type: ignore[arg-type]
    one = Experiments([Experiment("x", (Arm("a"),))], stopped=switch.stopped)
    store.away = True
    assert one.assign("u", NOW).arms == {}, "nothing runs before the switches were read"
    assert one.states(NOW)[0].state == "unknown"
    store.away = False
    clock[0] = 2.5
    assert one.assign("u", NOW).arms == {"x": "a"}
    store.values[b"x"] = b"off"
    store.values[b"gone"] = b"off"
    reads = store.reads
    for _ in range(10):
        assert one.assign("u", NOW).arms == {"x": "a"}, "answered from memory"
    assert store.reads == reads
    clock[0] += 1.0
    assert one.assign("u", NOW).arms == {}
    assert one.states(NOW)[0].state == "stopped"
    store.away = True
    for _ in range(200):
        clock[0] += 1.0
        assert one.assign("u", NOW).arms == {}, "the last known state holds"
    assert store.reads < reads + 15, "a store that is away is left alone"
    store.away, store.values[b"x"] = False, b"on"
    clock[0] += 30.0
    assert one.assign("u", NOW).arms == {"x": "a"}


def test_one_thread_asks_and_the_others_do_not_wait() -> None:
    asked, let_go = threading.Event(), threading.Event()

    def hgetall(_: str) -> dict[bytes, bytes]:
        asked.set()
        assert let_go.wait(10)
        return {}

    switch = KillSwitch(SimpleNamespace(hgetall=hgetall), "k")  # type: ignore[arg-type]
    asking = threading.Thread(target=switch.stopped)
    asking.start()
    assert asked.wait(10)
    assert switch.stopped() is None
    let_go.set()
    asking.join()
    assert switch.stopped() == frozenset()


def test_a_ttl_out_of_range() -> None:
    with pytest.raises(ValueError, match="ttl_s must be > 0 seconds, got 0"):
        KillSwitch(Store(), "k", ttl_s=0)  # type: ignore[arg-type]


def test_a_real_store(client: redis.Redis, store: object) -> None:
    keys: Keys = store.keys  # type: ignore[attr-defined]
    switch = KillSwitch(client, keys.experiments, ttl_s=1e-9)
    assert switch.stopped() == frozenset()
    switch.stop("x")
    switch.stop("y")
    switch.start("x")
    assert switch.stopped() == {"y"}
    assert client.hgetall(keys.experiments) == {b"x": b"on", b"y": b"off"}


# -- drawing ------------------------------------------------------------------------------------


def test_an_arm_draws_with_its_settings() -> None:
    score = np.arange(40.0)

    def propensity(**settings: object) -> list[float]:
        arm = ArmSettings(**settings)  # type: ignore[arg-type]
        return draw_slate(arm, score, 3, np.random.default_rng(0)).propensity.tolist()

    assert propensity(ranker="shuffle") == [1 / 20, 1 / 19, 1 / 18]
    assert propensity(ranker="shuffle", top=4) == [1 / 4, 1 / 3, 1 / 2]
    assert propensity(ranker="epsilon", epsilon=0.0) == [1.0] * 3
    assert propensity(ranker="epsilon", epsilon=1.0, top=2) == [0.5, 1.0, 1.0]
    np.testing.assert_allclose(
        propensity(ranker="softmax", temperature=1e9, top=3), [1 / 3, 1 / 2, 1]
    )
    assert propensity(ranker="softmax") != propensity(ranker="softmax", temperature=5.0)
    with pytest.raises(ValueError, match="ranker must be one that draws, got 'noop'"):
        propensity(ranker="noop")


@pytest.mark.parametrize("ranker", ["shuffle", "epsilon", "softmax"])
def test_a_longer_slate_of_the_same_seed_begins_like_the_shorter(ranker: str) -> None:
    score = np.random.default_rng(5).normal(size=50)
    arm = ArmSettings(ranker=ranker, top=30)  # type: ignore[arg-type]
    for seed in range(20):
        first = draw_slate(arm, score, 10, np.random.default_rng(seed))
        both = draw_slate(arm, score, 40, np.random.default_rng(seed))
        assert both.position[:10].tolist() == first.position.tolist()
        assert both.propensity[:10].tolist() == first.propensity.tolist()


# -- configuration and verbs --------------------------------------------------------------------

TOML = """
[data]
events = "events.parquet"
items = "items.parquet"

[impressions]
enabled = true
rotate_minutes = 5
keep_days = 30

[[experiments]]
name = "order"
traffic = 0.2
start = 2024-05-01T12:00:00Z
arms = [
    {name = "control", weight = 2},
    {name = "soft", ranker = "softmax", temperature = 0.5},
]

[[experiments]]
name = "pool"
arms = [{name = "wide", generation = "g2"}]
"""


def test_a_configuration_becomes_logs_and_experiments(tmp_path: Path, client: redis.Redis) -> None:
    (tmp_path / "recsys.toml").write_text(TOML)
    config = load_config(tmp_path / "recsys.toml")
    shown, done = open_impression_log(config), open_feedback_log(config)
    assert shown is not None
    assert done is not None
    slate = Recommendations((RecommendedItem("i", 1.0, "popularity"),), "cache", "g", "r")
    shown.record(RecommendRequest("u"), slate, NOW)
    done.record([Event("u", "i", NOW)])
    shown.close()
    done.close()
    assert read_impressions(tmp_path / "artifacts" / "impressions").collect().height == 1
    assert read_feedback(tmp_path / "artifacts" / "feedback").collect().height == 1
    experiments, _ = open_experiments(config, client)
    order, pool = experiments.states(NOW)
    assert (order.traffic, dict(order.arms)) == (0.2, {"control": 2 / 3, "soft": 1 / 3})
    assert (pool.state, order.state) == ("running", "not started")
    off = config.model_copy(
        update={"impressions": config.impressions.model_copy(update={"enabled": False})}
    )
    assert open_impression_log(off) is None
    assert open_feedback_log(off) is None


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("traffic = 0.2", "traffic = 2.0", "experiments.0.traffic must be <= 1"),
        ("traffic = 0.2", "trafic = 0.2", "'experiments.0.trafic'; did you mean 'traffic'?"),
        ('"softmax"', '"softmx"', "did you mean 'softmax'?"),
        ('"softmax"', '"noop"', "temperature must stand beside ranker = 'softmax', got 'noop'"),
        ('name = "pool"', 'name = "order"', "different names, got 'order' twice"),
        ('generation = "g2"', 'ranker = "noop"', "'soft' and 'wide': both set ranker"),
        ("keep_days = 30", "keep_days = 0", "impressions.keep_days must be > 0, got 0"),
    ],
)
def test_a_refused_experiment(tmp_path: Path, wrong: str, right: str, message: str) -> None:
    assert TOML.count(wrong) == 1
    (tmp_path / "recsys.toml").write_text(TOML.replace(wrong, right))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_config(tmp_path / "recsys.toml")
    assert message in str(caught.value)


def test_experiments_are_no_part_of_a_models_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "recsys.toml"
    path.write_text(TOML)
    config = load_config(path)
    path.write_text(TOML.partition("[impressions]")[0])
    assert load_config(path).fingerprint() == config.fingerprint()
    assert config.as_used()["impressions"]["directory"] is None
    path.write_text(TOML.replace("enabled = true", 'enabled = true\ndirectory = "logs/shown"'))
    config = load_config(path)
    assert config.as_used()["impressions"]["directory"] == "logs/shown"
    assert config.impressions.directories(config.output.directory) == (
        tmp_path / "logs" / "shown",
        tmp_path / "logs" / "feedback",
    )
    assert config.as_used()["experiments"][0]["arms"][1]["temperature"] == 0.5


def test_the_verbs(tmp_path: Path, redis_server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recsys.toml").write_text(TOML + f'\n[store]\nnamespace = "{tmp_path.name}"\n')
    monkeypatch.setenv("RECSYS_STORE_URL", redis_server_url)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(
            app, ["experiments", *words, "--config", str(tmp_path / "recsys.toml")]
        )
        return done.exit_code, done.output

    assert run("stop", "pool") == (0, "experiment pool is switched off\n")
    code, text = run("list")
    assert code == 0
    assert "stopped" in text.splitlines()[2]
    assert "control 67%, soft 33%" in text
    assert run("start", "pool", "--json")[0] == 0
    states = json.loads(run("list", "--json")[1])["experiments"]
    assert [one["state"] for one in states] == ["running", "running"]
    code, text = run("stop", "poool")
    assert code == 2
    assert "unknown experiment 'poool'; known: order, pool; did you mean 'pool'?" in text


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "recsys.toml").write_text(TOML.partition("[impressions]")[0] + "\n".join(blocks))
    config = load_config(tmp_path / "recsys.toml")
    assert config.impressions.enabled
    assert [one.name for one in config.experiments] == ["order", "model"]
