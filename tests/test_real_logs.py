"""Shapes of file become the log they were written from, by what `init` writes; no training here."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_logs
from real_logs_files import World, make_world
from real_logs_shapes import SHAPES, Shape

LAYOUTS = (
    "impressions",
    "impressions, header",
    "sequences",
    "lists, bars",
    "lists, JSON in CSV",
    "lists, Parquet",
    "objects of a user, JSON",
    "matrix",
    "order lines",
    "order lines, no clock",
    "properties of items",
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(users=30, items=25, seed=2)


def test_there_are_enough_shapes_and_each_has_its_name() -> None:
    names = [one.name for one in SHAPES]
    assert len(set(names)) == len(names) >= 25
    assert set(LAYOUTS) <= set(names)
    assert set(real_logs.QUICK) <= set(names)


@pytest.mark.parametrize(
    "shape", [one for one in SHAPES if one.name in LAYOUTS], ids=lambda one: one.name
)
def test_a_layout_is_read_as_the_world_it_was_written_from(
    shape: Shape, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = shape.write(world)
    told = real_logs.run(
        "init", *(part for role, name in named.items() for part in (f"--{role}", name))
    )
    assert told[0] == 0, told[1]
    real_logs.with_small_training(Path("recsys.toml"))
    code, said = real_logs.run("validate")
    assert code == 0, said
    read, there, fault = real_logs.compare(shape, world)
    assert (read, fault) == (there, "")
    assert there > 100


def test_a_wrong_log_is_seen(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shape = SHAPES[0]
    named = shape.write(World(world.events.tail(-1), world.items))
    assert real_logs.run("init", "--events", named["events"], "--items", named["items"])[0] == 0
    assert (
        real_logs.compare(shape, world)[2]
        == f"{world.events.height - 1} rows of {world.events.height}"
    )
    swapped = world.events.with_columns(world.events["item_id"].reverse())
    shape.write(World(swapped, world.items))
    assert real_logs.compare(shape, world)[2].endswith("differs")
