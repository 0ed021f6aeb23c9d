from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor

from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.training.feature_masking import (
    ViewMask,
    contrastive_views,
    correlated_mask,
    draw_view_mask,
    feature_masking_loss,
    mutual_information,
    random_mask,
    self_supervised_loss,
)

N, DIM, CONTENT = 40, 8, 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted_fields(num_items: int = 2_000) -> Tensor:
    """Six fields, three pairs: (0, 3), (1, 4) and (2, 5), of 4, 8 and 40 values, 80% alike."""
    rng = np.random.default_rng(0)
    columns: list[np.ndarray] = [np.zeros(0)] * 6
    for pair, values in enumerate((4, 8, 40)):
        first = rng.integers(values, size=num_items)
        alike = rng.random(num_items) < 0.8
        columns[pair] = first
        columns[pair + 3] = np.where(alike, first, rng.integers(values, size=num_items))
    tokens = torch.from_numpy(np.stack(columns, axis=1)) + 1 + 40 * torch.arange(6)
    return torch.cat([torch.zeros(1, 6, dtype=torch.int64), tokens])


def test_mutual_information_by_hand() -> None:
    fields = torch.tensor([[0, 0, 0], [1, 3, 5], [1, 3, 6], [2, 4, 5], [2, 4, 6]])
    found = mutual_information(fields)
    two = math.log(2)
    wanted = torch.tensor([[two, two, 0.0], [two, two, 0.0], [0.0, 0.0, two]])
    torch.testing.assert_close(found, wanted.double())


def test_mutual_information_against_scikit_learn() -> None:
    fields = planted_fields(300)
    found = mutual_information(fields)
    for a in range(6):
        for b in range(6):
            assert math.isclose(
                found[a, b], mutual_info_score(fields[1:, a], fields[1:, b]), abs_tol=1e-9
            )


def test_missing_values_are_not_counted() -> None:
    fields = planted_fields(300)
    missing = torch.rand(fields.shape, generator=seeded()) < 0.3
    fields[missing] = 0
    both = (fields[:, 0] > 0) & (fields[:, 3] > 0)
    wanted = mutual_info_score(fields[both, 0], fields[both, 3])
    assert math.isclose(mutual_information(fields)[0, 3], wanted, abs_tol=1e-9)
    nothing = torch.zeros(5, 2, dtype=torch.int64)
    assert not mutual_information(nothing).any()


@pytest.mark.parametrize("shuffled", [False, True])
def test_planted_pairs_are_each_others_nearest(shuffled: bool) -> None:
    found = mutual_information(planted_fields(), generator=seeded() if shuffled else None)
    found.fill_diagonal_(-1.0)
    assert found.argmax(dim=1).tolist() == [3, 4, 5, 0, 1, 2]


def test_shuffling_takes_away_what_many_values_say_by_chance() -> None:
    rng = np.random.default_rng(1)
    few = rng.integers(1, 4, size=301)
    unrelated = rng.integers(1, 100, size=(301, 2))
    fields = np.stack([few, few, unrelated[:, 0], unrelated[:, 1]], axis=1)
    fields[::3, 1] = rng.integers(1, 4, size=101)
    tokens = torch.from_numpy(fields)
    plain, corrected = mutual_information(tokens), mutual_information(tokens, generator=seeded())
    assert plain[2, 3] > plain[0, 1]
    assert corrected[2, 3] < 0.2 < corrected[0, 1]
    torch.testing.assert_close(corrected.diagonal(), plain.diagonal())


def test_the_mask_is_a_field_and_its_nearest() -> None:
    mi = mutual_information(planted_fields())
    mi[0, 1] = mi[1, 0] = 0.3  # the second nearest of both
    generator, found = seeded(), set()
    for _ in range(60):
        found.add(tuple(correlated_mask(mi, generator=generator).nonzero().flatten().tolist()))
    assert {(0, 1, 3), (0, 1, 4)} <= found
    for chosen in found:
        assert len(chosen) == 3
        assert any({seed, (seed + 3) % 6} <= set(chosen) for seed in chosen)
    # Equally near, or far: the first ones. 5 of 2 fields, the drawn one always among them.
    alike = torch.zeros(5, 5, dtype=torch.float64)
    masks = torch.stack([correlated_mask(alike, generator=generator) for _ in range(40)])
    assert masks.sum(dim=1).tolist() == [2] * 40
    assert masks.any(dim=0).all()


