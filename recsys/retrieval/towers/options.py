"""The shape of the towers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.settings import Closed01, Count, Natural, Searched, Settings, Share

__all__ = ["Pooling", "Score", "TowerOptions"]

Pooling = Literal["recency", "attention", "sequence", "none"]
Score = Literal["cosine", "dot"]
HalfLife = Annotated[float, Field(gt=0, allow_inf_nan=True)]


class TowerOptions(Settings):
    """The shape of the towers.

    Raises:
        ConfigError: a value is out of range, ``pooling`` "none" or ``user_dropout`` is asked for
            without ``use_user_id``, or ``reader_heads`` does not divide ``dim``.
    """

    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Dimensions of the vectors, a multiple of 4 so that the tables can be sharded."""
    pooling: Pooling = "recency"
    """How a history becomes vectors: "recency", means weighted by age, one a half-life;
    "attention", the same number of learned means that start there; "sequence", the events are read
    in their order by causal attention (`recsys.retrieval.towers.sequence`); "none", histories are
    not looked at and a query is the user's own row (matrix factorisation)."""
    history_length: Count = 100
    """Newest events of a history that a query sees."""
    half_lives: Annotated[tuple[HalfLife, ...], Field(min_length=1)] = (20.0, 5.0, 2.0)
    """Pools of the history: half-lives in events; inf is a plain mean."""
    hidden_dim: Natural = 128
    """Width of the residual layer behind the pools; 0 leaves it out."""
    reader_blocks: Count = 2
    """Blocks that a history passes (pooling "sequence")."""
    reader_heads: Count = 2
    """Heads of their attention, a divisor of dim (pooling "sequence")."""
    reader_dropout: Annotated[Share, Searched(0.0, 0.5)] = 0.2
    """Share of the numbers between the blocks left out in each training step (pooling
    "sequence")."""
    use_user_id: bool = False
    """Whether known users get a row of their own on top of their history."""
    id_dropout: Closed01 = 0.1
    """Share of item ids hidden in each training step, so that content and Semantic ID learn to
    stand in for them."""
    user_dropout: Share = 0.0
    """Share of user rows hidden in each training step, so that the history learns to answer for a
    user without a row."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if not self.use_user_id and (self.pooling == "none" or self.user_dropout):
            raise ValueError(
                "use_user_id must be true for pooling = 'none' and for user_dropout, got false "
                f"with pooling = {self.pooling!r} and user_dropout = {self.user_dropout}"
            )
        if self.pooling == "sequence" and self.dim % self.reader_heads:
            raise ValueError(
                f"reader_heads must divide dim, got {self.reader_heads} with dim = {self.dim}"
            )
        return self
