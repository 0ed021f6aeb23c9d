"""Files behind URLs, on fsspec's file system in memory."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features import DataError, find_problems, read_interactions
from features.tables.reading import ReadOptions, find_options, location, read_frame, read_table
from features.tables.reading.remote import RemoteFile, is_url

fsspec = pytest.importorskip("fsspec", reason="needs the extra 'remote'")

ROWS = pl.DataFrame({"user_id": ["007", "u2"], "item_id": ["a", "b"], "timestamp": [10**9] * 2})
TEXT = ROWS.write_csv().encode()


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def parquet(frame: pl.DataFrame) -> bytes:
    held = io.BytesIO()
    frame.write_parquet(held)
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TEXT),
        ("a.csv.gz", gzip.compress(TEXT)),
        ("a.tsv", TEXT.replace(b",", b"\t").decode().encode("utf-16")),
        ("a.parquet", parquet(ROWS)),
        ("a.jsonl", ROWS.write_ndjson().encode()),
        ("a.dat", TEXT.replace(b",", b"::")),
    ],
)
def test_a_url_is_read_as_the_file_would_be(
    memory: Any, tmp_path: Path, name: str, content: bytes
) -> None:
    memory.pipe(f"/shop/{name}", content)
    (tmp_path / name).write_bytes(content)
    ids = ("user_id", "item_id")
    url = f"memory://shop/{name}"
    assert find_options(url) == find_options(tmp_path / name)
    for said in (None, find_options(url)):
        assert read_frame(url, said, ids=ids).equals(ROWS)
    assert read_frame(tmp_path / name, ids=ids).equals(ROWS)
    assert len(read_interactions(url)) == 2


def test_zstd(memory: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        out.write(TEXT)
        memory.pipe("/a.csv.zst", b"")
        out.flush()
        held = sink.getvalue()
    memory.pipe("/a.csv.zst", pyarrow.compress(TEXT, codec="zstd", asbytes=True))
    assert held[:4] == b"\x28\xb5\x2f\xfd"
    assert read_frame("memory://a.csv.zst", ids=("user_id",)).equals(ROWS)


def test_directories_patterns_and_partitions(memory: Any) -> None:
    for day, user in (("1", "x"), ("2", "y")):
        part = f"user_id,item_id,timestamp\n{user},a,{10**9}\n".encode()
        memory.pipe(f"/log/day={day}/part.csv", part)
    memory.pipe("/log/_SUCCESS", b"")
    memory.pipe("/log/.hidden", b"no")
    memory.pipe("/log/day=2/empty.csv", b"")
    for url in ("memory://log", "memory://log/*", "memory://log/day=*/part.csv"):
        frame = read_frame(url)
        assert frame["user_id"].to_list() == ["x", "y"]
        assert frame["day"].to_list() == [1, 2]
    assert "day" not in read_frame("memory://log/day=1/part.csv").columns


def test_bad_rows_are_told_with_the_url(memory: Any) -> None:
    memory.pipe("/a.csv", b"a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"memory://a\.csv: line 3 must have 2 cells like the"):
        read_frame("memory://a.csv")
    (dropped,) = read_table("memory://a.csv", ReadOptions(bad_rows="drop")).dropped
    assert str(dropped).startswith("memory://a.csv: 1 row dropped that cannot be read")
    memory.pipe("/b.parquet", b"PAR1 and no more")
    (problem,) = find_problems("memory://b.parquet")
    assert problem.source == "memory://b.parquet"
    assert "must be a whole Parquet file" in problem.first


def test_what_is_not_there_is_told(memory: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"memory://none\.csv: no such file; check the URL"):
        read_frame("memory://none.csv")
    with pytest.raises(DataError, match="must match the pattern, got none; check the pattern"):
        read_frame("memory://*.csv")
    memory.mkdir("/empty")
    with pytest.raises(DataError, match="a file must be in the directory, got none"):
        read_frame("memory://empty")
    with pytest.raises(DataError, match="nothing://a: must be readable, got ValueError: Protocol"):
        read_frame("nothing://a")


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        DataError, match=r"s3://b/a\.csv: its driver must be installed, got: .*s3fs"
    ):
        read_frame("s3://b/a.csv")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DataError, match=r"`pip install recsys-plugin\[remote\]` installs it"):
        read_frame("memory://a.csv")


def test_a_login_is_not_shown(memory: Any) -> None:
    assert str(RemoteFile("ftp://me:s3cret@host/a.csv")) == "ftp://***@host/a.csv"

    class Broken(RemoteFile):
        def _system(self) -> tuple[Any, str]:
            raise PermissionError(f"not for you: {self.url}")

    with pytest.raises(DataError, match="PermissionError: not for you") as caught:
        Broken("ftp://me:s3cret@host/a.csv").open()
    assert "s3cret" not in str(caught.value)


def test_what_is_a_url() -> None:
    assert all(map(is_url, ["s3://a", "HTTPS://h/a?b=c", "zip://a.csv::s3://b/c.zip"]))
    assert not any(map(is_url, ["a.csv", "/a//b", "c:/a", "a/s3://b", "s3:/a"]))
    assert str(location(Path("s3://bucket/a.csv"))) == "s3://bucket/a.csv"  # once a path
    assert location("events/a.csv") == Path("events/a.csv")
    assert location(Path("/s3:/a")) == Path("/s3:/a")
    remote = location("https://host/dir/a.CSV.gz?sig=1")
    assert (remote.name, remote.suffix) == ("a.CSV.gz", ".gz")
