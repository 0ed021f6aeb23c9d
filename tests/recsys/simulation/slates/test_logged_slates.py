"""From a slate that serving draws, through its two logs, to an estimate of another policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.ranking import Drawn, epsilon_greedy, plackett_luce, uniform_shuffle
from recsys.simulation.slates.comparison import compare_slates
from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import EpsilonGreedyPolicy, PlackettLucePolicy, SlatePolicy
from recsys.simulation.slates.probabilities import enumerate_slates, place_probabilities
from recsys.simulation.slates.pseudo_inverse import pseudo_inverse
from serving.impressions import join_feedback, read_feedback, read_impressions
from serving.impressions.log import FeedbackLog, ImpressionLog
from serving.messages import Event, Recommendations, RecommendedItem, RecommendRequest

KINDS, K, L, TOP, REQUESTS = 4, 6, 3, 5, 2_500
PAGE = (Path(__file__).parents[4] / "docs" / "ope.md").read_text("utf-8")
NOW = 1_714_564_800.0
RNG = np.random.default_rng(3)
LIKED = RNG.uniform(0.05, 0.6, size=(KINDS, K))
SCORE = (LIKED + RNG.normal(0, 0.3, size=(KINDS, K))).astype(np.float32)  # of the ranker that logs
SHOWN = np.argsort(np.argsort(-SCORE, axis=1), axis=1) < TOP
KNOWN = np.where(SHOWN, LIKED, -np.inf)  # of the ranker that is judged
DRAWS: dict[str, Callable[[np.ndarray, np.random.Generator], Drawn]] = {
    "shuffle": lambda score, rng: uniform_shuffle(score, L, rng, top=TOP),
    "epsilon": lambda score, rng: epsilon_greedy(score, L, rng, epsilon=0.8, top=TOP),
    "softmax": lambda score, rng: plackett_luce(score, L, rng, temperature=0.5, top=TOP),
}
POLICIES: dict[str, Callable[[np.ndarray], SlatePolicy]] = {
    "shuffle": lambda score: EpsilonGreedyPolicy(score, L, TOP, 1.0),
    "epsilon": lambda score: EpsilonGreedyPolicy(score, L, TOP, 0.8),
    "softmax": lambda score: PlackettLucePolicy(score, L, TOP, 0.5),
}


def target(kind: np.ndarray) -> SlatePolicy:
    """A ranker that knows what is liked among the items that the other one shows."""
    return EpsilonGreedyPolicy(KNOWN[kind], L, epsilon=0.5)


def clicked(users: str, liked: np.ndarray, rng: np.random.Generator) -> list[bool]:
    """Of a user who leaves after a click, or of one who looks at every place alike."""
    clicks = rng.random(L) < liked
    if users == "cascade" and clicks.any():
        clicks[np.argmax(clicks) + 1 :] = False
    return clicks.tolist()


def true_value(users: str) -> float:
    slates, chance = enumerate_slates(target(np.arange(KINDS)))
    liked = LIKED[:, slates]  # [kinds, S, L]
    value = 1 - (1 - liked).prod(axis=2) if users == "cascade" else liked.sum(axis=2)
    return float((chance * value).sum(axis=1).mean())


def serve(directory: Path, name: str, users: str) -> None:
    """Slates that go out, and the clicks that come back, in the logs of the service."""
    rng = np.random.default_rng(sum(map(ord, name + users)))
    impressions, feedback = ImpressionLog(directory), FeedbackLog(directory)
    for number in range(REQUESTS):
        kind, request_id, user_id = number % KINDS, f"r{number:05d}", f"u{number:05d}"
        drawn = DRAWS[name](SCORE[kind], rng)
        items = tuple(
            RecommendedItem(f"i{item}", float(SCORE[kind, item]), "two_tower", float(propensity))
            for item, propensity in zip(*drawn, strict=True)
        )
        answer = Recommendations(items, "live", "g1", request_id, policy=name)
        assert impressions.record(RecommendRequest(user_id, k=L), answer, NOW + number)
        clicks = clicked(users, LIKED[kind, drawn.position], rng)
        events = [
            Event(user_id, item.item_id, NOW + number + 5, request_id=request_id)
            for item, click in zip(items, clicks, strict=True)
            if click
        ]
        assert feedback.record(events)
    impressions.close()
    feedback.close()


@pytest.mark.parametrize("users", ["independent", "cascade"])
@pytest.mark.parametrize("name", DRAWS)
def test_what_is_served_and_logged_tells_the_value_of_another_policy(
    tmp_path: Path, name: str, users: str
) -> None:
    serve(tmp_path, name, users)
    shown = join_feedback(read_impressions(tmp_path), read_feedback(tmp_path), window_s=60)
    feedback = SlateFeedback.from_impressions(shown)
    assert feedback.action.shape == (REQUESTS, L)
    assert feedback.request_ids is not None
    assert feedback.item_ids is not None
    kind = np.array([int(one[1:]) % KINDS for one in feedback.request_ids])
    assert feedback.item_ids.tolist() == [f"i{item}" for item in range(K)]  # all were shown

    logging = POLICIES[name](SCORE[kind])
    expected = place_probabilities(logging, feedback.action)
    np.testing.assert_allclose(feedback.propensity, expected, rtol=1e-6)  # the log is float32
    rng = np.random.default_rng(0)
    found = compare_slates(feedback, target(kind), logging, rng=rng, cell=kind)
    assert not found.problems
    truth = true_value(users)
    for one in found.estimates:
        if one.name == "independent" and users == "cascade":
            continue
        assert abs(one.value - truth) < 3 * one.standard_error, one
        assert one.standard_error < 0.25 * truth
    if users == "independent":
        additive = pseudo_inverse(feedback, target(kind), logging)
        assert abs(additive.value - truth) < 3 * additive.standard_error
    mean = feedback.reward.sum(axis=1).mean()
    assert abs(found.estimates[0].value - mean) > 3 * found.estimates[0].standard_error


def test_the_lines_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tmp_path / "logs", "softmax", "independent")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    kind = np.arange(REQUESTS) % KINDS
    found = {"logged_scores": SCORE[kind], "new_scores": KNOWN[kind]}
    code = code.replace("top=20", f"top={TOP}").replace("epsilon=0.1", "epsilon=0.5")
    exec(compile(code, "docs/ope.md", "exec"), found)
    printed = capsys.readouterr().out
    assert printed.startswith("independent 1.")
    assert "reward interaction 1." in printed
    assert "mean weight" not in printed
    # Items that the log never shows: half the value is missing, and that is said.
    found["new_scores"] = LIKED[kind]
    exec(compile(code, "docs/ope.md", "exec"), found)
    assert "the mean weight of the slates is 0." in capsys.readouterr().out
