from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from features import ItemTable, Vocabulary, default_definitions
from features.computation.declarations import dump_definitions
from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.errors import ArtifactError
from recsys.recommender.computer import read_computer
from serving.assembly import open_client
from serving.cli import app
from serving.connection.embedded import EmbeddedStore
from serving.events.event_stream import EventStream
from serving.events.feature_state import RedisStateStore
from serving.messages import Event
from serving.store.keys import Keys
from tests.serving.stores import short_directory

NOW = time.time()
CONFIG = """
[data]
events = "events.parquet"
items = "items.parquet"
[data.item_columns]
category = ["maker"]
[store]
namespace = "shop"
"""


@pytest.fixture
def project(monkeypatch):
    """A log, a catalogue, and a bundle with what its definitions need and no model."""
    with short_directory() as home:
        monkeypatch.chdir(home)
        pl.DataFrame(
            {
                "user_id": [f"u{n % 5}" for n in range(50)],
                "item_id": [f"i{n % 7}" for n in range(50)],
                "timestamp": [int(NOW) - 90_000 + 600 * n for n in range(50)],
            }
        ).write_parquet("events.parquet")
        ids = [f"i{n}" for n in range(7)]
        frame = pl.DataFrame({"item_id": ids, "maker": ["m", "n", "m", "o", "n", "m", "o"]})
        frame.write_parquet("items.parquet")
        (home / "recsys.toml").write_text(CONFIG)
        config = load_config(home / "recsys.toml")
        items, vocabulary = ItemTable(frame, category_columns=("maker",)), Vocabulary.from_ids(ids)
        with Bundle.create(config.output.directory, config={}, data_fingerprint="x") as draft:
            for part in ("data", "content", "features"):
                (draft.path / part).mkdir()
            vocabulary.save(draft.path / "data" / "items.parquet")
            frame.write_parquet(draft.path / "data" / "catalogue.parquet")
            vectors = np.zeros((8, 4), dtype=np.float32)
            save_file({"vectors": vectors}, draft.path / "content" / "vectors.safetensors")
            definitions = dump_definitions(default_definitions(items))
            (draft.path / "features" / "definitions.json").write_text(json.dumps(definitions))
            header = {
                "format": 1,
                "items_sha256": vocabulary.sha256,
                "item_columns": {"category_columns": ["maker"]},
            }
            (draft.path / "recommender.json").write_text(json.dumps(header))
        yield config
        EmbeddedStore.stop(config.output.directory / "store")


def record(config, number, first=0):
    stream = EventStream(open_client(config), Keys("shop"))
    stream.record(
        [Event(f"u{n % 5}", f"i{n % 7}", NOW - 50 + n / 10) for n in range(first, first + number)]
    )


def run(*arguments):
    result = CliRunner().invoke(app, ["features", "follow", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_it_begins_with_the_log_and_drains_the_stream(project):
    record(project, 20)
    before = signal.getsignal(signal.SIGTERM)
    code, text, note = run("--once")
    assert code == 0
    assert "following feedback events for the definitions of " in note
    assert "began with 50 events of the log\n20 events followed, 0 known already, 0 no ev" in text
    assert signal.getsignal(signal.SIGTERM) is before
    record(project, 30)
    code, text, _ = run("--once", "--json", "--batch", "7")
    found = json.loads(text)
    assert code == 0
    assert (found["update"]["applied"], found["update"]["duplicates"]) == (10, 20)
    assert (found["seeded"]["applied"], found["lost"], found["replaced"]) == (0, 0, None)
    assert found["events_per_s"] > 0


def test_it_runs_until_it_is_told_to_stop(project):
    open_client(project).ping()
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from serving.cli import main; main()",
            "features",
            "follow",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
    )
    try:
        client = open_client(project)
        deadline = time.monotonic() + 30
        while not client.keys("shop:f:*:followed") and time.monotonic() < deadline:
            time.sleep(0.02)
        record(project, 5)
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        text, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 0
    assert "5 events followed" in text


def test_a_process_that_is_replaced_ends_and_says_why(project, monkeypatch):
    record(project, 20)
    write = RedisStateStore.write

    def taken_over(self, values):
        RedisStateStore(open_client(project), "shop", writer=True)
        write(self, values)

    monkeypatch.setattr(RedisStateStore, "write", taken_over)
    code, text, _ = run("--once")
    assert code == 0
    assert "stopped: only one process may update the feature state under 'shop:f:" in text


def test_a_bundle_without_its_files(project):
    bundle = next(path for path in project.output.directory.iterdir() if (path / "data").exists())
    Vocabulary.from_ids(["other"]).save(bundle / "data" / "items.parquet")
    with pytest.raises(ArtifactError, match="is not the vocabulary the models were trained with"):
        read_computer(bundle)
    (bundle / "recommender.json").unlink()
    code, _, message = run("--once")
    assert code == 1
    assert "recommender.json is missing; run `recsys train`" in message
