"""New vectors that an old index still understands."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.retrieval.training.compatibility import compatibility_loss

B, D = 6, 4
GROUPS, SIZE, USERS, DIM = 12, 8, 96, 16


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


NEW, OLD = drawn(B, D), drawn(B, D, seed=1)
WEIGHT = drawn(B, seed=2).abs()
INDEX = torch.tensor([3, 1, 3, 2, 1, 3])


def by_loops(
    new: Tensor, old: Tensor, temperature: float, index: Tensor | None, weight: Tensor | None
) -> float:
    total = share = 0.0
    for b in range(len(new)):
        mass = {}
        for c in range(len(old)):
            if c == b or index is None or index[b] != index[c]:
                mass[c] = math.exp(
                    sum(float(x * y) for x, y in zip(new[b], old[c], strict=True)) / temperature
                )
        w = 1.0 if weight is None else float(weight[b])
        total -= w * math.log(mass[b] / sum(mass.values()))
        share += w
    return total / share


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("index", [None, INDEX])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_loss_is_the_plain_loops(
    temperature: float, index: Tensor | None, weight: Tensor | None
) -> None:
    found = compatibility_loss(NEW, OLD, temperature=temperature, index=index, weight=weight)
    assert float(found) == pytest.approx(by_loops(NEW, OLD, temperature, index, weight))


def test_gradient_is_the_slope_and_none_flows_into_the_old_model() -> None:
    new, old = NEW.clone().requires_grad_(), OLD.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda n: compatibility_loss(n, OLD, temperature=0.7, index=INDEX, weight=WEIGHT), [new]
    )
    compatibility_loss(new, old).backward()
    assert old.grad is None
    assert new.grad is not None


def test_closed_forms() -> None:
    zero = torch.zeros(5, 3)
    assert float(compatibility_loss(zero, zero)) == pytest.approx(math.log(5))
    # Orthonormal and unchanged: own cosine 1, the others 0, mu = 10.
    eye = torch.eye(4, dtype=torch.float64)
    assert float(compatibility_loss(eye, eye)) == pytest.approx(math.log1p(3 * math.exp(-10)))
    assert float(compatibility_loss(eye, eye, temperature=1.0)) == pytest.approx(
        math.log1p(3 / math.e)
    )
    # One thing all over: nothing is left in the denominator but the pair itself. Multiplying the
    # equal pairs by 0 instead of removing them would give log(1 + 4 e^-s).
    assert float(compatibility_loss(drawn(5, 3), drawn(5, 3), index=torch.ones(5))) == 0.0
    # Two of one thing: the second copy adds nothing.
    twice, index = torch.cat([eye, eye[:1]]), torch.tensor([1, 2, 3, 4, 1])
    weight = torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    assert float(compatibility_loss(twice, twice, index=index, weight=weight)) == pytest.approx(
        math.log1p(3 * math.exp(-10))
    )


def test_order_of_the_batch_does_not_matter() -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    before = compatibility_loss(NEW, OLD, index=INDEX, weight=WEIGHT)
    after = compatibility_loss(NEW[order], OLD[order], index=INDEX[order], weight=WEIGHT[order])
    assert float(before) == pytest.approx(float(after))


def met_and_held_out() -> tuple[Tensor, Tensor]:
    """[U, N] bool each: users of a group meet 5 of its 8 items, the other 3 are held out."""
    generator = torch.Generator().manual_seed(0)
    met, held = (torch.zeros(USERS, GROUPS * SIZE, dtype=torch.bool) for _ in range(2))
    for user in range(USERS):
        items = SIZE * (user % GROUPS) + torch.randperm(SIZE, generator=generator)
        met[user, items[:5]] = True
        held[user, items[5:]] = True
    return met, held


MET, HELD = met_and_held_out()


@cache
def trained(seed: int, weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """Users and items by a cosine softmax over all items; compatible with those of seed 0."""
    tables = [
        (0.1 * drawn(rows, DIM, seed=10 * seed + place, dtype=torch.float32)).requires_grad_()
        for place, rows in enumerate((USERS, GROUPS * SIZE))
    ]
    optimizer = torch.optim.Adam(tables, lr=0.03)
    share = MET / MET.sum(dim=1, keepdim=True)
    for _ in range(200):
        user, item = (F.normalize(table, dim=1) for table in tables)
        loss = F.cross_entropy(user @ item.T / 0.2, share)
        if weight:
            pulls = (
                compatibility_loss(*pair) for pair in zip((user, item), trained(0), strict=True)
            )
            loss = loss + weight * sum(pulls)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    user, item = (F.normalize(table.detach(), dim=1) for table in tables)
    return user, item


def recall(users: tuple[Tensor, Tensor], items: tuple[Tensor, Tensor]) -> float:
    """Share of the held-out items among each user's first three unseen ones."""
    score = users[0] @ items[1].T
    top = score.masked_fill(MET, -torch.inf).topk(3, dim=1).indices
    return float(HELD.gather(1, top).float().sum() / HELD.sum())


def test_new_users_find_their_items_in_the_old_index() -> None:
    old, free, tied = trained(0), trained(1), trained(1, 0.1)
    assert recall(old, old) > 0.9
    assert recall(tied, old) > 0.95 * recall(old, old)
    assert recall(old, tied) > 0.95 * recall(old, old)
    assert recall(tied, tied) > 0.97 * recall(free, free)
    # Without the loss the two spaces have nothing in common: a guess finds 3 of 91.
    assert recall(free, old) < 0.2
    assert recall(old, free) < 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compatibility_loss(NEW, OLD[:2]), "new and old must both be"),
        (lambda: compatibility_loss(NEW, OLD, index=INDEX[:2]), "index must have one entry"),
        (lambda: compatibility_loss(NEW, OLD, weight=WEIGHT[:2]), "weight must have one entry"),
        (lambda: compatibility_loss(NEW, OLD, temperature=0.0), "temperature must be > 0"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
