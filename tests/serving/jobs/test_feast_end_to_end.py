"""A real Feast repository through every verb: DuckDB offline, an embedded Redis server online."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.bundle import Bundle, latest
from recsys.config import load_config
from recsys.dataset import read_dataset
from serving.cli import app
from serving.connection.embedded import EmbeddedStore
from serving.doctor.installation import examine
from tests.feast_repository import build_feast_repository, redis_connection_string
from tests.serving.stores import short_directory

ROOT = Path(__file__).resolve().parents[3]
SERVE = ("serve", "--port", "0", "--drain", "0")
SMALL = """
[content]
dim = 8
[semantic_ids]
levels = 2
codes = 8
epochs = 2
[retrieval]
dim = 8
epochs = 1
negatives = 16
batch_size = 256
history_length = 10
[ranking]
candidates_per_source = 20
folds = 2
[ranking.gbdt]
num_trees = 10
min_data_in_leaf = 20
[ranking.listwise]
epochs = 1
dim = 8
top = 10
[candidates]
k = 10
[serving]
deadline_s = 60
live_timeout_s = 60
store_timeout_s = 20
"""


def run(*arguments: str) -> str:
    """Standard output of a verb that must do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
        done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Feast's online store, as a URL."""
    with short_directory() as directory:
        yield EmbeddedStore.ensure(directory / "online")
        EmbeddedStore.stop(directory / "online")


@pytest.fixture(scope="module")
def project(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository beside a configuration that `init` wrote, trained and published."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("feast", reason="the feast extra is not installed")
    home = tmp_path_factory.mktemp("shop")
    build_feast_repository(
        home / "feast", offline="duckdb", redis=redis_connection_string(server), users=25
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("RECSYS_STORE_URL", raising=False)
        run("init", "--from-feast", "feast")
        with (home / "recsys.toml").open("a") as file:
            file.write(SMALL)
        for verb in ("validate", "train", "candidates", "publish"):
            run(verb)
        yield home


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


@pytest.fixture(scope="module")
def bundle(project: Path) -> Bundle:
    return latest(project / "artifacts")


def test_a_list_is_served_from_feasts_server(inside: Path, bundle: Bundle, server: str) -> None:
    config = load_config("recsys.toml")
    assert config.store.url == server
    answer = json.loads(run("recommend", "3", "-k", "3", "--json"))
    assert (answer["source"], answer["generation"]) == ("cache", bundle.id)
    data = read_dataset(config)
    titles = dict(data.items.frame.select("item_id", "title").iter_rows())
    assert [one["title"] for one in answer["items"]] == [
        titles[one["item_id"]] for one in answer["items"]
    ]
    mine = data.interactions.filter_users(["3"]).frame["item_id"].to_list()
    assert not {one["item_id"] for one in answer["items"]} & set(mine)


def test_serve_answers_over_http(inside: Path, bundle: Bundle) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from serving.cli import main; main()", *SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        assert child.stdout is not None
        try:
            url = child.stdout.readline().split()[-1]
            answers = [
                ask(url, {"user_id": "3", "k": 2}),
                ask(url, {"user_id": "new", "k": 2, "context": {"recent_items": ["1", "2"]}}),
            ]
        finally:
            child.send_signal(signal.SIGTERM)
    assert [one["source"] for one in answers] == ["cache", "live"]
    assert answers[0]["generation"] == bundle.id


def ask(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/v1/recommend",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_a_second_run_takes_over_every_stage(inside: Path, bundle: Bundle) -> None:
    stages = {path: path.stat().st_mtime_ns for path in Path("artifacts/work").glob("*/stage.json")}
    run("train")
    assert len(stages) > 5
    assert {path: path.stat().st_mtime_ns for path in stages} == stages
    again = latest(Path("artifacts"))
    assert again.manifest.data_fingerprint == bundle.manifest.data_fingerprint


def test_what_was_learnt_goes_back_as_views(inside: Path, bundle: Bundle) -> None:
    run("features", "declare", "feast", "--bundle", bundle.id)
    feast = Path(sys.executable).parent / "feast"
    done = subprocess.run(
        [feast, "-c", "feast", "apply"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(run("features", "publish", "feast", "--bundle", bundle.id, "--json"))
    assert found["generation"] == bundle.id
    rows = {one["view"]: one["rows"] for one in found["views"]}
    data = read_dataset(load_config("recsys.toml"))
    assert rows["recsys_item_vectors"] == data.num_items
    assert rows["recsys_candidates"] == len(data.user_ids)

    from features.feast.source import FeastSource

    again = json.loads(run("features", "publish", "feast", "--bundle", bundle.id, "--json"))
    assert not any(one["written"] for one in again["views"])
    store = FeastSource("feast").store
    both = store.get_online_features(
        features=["movies:title", "recsys_item_vectors:generation"], entity_rows=[{"item_id": 1}]
    ).to_dict()
    assert both["generation"] == [bundle.id]  # one id, one key: item ids are Int64 here
    lists = FeastSource("feast").latest("recsys_candidates", ["3", "nobody"])
    assert lists.present.tolist() == [True, False]
    served = json.loads(run("recommend", "3", "-k", "10", "--json"))["items"]
    assert json.loads(lists.values["item_ids"][0])[:10] == [one["item_id"] for one in served]
    # These views are not taken for data when a configuration is written anew.
    before = Path("recsys.toml").read_text()
    run("init", "--from-feast", "feast", "--out", "again.toml")
    assert Path("again.toml").read_text() == before.removesuffix(SMALL)


def test_the_doctor_and_the_feature_verbs_read_the_views(inside: Path) -> None:
    found = {one.check: one for one in examine(Path("recsys.toml"))}
    assert found["data"].state == "OK"
    assert found["data"].detail == "the Feast repository feast"
    names = {
        one["definition"]["name"]
        for one in json.loads(
            run("features", "suggest", "--json", "--sample-events", "50", "--max-events", "500")
        )["features"]
    }
    assert "year_age" in names, names
    assert json.loads(run("features", "parity", "--requests", "5", "--json"))["equal"]


def test_a_later_row_changes_nothing(inside: Path) -> None:
    path = Path("feast/data/movies.parquet")
    config = load_config("recsys.toml")
    before, stored = read_dataset(config), path.read_bytes()
    rows = pl.read_parquet(path)
    cut: Any = before.split(config).train.frame["timestamp"].max()
    known = pl.col("event_timestamp").dt.replace_time_zone(None) <= cut
    later = rows.filter(known).with_columns(
        title=pl.lit("another"),
        year=pl.lit(1, pl.Int64),
        event_timestamp=pl.lit(cut + timedelta(seconds=1)).cast(rows.schema["event_timestamp"]),
    )
    try:
        pl.concat([rows, later]).write_parquet(path)
        assert read_dataset(config).fingerprint() == before.fingerprint()
        earlier = later.with_columns(
            event_timestamp=pl.lit(cut).cast(rows.schema["event_timestamp"])
        )
        pl.concat([rows, earlier]).write_parquet(path)
        items = read_dataset(config).items
        assert items.frame["title"].eq("another").sum() == later.height
        assert items.number_columns == ()  # the year was another one before
    finally:
        path.write_bytes(stored)
