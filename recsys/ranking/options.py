"""How the two ranking stages are trained."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from recsys.settings import Count, HalfOpen01, NonNegative, Positive, Settings, Share

__all__ = ["GbdtOptions", "ListwiseOptions", "ListwiseStage"]

AtLeast2 = Annotated[int, Field(ge=2)]


class GbdtOptions(Settings):
    """LightGBM LambdaMART; the defaults suit some hundred queries of some hundred candidates."""

    num_trees: Count = 200
    """Boosting rounds at most; fewer where they do better on held-out users."""
    learning_rate: Positive = 0.05
    """Shrinkage of each tree."""
    num_leaves: AtLeast2 = 15
    """Most leaves of a tree."""
    min_data_in_leaf: Count = 100
    """Rows that a leaf holds at least."""
    feature_fraction: HalfOpen01 = 0.5
    """Share of the features that each tree sees."""
    bagging_fraction: HalfOpen01 = 0.7
    """Share of the rows that each tree sees."""
    lambda_l2: NonNegative = 10.0
    """L2 on leaf values."""
    truncation_level: Count = 30
    """Pairs without a member in the first so many ranks do not count."""
    max_bin: Annotated[int, Field(ge=3, le=255)] = 63
    """Most distinct values of a feature that the trees tell apart."""
    num_threads: Count = 1
    """The same number gives the same trees, whatever the machine has. One is the default: where
    other work shares the cores, threads that wait for each other are several times slower."""


class ListwiseOptions(Settings):
    """Shape and training of the network that sees the best candidates together."""

    dim: Count = 32
    """Width of the encoder."""
    num_heads: Count = 2
    """Attention heads; divides dim."""
    dropout: Share = 0.3
    """While training."""
    epochs: Count = 10
    """Passes over the requests."""
    batch_size: Count = 32
    """Requests a step."""
    learning_rate: Positive = 1e-3
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay of AdamW."""

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide dim, got {self.num_heads} with dim = {self.dim}"
            )
        return self


class ListwiseStage(ListwiseOptions):
    """The network that reorders the best of the trees' list."""

    enabled: bool = True
    """Whether there is one."""
    top: AtLeast2 = 50
    """Best candidates of the trees that it sees."""
