from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from recsys.embeddings.sharded import ShardedTables, plan_tables
from recsys.embeddings.tables import (
    LocalTables,
    TableSpec,
    initial_state,
    rowwise_adagrad_,
)

SPECS = [TableSpec("item", 11, 4), TableSpec("tag", 5, 8)]
RATE, EPS = 0.1, 1e-8


def made(seed: int = 0) -> LocalTables:
    generator = torch.Generator().manual_seed(seed)
    return LocalTables(SPECS, learning_rate=RATE, eps=EPS, generator=generator, std=0.5)


def test_rows_of_any_shape_and_a_zero_padding_row() -> None:
    tables = made()
    state = tables.full_state()
    index = {"item": torch.tensor([[0, 3, 3], [10, 0, 1]]), "tag": torch.tensor(2)}
    found = tables(index)
    assert found["item"].shape == (2, 3, 4)
    torch.testing.assert_close(found["item"], state["item"][index["item"]])
    torch.testing.assert_close(found["tag"], state["tag"][2])
    assert not state["item"][0].any()
    assert float(state["item"][1:].std()) == pytest.approx(0.5, abs=0.15)


def test_a_step_moves_only_rows_that_were_looked_up() -> None:
    tables = made()
    before = tables.full_state()
    tables({"item": torch.tensor([0, 2, 2, 7])})["item"].sum().backward()
    tables.step()
    after = tables.full_state()
    moved = (after["item"] != before["item"]).any(dim=1).nonzero().flatten().tolist()
    assert moved == [2, 7]
    assert torch.equal(after["tag"], before["tag"])
    tables.step()  # nothing gathered since
    assert torch.equal(tables.full_state()["item"], after["item"])


def test_two_steps_by_plain_loops() -> None:
    tables = made()
    weight = tables.full_state()["item"].double()
    squares = [0.0] * 11
    goal = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))
    for batch in ([1, 2, 2, 0], [2, 5]):
        index = torch.tensor(batch)
        ((tables({"item": index})["item"] - goal[index]) ** 2).sum().backward()
        tables.step()
        for row in set(batch) - {0}:
            grad = batch.count(row) * 2 * (weight[row] - goal[row].double())
            squares[row] += float((grad**2).mean())
            weight[row] -= RATE * grad / (squares[row] ** 0.5 + EPS)
    torch.testing.assert_close(tables.full_state()["item"], weight.float())


def test_rowwise_adagrad_by_hand() -> None:
    weight, squares = torch.zeros(3, 2), torch.zeros(3)
    grad = torch.tensor([[3.0, 4.0]])
    rowwise_adagrad_(weight, squares, torch.tensor([1]), grad, learning_rate=0.5, eps=1e-8)
    root = 12.5**0.5  # mean of 9 and 16
    torch.testing.assert_close(weight[1], -0.5 * grad[0] / root)
    assert squares.tolist() == [0.0, 12.5, 0.0]
    rowwise_adagrad_(weight, squares, torch.tensor([1]), 0 * grad, learning_rate=0.5, eps=1e-8)
    assert squares.tolist() == [0.0, 12.5, 0.0]


def test_full_state_is_a_copy_that_loads_back() -> None:
    one, two = made(0), made(1)
    state = one.full_state()
    two.load_full_state(state)
    state["item"][3] = 9.0
    assert torch.equal(two.full_state()["item"], one.full_state()["item"])
    assert torch.equal(made(0).full_state()["tag"], one.full_state()["tag"])


