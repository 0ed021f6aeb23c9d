"""Half of the bundle's files are deleted while a process serves from it, and before one starts."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

import serving.process.server as module
from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.pipeline import train
from serving.assembly import open_service
from serving.jobs.candidates import build_candidates
from serving.jobs.publish import publish
from serving.messages import Recommendations, RecommendRequest
from tests.serving.connection.servers import Store, standalone, wait_for
from tests.serving.faults.fault_process import serving

CONFIG = """
seed = 7
[data]
events = "events.parquet"
items = "items.parquet"
[content]
dim = 8
[semantic_ids]
levels = 2
codes = 8
epochs = 1
[retrieval]
dim = 8
epochs = 1
negatives = 16
history_length = 10
[ranking]
candidates_per_source = 15
folds = 2
[ranking.gbdt]
num_trees = 5
min_data_in_leaf = 5
[ranking.listwise]
epochs = 1
dim = 8
top = 10
[candidates]
k = 10
[store]
url = "{url}"
[serving]
port = 0
deadline_s = 20
live_timeout_s = 20
store_timeout_s = 5
head_ttl_s = 0.05
drain_s = 0
"""
MOVIES = Path(__file__).resolve().parents[3] / "examples" / "data"
NUM_ITEMS, NUM_USERS = 60, 30


class Home(NamedTuple):
    """A trained and published bundle."""

    directory: Path
    bundle: Bundle
    server: Store
    users: list[str]
    items: list[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    directory = tmp_path_factory.mktemp("home")
    ratings = pl.read_parquet(MOVIES / "ratings.parquet")
    rated = ratings.group_by("movieId").len().sort("len", "movieId", descending=[True, False])
    ratings = ratings.join(rated.head(NUM_ITEMS), on="movieId", how="semi")
    people = ratings.group_by("userId").len().filter(pl.col("len").is_between(10, 30))
    ratings = ratings.join(people.sort("userId").head(NUM_USERS), on="userId", how="semi")
    items = pl.read_parquet(MOVIES / "movies.parquet").join(
        rated.head(NUM_ITEMS), on="movieId", how="semi"
    )
    ratings.rename({"userId": "user_id", "movieId": "item_id", "rating": "weight"}).write_parquet(
        directory / "events.parquet"
    )
    items.rename({"movieId": "item_id"}).write_parquet(directory / "items.parquet")
    with standalone() as server, pytest.MonkeyPatch.context() as patch:
        patch.delenv("RECSYS_STORE_URL", raising=False)
        (directory / "recsys.toml").write_text(CONFIG.format(url=server.url))
        config = load_config(directory / "recsys.toml")
        bundle = train(config)
        build_candidates(config, bundle)
        bundle = Bundle.load(bundle.path)
        publish(config, bundle)
        users = [str(one) for one in ratings["userId"].unique().sort().head(5)]
        yield Home(directory, bundle, server, users, [str(one) for one in items["movieId"]])


class Asked(NamedTuple):
    """Something that serves from the bundle.

    Attributes:
        recommend: as of `RecommendationService`.
        has_problem: whether it says that the served generation's model cannot be loaded.
    """

    recommend: Callable[[RecommendRequest], Recommendations]
    has_problem: Callable[[], bool]


@contextlib.contextmanager
def here(home: Home) -> Iterator[Asked]:
    config = load_config(home.directory / "recsys.toml")
    models = module._model_holder(config)
    with open_service(config, models=models) as service:
        service.warm_up()
        models.follow(service.served_generation)
        models.wait(60)
        try:
            yield Asked(service.recommend, lambda: models.problem() is not None)
        finally:
            models.close()


@contextlib.contextmanager
def process(home: Home) -> Iterator[Asked]:
    with serving(home.directory, home.server.url) as found:
        yield Asked(found.recommend, lambda: found.metric("recsys_live_models_problem") == 1)


def answers(asked: Asked, home: Home) -> list[Recommendations]:
    """What users get who just met an item."""
    found = [
        asked.recommend(RecommendRequest(user, k=5, recent_items=[item]))
        for user, item in zip(home.users, home.items, strict=False)
    ]
    assert all(len(one.items) == 5 and not one.degraded for one in found)
    return found


def halve(home: Home) -> Path:
    """Delete every second file of the bundle; returns a whole copy of it."""
    copy = home.directory / "whole"
    shutil.copytree(home.bundle.path, copy, dirs_exist_ok=True)
    files = sorted(path for path in home.bundle.path.rglob("*") if path.is_file())
    for path in files[::2]:
        path.unlink()
    return copy


def put_back(home: Home, copy: Path) -> None:
    for path in copy.rglob("*"):
        there = home.bundle.path / path.relative_to(copy)
        if path.is_file() and not there.exists():
            shutil.copy2(path, there)


@pytest.mark.parametrize("start", [here, pytest.param(process, marks=pytest.mark.slow)])
def test_bundle_half_deleted(
    home: Home, start: Callable[[Home], contextlib.AbstractContextManager[Asked]]
) -> None:
    with start(home) as asked:
        before = answers(asked, home)
        assert {one.source for one in before} == {"live"}
        copy = halve(home)
        wait_for(asked.has_problem, "it to be noticed")
        after = answers(asked, home)  # from the model in memory
        assert [one.items for one in after] == [one.items for one in before]
        assert {one.source for one in after} == {"live"}
        put_back(home, copy)
        wait_for(lambda: not asked.has_problem(), "it to be whole")
        assert [one.items for one in answers(asked, home)] == [one.items for one in before]
    copy = halve(home)
    with start(home) as asked:
        assert asked.has_problem()
        assert {one.source for one in answers(asked, home)} == {"cache"}
        put_back(home, copy)
        wait_for(lambda: answers(asked, home)[0].source == "live", "the model")
        assert [one.items for one in answers(asked, home)] == [one.items for one in before]
