"""What is made of the items alone, with the encoder that the configuration names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.errors import ConfigError
from recsys.pipeline.item_stages import item_stages, load_content
from recsys.progress import Progress


def own_model(directory: Path) -> Path:
    """Vectors of two words, in the layout that model2vec writes."""
    directory.mkdir()
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {"[UNK]": 0, "red": 1, "green": 2},
            "unk_token": "[UNK]",
        },
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    table = np.array([[0, 0], [1, 0], [0, 3]], dtype=np.float32)
    save_file({"embeddings": table}, directory / "model.safetensors")
    return directory


def content_of(directory: Path, **content: Any) -> np.ndarray:
    titles = ["red", "green", "blue", "grey"]
    ids = [f"i{number}" for number in range(len(titles))]
    log = {"user_id": ["u", "u"], "item_id": ids[:2], "timestamp": [1_500_000_000, 1_500_000_060]}
    pl.DataFrame(log).write_parquet(directory / "events.parquet")
    pl.DataFrame({"item_id": ids, "title": titles}).write_parquet(directory / "items.parquet")
    config = Config.model_validate(
        {
            "data": {
                "events": directory / "events.parquet",
                "items": directory / "items.parquet",
                "item_columns": {"text": ("title",)},
            },
            "content": {"dim": 2, **content},
            "output": {"directory": directory / "artifacts"},
        }
    )
    work = directory / "work"
    stage = item_stages(config, read_dataset(config), work)[0]
    stage.run(work / stage.name, Progress())
    return load_content(work)


def test_the_text_model_of_the_configuration_makes_the_vectors(tmp_path: Path) -> None:
    found = content_of(tmp_path, text_model=own_model(tmp_path / "model"))
    assert not found[0].any()
    np.testing.assert_allclose(found[3], found[4], atol=1e-6)  # both words are unknown to it
    assert not np.allclose(found[1], found[2])


def test_a_missing_text_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"content\.text_encoder 'wordllama': model_path must"):
        content_of(tmp_path, text_model=tmp_path / "nowhere")
