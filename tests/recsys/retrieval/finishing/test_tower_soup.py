"""A soup is trained from one start, chosen on validation, and trained again as it was chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.errors import ArtifactError
from recsys.retrieval.finishing.tower_soup import Branch, SoupPlan, SoupTowers, train_soup
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.training import TrainingOptions, train_two_tower

USERS, ITEMS, DIM = 40, 60, 8
SHAPE = TowerOptions(dim=DIM, use_user_id=True, pooling="none", id_dropout=0.0)
OPTIONS = TrainingOptions(
    epochs=10, learning_rate=0.01, table_learning_rate=0.1, final_learning_rate=0.1
)


def drawn(*shape: int, seed: int) -> torch.Tensor:
    table = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    table[0] = 0.0
    return table


TRUTH = {"user": drawn(USERS + 1, DIM, seed=1), "item": drawn(ITEMS + 1, DIM, seed=2)}


class Asked(NamedTuple):
    training: TrainingOptions
    seed: int
    start: TwoTowerRetriever | None


class Noisy:
    """Stands for a training: the truth, and noise that depends on seed and learning rate."""

    def __init__(self, noise: float = 0.6) -> None:
        self.noise = noise
        self.asked: list[Asked] = []
        self.made: list[TwoTowerRetriever] = []

    def __call__(
        self, training: TrainingOptions, *, seed: int, start: TwoTowerRetriever | None
    ) -> TwoTowerRetriever:
        self.asked.append(Asked(training, seed, start))
        tables = {
            name: table + self.noise * drawn(*table.shape, seed=seed + place)
            for place, (name, table) in enumerate(TRUTH.items())
        }
        tower = TwoTower(SHAPE, content_dim=0, generator=torch.Generator())
        epoch = max(1, training.epochs - 1)
        made = TwoTowerRetriever.from_tables(tower, tables, score="dot", best_epoch=epoch)
        self.made.append(made)
        return made


@pytest.fixture
def world(make_histories: Callable[[list[list[int]]], Histories]) -> tuple[Histories, Histories]:
    """What each user takes later is the truth's best; what it took before is its worst item."""
    order = (TRUTH["user"] @ TRUTH["item"].T)[1:, 1:].argsort(dim=1, descending=True) + 1
    history = make_histories(order[:, -1:].tolist())
    return history, make_histories(order[:, :8].tolist())


def made_soup(world: tuple[Histories, Histories], train: Noisy, branches: int = 4) -> SoupTowers:
    return train_soup(train, OPTIONS, *world, branches=branches, seed=3)


def test_branches_leave_one_start_with_their_own_order_and_rates(
    world: tuple[Histories, Histories],
) -> None:
    train = Noisy()
    made_soup(world, train)
    start, *branches = train.asked
    assert (start.seed, start.start) == (3, None)
    assert (start.training.epochs, start.training.final_learning_rate) == (6, 1.0)
    assert all(branch.start is train.made[0] for branch in branches)
    assert len({one.seed for one in train.asked}) == 5
    rates = [branch.training.learning_rate / 0.01 for branch in branches]
    assert rates == pytest.approx([1.0, 2.0, 0.5, 1.0])
    rates = [branch.training.table_learning_rate / 0.1 for branch in branches]
    assert rates == pytest.approx([1.0, 2.0, 0.5, 1.0])
    assert {branch.training.epochs for branch in branches} == {4}
    assert {branch.training.final_learning_rate for branch in branches} == {0.1}


def test_the_soup_is_better_than_its_branches_and_its_items_are_its_tables(
    world: tuple[Histories, Histories],
) -> None:
    train = Noisy()
    soup = made_soup(world, train)
    assert soup.recall is not None
    assert soup.recall > 1.02 * max(soup.branch_recall)
    kept = [branch.number for branch in soup.plan.kept]
    assert len(kept) >= 2
    assert soup.branch_recall[kept[0]] == max(soup.branch_recall)
    for name in ("user", "item"):
        mean = torch.stack([train.made[1 + number].tables[name] for number in kept]).mean(dim=0)
        torch.testing.assert_close(soup.retriever.tables[name], mean)
    np.testing.assert_array_equal(
        soup.retriever.item_vectors, soup.retriever.tables["item"].numpy()
    )
    # The fake's best epoch is the last but one: 5 of 6, and 3 of 4.
    assert soup.plan == SoupPlan(5, tuple(Branch(number, 3) for number in kept))
    assert soup.retriever.best_epoch == 8
    assert soup.retriever.score_kind == "dot"


