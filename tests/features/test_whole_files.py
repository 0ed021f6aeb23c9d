from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import SafetensorError

from features.whole_files import disk_refusal, telling_refusal, whole_file

FULL = Path("/dev/full")  # every write to it meets a full disk


def test_a_file_is_there_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with whole_file(path) as draft:
            draft.write_text(text)
            assert draft != path
        assert path.read_text() == text
    assert os.listdir(tmp_path) == ["a.txt"]


def _write_half(draft: Path, error: BaseException) -> None:
    draft.write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "x")])
def test_what_was_there_stays_when_it_does_not(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), whole_file(path) as draft:
        _write_half(draft, error)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_links_stay_and_pipes_are_written(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    link = tmp_path / "link"
    link.symlink_to("own/file")
    with whole_file(link) as draft:
        draft.write_text("through")
    assert link.is_symlink()
    assert (tmp_path / "own/file").read_text() == "through"
    with whole_file(Path("/dev/null")) as draft:
        draft.write_text("nothing")
    assert Path("/dev/null").is_char_device()


def _copy_tree(full: Path) -> None:
    tree = full.parent / "tree"
    (tree / "a").mkdir(parents=True)
    shutil.copytree(tree, full.parent / "copy", copy_function=_refuse)
    (tree / "b").write_text("b")
    shutil.copytree(tree, full.parent / "copy", copy_function=_refuse, dirs_exist_ok=True)


def _refuse(source: str, target: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)


def _told_by_safetensors(full: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: disk full (os error 28)")


def _save_array(full: Path) -> None:
    with full.open("wb") as file:
        np.save(file, np.zeros(9))


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda full: full.write_text("x" * 10),
    "numpy": _save_array,
    "parquet": lambda full: pl.DataFrame({"a": range(9)}).write_parquet(full),
    "csv": lambda full: pl.DataFrame({"a": range(9)}).write_csv(full),
    "copies": _copy_tree,
    "tensors": _told_by_safetensors,
}


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_error_whoever_meets_it(tmp_path: Path, name: str) -> None:
    full = tmp_path / "full"
    full.symlink_to(FULL)
    message = "No space left on device"
    with pytest.raises(OSError, match=message) as caught, telling_refusal(tmp_path / "place"):
        WRITERS[name](full)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "place")
    assert disk_refusal(caught.value) is caught.value


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    message = re.escape(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=message), telling_refusal(tmp_path / "place"):
        (tmp_path / "none").read_text()
    with pytest.raises(ValueError, match=r"^os error 2$"), telling_refusal(tmp_path):
        raise ValueError("os error 2")
    named = OSError(errno.EDQUOT, "quota", "file")
    with pytest.raises(OSError, match="quota: 'file'"), telling_refusal(tmp_path / "place"):
        raise named
    assert disk_refusal(ValueError("28")) is None
    assert disk_refusal(PermissionError(errno.EACCES, "no")) is None
