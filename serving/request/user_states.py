"""What the store knows of a user, in one round trip: the list of a generation, and the session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from serving.connection.clients import is_other_type, store_errors
from serving.errors import CorruptValue, ServingError, StageUnavailable
from serving.events.sessions import SessionEvent, Sessions, readable_session
from serving.store import GenerationStore
from serving.store.candidate_codec import CandidateList, decode_candidates

__all__ = ["UserState", "read_user_states"]


class UserState(NamedTuple):
    """What the store knows of one user.

    Attributes:
        candidates: the list of the generation; None: there is none.
        session: what the user did just now, oldest first.
        problem: why a part of it could not be read and is left out; None: nothing is.
    """

    candidates: CandidateList | None
    session: Sequence[SessionEvent] = ()
    problem: ServingError | None = None


def read_user_states(
    store: GenerationStore,
    sessions: Sessions | None,
    generation: str | None,
    user_ids: Sequence[str],
) -> list[UserState]:
    """States of users in the order asked; a damaged value hurts its own user alone.

    So does a dead node of a cluster hurt its own users.

    Args:
        store: where the lists are.
        sessions: where the sessions are, in the same store. None: nobody has one.
        generation: whose lists. None: no lists.
        user_ids: any number of them.

    Raises:
        StageUnavailable: the store does not answer.
    """
    if not user_ids or (generation is None and sessions is None):
        return [UserState(None) for _ in user_ids]
    with store_errors("read users"), store.client.pipeline(transaction=False) as pipeline:
        if generation is not None:
            for user_id in user_ids:
                pipeline.get(store.keys.user(generation, user_id))
        if sessions is not None:
            sessions.queue_read(pipeline, user_ids)
        replies = [_readable(reply) for reply in pipeline.execute(raise_on_error=False)]
    lists = replies[: len(user_ids)] if generation is not None else [None] * len(user_ids)
    pasts = replies[-len(user_ids) :] if sessions is not None else [()] * len(user_ids)
    return [_state(*pair) for pair in zip(lists, pasts, strict=True)]


def _readable(reply: Any) -> Any:
    """A reply, or the error of a value or node that hurts its own user; raises any other."""
    if is_other_type(reply):
        return CorruptValue(f"a value of a user has another type: {reply}")
    if isinstance(reply, redis.RedisError):
        try:
            with store_errors("read a user"):
                raise reply
        except StageUnavailable as error:
            if error.shard is None:
                raise
            return error
    return reply


def _state(value: Any, members: Any) -> UserState:
    candidates: CandidateList | None = None
    session: list[SessionEvent] = []
    problem: ServingError | None = None
    if isinstance(value, ServingError):
        problem = value
    elif value is not None:
        try:
            candidates = decode_candidates(value)
        except CorruptValue as error:
            problem = error
    if isinstance(members, ServingError):
        problem = members
    else:
        session, unreadable = readable_session(members)
        problem = unreadable or problem
    return UserState(candidates, session, problem)
