"""Whatever a file of a bundle holds, it is loaded or refused by name; nothing large is allocated.

Trees and Annoy's file are read by libraries in C++ that trust them: `Bundle.verify` compares their
checksums before.
"""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import DataError, Interactions, Vocabulary
from recsys.bundle import Bundle, latest
from recsys.dataset.user_events import UserEvents
from recsys.errors import ArtifactError, ConfigError
from recsys.files.model_files import read_model, write_model
from recsys.index.choices import load_index
from recsys.index.exact import ExactIndex
from recsys.retrieval.choices import load_sources
from recsys.retrieval.popularity import PopularityRetriever
from serving.assembly import POPULAR, bundled_popular

Loader = Callable[[Path], Any]


def write_bundle(directory: Path) -> None:
    now = datetime(2026, 5, 14, tzinfo=UTC)
    with Bundle.create(directory, config={"k": 3}, data_fingerprint="f", now=now) as draft:
        (draft.path / "one.json").write_text("{}")


def write_vocabulary(directory: Path) -> None:
    Vocabulary.from_ids(["a", "ü", "c"]).save(directory / "items.parquet")


def write_model_files(directory: Path) -> None:
    tensors = {"w": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 2), np.float32)}
    write_model(directory, "toy", {"name": "a", "nested": {"rate": 0.5}}, tensors)


def write_index(directory: Path) -> None:
    ExactIndex().build(np.eye(4, 3, dtype=np.float32)).save(directory)


def write_events(directory: Path) -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["u1", "u1", "ü"],
            "item_id": ["a", "b", "a"],
            "timestamp": [datetime(2026, 5, day) for day in (1, 2, 3)],
            "event": ["view", "buy", "view"],
            "weight": [1.0, 2.0, 1.0],
        }
    )
    log = Interactions.from_frame(frame, now=datetime(2026, 6, 1))
    UserEvents.write(directory / "events.bin", log, Vocabulary.from_ids(["a", "b"]))


def write_popular(directory: Path) -> None:
    write_bundle(directory)
    (bundle,) = (path for path in directory.iterdir() if path.name.startswith("2"))
    (bundle / "candidates").mkdir()
    values = {"format": 1, "item_ids": ["a", "b"], "score": [1.0, 0.5]}
    (bundle / "candidates" / POPULAR).write_text(json.dumps(values))


def write_popularity(directory: Path) -> None:
    PopularityRetriever(
        name="popular",
        num_items=3,
        window_days=7,
        timestamp=np.array([1, 2], np.int64),
        item_index=np.array([1, 3], np.int32),
        weight=np.ones(2, np.float32),
    ).save(directory / "popularity")


CASES: dict[str, tuple[Callable[[Path], None], Loader]] = {
    "bundle": (write_bundle, latest),
    "vocabulary": (write_vocabulary, lambda path: Vocabulary.load(path / "items.parquet")),
    "model": (write_model_files, lambda path: read_model(path, "toy")),
    "retriever": (write_popularity, lambda path: load_sources(path, ["popularity"])),
    "index": (write_index, load_index),
    "user events": (write_events, lambda path: UserEvents.open(path / "events.bin")),
    "popular list": (write_popular, lambda path: bundled_popular(latest(path))),
}


def damage(draw: st.DrawFn, content: bytes) -> bytes:
    value = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(value)))
        match draw(st.sampled_from(["change", "cut", "insert", "ones", "end"])):
            case "change" if place < len(value):
                value[place] = draw(st.integers(0, 255))
            case "cut":
                del value[place : place + draw(st.integers(1, 9))]
            case "insert":
                value[place:place] = draw(st.binary(min_size=1, max_size=9))
            case "ones":
                value[place : place + 4] = b"\xff" * len(value[place : place + 4])
            case "end":
                del value[place:]
    return bytes(value)


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_loaded(tmp_path: Path, name: str) -> None:
    write, load = CASES[name]
    write(tmp_path)
    assert load(tmp_path) is not None


@pytest.mark.parametrize("name", CASES)
def test_damaged_files(name: str) -> None:
    write, load = CASES[name]

    @settings(max_examples=100)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as text:
            directory = Path(text)
            write(directory)
            files = sorted(path for path in directory.rglob("*") if path.is_file())
            file = data.draw(st.sampled_from(files), label="file")
            if data.draw(st.integers(0, 5)) == 0:
                content = data.draw(st.binary(max_size=40))
            else:
                content = damage(data.draw, file.read_bytes())
            file.write_bytes(content)
            tracemalloc.start()
            try:
                load(directory)
            except (ArtifactError, ConfigError, DataError) as error:
                told = str(error)
                assert file.name in told or directory.name in told, told
            finally:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            assert peak < 20_000_000

    check()
