"""A run's data from a Feast repository; `tests/serving/jobs/test_feast_end_to_end.py` runs all
verbs."""

from __future__ import annotations

import tomllib
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.errors import DataError
from recsys.config import Config, load_config
from recsys.dataset import read_dataset
from recsys.dataset.tables import item_titles, newest_events, open_tables
from recsys.errors import ConfigError
from recsys.tuning.search import _run_with
from recsys.tuning.toml_text import to_toml
from tests.feast_repository import build_feast_repository, tables

MINIMAL = '[data.feast]\nrepository = "feast"\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the repository ``feast``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
        pytest.importorskip("feast", reason="the feast extra is not installed")
    home = tmp_path_factory.mktemp("home")
    build_feast_repository(home / "feast", users=12)
    return home


def configured(home: Path, text: str = MINIMAL) -> Config:
    (home / "recsys.toml").write_text(text)
    return load_config(home / "recsys.toml")


def test_the_views_are_found_and_read(home: Path) -> None:
    config = configured(home, MINIMAL + '[data.columns]\nweight = "rating"\n')
    assert config.as_used()["data"]["feast"]["repository"] == "feast"
    data, stored = read_dataset(config), tables(12)
    log = data.interactions.frame
    assert log.height == stored["ratings"].height
    assert log["weight"].sum() == pytest.approx(stored["ratings"]["rating"].sum())
    assert set(log["event"]) == {"rating"}  # a column called "event" needs no setting, as in files
    assert data.num_items == stored["movies"].height
    assert (data.items.text_columns, data.items.list_columns) == (("title",), ("genres",))
    assert data.items.number_columns == ("year",)
    assert data.users is not None
    assert set(data.users.ids) <= set(data.user_list)
    assert read_dataset(config).fingerprint() == data.fingerprint()
    swapped = MINIMAL + 'items = "user_stats"\nusers = "movies"\n[data.columns]\nuser = "item_id"\n'
    columns = open_tables(configured(home, swapped)).columns
    assert (columns.user, columns.item) == ("item_id", "user_id")


def test_what_changes_with_time_plays_no_role_unless_it_is_named(home: Path) -> None:
    config = configured(home)
    users = open_tables(config).user_table
    assert users is not None
    assert {"num_ratings", "mean_rating", "last_genre"} <= set(users.frame.columns)
    assert (users.number_columns, users.category_columns) == ((), ())
    text = MINIMAL + '[data.user_columns]\ncategory = ["last_genre"]\n'
    users = open_tables(configured(home, text)).user_table
    assert users is not None
    assert (users.number_columns, users.category_columns) == ((), ("last_genre",))


