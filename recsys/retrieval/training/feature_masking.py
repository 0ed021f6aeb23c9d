"""Self-supervision of the item tower: two views of an item, each without half of its fields."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.retrieval.losses import in_batch_softmax
from recsys.retrieval.towers.model import Lookup, TwoTower

__all__ = [
    "MIN_FIELDS",
    "ViewMask",
    "contrastive_views",
    "correlated_mask",
    "draw_view_mask",
    "feature_masking_loss",
    "mutual_information",
    "random_mask",
    "self_supervised_loss",
]

MIN_FIELDS = 4
"""With fewer fields a view is one field or none, and "most correlated" chooses nothing."""


def mutual_information(fields: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """How much each two fields say about each other, counted over the items that have both.

        MI(a, b) = sum_xy p(x, y) ln( p(x, y) / (p(x) p(y)) )

    Counted on few items, fields of many values seem to say much about each other whatever they
    are. With ``generator`` the information that is left after one of the two is shuffled over the
    items is subtracted, so that unrelated fields get about 0.

    Args:
        fields: [N + 1, F] int64 tokens, row 0 the padding, 0 = missing.
        generator: shuffles. None: plain counts, as in the paper.

    Returns:
        [F, F] float64 in nats, symmetric; the diagonal is each field's entropy.

    Raises:
        ValueError: ``fields`` is not a matrix.
    """
    if fields.ndim != 2:
        raise ValueError(f"fields must be [N + 1, F], got shape {tuple(fields.shape)}")
    tokens = fields[1:]
    count = tokens.shape[1]
    found = torch.zeros(count, count, dtype=torch.float64)
    for a in range(count):
        for b in range(a + 1):
            both = (tokens[:, a] > 0) & (tokens[:, b] > 0)
            x, y = tokens[both, a], tokens[both, b]
            found[a, b] = _information(x, y)
            if generator is not None and a != b:
                shuffled = y[torch.randperm(len(y), generator=generator)]
                found[a, b] = (found[a, b] - _information(x, shuffled)).clamp(min=0.0)
            found[b, a] = found[a, b]
    return found


def _information(x: Tensor, y: Tensor) -> Tensor:
    """H(x) + H(y) - H(x, y) of the pairs of two columns [n]."""
    if not len(x):
        return torch.zeros((), dtype=torch.float64)
    pair = x * (y.max() + 1) + y
    joint = _entropy(pair)
    return (_entropy(x) + _entropy(y) - joint).clamp(min=0.0)


def _entropy(value: Tensor) -> Tensor:
    _, count = torch.unique(value, return_counts=True)
    share: Tensor = count.double() / len(value)
    return -(share * share.log()).sum()


def correlated_mask(mi: Tensor, *, generator: torch.Generator) -> Tensor:
    """A field drawn uniformly and those most correlated with it: half of the fields in all.

    A view without them cannot be guessed from what is nearly the same field, which would make
    the two views of an item easy to match.

    Args:
        mi: [F, F] `mutual_information`; of equally correlated fields the first are taken.
        generator: draws the field.

    Returns:
        [F] bool, True for floor(F / 2) fields: hidden in the first view, and the only ones shown
        in the second.

    Raises:
        ValueError: ``mi`` is not square, or F < 4.

    Source: Yao et al., "Self-supervised learning for large-scale item recommendations", CIKM 2021,
        section 4 (correlated feature masking); the drawn field itself is hidden too.
    """
    if mi.ndim != 2 or mi.shape[0] != mi.shape[1]:
        raise ValueError(f"mi must be [F, F], got shape {tuple(mi.shape)}")
    _check_count(len(mi))
    seed = int(torch.randint(len(mi), (1,), generator=generator))
    closeness = mi[seed].clone()
    closeness[seed] = torch.inf
    chosen = torch.argsort(closeness, descending=True, stable=True)[: len(mi) // 2]
    return torch.zeros(len(mi), dtype=torch.bool).index_fill(0, chosen, True)


def random_mask(num_fields: int, *, generator: torch.Generator) -> Tensor:
    """[F] bool like `correlated_mask`, any floor(F / 2) fields: the baseline it must beat.

    Raises:
        ValueError: F < 4.
    """
    _check_count(num_fields)
    chosen = torch.randperm(num_fields, generator=generator)[: num_fields // 2]
    return torch.zeros(num_fields, dtype=torch.bool).index_fill(0, chosen, True)


class ViewMask(NamedTuple):
    """Which view of an item shows what; the other view shows the rest.

    Attributes:
        field: [F] bool, True = shown by the second view only.
        content: whether content and Semantic ID, which say the same, are shown by the second
            view only.
    """

    field: Tensor
    content: bool


def draw_view_mask(
    num_fields: int, mi: Tensor | None = None, *, generator: torch.Generator
) -> ViewMask:
    """One step's mask: `correlated_mask`, or `random_mask` without ``mi``; content by a coin.

    Raises:
        ValueError: F < 4, or ``mi`` is not [F, F].
    """
    if mi is None:
        field = random_mask(num_fields, generator=generator)
    elif tuple(mi.shape) != (num_fields, num_fields):
        raise ValueError(
            f"mi must have shape {(num_fields, num_fields)} for {num_fields} fields, got "
            f"{tuple(mi.shape)}"
        )
    else:
        field = correlated_mask(mi, generator=generator)
    return ViewMask(field, bool(torch.randint(2, (1,), generator=generator)))


def contrastive_views(
    tower: TwoTower,
    lookup: Lookup,
    item_index: Tensor,
    *,
    mask: ViewMask,
    fields: Tensor,
    content: Tensor | None = None,
    prefix_tokens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Vectors of two complementary views of each item.

    Every field is in exactly one view, and so are content and Semantic ID together: a dense
    vector in both would match the views without any field being looked at. The id is in neither,
    or it would do the same, and items without an id row would learn nothing from this.

    Args:
        tower: the dense weights.
        lookup: rows of the id tables; asked once for both views.
        item_index: [M] int64 items.
        mask: what is in which view.
        fields: [M, F] int64 field tokens of those items, 0 = missing.
        content: [M, content_dim] float32 content of those items, as the tower needs it.
        prefix_tokens: [M, L] int64 prefix tokens of those items, 0 = none.

    Returns:
        Two [M, D] float32, the first and the second view; not normalised.
    """
    size = len(item_index)
    second = torch.arange(2 * size, device=item_index.device) >= size  # [2M], the second view's
    shows_content = second == mask.content

    def doubled(part: Tensor | None, shown: Tensor) -> Tensor | None:
        return None if part is None else part.repeat(2, 1) * shown

    vector = tower.items(
        lookup,
        item_index.new_zeros(2 * size),
        content=doubled(content, shows_content[:, None]),
        prefix_tokens=doubled(prefix_tokens, shows_content[:, None]),
        fields=doubled(fields, second[:, None] == mask.field.to(second.device)),
    )
    return vector[:size], vector[size:]


