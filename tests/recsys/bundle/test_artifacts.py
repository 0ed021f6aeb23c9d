from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys.bundle import Bundle, bundles, compare, latest
from recsys.errors import ArtifactError

NOON = datetime(2026, 5, 14, 12, 0, tzinfo=UTC)


def make(artifacts: Path, *, dim: int = 8, data: str = "d", now: datetime = NOON) -> Bundle:
    config = {"retrieval": {"dim": dim, "loss": "bpr"}}
    with Bundle.create(artifacts, config=config, data_fingerprint=data, now=now) as draft:
        (draft.path / "towers").mkdir()
        (draft.path / "towers" / "table.bin").write_bytes(bytes(range(64)))
        (draft.path / "notes.txt").write_text("hello\n")
        draft.metrics["recall@20"] = {"mean": 0.1 + dim / 1000}
    return draft.finished()


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_bundle_round_trips(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    loaded = Bundle.load(bundle.path)
    assert loaded == bundle
    assert loaded.id.startswith("20260514T120000Z-")
    assert bundle.path == tmp_path / bundle.id
    assert set(loaded.manifest.files) == {"towers/table.bin", "notes.txt"}
    assert loaded.manifest.files["notes.txt"].size == 6
    assert loaded.manifest.config["retrieval"]["dim"] == 8
    assert loaded.manifest.metrics["recall@20"]["mean"] == pytest.approx(0.108)
    assert loaded.manifest.parent is None
    assert "numpy" in loaded.manifest.versions
    loaded.verify()
    assert loaded.file("towers/table.bin").read_bytes() == bytes(range(64))


def test_the_parent_is_kept(tmp_path: Path) -> None:
    lineage = {"from": "older", "compatible-with": "oldest"}
    with Bundle.create(tmp_path, config={}, data_fingerprint="d", lineage=lineage) as draft:
        pass
    loaded = Bundle.load(draft.finished().path)
    assert (loaded.manifest.parent, loaded.manifest.lineage) == ("older", lineage)


def test_a_manifest_without_lineage_is_read(tmp_path: Path) -> None:
    path = make(tmp_path).path / "manifest.json"
    values = json.loads(path.read_text())
    del values["lineage"]  # as bundles of earlier versions are
    path.write_text(json.dumps(values))
    assert Bundle.load(path.parent).manifest.lineage == {}


def test_the_towers_are_told_where_the_bundle_has_some(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    assert bundle.towers() is None
    (bundle.path / "recommender.json").write_text('{"towers": {"score": "dot", "dim": 8}}')
    assert bundle.towers() == {"score": "dot", "dim": 8}


def test_a_draft_is_not_finished_inside_the_block(tmp_path: Path) -> None:
    with (
        Bundle.create(tmp_path, config={}, data_fingerprint="d") as draft,
        pytest.raises(ArtifactError, match="is not finished; ask after the with block"),
    ):
        draft.finished()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with Bundle.create(tmp_path, config={}, data_fingerprint="d") as draft:
            (draft.path / "half.bin").write_bytes(b"x")
            raise error

    with pytest.raises(error):
        write()
    assert entries(tmp_path) == []


def test_metrics_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="Out of range float"),
        Bundle.create(tmp_path, config={}, data_fingerprint="d") as draft,
    ):
        draft.metrics["ndcg"] = float("nan")
    assert entries(tmp_path) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom recsys.bundle import Bundle\n"
        "with Bundle.create(Path(sys.argv[1]), config={}, data_fingerprint='d') as draft:\n"
        "    (draft.path / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, cwd=os.getcwd()
    )
    assert result.returncode == -signal.SIGKILL
    assert len(entries(tmp_path)) == 1
    assert bundles(tmp_path) == []
    bundle = make(tmp_path)
    assert entries(tmp_path) == [bundle.id]


