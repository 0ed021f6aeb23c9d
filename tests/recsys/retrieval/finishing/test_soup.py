"""Soups of branches that share a start, and why nothing else is averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from recsys.retrieval.finishing.soup import SoupMember, average, greedy_soup, start_digest

USERS, ITEMS, DIM = 30, 40, 8


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TRUTH = {"user": drawn(USERS + 1, DIM, seed=0), "item": drawn(ITEMS + 1, DIM, seed=1)}
for _table in TRUTH.values():
    _table[0] = 0.0
TRUE_SCORE = (TRUTH["user"] @ TRUTH["item"].T)[1:, 1:]
TRUE_TOP = TRUE_SCORE.topk(10, dim=1).indices


def recall(state: Mapping[str, Tensor]) -> float:
    """Share of each user's true ten best items among the ten best by ``state``."""
    score = (state["user"] @ state["item"].T)[1:, 1:]
    found = score.topk(10, dim=1).indices
    return float((found[:, :, None] == TRUE_TOP[:, None, :]).any(dim=2).float().mean())


def branch(name: str, seed: int, *, noise: float = 0.5, start: str = "epoch 6") -> SoupMember:
    """The truth with noise of its own, as a short training from a good checkpoint leaves it."""
    state = {}
    for place, (table, value) in enumerate(TRUTH.items()):
        shift = noise * drawn(*value.shape, seed=100 + 10 * seed + place)
        shift[0] = 0.0
        state[table] = value + shift
    return SoupMember(name, state, start)


BRANCHES = [branch(f"seed {seed}", seed) for seed in range(4)]


def test_a_soup_beats_the_branches_that_share_a_start() -> None:
    alone = [recall(member.state) for member in BRANCHES]
    soup = greedy_soup(BRANCHES, recall)
    assert soup.member_score == dict(zip([m.name for m in BRANCHES], alone, strict=True))
    assert soup.score == recall(soup.state)
    assert soup.score > 1.03 * max(alone)
    assert len(soup.kept) >= 2
    assert soup.member_score[soup.kept[0]] == max(alone)


def test_the_average_of_two_initialisations_collapses_and_is_refused() -> None:
    rotation = torch.linalg.qr(drawn(DIM, DIM, seed=7)).Q
    same = branch("a", 0, noise=0.0)
    turned = SoupMember("b", {n: v @ rotation for n, v in TRUTH.items()}, "other weights")
    assert recall(turned.state) == pytest.approx(1.0)  # as good alone
    assert recall(average([same.state, turned.state])) < 0.9
    with pytest.raises(ValueError, match=r"'a' began at 'epoch 6', 'b' at 'other weights'"):
        greedy_soup([same, turned], recall)
    # Without the check, greedy keeps one of them and hides that nothing was gained.
    pretended = SoupMember("b", turned.state, same.start)
    assert greedy_soup([same, pretended], recall).kept == ("a",)


def test_a_member_that_does_not_help_is_left_out() -> None:
    bad = branch("bad", 9, noise=30.0)
    soup = greedy_soup([bad, *BRANCHES], recall)
    assert "bad" not in soup.kept
    assert soup.score == greedy_soup(BRANCHES, recall).score
    twin = SoupMember("twin", BRANCHES[0].state, BRANCHES[0].start)
    assert greedy_soup([BRANCHES[0], twin], recall).kept == ("seed 0",)  # equal is no gain


def test_members_are_tried_from_the_best_down_and_ties_as_given() -> None:
    def at(value: float) -> dict[str, Tensor]:
        return {"w": torch.tensor([value])}

    seen: list[float] = []

    def near_zero(state: Mapping[str, Tensor]) -> float:
        seen.append(float(state["w"]))
        return -abs(seen[-1])

    members = [SoupMember(n, at(v), "s") for n, v in (("a", 4.0), ("b", -2.0), ("c", 2.0))]
    soup = greedy_soup(members, near_zero)
    # b and c tie and b came first; b with c is 0; with a it is 4 / 3.
    assert seen == pytest.approx([4.0, -2.0, 2.0, 0.0, 4 / 3])
    assert soup.kept == ("b", "c")
    assert soup.score == 0.0
    assert soup.state["w"].tolist() == [0.0]


def test_the_same_members_give_the_same_soup() -> None:
    one, two = greedy_soup(BRANCHES, recall), greedy_soup(list(BRANCHES), recall)
    assert one.kept == two.kept
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_average_is_the_mean_and_keeps_padding_types_and_counters() -> None:
    states = [
        {"t": torch.tensor([[0.0, 0.0], [1.0, 5.0]]), "steps": torch.tensor(3)},
        {"t": torch.tensor([[0.0, 0.0], [2.0, -1.0]]), "steps": torch.tensor(3)},
    ]
    mean = average(states)
    assert mean["t"].tolist() == [[0.0, 0.0], [1.5, 2.0]]
    assert mean["steps"].tolist() == 3
    assert mean["t"].dtype == torch.float32
    mean["t"][1] = 9.0
    mean["steps"] += 1
    assert states[0]["t"][1].tolist() == [1.0, 5.0]
    assert int(states[0]["steps"]) == 3
    half = average(
        [{"t": value.to(torch.bfloat16)} for value in (drawn(3, 3, seed=s) for s in (1, 2))]
    )
    assert half["t"].dtype == torch.bfloat16


def test_averaging_a_state_with_itself_changes_no_bit() -> None:
    state = BRANCHES[0].state
    for times in (1, 2, 3, 7):
        mean = average([state] * times)
        assert all(torch.equal(mean[name], state[name]) for name in state)


def test_start_digest_tells_starts_apart() -> None:
    a = {"x": drawn(3, 2, seed=0), "n": torch.tensor(1)}
    assert start_digest(a) == start_digest({"n": torch.tensor(1), "x": a["x"].clone()})
    other = [
        {**a, "x": drawn(3, 2, seed=1)},
        {**a, "x": a["x"].T},
        {**a, "x": a["x"].double()},
        {"y": a["x"], "n": a["n"]},
        {**a, "n": torch.tensor(2)},
    ]
    assert len({start_digest(state) for state in [a, *other]}) == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average([]), "states must hold at least one"),
        (lambda: average([{"a": torch.ones(1)}, {"b": torch.ones(1)}]), r"\['a', 'b'\] are not in"),
        (lambda: average([{"a": torch.ones(1)}, {"a": torch.ones(2)}]), "a must have one shape"),
        (
            lambda: average([{"a": torch.ones(1)}, {"a": torch.ones(1).double()}]),
            "a must have one shape and dtype",
        ),
        (
            lambda: average([{"a": torch.tensor(1)}, {"a": torch.tensor(2)}]),
            "a is torch.int64 and must be equal",
        ),
        (lambda: greedy_soup([], recall), "members must hold at least one"),
        (lambda: greedy_soup([BRANCHES[0]] * 2, recall), "different names"),
        (lambda: greedy_soup(BRANCHES, lambda state: float("nan")), "finite, got nan for 'seed 0'"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