def test_random_masks_are_any_half() -> None:
    generator = seeded()
    masks = torch.stack([random_mask(5, generator=generator) for _ in range(400)])
    assert masks.sum(dim=1).tolist() == [2] * 400
    share = masks.float().mean(dim=0)  # .4 each, standard error .0245
    assert (share - 0.4).abs().max() < 4 * 0.0245
    with_mi = [draw_view_mask(6, mutual_information(planted_fields(200)), generator=generator)]
    without = [draw_view_mask(6, generator=generator) for _ in range(40)]
    assert len({tuple(mask.field.tolist()) for mask in without}) > 6
    assert {mask.content for mask in without} == {False, True}
    assert with_mi[0].field.sum() == 3


def made(content_dim: int = CONTENT) -> tuple[TwoTower, dict[str, Tensor]]:
    options = TowerOptions(dim=DIM)
    tower = TwoTower(options, content_dim=content_dim, generator=seeded())
    table = {
        name: torch.randn(rows, DIM, generator=seeded(1)).requires_grad_()
        for name, rows in {"item": N + 1, "prefix": 11, "field": 241}.items()
    }
    for rows in table.values():
        rows.data[0] = 0.0
    return tower, table


class Lookups:
    def __init__(self, table: Mapping[str, Tensor]) -> None:
        self.table = table
        self.calls = 0

    def __call__(self, index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        return {name: self.table[name][rows] for name, rows in index.items()}


def described() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    item_index = torch.tensor([3, 1, 7])
    content = torch.randn(3, CONTENT, generator=seeded(2))
    prefix_tokens = torch.tensor([[1, 4], [2, 5], [0, 0]])
    return item_index, planted_fields(N)[item_index], content, prefix_tokens


@pytest.mark.parametrize("content_second", [False, True])
def test_every_part_of_an_item_is_in_exactly_one_view(content_second: bool) -> None:
    tower, table = made()
    lookups = Lookups(table)
    item_index, fields, content, prefix_tokens = described()
    mask = ViewMask(torch.tensor([True, False, False, True, False, False]), content_second)
    views = contrastive_views(
        tower,
        lookups,
        item_index,
        mask=mask,
        fields=fields,
        content=content,
        prefix_tokens=prefix_tokens,
    )
    assert lookups.calls == 1
    rows = table["field"][fields]
    assert tower.content_weight is not None
    meaning = content @ tower.content_weight.T + table["prefix"][prefix_tokens].sum(dim=1)
    wanted = [rows[:, ~mask.field].sum(dim=1), rows[:, mask.field].sum(dim=1)]
    wanted[int(content_second)] = wanted[int(content_second)] + meaning
    for found, view in zip(views, wanted, strict=True):
        torch.testing.assert_close(found, view)
    # The two views hold everything but the id, once.
    whole = tower.items(
        lookups,
        torch.zeros(3, dtype=torch.int64),
        content=content,
        prefix_tokens=prefix_tokens,
        fields=fields,
    )
    torch.testing.assert_close(views[0] + views[1], whole)


def test_loss_by_hand_and_for_views_that_say_nothing() -> None:
    view_a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    view_b = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = self_supervised_loss(view_a, view_b, temperature=0.5)
    first = math.log(math.exp(2) + math.exp(2)) - 2
    second = math.log(1 + math.exp(2)) - 2
    assert math.isclose(float(found), (first + second) / 2, rel_tol=1e-6)
    weighted = self_supervised_loss(
        view_a, view_b, temperature=0.5, weight=torch.tensor([1.0, 0.0])
    )
    assert math.isclose(float(weighted), first, rel_tol=1e-6)
    same = self_supervised_loss(view_a, view_b, temperature=0.5, item_index=torch.tensor([4, 4]))
    assert float(same) == 0.0
    nothing = torch.zeros(5, 2)
    chance = float(self_supervised_loss(nothing, nothing, temperature=1.0))
    assert math.isclose(chance, math.log(5), rel_tol=1e-6)


def test_loss_of_a_step_is_that_of_its_views() -> None:
    tower, table = made()
    item_index, fields, content, prefix_tokens = described()
    mi = mutual_information(planted_fields())
    parts = {"fields": fields, "content": content, "prefix_tokens": prefix_tokens}
    found = feature_masking_loss(
        tower, Lookups(table), item_index, mi=mi, temperature=0.2, generator=seeded(3), **parts
    )
    mask = draw_view_mask(6, mi, generator=seeded(3))
    view_a, view_b = (
        torch.nn.functional.normalize(view, dim=1)
        for view in contrastive_views(tower, Lookups(table), item_index, mask=mask, **parts)
    )
    torch.testing.assert_close(found, self_supervised_loss(view_a, view_b, temperature=0.2))
    found.backward()
    assert table["field"].grad is not None
    assert table["item"].grad is not None
    assert table["field"].grad[fields].any(dim=2).all()
    assert not table["item"].grad[1:].any()


def test_an_item_of_which_a_view_shows_nothing_counts_nothing() -> None:
    tower, table = made(content_dim=0)
    item_index, fields, _, _ = described()
    mask = draw_view_mask(6, generator=seeded()).field
    half = fields.clone()
    half[1, mask] = 0  # the second view of item 1 is empty
    loss = feature_masking_loss(tower, Lookups(table), item_index, fields=half, generator=seeded())
    loss.backward()
    grad = table["field"].grad
    assert grad is not None
    assert not grad[fields[1, ~mask]].any()
    assert grad[fields[0]].any(dim=1).all()
    assert grad[0].abs().max() < 100.0  # no division by the length of nothing
    nothing = feature_masking_loss(
        tower, Lookups(table), item_index, fields=fields * 0, generator=seeded()
    )
    assert float(nothing.detach()) == 0.0


def test_views_of_correlated_fields_become_alike() -> None:
    """Fields of a pair tell each other; a field alone cannot, and training finds the pairs."""
    tower, table = made(content_dim=0)
    fields = planted_fields(400)
    table["item"] = torch.zeros(401, DIM)
    adam = torch.optim.Adam([table["field"]], lr=0.05)
    generator = seeded(4)
    losses = []
    for _ in range(120):
        item_index = 1 + torch.randperm(400, generator=generator)[:200]
        loss = feature_masking_loss(
            tower,
            Lookups(table),
            item_index,
            fields=fields[item_index],
            temperature=0.2,
            generator=generator,
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    vector = torch.nn.functional.normalize(table["field"].detach(), dim=1)
    first, second = vector[81:121], vector[201:241]  # the 40 values of fields 2 and 5
    cosine = first @ second.T
    met = torch.unique(fields[1:, 2]) - 81
    nearest = cosine.argmax(dim=1)[met]
    assert float((nearest == met).float().mean()) > 0.8
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) - 1.0


def test_too_few_fields_and_wrong_shapes_are_named() -> None:
    tower, table = made(content_dim=0)
    with pytest.raises(ValueError, match="at least 4 fields, got 3"):
        feature_masking_loss(
            tower,
            Lookups(table),
            torch.tensor([1]),
            fields=torch.ones(1, 3, dtype=torch.int64),
            generator=seeded(),
        )
    with pytest.raises(ValueError, match="at least 4 fields, got 3"):
        correlated_mask(torch.zeros(3, 3), generator=seeded())
    with pytest.raises(ValueError, match=r"mi must be \[F, F\], got shape \(4, 5\)"):
        correlated_mask(torch.zeros(4, 5), generator=seeded())
    with pytest.raises(ValueError, match=r"mi must have shape \(6, 6\) for 6 fields"):
        draw_view_mask(6, torch.zeros(4, 4), generator=seeded())
    with pytest.raises(ValueError, match=r"fields must be \[N \+ 1, F\], got shape \(3,\)"):
        mutual_information(torch.ones(3))