def test_a_draft_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with Bundle.create(tmp_path, config={}, data_fingerprint="d") as draft:
        make(tmp_path)
        assert draft.path.is_dir()
    assert len(bundles(tmp_path)) == 2


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    (bundle.path / "notes.txt").unlink()
    (bundle.path / "towers" / "table.bin").write_bytes(bytes(64))
    with pytest.raises(ArtifactError, match=r"notes\.txt is missing; towers/table\.bin has anoth"):
        bundle.verify()
    (bundle.path / "towers" / "table.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match="has 0 bytes, recorded 64"):
        bundle.verify()


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no ranker.*train again"):
        make(tmp_path).file("ranker")


def test_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no bundle at .*make one with `recsys train`"):
        Bundle.load(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"it has no manifest\.json"):
        Bundle.load(tmp_path)
    path = make(tmp_path).path / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(ArtifactError, match="must have format 1, got 99; train again"):
        Bundle.load(path.parent)
    del values["id"]
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="is damaged"):
        Bundle.load(path.parent)
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match="it must hold an object, got list"):
        Bundle.load(path.parent)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        Bundle.load(path.parent)


def test_latest_is_the_newest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no bundle in"):
        latest(tmp_path)
    assert bundles(tmp_path / "missing") == []
    newer = make(tmp_path, now=NOON.replace(hour=13))
    older = make(tmp_path)
    assert [bundle.id for bundle in bundles(tmp_path)] == [older.id, newer.id]
    assert latest(tmp_path).id == newer.id


def test_bundles_of_one_second_have_ids_in_the_order_they_were_made(tmp_path: Path) -> None:
    made = [make(tmp_path).id for _ in range(8)]
    assert made == sorted(set(made))
    assert latest(tmp_path).id == made[-1]


def test_what_a_full_disk_stops_leaves_the_bundle_as_it_was(tmp_path: Path, monkeypatch) -> None:
    bundle = make(tmp_path)
    with bundle.adding("candidates") as path:
        path.mkdir()
        (path / "a").write_text("old")
    before = sorted(one.name for one in bundle.path.iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("candidates", "new"):
        with monkeypatch.context() as patched:
            patched.setattr("recsys.bundle.manifest.os.fsync", full)
            with (
                pytest.raises(OSError, match=r"No space left on device: .*manifest\.json"),
                bundle.adding(name) as path,
            ):
                path.write_text("another")
        assert sorted(one.name for one in bundle.path.iterdir()) == before
        assert (bundle.path / "candidates/a").read_text() == "old"
        Bundle.load(bundle.path).verify()


def test_adding_replaces_a_directory_whole(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    for users in ("a", "b"):
        with bundle.adding("candidates") as path:
            path.mkdir()
            (path / f"{users}.bin").write_text(users)
    with bundle.adding("report.html") as path:
        path.write_text("<p>")
    loaded = Bundle.load(bundle.path)
    assert entries(bundle.path / "candidates") == ["b.bin"]
    assert {"candidates/b.bin", "report.html", "notes.txt"} <= set(loaded.manifest.files)
    assert "candidates/a.bin" not in loaded.manifest.files
    assert not [name for name in entries(bundle.path) if name.startswith(".")]
    loaded.verify()


def test_a_failed_addition_keeps_what_was_there(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    with bundle.adding("report.html") as path:
        path.write_text("old")

    def interrupted() -> None:
        with bundle.adding("report.html") as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with (
        pytest.raises(ArtifactError, match=r"nothing was written for report\.html"),
        bundle.adding("report.html"),
    ):
        pass
    assert (bundle.path / "report.html").read_text() == "old"
    Bundle.load(bundle.path).verify()


@pytest.mark.parametrize("name", ["a/b", "manifest.json", "..", ".hidden", ""])
def test_only_plain_names_can_be_added(tmp_path: Path, name: str) -> None:
    bundle = make(tmp_path)
    with pytest.raises(ValueError, match="name must be a plain name"), bundle.adding(name):
        pass


def test_metrics_can_be_recorded_later(tmp_path: Path) -> None:
    bundle = make(tmp_path).record_metrics({"ndcg@20": 0.2})
    assert bundle.manifest.metrics == {"ndcg@20": 0.2}
    assert Bundle.load(bundle.path) == bundle
    bundle.verify()


def test_compare_lists_what_differs(tmp_path: Path) -> None:
    a, b = make(tmp_path, dim=8), make(tmp_path, dim=16, data="other")
    difference = compare(a, b)
    assert (difference.a, difference.b) == (a.id, b.id)
    assert not difference.same_data
    assert difference.config == {"retrieval.dim": (8, 16)}
    assert difference.versions == {}
    assert list(difference.metrics) == ["recall@20.mean"]
    assert compare(a, a).same_data
    assert compare(a, a).config == {}
