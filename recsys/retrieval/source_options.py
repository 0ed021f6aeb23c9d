"""How the retrievers are fitted that follow the graph of users and items, or what is new."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.settings import Closed01, Count, NonNegative, Positive, Settings

__all__ = ["GraphOptions", "NewItemOptions", "PopularOptions"]


class GraphOptions(Settings):
    """How the retrievers are fitted that follow the graph of users and items."""

    graph_degree: Count = 8
    """Degree of the polynomial of graph_filter; an answer costs two sparse products a degree."""
    graph_plateau: Positive = 5.0
    """How long graph_filter lets middle frequencies pass: 1 falls evenly, more is flatter."""
    graph_rank: Count | None = None
    """Singular vectors of graph_filter, cut to what the data have and to graph_memory_gb. Not said:
    256, or a tenth of the users or items, of whichever there are fewer."""
    graph_ideal_weight: NonNegative = 1.0
    """Weight of those vectors beside the polynomial in graph_filter."""
    graph_degree_power: Closed01 = 0.3
    """Power of the items' degrees in graph_filter; more favours what many met."""
    graph_memory_gb: Positive = 4.0
    """Memory that the search for the singular vectors may take, in GB."""
    walk_power: Positive = 1.0
    """Power of the probabilities of a step of the random walk (rp3beta)."""
    walk_popularity_power: NonNegative = 0.3
    """Power of the degree that rp3beta divides an item by; more favours what few met."""
    walk_neighbours: Count = 200
    """Items that rp3beta keeps of each item."""
    user_neighbours: Count = 100
    """Users whose histories user_knn adds up."""


class NewItemOptions(Settings):
    """How the retriever is trained that finds what nobody met yet."""

    new_items_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 128
    """Dimensions of the vectors that new_items compares."""
    new_items_examples: Count = 400_000
    """Events that new_items learns from: the newest 50 of each user, in 20 epochs at most, or of so
    many users as have them."""


class PopularOptions(Settings):
    """How the retrievers are fitted that look at the newest days alone."""

    recent_days: Positive = 30.0
    """Newest days that popular_recent and popular_in_category count."""
    category_column: str = ""
    """Column of the items that popular_in_category goes by; "": the first category or list."""
    trending_days: Positive = 14.0
    """Newest days whose events trending compares with those of the days before."""
    trending_past_days: Positive = 56.0
    """Days before those, which say what was to be expected."""
