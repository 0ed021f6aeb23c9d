from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.errors import ArtifactError
from serving.assembly import bundled_popular, open_store, read_titles, store_url
from serving.cli import app
from serving.connection.embedded import EmbeddedStore
from serving.doctor.installation import examine

ROOT = Path(__file__).resolve().parents[3]
SERVE = ("serve", "--port", "0", "--drain", "0")
CONFIG = """
[data]
events = "events.parquet"
items = "items.parquet"
[data.item_columns]
title = "title"
[serving]
live = false
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose embedded store holds two generations, the newer that of its bundle."""
    home = tmp_path_factory.mktemp("p")
    pl.DataFrame(
        {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [10**9, 10**9 + 5]}
    ).write_parquet(home / "events.parquet")
    pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["Alpha", "Beta", None]}).write_parquet(
        home / "items.parquet"
    )
    (home / "recsys.toml").write_text(CONFIG)
    with Bundle.create(home / "artifacts", config={}, data_fingerprint="d") as draft:
        (draft.path / "candidates").mkdir()
        text = '{"format": 1, "item_ids": ["c"], "score": [1.0]}'
        (draft.path / "candidates" / "popular.json").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RECSYS_STORE_URL", raising=False)
        store = open_store(load_config(home / "recsys.toml"))
        for generation in ("older", draft.id):
            lists = (["u"], np.array([[2, 3]]), np.array([[0.9, 0.5]], np.float32), 0)
            near = (["a"], np.array([[2, 3]]), np.array([[0.8, 0.1]], np.float32), 0)
            store.publish(
                generation,
                users=[lists],
                item_ids=["a", "b", "c"],
                popular=(np.array([3, 1]), np.array([2.0, 1.0], np.float32)),
                vocabulary_sha256="v",
                ttl_s=3600,
                neighbours=[near],
            )
        yield home
        EmbeddedStore.stop(home / "artifacts" / "store")