def test_values_are_those_of_the_cut(home: Path) -> None:
    text = MINIMAL + 'items = "movie_stats"\n[split]\nkind = "time"\nfraction = 0.5\n'
    config = configured(home, text)
    raw = open_tables(config)
    assert isinstance(raw.items, pl.DataFrame)
    events = tables(12)["ratings"].sort("event_timestamp")
    moment = events["event_timestamp"][events.height // 2]
    cut: Any = events.filter(pl.col("event_timestamp") < moment)["event_timestamp"].max()
    known = tables(12)["movie_stats"].filter(
        (pl.col("event_timestamp") <= cut) & (pl.col("created_timestamp") <= cut)
    )
    newest = known.sort("event_timestamp").unique("item_id", keep="last").sort("item_id")
    found = raw.items.drop_nulls("num_ratings")
    assert 0 < found.height < raw.items.height  # what was first rated later has no numbers
    columns = ["item_id", "num_ratings", "mean_rating"]
    assert found.select(columns).equals(newest.select(columns))
    now = configured(home, text.replace("movie_stats", 'movie_stats"\nas_of = "now'))
    last = open_tables(now).items
    assert isinstance(last, pl.DataFrame)
    total = tables(12)["movie_stats"].group_by("item_id").agg(pl.col("num_ratings").max())
    assert last["num_ratings"].sum() == total["num_ratings"].sum()


def test_rows_that_are_dated_when_they_were_written(home: Path, tmp_path: Path) -> None:
    build_feast_repository(tmp_path / "feast", users=5)
    path = tmp_path / "feast" / "data" / "movies.parquet"
    rows = pl.read_parquet(path)
    late = pl.col("event_timestamp") + timedelta(days=20_000)
    half = pl.int_range(pl.len()) % 2 == 0
    rows.with_columns(
        pl.when(half).then(late).otherwise("event_timestamp").alias("event_timestamp")
    ).write_parquet(path)
    (problem,) = open_tables(configured(tmp_path)).problems
    assert problem.source == "view ratings"
    assert "set data.feast.as_of to 'now'" in problem.remedy
    config = configured(tmp_path, MINIMAL + 'as_of = "now"\n')
    assert read_dataset(config).num_items == rows.height
    rows.with_columns(late).write_parquet(path)
    with pytest.raises(DataError, match="view 'movies' must have rows until"):
        open_tables(configured(tmp_path))


def test_titles_and_newest_events(home: Path) -> None:
    config = configured(home, MINIMAL + '[data.item_columns]\ntitle = "title"\n')
    stored = tables(12)
    assert item_titles(config)["1"] == "Toy Story (1995)"
    assert len(item_titles(config)) == stored["movies"].height
    newest = newest_events(config, 50).frame
    assert newest.height == 50
    assert newest["timestamp"].max() == stored["ratings"]["event_timestamp"].max().replace(  # type: ignore[union-attr]
        tzinfo=None
    )
    with pytest.raises(DataError, match="title must be a column of the items, got 'name'; known"):
        item_titles(configured(home, MINIMAL + '[data.item_columns]\ntitle = "name"\n'))


def test_mistakes_are_told(home: Path) -> None:
    for text, message in (
        (MINIMAL + 'events = "rating"\n', "view 'rating' must exist in the feature store; did you"),
        (MINIMAL + '[data.columns]\nweight = "stars"\n', "must have the column 'stars', which"),
        (MINIMAL + '[data.columns]\nuser = "u"\n', "'u' must be a key of view 'ratings', got keys"),
        (MINIMAL.replace('"feast"', '"nowhere"'), "has no feature_store.yaml"),
    ):
        with pytest.raises(DataError, match=message):
            open_tables(configured(home, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[data]\nevents = "e.csv"\n[data.feast]\nrepository = "r"\n',
            "data: 'data.feast' must not stand beside files, got 'data.events'",
        ),
        ("[data]\n", "data: missing setting 'data.events'; name the file of the log, or a"),
        (
            MINIMAL + '[data.columns]\ntimestamp = "t"\n[data.item_columns]\nid = "i"\n',
            "got 'data.item_columns.id', 'data.columns.timestamp' beside 'data.feast'; leave out",
        ),
        (
            MINIMAL + "[data.read.items]\nheader = false\n",
            "'data.read' says how files are written and must not stand beside 'data.feast'; remove",
        ),
        ('[data]\nfeast = "repository"\n', "data.feast must be a table, got 'repository'"),
        (MINIMAL + 'event = "x"\n', "unknown setting 'data.feast.event'; did you mean 'events'?"),
    ],
)
def test_settings_that_do_not_fit_each_other(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)
    assert message in str(caught.value)


def test_where_the_repository_lies_changes_no_model(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "deep").mkdir()
    other = configured(tmp_path / "deep", MINIMAL.replace('"feast"', '"../feast"'))
    assert other.fingerprint() == config.fingerprint()
    assert config.data.feast is not None
    assert config.data.feast.repository == tmp_path / "feast"
    best = tomllib.loads(to_toml(_run_with(config, {}, tmp_path / "deep")))
    assert best["data"] == {"feast": {"repository": "../feast"}}


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_of_equally_new_events_the_same_ones_are_read(tmp_path: Path, ending: str) -> None:
    """Whatever their order in the file: where only some of one time fit, ids decide."""
    events = pl.DataFrame(
        {
            "user_id": [f"u{number % 7}" for number in range(300)],
            "item_id": [f"i{number:03d}" for number in range(300)],
            "timestamp": [1_600_000_000 + number // 100 for number in range(300)],
        }
    )
    pl.DataFrame({"item_id": events["item_id"], "price": range(300)}).write_parquet(
        tmp_path / "items.parquet"
    )
    config = configured(tmp_path, f'[data]\nevents = "e.{ending}"\nitems = "items.parquet"\n')
    found = []
    for seed in range(3):
        shuffled = events.sample(fraction=1.0, shuffle=True, seed=seed)
        getattr(shuffled, f"write_{ending}")(tmp_path / f"e.{ending}")
        found.append(newest_events(config, 150).frame)
    assert found[0].height == 150
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])
    assert found[0]["item_id"].tail(100).sort().to_list() == events["item_id"].tail(100).to_list()


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1 and what follows is none", b"a,b\n1,2\n"])
def test_the_newest_events_of_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.parquet").write_bytes(content)
    config = configured(tmp_path, '[data]\nevents = "e.parquet"\nitems = "items.parquet"\n')
    with pytest.raises(DataError, match=r"e\.parquet: must be a whole Parquet file, got"):
        newest_events(config, 5)
