"""What all `EmbeddingTables` must do; new ones are added to `BUILDERS` and nothing else.

Here one process trains; `tests/recsys/embeddings` has several processes end in the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import EmbeddingTables, LocalTables, TableSpec

SPECS = [TableSpec("item", 11, 4), TableSpec("tag", 5, 4)]
RATE, EPS = 0.1, 1e-8


def sharded(seed: int, placement: str) -> EmbeddingTables:
    return ShardedTables(
        SPECS,
        learning_rate=RATE,
        eps=EPS,
        generator=torch.Generator().manual_seed(seed),
        std=0.5,
        plan=dict.fromkeys(("item", "tag"), placement),  # type: ignore[arg-type]
    )


def local(seed: int) -> EmbeddingTables:
    generator = torch.Generator().manual_seed(seed)
    return LocalTables(SPECS, learning_rate=RATE, eps=EPS, generator=generator, std=0.5)


BUILDERS: dict[str, Callable[[int], EmbeddingTables]] = {
    "local": local,
    "replicated": lambda seed: sharded(seed, "replicated"),
    "row_wise": lambda seed: sharded(seed, "row_wise"),
    "table_wise": lambda seed: sharded(seed, "table_wise"),
}
# The fused update keeps its squares where rows are loaded over; the others begin again.
BEGINS_AGAIN = {"local", "replicated"}


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(name: str) -> Callable[[int], EmbeddingTables]:
    return BUILDERS[name]


@pytest.fixture(scope="module", autouse=True)
def _group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    pytest.importorskip("torchrec", reason="the torchrec extra is not installed")
    store = tmp_path_factory.mktemp("group") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def pull(tables: EmbeddingTables, index: Tensor, goal: Tensor) -> None:
    """One step of the table ``item`` towards the rows of ``goal``."""
    ((tables({"item": index})["item"] - goal[index]) ** 2).sum().backward()
    tables.step()


GOAL = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))


class TestEmbeddingTablesContract:
    def test_rows_of_any_shape(self, made: Callable[[int], EmbeddingTables]) -> None:
        tables = made(0)
        state = tables.full_state()
        for index in (torch.tensor([[0, 3, 3], [10, 0, 1]]), torch.tensor(2), torch.tensor([1, 4])):
            found = tables({"item": index, "tag": index % 5})
            assert found["item"].shape == (*index.shape, 4)
            torch.testing.assert_close(found["item"], state["item"][index])
            torch.testing.assert_close(found["tag"], state["tag"][index % 5])
        assert tables({"item": torch.zeros(0, dtype=torch.int64)})["item"].shape == (0, 4)
        assert list(tables({"tag": torch.tensor([1])})) == ["tag"]

    def test_the_same_seed_draws_the_same_rows(
        self, made: Callable[[int], EmbeddingTables]
    ) -> None:
        one, again, other = (made(seed).full_state() for seed in (0, 0, 1))
        drawn = local(0).full_state()
        for table in ("item", "tag"):
            assert not one[table][0].any()
            assert torch.equal(one[table], again[table])
            assert torch.equal(one[table], drawn[table])
            assert not torch.equal(one[table], other[table])

    def test_a_step_moves_only_rows_that_were_looked_up(
        self, made: Callable[[int], EmbeddingTables]
    ) -> None:
        tables = made(0)
        before = tables.full_state()
        tables({"item": torch.tensor([0, 2, 2, 7])})["item"].sum().backward()
        tables.step()
        after = tables.full_state()
        moved = (after["item"] != before["item"]).any(dim=1).nonzero().flatten().tolist()
        assert moved == [2, 7]
        assert torch.equal(after["tag"], before["tag"])
        tables.step()  # nothing gathered since
        assert torch.equal(tables.full_state()["item"], after["item"])
        with torch.no_grad():
            tables({"item": torch.tensor([4])})
        tables.step()
        assert torch.equal(tables.full_state()["item"], after["item"])

    def test_two_steps_by_plain_loops(self, made: Callable[[int], EmbeddingTables]) -> None:
        tables = made(0)
        weight = tables.full_state()["item"].double()
        squares = [0.0] * 11
        for batch in ([1, 2, 2, 0], [2, 5]):
            pull(tables, torch.tensor(batch), GOAL)
            for row in set(batch) - {0}:
                grad = batch.count(row) * 2 * (weight[row] - GOAL[row].double())
                squares[row] += float((grad**2).mean())
                weight[row] -= RATE * grad / (squares[row] ** 0.5 + EPS)
        torch.testing.assert_close(tables.full_state()["item"], weight.float())

    def test_full_state_is_a_copy_that_loads_back(
        self, made: Callable[[int], EmbeddingTables]
    ) -> None:
        one, two = made(0), made(1)
        state = one.full_state()
        assert {table: rows.device.type for table, rows in state.items()} == {
            "item": "cpu",
            "tag": "cpu",
        }
        two.load_full_state(state)
        state["item"][3] = 9.0
        assert torch.equal(two.full_state()["item"], one.full_state()["item"])
        assert not (one.full_state()["item"][3] == 9.0).any()
        pull(two, torch.tensor([3]), GOAL)
        assert not torch.equal(two.full_state()["item"], one.full_state()["item"])

    def test_training_after_a_load(self, name: str, made: Callable[[int], EmbeddingTables]) -> None:
        tables, fresh = made(0), made(0)
        start, index = tables.full_state(), torch.tensor([3, 8])
        pull(tables, index, GOAL)
        tables.load_full_state(start)
        pull(tables, index, GOAL)
        pull(fresh, index, GOAL)
        as_fresh = torch.equal(tables.full_state()["item"], fresh.full_state()["item"])
        assert as_fresh == (name in BEGINS_AGAIN)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (None, r"must hold the tables \['item', 'tag'\]"),
            (torch.zeros(4, 4), r"'tag' must have shape \(5, 4\)"),
            (torch.ones(5, 4), "row 0 of table 'tag' must be zero"),
        ],
    )
    def test_a_state_that_does_not_fit_is_refused(
        self, made: Callable[[int], EmbeddingTables], rows: Tensor | None, message: str
    ) -> None:
        tables = made(0)
        before = tables.full_state()
        state = {"item": torch.zeros(11, 4)} | ({} if rows is None else {"tag": rows})
        with pytest.raises(ValueError, match=message):
            tables.load_full_state(state)
        assert torch.equal(tables.full_state()["item"], before["item"])
