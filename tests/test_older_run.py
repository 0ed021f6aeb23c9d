"""A bundle and a generation that an older version wrote still load, evaluate and serve.

``fixtures/older_run.tar.gz`` was written by the version of 2026-11-30, before the packages got
their rooms: the tables and configuration of a small run, its bundle, the values of its generation
as the store held them, and the answers that version gave.
"""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys import Recommender, load_config
from recsys.bundle import Bundle, latest
from serving.assembly import open_client
from serving.cli import app
from serving.connection.embedded import EmbeddedStore

FIXTURE = Path(__file__).parent / "fixtures" / "older_run.tar.gz"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The run in a directory whose path is short enough for the store's socket."""
    directory = Path(tempfile.mkdtemp(prefix="older-", dir="/tmp"))
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(directory, filter="data")
    yield directory
    EmbeddedStore.stop(directory / "artifacts" / "store")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def answers(home: Path) -> dict[str, Any]:
    """What the older version answered."""
    found: dict[str, Any] = json.loads((home / "answers.json").read_text())
    return found


@pytest.fixture
def bundle(home: Path) -> Bundle:
    return latest(home / "artifacts")


def run(home: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--config", str(home / "recsys.toml")])
    assert result.exit_code == 0, result.output
    return result.stdout


def fill_store(home: Path) -> None:
    """The generation's values, as they were read from the older store."""
    client = open_client(load_config(home / "recsys.toml"))
    raw = base64.b64decode
    for key, kind, value in json.loads((home / "generation.json").read_text()):
        if kind == "string":
            client.set(key, raw(value))
        elif kind == "hash":
            client.hset(key, mapping={raw(name): raw(one) for name, one in value.items()})
        else:
            assert kind == "zset"
            client.zadd(key, {raw(name): score for name, score in value})


def test_its_files_are_whole(bundle: Bundle) -> None:
    bundle.verify()


def test_its_model_recommends_what_it_did(bundle: Bundle, answers: dict[str, Any]) -> None:
    recommender = Recommender.load(bundle.path)
    for user_id, wanted in answers["in_process"].items():
        slate = recommender.recommend(user_id, k=5, recent_items=["25", "32", "150"])
        assert [(item.item_id, item.source) for item in slate.items] == [
            (item_id, source) for item_id, _, source in wanted
        ]
        scores = [score for _, score, _ in wanted]
        assert [item.score for item in slate.items] == pytest.approx(scores, rel=1e-5)


def test_its_generation_is_served_as_it_was(
    home: Path, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    fill_store(home)
    for user_id, wanted in answers["recommend"].items():
        got = json.loads(run(home, "recommend", user_id, "-k", "5", "--json"))
        assert {name: got[name] for name in ("items", "source", "generation")} == {
            name: wanted[name] for name in ("items", "source", "generation")
        }
        assert got["source"] == "cache"


def test_it_evaluates_as_before_but_for_moments_that_were_divided(
    home: Path, answers: dict[str, Any]
) -> None:
    """The version before held out parts of a moment; users of one event a moment are as they were.

    Three of these 29 differ: events of other users moved to the test part, and item counts did.
    """
    bundle = latest(home / "artifacts")
    before = user_metrics(bundle)
    run(home, "evaluate")
    assert set(bundle.manifest.metrics["test"]["funnel"]) == set(answers["metrics"])
    after = user_metrics(bundle)
    log = pl.read_parquet(home / "ratings.parquet")
    alone = log.group_by("userId").agg(pl.col("timestamp").is_duplicated().any().alias("tied"))
    users = alone.filter(~pl.col("tied"))["userId"].cast(pl.String).to_list()
    assert len(users) == 29
    same = [before[user] == pytest.approx(after[user]) for user in users]
    assert sum(same) == 26


def user_metrics(bundle: Bundle) -> dict[str, list[float]]:
    """User -> metrics of all items, as the evidence keeps them."""
    frame = pl.read_parquet(bundle.path / "evidence" / "users.parquet")
    names = [name for name in frame.columns if "@" in name]
    rows = frame.filter(pl.col("slice") == "").select("user_id", *names).iter_rows()
    return {user: list(values) for user, *values in rows}
