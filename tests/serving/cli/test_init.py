from __future__ import annotations

import gzip
import json
import subprocess
import sys
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from features.tables.times import TICKS
from recsys.config import load_config
from recsys.config.store_url import StoreUrl
from recsys.dataset import read_dataset
from recsys.dataset.tables import newest_events
from serving.cli import app
from serving.connection import connect
from serving.first_run.store_url import propose_store, url_of
from tests.feast_repository import build_feast_repository

ROOT = Path(__file__).resolve().parents[3]
START = 1_500_000_000


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views over the bundled data; tests that change it put it back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
        pytest.importorskip("feast", reason="the feast extra is not installed")
    return build_feast_repository(tmp_path_factory.mktemp("feast"), users=12)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["init", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_repository_becomes_a_commented_configuration(repository: Path) -> None:
    code, told, _ = run("--from-feast", str(repository), "--out", "deep/run.toml")
    assert code == 0
    assert told.splitlines()[-1] == (
        "wrote deep/run.toml; next: recsys validate -c deep/run.toml && "
        "recsys train -c deep/run.toml"
    )
    text = Path("deep/run.toml").read_text()
    for line in (
        'events = "ratings"',
        'items = "movies"',
        'users = "user_stats"',
        'as_of = "training_end"',
        'weight = "rating"',
        'title = "title"',
        'list = ["genres"]',
        "# 'ratings' holds the events: the only view keyed by user_id and item_id",
        'url = "embedded"',
    ):
        assert f"\n{line}\n" in text
    assert "# num_ratings, mean_rating, last_genre: changing with time, so not used" in text
    assert max(map(len, text.splitlines())) <= 100
    data = read_dataset(load_config("deep/run.toml"))
    assert data.items.text_columns == ("title",)
    assert json.loads(run("--from-feast", str(repository), "--out", "b.toml", "--json")[1])[
        "choices"
    ][0] == [
        "data.feast.events",
        "'ratings' holds the events: the only view keyed by user_id and item_id",
    ]


def test_what_users_come_back_to_may_be_shown_again(repository: Path) -> None:
    """The share is measured in a view of events as in a file of them."""
    ratings = repository / "data/ratings.parquet"
    content = ratings.read_bytes()
    assert run("--from-feast", str(repository))[0] == 0
    assert "repeats" not in Path("recsys.toml").read_text()  # a film is rated once
    try:
        rows = pl.read_parquet(ratings)
        newest = rows["event_timestamp"].max()
        later = rows.head(rows.height // 2).with_columns(
            pl.lit(newest).dt.offset_by("30d").alias("event_timestamp")
        )
        pl.concat([rows, later]).write_parquet(ratings)
        assert run("--from-feast", str(repository), "--force")[0] == 0
    finally:
        ratings.write_bytes(content)
    assert load_config("recsys.toml").slate.repeats == "allow"
    assert "of what users did last was with an item that they had met before" in " ".join(
        Path("recsys.toml").read_text().replace("\n# ", " ").split()
    )


def test_a_file_that_is_there_stays(repository: Path) -> None:
    Path("recsys.toml").write_text("mine")
    code, _, error = run("--from-feast", str(repository))
    assert (code, Path("recsys.toml").read_text()) == (2, "mine")
    assert "recsys.toml must not be there yet; give --force to replace it, or --out" in error
    assert run("--from-feast", str(repository), "--force")[0] == 0
    assert Path("recsys.toml").read_text() != "mine"


def test_views_by_name(repository: Path) -> None:
    assert run("--from-feast", str(repository), "--items", "movie_stats")[0] == 0
    text = Path("recsys.toml").read_text()
    assert "# 'movie_stats' describes the items, as told\n" in text
    code, _, error = run("--from-feast", str(repository), "--events", "rating", "--force")
    assert code == 2
    assert "view 'rating' must exist in the feature store; did you mean 'ratings'?" in error
    code, _, error = run("--from-feast", str(repository), "--events", "movies", "--force")
    assert "events must be a view keyed by user and item, got 'movies' keyed by item_id" in error


def test_several_views_that_could_hold_the_events(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from features.feast.source import FeastSource

    found = FeastSource.describe

    def twice(self: FeastSource) -> Any:
        views = found(self)
        log = next(view for view in views if view.name == "ratings")
        return [*views, log._replace(name="clicks")]

    monkeypatch.setattr(FeastSource, "describe", twice)
    code, _, error = run("--from-feast", str(repository))
    assert code == 2
    assert (
        "one view must hold the events, got 'ratings' (user_id, item_id), 'clicks' (user_id, "
        "item_id), none with a ttl; name one with --events" in error
    )
    assert not Path("recsys.toml").exists()
    assert run("--from-feast", str(repository), "--events", "ratings")[0] == 0


def test_what_the_values_do_not_allow_is_left_out(repository: Path) -> None:
    ratings, movies = (repository / "data" / f"{name}.parquet" for name in ("ratings", "movies"))
    kept = [(path, path.read_bytes()) for path in (ratings, movies)]
    try:
        rows = pl.read_parquet(ratings)
        rows.with_columns(pl.col("rating") - 3).write_parquet(ratings)
        rows = pl.read_parquet(movies)
        moment = pl.lit(datetime(2019, 1, 1)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        rows.with_columns(event_timestamp=moment).write_parquet(movies)
        assert run("--from-feast", str(repository))[0] == 0
    finally:
        for path, content in kept:
            path.write_bytes(content)
    text = Path("recsys.toml").read_text()
    assert "# weight is left out: 'rating' must be finite and >= 0\n" in text
    assert "weight =" not in text
    assert 'as_of = "now"\n' in text
    assert "# the newest rows: no row is dated before the log ends" in text


def events(unit: str = "s", **columns: Any) -> pl.DataFrame:
    scale = TICKS[unit]
    times = [(START + n) * scale for n in range(20)]
    return pl.DataFrame(
        {
            "customerId": [n % 5 for n in range(20)],
            "product_id": [n % 4 for n in range(20)],
            "time": times,
            **columns,
        }
    )


@pytest.mark.parametrize("unit", list(TICKS))
def test_files_become_a_configuration(unit: str) -> None:
    events(unit, action=["buy", "see"] * 10, stars=[1.0, 2.0] * 10).write_csv("log.csv")
    kind = [f"kind {n % 2}" for n in range(10)]
    pl.DataFrame(
        {"productId": range(10), "name": [f"n {n}" for n in range(10)], "kind": kind}
    ).write_parquet("shop.parquet")
    pl.DataFrame({"id": range(5), "age": range(5)}).write_csv("people.csv")
    code, told, _ = run("--events", "log.csv", "--items", "shop.parquet", "--users", "people.csv")
    assert code == 0, told
    config = load_config("recsys.toml")
    columns = config.data.columns
    assert (columns.user, columns.item, columns.timestamp) == ("customerId", "product_id", "time")
    assert (columns.timestamp_unit, columns.event, columns.weight) == (unit, "action", "stars")
    assert config.data.item_columns.title == "name"
    data = read_dataset(config)
    assert data.interactions.frame["timestamp"][0] == datetime(1970, 1, 1) + timedelta(
        seconds=START
    )
    assert data.items.category_columns == ("kind",)
    assert data.users is not None


def test_files_behind_urls_become_a_configuration() -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra 'remote'")
    system = fsspec.filesystem("memory")
    system.pipe("/shop/log.csv", events("s").write_csv().encode())
    system.pipe("/shop/items.csv", pl.DataFrame({"product_id": range(10)}).write_csv().encode())
    try:
        urls = ("--events", "memory://shop/log.csv", "--items", "memory://shop/items.csv")
        code, told, error = run(*urls, "--out", "sub/recsys.toml")
        assert code == 0, told + error
        assert 'events = "memory://shop/log.csv"' in Path("sub/recsys.toml").read_text()
        config = load_config("sub/recsys.toml")
        assert len(read_dataset(config).interactions) == 20
        assert len(newest_events(config, 7)) == 7
    finally:
        system.rm("/shop", recursive=True)


def test_how_a_file_is_written_is_found_and_said() -> None:
    text = events("s").write_csv(separator=";")
    Path("log.txt.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    shop = pl.DataFrame({"productId": range(10), "name": [f"n {n}" for n in range(10)]})
    shop.write_csv("shop.csv")
    shop[:0].write_csv("none.csv")
    code, told, _ = run("--events", "log.txt.gz", "--items", "shop.csv")
    assert code == 0, told
    lines = ("[data.read.events]", 'separator = ";"', 'encoding = "utf-16"', 'compression = "gzip"')
    assert "\n".join(lines) in Path("recsys.toml").read_text()
    assert "data.read.items" not in Path("recsys.toml").read_text()
    assert len(read_dataset(load_config("recsys.toml")).interactions) == 20
    assert (
        "none.csv: must hold rows, got a header alone"
        in run("--events", "log.txt.gz", "--items", "none.csv", "--force")[2]
    )
    Path("nameless.csv").write_text("1,2,1600000000\n3,4,1600000100\n")
    assert run("--events", "nameless.csv", "--items", "shop.csv", "--force")[0] == 0
    config = load_config("recsys.toml")
    columns = config.data.columns
    assert not config.data.read.events.header
    assert (columns.user, columns.item, columns.timestamp) == ("column_1", "column_2", "column_3")


def test_files_that_do_not_say_what_they_are() -> None:
    code, _, error = run("--items", "items.csv")
    assert code == 2
    assert "--events must name the file of the log where --from-feast names no repository" in error
    pl.DataFrame({"price": [1.5, 2.5], "time": [START, START + 1]}).write_csv("log.csv")
    pl.DataFrame({"a": [1]}).write_csv("items.csv")
    error = run("--events", "log.csv", "--items", "items.csv")[2]
    assert "log.csv must have a column that can be the user's id, got price, time; name it" in error
    events().write_csv("log.csv")
    error = run("--events", "log.csv", "--items", "items.csv")[2]
    assert "items.csv must have a column of ids that the log's 'product_id' names, got a;" in error
    assert run("--events", "nowhere.csv", "--items", "items.csv")[0] == 1
    assert not Path("recsys.toml").exists()


@pytest.mark.parametrize(
    ("connection", "url", "secret", "rest"),
    [
        ("localhost:6379", "redis://localhost:6379", False, []),
        ("cache:6380,db=0,ssl=false", "redis://cache:6380", False, []),
        ("cache:6380,db=2,ssl=true,password=s3,retry=1", "rediss://cache:6380/2", True, ["retry"]),
        ("cache:1,username=me@x,password=a=b", "redis://me%40x@cache:1", True, []),
        ("x:0,unix_socket_path=/run/a.sock,db=1", "unix:///run/a.sock?db=1", False, []),
    ],
)
def test_the_url_of_a_connection_string(
    connection: str, url: str, secret: bool, rest: list[str]
) -> None:
    assert url_of(connection) == (url, secret, rest)
    connect(url).close()  # redis-py takes it


@pytest.mark.parametrize(
    ("online", "url", "reason"),
    [
        ({"type": "sqlite"}, "embedded", "Feast's online store is 'sqlite'"),
        (
            {"type": "redis", "redis_type": "redis_cluster", "connection_string": "a:1,b:2"},
            "redis+cluster://a:1,b:2",
            "Feast's online store",
        ),
        (
            {
                "type": "redis",
                "redis_type": "redis_sentinel",
                "connection_string": "a:1,b:2,db=3,ssl=true,password=top",
                "sentinel_master": "main",
            },
            "rediss+sentinel://a:1,b:2/main/3",
            "password is read from RECSYS_STORE_PASSWORD",
        ),
        (
            {"type": "redis", "redis_type": "redis", "connection_string": "a:1,password=top"},
            "redis://a:1",
            "password is read from RECSYS_STORE_PASSWORD",
        ),
        (
            {
                "type": "features.feast.online_store.RecsysRedisOnlineStore",
                "redis_type": "redis",
                "connection_string": "a:1",
            },
            "redis://a:1",
            "generations have keys of their own",
        ),
    ],
)
def test_the_proposed_store(online: dict[str, str], url: str, reason: str) -> None:
    config = SimpleNamespace(online_store=SimpleNamespace(**online))
    found, told = propose_store(SimpleNamespace(config=config))
    assert found == url
    assert url == "embedded" or StoreUrl.parse(url).hosts[0] == ("a", 1)
    assert reason in told
    assert "top" not in found + told


def test_help_is_light() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from serving.cli import app; "
        "result = CliRunner().invoke(app, ['init', '--help']); "
        "heavy = {'torch', 'numpy', 'polars', 'redis', 'fastapi', 'feast'}; "
        "found = sorted(heavy & set(sys.modules)); "
        "sys.exit(' '.join(found) or int('--from-feast' not in result.stdout))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
