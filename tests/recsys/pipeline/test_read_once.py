"""What a run does once: every file is read, checked, split and turned into histories once, and
every definition is parsed once on its way from TOML to a live request."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.computation.declarations import make_definition
from features.tables import Histories, Interactions, ItemTable
from features.tables.reading import read_table
from features.tables.validation import catalogue_problems, entity_problems, event_problems
from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.dataset.tables import split_of
from recsys.pipeline import train
from recsys.recommender import Recommender
from serving.assembly import find_problems
from serving.jobs.gate import judge

RUN = """
[data]
events = "events.csv"
items = "items.parquet"
users = "users.parquet"
item_columns.list = ["tags"]
[output]
directory = "out"
[content]
dim = 4
[semantic_ids]
kind = "residual_kmeans"
levels = 2
codes = 4
[retrieval]
sources = ["co_occurrence", "popularity"]
[ranking]
candidates_per_source = 10
folds = 2
gbdt.num_trees = 5
gbdt.min_data_in_leaf = 5
listwise.enabled = false
[evaluation]
ks = [5]
bootstrap_samples = 20
[[features]]
kind = "field"
name = "age"
table = "user"
column = "age"
[[features]]
kind = "count"
name = "seen"
[[features]]
kind = "slate_relative"
name = "popular_here"
of = "score__popularity"
"""
DECLARED = ("age", "seen", "popular_here")
TABLES = ("events.csv", "items.parquet", "users.parquet")


@contextmanager
def entries(*functions: Callable[..., Any], by: str | None = None) -> Iterator[Counter[str]]:
    """Counts how often functions are entered, whoever calls them and by which name.

    Args:
        functions: what is counted; a classmethod too.
        by: the argument that tells entries of one function apart. None: they are one.
    """
    found: Counter[str] = Counter()
    names = {getattr(one, "__func__", one).__code__: one.__qualname__ for one in functions}

    def entered(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            value = names[frame.f_code] if by is None else frame.f_locals[by]
            found[value["name"] if isinstance(value, dict) else Path(str(value)).name] += 1

    before = sys.getprofile()
    sys.setprofile(entered)
    try:
        yield found
    finally:
        sys.setprofile(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty users who each meet twelve of forty items."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 10**9 + 5_000 * at + user)
        for user in range(30)
        for at, item in enumerate((rng.choice(20, 12, replace=False) * 2 + user % 2) % 40)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_csv(home / "events.csv")
    tags = [f"t{n % 4}|t{n % 5}" for n in range(40)]
    pl.DataFrame({"item_id": [f"i{n}" for n in range(40)], "tags": tags}).write_parquet(
        home / "items.parquet"
    )
    ages = {"user_id": [f"u{n}" for n in range(30)], "age": range(20, 50)}
    pl.DataFrame(ages).write_parquet(home / "users.parquet")
    (home / "recsys.toml").write_text(RUN)
    return home


@pytest.fixture(scope="module")
def bundle(home: Path) -> Bundle:
    return train(load_config(home / "recsys.toml"))


@pytest.fixture
def again(home: Path, bundle: Bundle) -> Callable[[], Bundle]:
    """Trains every stage anew."""
    return lambda: train(load_config(home / "recsys.toml"), fresh=True)


def once(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 1)


def test_a_run_reads_and_checks_every_file_once(again: Callable[[], Bundle]) -> None:
    with entries(read_table, by="path") as read:
        again()
    assert read == once(*TABLES)
    checks = (event_problems, entity_problems, catalogue_problems)
    with entries(*checks, by="source") as checked:
        again()
    assert checked == once(*TABLES) | {"events.csv": 2}  # by itself, and against the catalogue


def test_a_run_makes_its_data_once(again: Callable[[], Bundle]) -> None:
    made = (Interactions.from_frame, Histories.from_interactions, split_of)
    with entries(*made) as found:
        again()
    assert found == once(*(one.__qualname__ for one in made))
    with entries(ItemTable.from_frame, by="source") as tables:
        again()
    assert tables == once(*TABLES[1:])


def test_a_definition_is_parsed_once_on_its_way_into_the_bundle(
    again: Callable[[], Bundle],
) -> None:
    with entries(make_definition, by="record") as parsed:
        again()
    assert parsed == once(*DECLARED)


def test_a_bundle_parses_its_definitions_once_and_a_request_none(bundle: Bundle) -> None:
    with entries(make_definition, by="record") as parsed:
        recommender = Recommender.load(bundle.path)
    assert set(parsed) == {one.name for one in recommender.features.computer.definitions}
    assert set(parsed.values()) == {1}
    with entries(make_definition, by="record") as parsed:
        assert recommender.recommend("u1", 5).items
    assert parsed == {}


def test_validate_reads_and_checks_every_file_once(home: Path) -> None:
    config = load_config(home / "recsys.toml")
    with entries(read_table, by="path") as read:
        assert find_problems(config).problems == []
    assert read == once(*TABLES)
    checks = (event_problems, entity_problems, catalogue_problems)
    with entries(*checks, Interactions.from_frame) as checked:
        find_problems(config)
    assert checked == {"event_problems": 1, "entity_problems": 2, "catalogue_problems": 1}


def test_a_gate_of_two_unmeasured_bundles_reads_every_file_once(
    home: Path, bundle: Bundle, again: Callable[[], Bundle]
) -> None:
    config, candidate = load_config(home / "recsys.toml"), again()
    with entries(read_table, by="path") as read:
        judge(config, candidate, bundle, write=False)
    assert read == once(*TABLES)