def self_supervised_loss(
    view_a: Tensor,
    view_b: Tensor,
    *,
    temperature: float,
    item_index: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of finding an item's second view among those of the whole batch.

    `in_batch_softmax` without a log-q correction: draw the items uniformly from the catalogue, not
    from the interactions.

    Args:
        view_a: [M, D] float; normalise first for a cosine.
        view_b: [M, D] float; row i is the other view of the same item.
        temperature: logits are divided by it; > 0.
        item_index: [M] int64; an item drawn twice is no negative of itself. None: all differ.
        weight: [M] weights of the items, >= 0. None: all equal.

    Returns:
        Scalar, in nats; log(M) for views that say nothing.

    Raises:
        ValueError: shapes disagree or temperature <= 0.

    Source: Yao et al., CIKM 2021, eq. 1.
    """
    return in_batch_softmax(
        view_a, view_b, temperature=temperature, candidate_index=item_index, weight=weight
    )


def feature_masking_loss(
    tower: TwoTower,
    lookup: Lookup,
    item_index: Tensor,
    *,
    fields: Tensor,
    content: Tensor | None = None,
    prefix_tokens: Tensor | None = None,
    mi: Tensor | None = None,
    temperature: float = 0.1,
    generator: torch.Generator,
) -> Tensor:
    """`self_supervised_loss` of one step: draw a mask, encode both views, compare by cosine.

    Add it to the main loss with a small factor (.1 to .2): it spreads the tail of the catalogue
    out, and a large one costs the head. An item of which a view shows nothing counts 0.

    Args:
        tower: the dense weights.
        lookup: rows of the id tables.
        item_index: [M] int64 items drawn uniformly from the catalogue, 1,000 or more a step.
        fields: [M, F] int64 field tokens of those items, F >= 4; 0 = missing.
        content: [M, content_dim] float32 content of those items, as the tower needs it.
        prefix_tokens: [M, L] int64 prefix tokens of those items, 0 = none.
        mi: [F, F] `mutual_information`. None: fields are masked at random.
        temperature: logits are divided by it; > 0.
        generator: draws the mask.

    Returns:
        Scalar, in nats.

    Raises:
        ValueError: F < 4, or shapes disagree.
    """
    mask = draw_view_mask(fields.shape[1], mi, generator=generator)
    views = contrastive_views(
        tower,
        lookup,
        item_index,
        mask=mask,
        fields=fields,
        content=content,
        prefix_tokens=prefix_tokens,
    )
    shown = (views[0].detach().any(dim=1) & views[1].detach().any(dim=1)).to(views[0])  # [M]
    view_a, view_b = (F.normalize(view * shown[:, None], dim=1) for view in views)
    return self_supervised_loss(
        view_a, view_b, temperature=temperature, item_index=item_index, weight=shown
    )


def _check_count(num_fields: int) -> None:
    if num_fields < MIN_FIELDS:
        raise ValueError(
            f"feature masking needs at least {MIN_FIELDS} fields, got {num_fields}: with fewer, "
            "no view keeps something to be guessed; turn it off or describe the items by more "
            "columns"
        )
