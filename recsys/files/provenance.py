"""What produced a result: library versions, the commit, the code itself."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["code_fingerprint", "fingerprint", "git_commit", "library_versions"]

_LIBRARIES = (
    "annoy",
    "fbgemm-gpu-cpu",
    "lightgbm",
    "numpy",
    "polars",
    "pyarrow",
    "recsys-plugin",
    "redis",
    "scikit-learn",
    "scipy",
    "torch",
    "torchrec",
    "wordllama",
)
_ROOT = Path(__file__).resolve().parents[2]


def fingerprint(*parts: Any) -> str:
    """Sha256 (hex) of plain JSON values, and of sections of a configuration.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True

    Raises:
        TypeError: a part is neither JSON nor has ``model_dump``.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a model; absent ones left out."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(root: Path = _ROOT) -> str | None:
    """Commit of the checkout at ``root``, "-dirty" added if it has changes; None if it is none."""
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit + ("-dirty" if changed else "")


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Sha256 (hex) of the sources of ``features`` and ``recsys``.

    Part of every stage's fingerprint, so that a result is never reused by changed code.
    """
    digest = hashlib.sha256()
    for package in ("features", "recsys"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a fingerprint takes plain JSON values, got {type(value).__name__}")
