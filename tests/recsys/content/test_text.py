from __future__ import annotations

import importlib.util
import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from recsys.content import encode_text
from recsys.unit_rows import unit_rows

TEXTS = ["a scary ghost story", "horror in a haunted house", "quarterly tax accounting", "", "  "]


def cosine(vectors: np.ndarray) -> np.ndarray:
    unit = unit_rows(vectors)
    return unit @ unit.T


def test_near_texts_are_near_and_blank_texts_are_zero(monkeypatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("the text encoder opened a socket")

    monkeypatch.setattr(socket, "socket", no_network)
    vectors = encode_text(TEXTS)
    assert vectors.shape == (5, 256)
    assert vectors.dtype == np.float32
    assert not vectors[3:].any()
    near = cosine(vectors)
    assert near[0, 1] > near[0, 2] + 0.1


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_neighbours_in_the_batch_change_nothing(batch_size: int) -> None:
    together = encode_text(TEXTS, batch_size=batch_size)
    alone = np.concatenate([encode_text([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)


def test_no_texts() -> None:
    assert encode_text([]).shape == (0, 256)


def test_importing_wordllama_leaves_the_root_logger_alone() -> None:
    code = (
        "import logging; from recsys.content import encode_text; encode_text(['a']);"
        "root = logging.getLogger(); print(len(root.handlers), root.level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", str(logging.WARNING)]


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    vocabulary = {"[UNK]": 0, "red": 1, "green": 2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    table = np.array([[0, 0], [1, 0], [0, 3]], dtype=np.float32)
    save_file({"embeddings": table}, tmp_path / "model.safetensors")
    return tmp_path


def test_own_model_by_hand(tiny_model: Path) -> None:
    # Means of the word vectors: red (1, 0), green (0, 3).
    vectors = encode_text(["red", "red green", "green green red", ""], model_path=tiny_model)
    np.testing.assert_allclose(vectors, [[1, 0], [0.5, 1.5], [1 / 3, 2], [0, 0]], rtol=1e-6)


def test_refuses_a_directory_without_a_model(tmp_path: Path, tiny_model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json and one \*\.safetensors"):
        encode_text(["a"], model_path=empty)
    with pytest.raises(FileNotFoundError, match="holds nothing"):
        encode_text(["a"], model_path=tmp_path / "missing")
    table = np.zeros((3, 2), dtype=np.float32)
    save_file({"a": table, "b": table}, tiny_model / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="one 2-D tensor of vectors, got"):
        encode_text(["a"], model_path=tiny_model)


def test_refuses_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 1 is None; replace missing texts"):
        encode_text(["a", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="wrap it in a list"):
        encode_text("a")
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        encode_text(["a"], batch_size=0)
    with pytest.raises(ValueError, match="encoder must be 'wordllama' or"):
        encode_text(["a"], encoder="bert")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model_path must name a saved model"):
        encode_text(["a"], encoder="sentence-transformers")
    with pytest.raises(FileNotFoundError, match="must be a directory on disk"):
        encode_text(["a"], encoder="sentence-transformers", model_path=tmp_path / "missing")


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None,
    reason="sentence-transformers is installed",
)
def test_a_missing_package_names_itself(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="pip install sentence-transformers"):
        encode_text(["a"], encoder="sentence-transformers", model_path=tmp_path)