@pytest.fixture
def project(published: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(published)
    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    return published


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_recommend_prints_titles_sources_and_the_generation(project: Path) -> None:
    result = run("recommend", "u", "-k", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["rank", "item", "title", "score", "source"]
    assert lines[1].split() == ["1", "b", "Beta", "0.8999", "candidates"]
    assert "from cache, generation 2" in lines[-1]
    values = json.loads(run("recommend", "u", "--json").stdout)
    assert values["user_id"] == "u"
    assert [item["item_id"] for item in values["items"]][:2] == ["b", "c"]
    assert values["items"][0]["title"] == "Beta"
    assert values["items"][1]["title"] is None


def test_an_unknown_user_gets_the_named_fallback(project: Path) -> None:
    result = run("recommend", "nobody", "-k", "1")
    assert result.exit_code == 0
    assert "from popular (unknown_user)" in result.stdout
    assert run("recommend", "u", "-k", "0").exit_code == 2


def test_similar_lists_neighbours(project: Path) -> None:
    result = run("similar", "a", "-k", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split()[:3] == ["1", "b", "Beta"]


def test_generations_and_rollback(project: Path) -> None:
    served = json.loads(run("generations", "--json").stdout)["generations"]
    assert {one["generation"]: one["state"] for one in served}["older"] == "previous"
    assert "published_at" in run("generations").stdout.splitlines()[0]
    result = run("rollback")
    assert "generation older is served again" in result.stdout
    assert json.loads(run("recommend", "u", "--json").stdout)["generation"] == "older"
    assert json.loads(run("rollback", "--json").stdout)["previous"] == "older"


def test_the_doctor_finds_everything_in_order(project: Path) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for check in ("python", "torch", "config", "data", "output", "bundle", "store", "generation"):
        assert f"OK    {check}: " in result.stdout
    assert json.loads(run("doctor", "--json").stdout)["healthy"]


def test_serve_answers_until_it_is_told_to_stop(project: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from serving.cli import main; main()", *SERVE],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        try:
            assert child.stdout is not None
            url = child.stdout.readline().split()[-1]
            request = urllib.request.Request(
                f"{url}/v1/recommend",
                data=b'{"user_id": "u", "k": 1}',
                headers={"content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                assert json.load(reply)["items"][0]["item_id"] == "b"
        finally:
            child.send_signal(signal.SIGTERM)
    assert child.returncode == 0


def test_a_taken_port_is_a_message(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("serve", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "choose another with --host and --port" in result.stderr


def test_the_environment_names_the_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(project / "recsys.toml")
    assert store_url(config) == "embedded"
    monkeypatch.setenv("RECSYS_STORE_URL", "redis://shop:secret@127.0.0.1:1/0")
    assert store_url(config).startswith("redis://shop:***@127.0.0.1:1")
    result = run("generations")
    assert result.exit_code == 1
    assert "secret" not in result.output
    result = run("doctor")
    assert result.exit_code == 1
    assert "FAIL  store: redis://shop:***@127.0.0.1:1" in result.stdout
    # The fallback list of the bundle answers without any store.
    answer = json.loads(run("recommend", "u", "--json").stdout)
    assert answer["degraded"]
    assert answer["items"][0]["item_id"] == "c"


def test_titles_need_a_configured_column(project: Path, tmp_path: Path) -> None:
    assert read_titles(load_config(project / "recsys.toml")) == {"a": "Alpha", "b": "Beta"}
    path = tmp_path / "recsys.toml"
    path.write_text('[data]\nevents = "e.csv"\nitems = "i.csv"\n')
    assert read_titles(load_config(path)) == {}


def test_a_damaged_fallback_list_is_refused(tmp_path: Path) -> None:
    with Bundle.create(tmp_path, config={}, data_fingerprint="d") as draft:
        pass
    bundle = draft.finished()
    assert bundled_popular(bundle) is None
    (bundle.path / "candidates").mkdir()
    path = bundle.path / "candidates" / "popular.json"
    path.write_text('{"format": 2}')
    with pytest.raises(ArtifactError, match="must have format 1, got 2; run `recsys candidates`"):
        bundled_popular(bundle)
    path.write_text('{"format": 1}')
    with pytest.raises(ArtifactError, match="is damaged"):
        bundled_popular(bundle)


def findings(path: Path) -> dict[str, str]:
    return {one.check: one.state for one in examine(path)}


def test_the_doctor_on_a_bare_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recsys.toml"
    assert findings(path)["config"] == "FAIL"
    path.write_text('[data]\nevents = "e.csv"\nitems = "i.csv"\n')
    found = findings(path)
    assert found["data"] == "FAIL"
    assert found["bundle"] == "WARN"
    assert found["store"] == "WARN"
    assert "generation" not in found
    assert not (tmp_path / "artifacts").exists()
    monkeypatch.setitem(sys.modules, "torchrec", None)
    assert findings(path)["torchrec"] == "FAIL"


def test_the_doctor_on_a_damaged_bundle(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "recsys.toml"
    path.write_text(
        f'[data]\nevents = "{project}/events.parquet"\nitems = "{project}/items.parquet"\n'
    )
    with Bundle.create(tmp_path / "artifacts", config={}, data_fingerprint="d") as draft:
        (draft.path / "model.txt").write_text("x")
    (draft.finished().path / "model.txt").write_text("y")
    assert findings(path)["bundle"] == "FAIL"
    (draft.finished().path / "manifest.json").write_text("{")
    assert findings(path)["bundle"] == "FAIL"


def test_stop_stops_the_store_once(tmp_path: Path) -> None:
    path = tmp_path / "recsys.toml"
    path.write_text('[data]\nevents = "e.csv"\nitems = "i.csv"\n')
    EmbeddedStore.ensure(tmp_path / "artifacts" / "store")
    assert run("stop", "--config", str(path)).stdout == "store stopped\n"
    assert json.loads(run("stop", "--json", "--config", str(path)).stdout) == {"stopped": False}
