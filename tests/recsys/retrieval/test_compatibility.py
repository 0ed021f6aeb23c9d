"""New vectors that an old index still understands."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from features.histories import Histories
from features.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.retrieval.compatibility import OldSpace, compatibility_loss, load_old_space
from recsys.retrieval.towers import TowerOptions, TwoTower
from recsys.retrieval.two_tower import TwoTowerRetriever

B, D = 6, 4
GROUPS, SIZE, USERS, DIM = 12, 8, 96, 16
MakeHistories = Callable[[list[list[int]]], Histories]


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
ITEM_IDS = Vocabulary.from_ids([f"i{n}" for n in range(GROUPS * SIZE)])
USER_IDS = Vocabulary.from_ids([f"u{n}" for n in range(USERS)])


@cache
def trained(seed: int, weight: float = 0.0) -> OldSpace:
    """Id tables by a cosine softmax over all items; compatible with the model of seed 0."""
    tables = [
        (0.1 * drawn(rows, DIM, seed=10 * seed + place, dtype=torch.float32)).requires_grad_()
        for place, rows in enumerate((USERS, GROUPS * SIZE))
    ]
    user_row, item_row = torch.arange(1, USERS + 1), torch.arange(1, GROUPS * SIZE + 1)
    optimizer = torch.optim.Adam(tables, lr=0.03)
    share = MET / MET.sum(dim=1, keepdim=True)
    for _ in range(200):
        user, item = (F.normalize(table, dim=1) for table in tables)
        loss = F.cross_entropy(user @ item.T / 0.2, share)
        if weight:
            old = trained(0)
            loss = loss + weight * (
                old.item_loss(tables[1], item_row) + old.user_loss(tables[0], user_row)
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    user, item = (
        torch.cat([torch.zeros(1, DIM), F.normalize(table.detach(), dim=1)]) for table in tables
    )
    return OldSpace(ITEM_IDS, item, "cosine", USER_IDS, user)


def recall(users: OldSpace, items: OldSpace) -> float:
    """Share of the held-out items among each user's first three unseen ones."""
    assert users.user_vector is not None
    score = users.user_vector[1:] @ items.item_vector[1:].T
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


def test_new_things_and_padding_are_left_out() -> None:
    old = trained(0)
    index = torch.tensor([1, 2, GROUPS * SIZE + 1, 0, 2])
    new = drawn(5, DIM, seed=3).requires_grad_()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    kept = [0, 1, 4]
    wanted = compatibility_loss(
        F.normalize(new[kept], dim=1),
        old.item_vector[index[kept]].double(),
        temperature=0.3,
        index=index[kept],
        weight=weight[kept],
    )
    found = old.item_loss(new, index, temperature=0.3, weight=weight)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()))
    found.backward()
    assert new.grad is not None
    assert new.grad[2:4].abs().sum() == 0.0
    nothing = old.item_loss(new, torch.zeros(5, dtype=torch.int64))
    nothing.backward()
    assert float(nothing.detach()) == 0.0


def test_a_dot_space_compares_lengths_too() -> None:
    table = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    ids = Vocabulary.from_ids(["a", "b", "c"])
    new, index = 2 * torch.eye(3, dtype=torch.float64), torch.tensor([1, 2, 3])
    dot, cosine = (OldSpace(ids, table, score) for score in ("dot", "cosine"))
    assert float(dot.item_loss(new, index)) == pytest.approx(math.log1p(2 * math.exp(-20)))
    assert float(cosine.item_loss(new, index)) == pytest.approx(math.log1p(2 * math.exp(-10)))


def test_a_vocabulary_must_continue_the_old_one() -> None:
    old = trained(0)
    longer = ITEM_IDS.extend(["new"])
    old.check(longer, dim=DIM, score="cosine", users=USER_IDS.extend(["newer"]))
    old.check(ITEM_IDS, dim=DIM, score="cosine")
    swapped = Vocabulary.from_ids(["i0", "i2", "i1", *ITEM_IDS.to_series()[3:]])
    with pytest.raises(
        ArtifactError, match="items must begin with the old item ids: index 2 was 'i1' and is 'i2'"
    ):
        old.check(swapped, dim=DIM, score="cosine")
    with pytest.raises(ArtifactError, match="96 old item ids, got only 2"):
        old.check(Vocabulary.from_ids(["i0", "i1"]), dim=DIM, score="cosine")
    with pytest.raises(ArtifactError, match="users must begin with the old user ids: index 1"):
        old.check(
            ITEM_IDS,
            dim=DIM,
            score="cosine",
            users=Vocabulary.from_ids(["x"] + [f"u{n}" for n in range(USERS)]),
        )
    with pytest.raises(ArtifactError, match="16 wide by cosine, got 8 wide by cosine"):
        old.check(ITEM_IDS, dim=8, score="cosine")
    with pytest.raises(ArtifactError, match="got 16 wide by dot"):
        old.check(ITEM_IDS, dim=DIM, score="dot")


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_a_retriever_is_loaded_as_it_serves(score: str, make_histories: MakeHistories) -> None:
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(
        TowerOptions(embedding_dim=8, user_table=True), content_dim=0, generator=generator
    )
    tables = {
        "item": torch.randn(6, 8, generator=generator),
        "user": torch.randn(3, 8, generator=generator),
    }
    for table in tables.values():
        table[0] = 0.0
    retriever = TwoTowerRetriever.from_tables(tower, tables, score=score)
    items, users = Vocabulary.from_ids(list("abcde")), Vocabulary.from_ids(["u", "v"])
    histories = make_histories([[1, 2], [5]])
    old = load_old_space(retriever, items, users=users, histories=histories)
    assert (old.dim, old.score, old.items, old.users) == (8, score, items, users)
    np.testing.assert_array_equal(old.item_vector.numpy(), retriever.item_vectors)
    assert old.user_vector is not None
    np.testing.assert_array_equal(
        old.user_vector[1:].numpy(), retriever.user_vectors(histories, user_index=np.array([1, 2]))
    )
    assert not old.user_vector[0].any()
    only_items = load_old_space(retriever, items)
    assert only_items.user_vector is None
    with pytest.raises(ValueError, match="user_vector must be there"):
        only_items.user_loss(torch.ones(1, 8), torch.tensor([1]))
    with pytest.raises(ArtifactError, match="with 5 items, got 4"):
        load_old_space(retriever, Vocabulary.from_ids(list("abcd")))
    for wrong in (None, make_histories([[1]])):
        with pytest.raises(ValueError, match="users and histories must be given together"):
            load_old_space(retriever, items, users=users, histories=wrong)


IDS = Vocabulary.from_ids(["a"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compatibility_loss(NEW, OLD[:2]), "new and old must both be"),
        (lambda: compatibility_loss(NEW, OLD, index=INDEX[:2]), "index must have one entry"),
        (lambda: compatibility_loss(NEW, OLD, weight=WEIGHT[:2]), "weight must have one entry"),
        (lambda: compatibility_loss(NEW, OLD, temperature=0.0), "temperature must be > 0"),
        (lambda: OldSpace(IDS, torch.zeros(3, 4), "dot"), r"item_vector must be \(2, 4\)"),
        (lambda: OldSpace(IDS, torch.ones(2, 4), "dot"), "row 0 of item_vector must be zero"),
        (
            lambda: OldSpace(IDS, torch.zeros(2, 4), "dot", users=IDS),
            "users and user_vector must be given together",
        ),
        (
            lambda: OldSpace(IDS, torch.zeros(2, 4), "dot", IDS, torch.zeros(2, 3)),
            r"user_vector must be \(2, 4\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