def test_a_branch_that_spoils_the_others_stays_out(world: tuple[Histories, Histories]) -> None:
    class OneBad(Noisy):
        def __call__(
            self, training: TrainingOptions, *, seed: int, start: TwoTowerRetriever | None
        ) -> TwoTowerRetriever:
            self.noise = 40.0 if len(self.asked) == 2 else 0.3
            return super().__call__(training, seed=seed, start=start)

    soup = made_soup(world, OneBad(), branches=3)
    assert 1 not in [branch.number for branch in soup.plan.kept]
    assert soup.recall is not None
    assert soup.recall >= max(soup.branch_recall)


def test_a_plan_is_trained_again_branch_by_branch(
    world: tuple[Histories, Histories], tmp_path: Path
) -> None:
    first = Noisy()
    chosen = made_soup(world, first)
    chosen.plan.save(tmp_path / "soup.json")
    plan = SoupPlan.load(tmp_path / "soup.json")
    assert plan == chosen.plan
    again = Noisy()
    options = OPTIONS.but(epochs=20)  # the plan says how long
    soup = train_soup(again, options, world[0], None, branches=4, seed=3, plan=plan)
    assert (soup.plan, soup.recall, soup.branch_recall) == (plan, None, ())
    assert again.asked[0].training.epochs == 5
    seeds = {number: one.seed for number, one in enumerate(first.asked[1:])}
    for branch, one in zip(plan.kept, again.asked[1:], strict=True):
        assert (one.seed, one.training.epochs) == (seeds[branch.number], 3)
        assert one.training.learning_rate == first.asked[1 + branch.number].training.learning_rate
    torch.testing.assert_close(soup.retriever.tables["user"], chosen.retriever.tables["user"])
    assert soup.retriever.best_epoch == 4 + 3  # the fake start's own, and the plan's


def test_denoising_goes_on_where_the_start_left_it(world: tuple[Histories, Histories]) -> None:
    train = Noisy()
    options = OPTIONS.but(denoising="pld", warmup_epochs=7)
    train_soup(train, options, *world, branches=2, seed=0)
    assert [one.training.warmup_epochs for one in train.asked] == [7, 1, 1]


def test_a_soup_of_real_trainings(planted: tuple[Histories, Histories]) -> None:
    def run(validation: Histories | None, plan: SoupPlan | None) -> SoupTowers:
        def train(
            training: TrainingOptions, *, seed: int, start: TwoTowerRetriever | None
        ) -> TwoTowerRetriever:
            return train_two_tower(
                planted[0],
                num_items=40,
                content=content,
                validation=validation,
                towers=TowerOptions(dim=8, half_lives=(5.0,), hidden_dim=0),
                training=training,
                start=start,
                seed=seed,
            )

        return train_soup(
            train, options, planted[0], validation, branches=2, seed=0, plan=plan, content=content
        )

    content = np.random.default_rng(0).normal(size=(41, 4)).astype(np.float32)
    content[0] = 0.0
    options = TrainingOptions(epochs=5, batch_size=128, negatives=20, table_learning_rate=0.5)
    soup = run(planted[1], None)
    assert soup.recall is not None
    assert soup.recall >= max(soup.branch_recall)
    assert soup.recall > 0.6  # 20 of 40 items by chance would be .5
    again = run(None, soup.plan)
    assert again.plan == soup.plan
    # Nothing but the epochs and the branches was chosen on the validation events.
    np.testing.assert_array_equal(again.retriever.item_vectors, soup.retriever.item_vectors)


def test_wrong_arguments_are_named(world: tuple[Histories, Histories], tmp_path: Path) -> None:
    history, later = world
    with pytest.raises(ValueError, match=r"validation or plan must be given.*got neither"):
        train_soup(Noisy(), OPTIONS, history, None, branches=2, seed=0)
    plan = SoupPlan(1, (Branch(0, 1),))
    with pytest.raises(ValueError, match="got both"):
        train_soup(Noisy(), OPTIONS, history, later, branches=2, seed=0, plan=plan)
    with pytest.raises(ValueError, match="branches must be >= 2, got 1"):
        train_soup(Noisy(), OPTIONS, history, later, branches=1, seed=0)
    short = OPTIONS.but(epochs=1)
    with pytest.raises(ValueError, match="epochs must be >= 2 for a soup, got 1"):
        train_soup(Noisy(), short, history, later, branches=2, seed=0)
    hard = OPTIONS.but(hard_epochs=2)
    with pytest.raises(ValueError, match="hard_epochs must be 0 for a soup, got 2"):
        train_soup(Noisy(), hard, history, later, branches=2, seed=0)
    with pytest.raises(ValueError, match="at least one event"):
        train_soup(Noisy(), OPTIONS, history, history.last(0), branches=2, seed=0)
    (tmp_path / "soup.json").write_text('{"kept": [[0]]}')
    with pytest.raises(ArtifactError, match="is no plan of a soup"):
        SoupPlan.load(tmp_path / "soup.json")
