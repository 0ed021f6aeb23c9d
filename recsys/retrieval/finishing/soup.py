"""Checkpoint soups: the average of several trainings that began at the same weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SoupMember", "SoupResult", "average", "greedy_soup", "start_digest"]


@dataclass(frozen=True, eq=False)
class SoupMember:
    """One checkpoint that may go into a soup.

    Attributes:
        name: what it is called in the result.
        state: its tensors by name, both towers together.
        start: names the weights its training began from; `start_digest` makes one. Branches of
            one checkpoint share it, trainings from different initial weights do not.
    """

    name: str
    state: Mapping[str, Tensor]
    start: str


@dataclass(frozen=True, eq=False)
class SoupResult:
    """What `greedy_soup` made.

    Attributes:
        state: the tensors of the soup.
        kept: names of the members in it, the best one first.
        score: held-out score of the soup; never below the best member's.
        member_score: held-out score of every member alone.
    """

    state: dict[str, Tensor]
    kept: tuple[str, ...]
    score: float
    member_score: dict[str, float]


def start_digest(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 of the tensors a training starts from; the order of the names does not matter."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over ``states``, summed in float64.

    Rows that are zero in every state stay zero, so the padding rows of the tables do.

    Args:
        states: one or more sets of tensors with the same names, shapes and dtypes. Tensors that
            are not floating point (counters, masks) must be equal in all.

    Returns:
        New tensors of the dtypes of the first state.

    Raises:
        ValueError: ``states`` is empty or two of them do not fit together.

    Source: Wortsman et al., "Model soups", ICML 2022 (uniform soup).
    """
    if not states:
        raise ValueError("states must hold at least one state, got none")
    first = states[0]
    for place, state in enumerate(states):
        _check_same_names(first, state, place)
    return {name: _mean(name, [state[name] for state in states]) for name in first}


def greedy_soup(
    members: Sequence[SoupMember], evaluate: Callable[[Mapping[str, Tensor]], float]
) -> SoupResult:
    """Add members from the best to the worst, and keep each that raises the held-out score.

    The best member alone is the first soup, so the result is never worse on the held-out data.
    Averaging works because the members lie in one valley; two trainings from different initial
    weights do not, and their average is worse than either (measured: recall@20 -10%).

    Args:
        members: checkpoints of one common start; members of equal score are tried in this order.
        evaluate: held-out score of a state, higher is better. Not the data reported on.

    Raises:
        ValueError: no members, a name twice, different starts, tensors that do not fit together,
            or a score that is not finite.

    Source: Wortsman et al., "Model soups", ICML 2022, recipe 1 (greedy soup).
    """
    _check_members(members)

    def scored(name: str, state: Mapping[str, Tensor]) -> float:
        score = float(evaluate(state))
        if not math.isfinite(score):
            raise ValueError(f"the held-out score must be finite, got {score} for {name}")
        return score

    alone = {member.name: scored(repr(member.name), member.state) for member in members}
    order = sorted(members, key=lambda member: -alone[member.name])  # stable: ties as given
    kept, state, best = [order[0]], average([order[0].state]), alone[order[0].name]
    for member in order[1:]:
        tried = average([*(one.state for one in kept), member.state])
        score = scored(f"the soup with {member.name!r}", tried)
        if score > best:
            kept, state, best = [*kept, member], tried, score
    return SoupResult(state, tuple(member.name for member in kept), best, alone)


def _check_members(members: Sequence[SoupMember]) -> None:
    if not members:
        raise ValueError("members must hold at least one checkpoint, got none")
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        raise ValueError(f"members must have different names, got {names}")
    first = members[0]
    for member in members:
        if member.start != first.start:
            raise ValueError(
                f"members must share their starting point: {first.name!r} began at "
                f"{first.start!r}, {member.name!r} at {member.start!r}; averaging trainings from "
                "different initial weights destroys both, so branch them from one checkpoint"
            )


def _check_same_names(first: Mapping[str, Tensor], state: Mapping[str, Tensor], place: int) -> None:
    if set(state) != set(first):
        different = sorted(set(state) ^ set(first))
        raise ValueError(
            f"states must hold the same tensors: {different} are not in both state 0 and state "
            f"{place}"
        )


def _mean(name: str, values: Sequence[Tensor]) -> Tensor:
    first = values[0].detach()
    for value in values:
        if value.shape != first.shape or value.dtype != first.dtype:
            raise ValueError(
                f"{name} must have one shape and dtype in all states: got {tuple(first.shape)} "
                f"{first.dtype} and {tuple(value.shape)} {value.dtype}"
            )
    if not first.is_floating_point():
        if not all(torch.equal(value, first) for value in values):
            raise ValueError(
                f"{name} is {first.dtype} and must be equal in all states: it cannot be averaged"
            )
        return first.clone()
    total = torch.zeros_like(first, dtype=torch.float64)
    for value in values:
        total += value.detach()
    return (total / len(values)).to(first.dtype)