def changed(name: str, rows: Tensor | None) -> dict[str, Tensor]:
    state = made().full_state()
    if rows is None:
        del state[name]
    else:
        state[name] = rows
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed("tag", None), r"must hold the tables \['item', 'tag'\]"),
        (changed("tag", torch.zeros(4, 8)), r"'tag' must have shape \(5, 8\)"),
        (changed("tag", torch.ones(5, 8)), "row 0 of table 'tag' must be zero"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made().load_full_state(state)


def test_wrong_arguments_are_named() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="num_embeddings of table 'a' must be >= 1"):
        TableSpec("a", 0, 4)
    with pytest.raises(ValueError, match="without dots"):
        TableSpec("a.b", 2, 4)
    with pytest.raises(ValueError, match="names must differ"):
        LocalTables([SPECS[0], SPECS[0]], learning_rate=RATE, generator=generator)
    with pytest.raises(ValueError, match="learning_rate and eps"):
        LocalTables(SPECS, learning_rate=0.0, generator=generator)
    with pytest.raises(ValueError, match="learning_rate and eps"):
        ShardedTables(SPECS, learning_rate=1.0, eps=0.0, generator=generator)
    with pytest.raises(RuntimeError, match="init_process_group"):
        ShardedTables(SPECS, learning_rate=RATE, generator=generator)
    with pytest.raises(ValueError, match="plan must place"):
        ShardedTables(SPECS, learning_rate=RATE, generator=generator, plan={"item": "row_wise"})
    with pytest.raises(ValueError, match=r"plan\['tag'\] must be"):
        ShardedTables(
            SPECS, learning_rate=RATE, generator=generator, plan={"item": "row_wise", "tag": "any"}
        )
    with pytest.raises(ValueError, match="multiple of 4"):
        ShardedTables(
            [TableSpec("odd", 9, 6)],
            learning_rate=RATE,
            generator=generator,
            plan={"odd": "table_wise"},
        )


def test_large_tables_are_split_and_small_ones_copied() -> None:
    specs = [TableSpec("items", 100_000, 64), TableSpec("prefix", 300, 64)]
    assert plan_tables(specs) == {"items": "row_wise", "prefix": "replicated"}


_TRAIN = """
from safetensors.torch import load_file, save_file
from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import TableSpec

specs = [TableSpec(name, 11, 4) for name in ("rows", "whole", "copy", "items")]
tables = ShardedTables(
    specs,
    learning_rate=0.1,
    generator=torch.Generator().manual_seed(0),
    plan={"rows": "row_wise", "whole": "table_wise", "copy": "replicated", "items": "row_wise"},
)
tables.load_full_state(load_file(f"{folder}/start.safetensors"))
for name, step in sorted(load_file(f"{folder}/steps.safetensors").items()):
    tables.learning_rate = 0.1 if name == "a" else 0.03
    mine = step[rank::world]
    found = tables({name: mine for name in ("rows", "whole", "copy")})
    assert not found["rows"][mine == 0].any()
    loss = sum(((vector - 1.0) ** 2).sum(dim=-1).mean() for vector in found.values())
    loss.backward()
    tables.step()
state = tables.full_state()
assert (rank == 0) == bool(state)
if rank == 0:
    save_file(state, f"{folder}/end-{world}.safetensors")
"""


def test_any_number_of_processes_trains_the_same_tables(run_group: object, tmp_path: Path) -> None:
    """One process, two and local tables end in the same rows, with a rate that falls."""
    from safetensors.torch import save_file

    specs = [TableSpec(name, 11, 4) for name in ("rows", "whole", "copy", "items")]
    start = initial_state(specs, generator=torch.Generator().manual_seed(5), std=0.5)
    # Row 0 is padding; in the last step the second process looks nothing but padding up.
    steps = {
        "a": torch.tensor([1, 2, 2, 7, 10, 3]),
        "b": torch.tensor([[2, 9], [2, 0], [1, 5], [10, 10]]),
        "c": torch.tensor([4, 0, 2, 0]),
    }
    save_file(start, tmp_path / "start.safetensors")
    save_file(steps, tmp_path / "steps.safetensors")
    local = LocalTables(specs, learning_rate=0.1, generator=torch.Generator())
    local.load_full_state(start)
    for name, step in sorted(steps.items()):
        local.learning_rate = 0.1 if name == "a" else 0.03
        found = local({name: step for name in ("rows", "whole", "copy")})
        sum(((vector - 1.0) ** 2).sum(dim=-1).mean() for vector in found.values()).backward()
        local.step()
    wanted = local.full_state()
    assert torch.equal(wanted["items"], start["items"])
    for world in (1, 2):
        (tmp_path / "store").unlink(missing_ok=True)
        run_group(_TRAIN, world)  # type: ignore[operator]
        found = load_file(tmp_path / f"end-{world}.safetensors")
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-5)
