"""The house: imports point one way, between packages and between rooms; rooms stay small.

A room is a folder of a package, or a file beside the folders. ``FLOORS`` declares the order, and
docs/architecture.md draws it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
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
# Package -> its floors from the ground up; a room imports none of its own floor or of one above.
FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "features": (
        ("errors", "lazy", "moments", "whole_files"),
        ("tables.reading", "tables.times"),
        ("tables.layouts",),
        ("packing", "tables"),
        ("tables.roles",),
        ("definitions", "sources"),
        ("computation", "feast"),
        ("online", "suggest"),
    ),
    "recsys": (
        ("errors", "progress", "threads", "topk", "unit_rows"),
        ("files", "lookup", "settings"),
        ("bundle", "content", "embeddings", "evaluation", "index", "ranking", "semantic_ids"),
        (
            *("retrieval.linear", "retrieval.losses", "retrieval.towers"),
            *("simulation.estimates", "simulation.report"),
        ),
        ("retrieval", "retrieval.sampling", "simulation.experiment", "simulation.slates"),
        ("retrieval.training",),
        ("retrieval.finishing",),
        ("config",),
        ("dataset", "simulation.gate", "simulation.world"),
        ("recommender", "simulation"),
        ("pipeline", "simulation.trial"),
        ("backtest", "tuning"),
    ),
    "serving": (
        ("breaker", "errors", "messages"),
        ("connection", "impressions", "models"),
        ("first_run", "store", "telemetry"),
        ("events",),
        ("request",),
        ("assembly", "http"),
        ("doctor", "jobs", "process"),
        ("cli",),
    ),
}
MOST_FILES, MOST_LINES = 20, 400

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


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages."""
    found = {}
    for package in FLOORS:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of the house that it imports, for types alone or inside functions too.

    ``from package import name`` counts as an import of the module ``package.name`` where there is
    one, and of the package where there is none.
    """
    known = modules(root)
    graph: dict[str, set[str]] = {name: set() for name in known}
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & known.keys()
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    graph[module] |= {inner if inner in known else node.module} & known.keys()
        graph[module].discard(module)
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in number:
            visit(module)
    return found


def room_of(module: str, path: Path) -> str:
    """The room that a module is in, without its package's name; the package's own face: none."""
    _, _, rest = module.partition(".")
    folder = rest if path.name == "__init__.py" else rest.rpartition(".")[0]
    return folder or ("" if path.name == "__init__.py" else rest)


def wrong_floors(root: Path) -> list[str]:
    """ "module imports module" for every import that does not go down in its package."""
    known, found = modules(root), []
    for module, imported in import_graph(root).items():
        package = module.partition(".")[0]
        floor = {room: at for at, rooms in enumerate(FLOORS[package]) for room in rooms}
        room = room_of(module, known[module])
        for other in imported:
            there = room_of(other, known[other])
            if not below(other, package) or not room or there in ("", room):
                continue  # another package, a package's face, or the same room
            if floor[there] >= floor[room]:
                found.append(f"{module} imports {other}")
    return sorted(found)


def test_no_import_points_up() -> None:
    assert wrong_imports(ROOT) == []
    assert wrong_floors(ROOT) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(import_graph(ROOT)) == []


def test_every_room_has_its_floor() -> None:
    rooms = {package: set() for package in FLOORS}
    for module, path in modules(ROOT).items():
        package = module.partition(".")[0]
        rooms[package] |= {room_of(module, path)} - {""}
    declared = {
        package: [room for floor in floors for room in floor] for package, floors in FLOORS.items()
    }
    assert {package: sorted(one) for package, one in rooms.items()} == {
        package: sorted(one) for package, one in declared.items()
    }


def test_rooms_and_files_stay_small() -> None:
    paths = list(modules(ROOT).values())
    files = Counter(path.parent.relative_to(ROOT).as_posix() for path in paths)
    assert {folder: count for folder, count in files.items() if count > MOST_FILES} == {}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    long = {path.relative_to(ROOT).as_posix(): count for path, count in lines.items()}
    assert {path: count for path, count in long.items() if count > MOST_LINES} == {}


def test_every_room_says_what_lives_there_and_who_may_import_it() -> None:
    faces = [path for path in modules(ROOT).values() if path.name == "__init__.py"]
    silent = []
    for path in faces:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if path.parent.parent != ROOT and not ("mport" in doc and "\n\n" in doc):
            silent.append(path.parent.relative_to(ROOT).as_posix())
    assert silent == []


def test_the_order_is_drawn_as_it_is() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = [line.strip() for line in page.splitlines()]
    for package, floors in FLOORS.items():
        for rooms in floors:
            assert f"{package}  |  {'  '.join(rooms)}" in drawn


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"features/a.py": "import features.b", "features/b.py": "from features import a"}, True),
        (
            {
                "features/a.py": "def f():\n    from features.b import x",
                "features/b.py": "if TYPE_CHECKING:\n    from features.a import f",
            },
            True,
        ),
        ({"features/a.py": "import features.b", "features/b.py": "import features"}, False),
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, files: dict[str, str], circle: bool) -> None:
    for name, text in {"features/__init__.py": "", **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circles(import_graph(tmp_path)) == ([["features.a", "features.b"]] if circle else [])


def test_a_planted_import_of_a_higher_floor_is_found(tmp_path: Path) -> None:
    files = {
        "recsys/__init__.py": "",
        "recsys/config/__init__.py": "",
        "recsys/config/a.py": "from recsys.pipeline.run import train",
        "recsys/pipeline/__init__.py": "",
        "recsys/pipeline/run.py": "from recsys.config.a import x",
        "recsys/dataset/__init__.py": "",
        "recsys/dataset/b.py": "import recsys.simulation.gate",
        "recsys/simulation/__init__.py": "",
        "recsys/simulation/gate/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrong_floors(tmp_path) == [
        "recsys.config.a imports recsys.pipeline.run",
        "recsys.dataset.b imports recsys.simulation.gate",
    ]


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
    assert not set(HEAVY) & set(done.stdout.split())


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
