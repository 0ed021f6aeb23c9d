"""A bundle: one training run on disk, written whole or not at all, and able to prove it.

```
artifacts/
  20260514T031500Z-5f0c2a/     a bundle
    manifest.json              id, parent, config as used, fingerprints, versions, metrics, files
    vocabulary.parquet ...     what the stages wrote; safetensors, Parquet, JSON and text, no pickle
  .tmp-<id>-<pid>/             a bundle being written; renamed when complete
```

Files of a bundle never change under their name. What is added later (a report, the candidates)
is written beside, renamed into place and recorded in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from features.whole_files import telling_refusal
from recsys.bundle.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    read_manifest,
    records,
    write_manifest,
)
from recsys.errors import ArtifactError
from recsys.files.locking import directory_lock
from recsys.files.provenance import git_commit, library_versions
from recsys.files.writing import sha256, sync_directory

__all__ = ["Bundle", "BundleDraft", "Comparison", "bundles", "compare", "latest", "sweep"]

_TEMPORARY = re.compile(r"^\.(?:tmp|old)-.*-(\d+)$")


@dataclass
class BundleDraft:
    """A bundle while it is written.

    Attributes:
        id: the id it will have.
        path: directory to write into.
        metrics: goes into the manifest.
        bundle: the finished bundle; None until the ``with`` block has ended well.
    """

    id: str
    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    bundle: Bundle | None = None

    def finished(self) -> Bundle:
        """The finished bundle.

        Raises:
            ArtifactError: the ``with`` block has not ended yet.
        """
        if self.bundle is None:
            raise ArtifactError(f"bundle {self.id} is not finished; ask after the with block")
        return self.bundle


@dataclass(frozen=True)
class Bundle:
    """A finished bundle.

    Attributes:
        path: its directory.
        manifest: what it says of itself, as read when it was loaded.
    """

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Id of the bundle and of the generation published from it."""
        return self.manifest.id

    @classmethod
    @contextmanager
    def create(
        cls,
        artifacts: Path,
        *,
        config: Mapping[str, Any],
        data_fingerprint: str,
        lineage: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> Iterator[BundleDraft]:
        """Write a bundle below ``artifacts``; it appears whole when the block ends well.

        An exception, Ctrl-C included, removes everything written. What a killed process left is
        removed by the next call.

        Args:
            artifacts: directory of all bundles; made if missing.
            config: settings as used.
            data_fingerprint: fingerprint of the input tables.
            lineage: how it continues which bundles; the first one is its parent. None: it does
                not.
            now: time of creation, with zone; None: the clock.
        """
        created = now or datetime.now(UTC)
        lineage = lineage or {}
        parent = next(iter(lineage.values()), None)
        artifacts.mkdir(parents=True, exist_ok=True)
        sweep(artifacts)
        bundle_id = _new_id(artifacts, created, [config, data_fingerprint, lineage])
        draft = BundleDraft(bundle_id, artifacts / f".tmp-{bundle_id}-{os.getpid()}")
        try:
            draft.path.mkdir()
            with telling_refusal(artifacts):
                yield draft
            manifest = Manifest(
                id=bundle_id,
                parent=parent,
                created_at=created.astimezone(UTC).isoformat(timespec="seconds"),
                config=config,
                data_fingerprint=data_fingerprint,
                versions=library_versions(),
                git_commit=git_commit(),
                metrics=draft.metrics,
                files=records(draft.path, draft.path),
                lineage=lineage,
            )
            write_manifest(draft.path, manifest)
            os.rename(draft.path, artifacts / bundle_id)
        except BaseException:
            shutil.rmtree(draft.path, ignore_errors=True)
            raise
        sync_directory(artifacts)
        draft.bundle = cls(artifacts / bundle_id, manifest)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a bundle's manifest; `verify` checks the files.

        Raises:
            ArtifactError: no bundle there, an unreadable manifest, or another format.
        """
        path = Path(path)
        if not path.is_dir():
            raise ArtifactError(f"no bundle at {path}; make one with `recsys train`")
        return cls(path, read_manifest(path))

    def towers(self) -> dict[str, Any] | None:
        """What a reader of the towers' vectors must know, `TwoTowerRetriever.settings`.

        None where the bundle has no towers or does not say.
        """
        found: dict[str, Any] | None = self._header("towers")
        return found

    def features(self) -> dict[str, Any] | None:
        """Names of the ranker's features and where their definitions stood.

        `recsys.dataset.definitions.describe_definitions`; None where the bundle does not say.
        """
        found: dict[str, Any] | None = self._header("features")
        return found

    def told(self) -> list[str]:
        """What was dropped of the files and what in them is hardly meant, as sentences."""
        return self._header("told") or []

    def _header(self, name: str) -> Any:
        path = self.path / "recommender.json"
        if not path.is_file():
            return None
        return json.loads(path.read_text()).get(name)

    def file(self, name: str) -> Path:
        """Path of a file or directory of the bundle.

        Raises:
            ArtifactError: the bundle has none of that name.
        """
        path = self.path / name
        if not path.exists():
            raise ArtifactError(
                f"bundle {self.id} has no {name}; it was removed or made by another version: "
                "train again"
            )
        return path

    def verify(self, parts: Collection[str] | None = None) -> None:
        """Compare recorded files with their checksums.

        Args:
            parts: files and directories directly below the bundle. None: all.

        Raises:
            ArtifactError: a file is missing or differs; the message names all of them.
        """
        broken = []
        for name, record in sorted(self.manifest.files.items()):
            if parts is not None and name.split("/", 1)[0] not in parts:
                continue
            path = self.path / name
            if not path.is_file():
                broken.append(f"{name} is missing")
            elif path.stat().st_size != record.size:
                broken.append(f"{name} has {path.stat().st_size} bytes, recorded {record.size}")
            elif sha256(path) != record.sha256:
                broken.append(f"{name} has another checksum than recorded")
        if broken:
            raise ArtifactError(
                f"bundle {self.id} is damaged: {'; '.join(broken)}. "
                "Copy it again from where it was made, or train again"
            )

    @contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """Add or replace one file or directory of the bundle, whole or not at all.

        Yields a path that does not exist yet: make a file or a directory there. When the block
        ends well it is renamed to ``name`` and recorded; `Bundle.load` then shows it. Readers
        that have an older file open keep it.

        Args:
            name: a name directly below the bundle ("report.html", "candidates").

        Raises:
            ArtifactError: the block made nothing.
            ValueError: ``name`` is a path or the manifest.
        """
        if not name or name != Path(name).name or name.startswith(".") or name == MANIFEST:
            raise ValueError(f"name must be a plain name other than {MANIFEST}, got {name!r}")
        sweep(self.path)
        target = self.path / name
        draft = self.path / f".tmp-{name}-{os.getpid()}"
        replaced = self.path / f".old-{name}-{os.getpid()}"
        try:
            with telling_refusal(target):
                yield draft
            if not draft.exists():
                raise ArtifactError(f"nothing was written for {name} of bundle {self.id}")
            with directory_lock(self.path):
                if target.exists():
                    os.rename(target, replaced)
                try:
                    os.rename(draft, target)
                    self._rewrite(lambda old: _with_files(old, name, records(target, self.path)))
                except BaseException:  # the manifest says what was there before
                    _remove(target)
                    if replaced.exists():
                        os.rename(replaced, target)
                    raise
        finally:
            _remove(draft)
            _remove(replaced)

    def record_metrics(self, metrics: Mapping[str, Any]) -> Bundle:
        """Replace the metric table of the manifest and return the bundle as it is now."""
        with directory_lock(self.path):
            self._rewrite(lambda old: replace(old, metrics=dict(metrics)))
        return Bundle.load(self.path)

    def _rewrite(self, change: Callable[[Manifest], Manifest]) -> None:
        write_manifest(self.path, change(read_manifest(self.path)))


def bundles(artifacts: Path) -> list[Bundle]:
    """All finished bundles below ``artifacts``, oldest first.

    Raises:
        ArtifactError: one of them cannot be read.
    """
    if not artifacts.is_dir():
        return []
    found = [path.parent for path in artifacts.glob(f"[!.]*/{MANIFEST}")]
    loaded = [Bundle.load(path) for path in found]
    return sorted(loaded, key=lambda bundle: (bundle.manifest.created_at, bundle.id))


def latest(artifacts: Path) -> Bundle:
    """The newest bundle below ``artifacts``.

    Raises:
        ArtifactError: there is none.
    """
    found = bundles(artifacts)
    if not found:
        raise ArtifactError(f"no bundle in {artifacts}; make one with `recsys train`")
    return found[-1]


@dataclass(frozen=True)
class Comparison:
    """What differs between two bundles: dotted name -> (value in a, value in b), None = absent.

    Attributes:
        a: id of the first bundle.
        b: id of the second bundle.
        same_data: whether both were made from the same input tables.
        config: settings that differ.
        versions: libraries that differ.
        metrics: metrics that differ.
    """

    a: str
    b: str
    same_data: bool
    config: Mapping[str, tuple[Any, Any]]
    versions: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[Any, Any]]


def compare(a: Bundle, b: Bundle) -> Comparison:
    """Settings, versions and metrics in which two bundles differ."""
    first, second = a.manifest, b.manifest
    return Comparison(
        a=a.id,
        b=b.id,
        same_data=first.data_fingerprint == second.data_fingerprint,
        config=_differences(first.config, second.config),
        versions=_differences(first.versions, second.versions),
        metrics=_differences(first.metrics, second.metrics),
    )


def sweep(directory: Path) -> None:
    """Remove what killed processes left half-written directly below ``directory``."""
    for path in directory.iterdir():
        match = _TEMPORARY.match(path.name)
        if match and not _is_alive(int(match[1])):
            _remove(path)


def _new_id(artifacts: Path, created: datetime, content: list[Any]) -> str:
    """An id that sorts after those of its second: the second after, where there are some."""
    text = json.dumps(content, sort_keys=True, default=str)
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    names = {path.name.removeprefix(".tmp-").split("-")[0] for path in artifacts.iterdir()}
    while (stamp := created.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")) in names:
        created += timedelta(seconds=1)
    return f"{stamp}-{mark}"


def _with_files(manifest: Manifest, name: str, added: Mapping[str, FileRecord]) -> Manifest:
    kept = {
        path: record for path, record in manifest.files.items() if path.split("/", 1)[0] != name
    }
    return replace(manifest, files=dict(sorted({**kept, **added}.items())))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    left, right = dict(_leaves(a)), dict(_leaves(b))
    return {
        name: (left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    }


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
