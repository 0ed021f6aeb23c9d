from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys.errors import ArtifactError
from recsys.files.model_files import read_model, write_model

SETTINGS = {"name": "a", "window": None, "depth": 3, "nested": {"rate": 0.5}}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_model(tmp_path / "deep" / "one", "toy", SETTINGS, {"w": np.arange(6.0).reshape(2, 3)})
    return tmp_path / "deep" / "one"


def test_reads_what_was_written(written: Path) -> None:
    settings, tensors = read_model(written, "toy")
    assert settings == SETTINGS
    assert list(tensors) == ["w"]
    np.testing.assert_array_equal(tensors["w"], np.arange(6.0).reshape(2, 3))
    assert sorted(path.name for path in written.iterdir()) == ["model.json", "model.safetensors"]


@given(
    arrays(
        st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]),
        array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    ),
    st.booleans(),
)
def test_any_array_keeps_its_bits(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, transposed: bool
) -> None:
    directory = tmp_path_factory.mktemp("model")
    array = array.T if transposed else array  # not contiguous
    write_model(directory, "toy", {}, {"a": array})
    _, tensors = read_model(directory, "toy")
    assert tensors["a"].dtype == array.dtype
    assert tensors["a"].shape == array.shape
    assert tensors["a"].tobytes() == np.ascontiguousarray(array).tobytes()


def test_writing_again_replaces(written: Path) -> None:
    write_model(written, "toy", {"depth": 4}, {"v": np.zeros(1)})
    settings, tensors = read_model(written, "toy")
    assert settings == {"depth": 4}
    assert list(tensors) == ["v"]


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(written: Path, name: str) -> None:
    (written / name).unlink()
    with pytest.raises(ArtifactError, match=f"no toy model in .*: {name} is missing"):
        read_model(written, "toy")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a model", b'{"format": 1'])
def test_a_damaged_file_is_an_artifact_error(written: Path, name: str, content: bytes) -> None:
    (written / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name} is damaged .* restore the bundle"):
        read_model(written, "toy")


@pytest.mark.parametrize("header", [[], 3, None, {"format": 1, "kind": "toy"}])
def test_json_that_is_no_header_is_an_artifact_error(written: Path, header: object) -> None:
    (written / "model.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError):
        read_model(written, "toy")


def test_another_kind_or_format_is_refused(written: Path) -> None:
    with pytest.raises(ArtifactError, match="must hold a 'other' model, got 'toy'; train again"):
        read_model(written, "other")
    header = json.loads((written / "model.json").read_text())
    (written / "model.json").write_text(json.dumps({**header, "format": 2}))
    with pytest.raises(ArtifactError, match="must have format 1, got 2; train again"):
        read_model(written, "toy")
