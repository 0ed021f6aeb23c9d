"""Imports point one way: serving -> recsys -> features, and light packages stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Part of the house -> what it must not import; all rows that match a file apply to it.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "features": ("recsys", "serving", "torch", "redis", "fastapi"),
    "recsys": ("serving", "redis", "fastapi", "uvicorn"),
    "recsys.content": ("recsys.retrieval", "recsys.ranking", "recsys.pipeline"),
    "recsys.embeddings": ("recsys.retrieval", "recsys.ranking", "recsys.pipeline"),
    "recsys.semantic_ids": ("recsys.retrieval", "recsys.ranking", "recsys.pipeline"),
    "recsys.index": ("recsys.retrieval", "recsys.ranking", "recsys.pipeline"),
    "recsys.retrieval": ("recsys.ranking", "recsys.pipeline", "recsys.config"),
    "recsys.retrieval.losses": ("recsys.retrieval",),
    "recsys.ranking": ("recsys.retrieval", "recsys.pipeline"),
    "recsys.evaluation": ("recsys.retrieval", "recsys.ranking", "recsys.pipeline"),
}
# The type at the seam, not an implementation.
ALLOWED = {"recsys.retrieval.protocol"}
HEAVY = (
    *("torch", "torchrec", "lightgbm", "numba", "redis", "fastapi", "feast", "ray", "scipy"),
    "sklearn",
)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything ``path`` imports, inside functions as well."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def wrong_imports(root: Path) -> list[str]:
    """ "file:line: module imports name" for every import that a row of ``FORBIDDEN`` bars."""
    found = set()
    for package in ("features", "recsys", "serving"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for line, name in imports(path, module):
                if any(below(name, allowed) for allowed in ALLOWED):
                    continue
                for home, barred in FORBIDDEN.items():
                    for target in barred:
                        if not below(module, home) or below(name, home):
                            continue
                        if below(name, target):
                            shown = path.relative_to(root).as_posix()
                            found.add(f"{shown}:{line}: {module} imports {target}")
    return sorted(found)


def test_no_import_points_up() -> None:
    assert wrong_imports(ROOT) == []


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        (
            "features/a.py",
            "import recsys.config",
            "features/a.py:1: features.a imports recsys",
        ),
        (
            "features/a.py",
            "def f():\n    import torch",
            "features/a.py:2: features.a imports torch",
        ),
        ("recsys/a.py", "from serving import store", "recsys/a.py:1: recsys.a imports serving"),
        (
            "recsys/content/a.py",
            "from recsys import retrieval",
            "recsys/content/a.py:1: recsys.content.a imports recsys.retrieval",
        ),
        (
            "recsys/ranking/a.py",
            "from ..retrieval.towers import Towers",
            "recsys/ranking/a.py:1: recsys.ranking.a imports recsys.retrieval",
        ),
        (
            "recsys/ranking/__init__.py",
            "from ..pipeline import train",
            "recsys/ranking/__init__.py:1: recsys.ranking imports recsys.pipeline",
        ),
        (
            "recsys/retrieval/a.py",
            "import recsys.ranking.gbdt",
            "recsys/retrieval/a.py:1: recsys.retrieval.a imports recsys.ranking",
        ),
    ],
)
def test_a_planted_wrong_import_is_found(
    tmp_path: Path, module: str, text: str, message: str
) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert wrong_imports(tmp_path) == [message]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("serving/a.py", "import recsys.config, features, redis"),
        ("recsys/ranking/a.py", "from recsys.retrieval.protocol import Retriever"),
        ("recsys/pipeline/run.py", "from recsys import ranking, retrieval"),
        ("recsys/a.py", "import serving_tools"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, module: str, text: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert wrong_imports(tmp_path) == []


@pytest.mark.parametrize("module", ["features", "recsys", "serving", "serving.cli"])
def test_light_packages_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    # Histories offer a SciPy matrix, so features may load SciPy.
    heavy = set(HEAVY) - ({"scipy"} if module == "features" else set())
    assert not heavy & set(done.stdout.split())


def test_every_package_file_postpones_annotations() -> None:
    files = [
        path for name in ("features", "recsys", "serving") for path in (ROOT / name).rglob("*.py")
    ]
    assert len(files) > 30
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if "from __future__ import annotations" not in path.read_text(encoding="utf-8")
    ]
    assert missing == []
