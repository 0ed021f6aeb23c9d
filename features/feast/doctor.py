"""Read-only checks of a user's Feast repository behind `recsys doctor feast`.

Nothing is written: not to the registry, not to a store. Historical features are asked for only
where the offline store computes them on this machine, since others first upload the rows asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from features.errors import DataError
from features.feast.doctor_offline import offline_checks
from features.feast.doctor_online import online_checks
from features.feast.finding import FeastFinding

__all__ = ["FeastFinding", "examine"]

_TESTED = "0.67"
_BELOW = {"redis": 8, "hiredis": 4, "pandas": 3}  # what feast[redis] 0.67 asks for
_REDIS_EXTRA = {"redis", "hiredis"}


def examine(repository: Path | str) -> list[FeastFinding]:
    """Run all checks on a repository.

    Args:
        repository: the directory of ``feature_store.yaml``, or such a file.

    Returns:
        What was found. A check that cannot be run is a WARN that says why.

    Raises:
        DataError: there is no ``feature_store.yaml``.
        ImportError: Feast is not installed.
    """
    path = Path(repository).absolute()
    path = path / "feature_store.yaml" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"repository must hold feature_store.yaml, got {path}; give its directory")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
        import feast  # noqa: F401

        findings = list(_versions())
        try:
            store = _open(path)
        except Exception as error:  # a plug-in of the repository can raise anything
            return [*findings, FeastFinding("FAIL", "repository", _one_line(error), "correct it")]
        if isinstance(store, FeastFinding):
            return [*findings, store]
        findings.extend(_registry(store))
        for name, check in {**offline_checks(), **online_checks()}.items():
            found = list(_run(name, check, store))
            findings.extend(found)
            if name == "server" and found[0].state == "FAIL":
                break  # all further checks ask it
    return findings


def _run(
    name: str, check: Callable[[Any], Iterator[FeastFinding]], store: Any
) -> Iterator[FeastFinding]:
    try:
        yield from check(store)
    except Exception as error:  # any store, any network: the other checks still run
        yield FeastFinding("WARN", name, f"could not be run: {_one_line(error)}", "see the message")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _open(path: Path) -> Any:
    """The store, or a finding where opening it would create a registry."""
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    config = load_repo_config(path.parent, path)
    registry = str(config.registry.path)
    file = path.parent / registry
    if config.registry.registry_type == "file" and "://" not in registry and not file.is_file():
        return FeastFinding("FAIL", "registry", f"there is no {file}", "feast apply")
    for sink in ("openlineage_config", "mlflow_config", "data_quality_monitoring_config"):
        setattr(config, sink, None)  # they would record what is asked for here
    return FeatureStore(repo_path=str(path.parent), config=config)


def _versions() -> Iterator[FeastFinding]:
    own = version("feast")
    if own.startswith(f"{_TESTED}."):
        yield FeastFinding("OK", "feast", own)
    else:
        yield FeastFinding(
            "WARN", "feast", f"{own}, tested with {_TESTED}", f"pip install 'feast~={_TESTED}.0'"
        )
    for name, below in _BELOW.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            if name in _REDIS_EXTRA:
                yield FeastFinding("WARN", name, "not installed", "pip install 'feast[redis]'")
            continue
        if int(found.split(".")[0]) < below:
            yield FeastFinding("OK", name, found)
        else:
            wanted = f"feast {_TESTED} needs {name}<{below}"
            yield FeastFinding("FAIL", name, f"{found}; {wanted}", f"pip install '{name}<{below}'")
    yield FeastFinding("OK", "protobuf", version("protobuf"))


def _registry(store: Any) -> Iterator[FeastFinding]:
    views = store.list_feature_views()
    if not views:
        yield FeastFinding("FAIL", "registry", "it has no feature view", "feast apply")
        return
    yield FeastFinding("OK", "registry", f"{len(views)} views of project {store.project!r}")
    serialization = store.config.entity_key_serialization_version
    if serialization != 3:
        yield FeastFinding(
            "FAIL",
            "entity keys",
            f"entity_key_serialization_version is {serialization}",
            "set it to 3 and materialize again",
        )
    for check, names, detail, remedy, upstream in (
        (
            "views without ttl",
            [view.name for view in views if not view.ttl],
            "a value holds for ever, offline and online",
            "set a ttl, unless the values never change",
            ("feast#6821",),
        ),
        (
            "views offline only",
            [view.name for view in views if not view.online],
            "not readable in a request",
            "set online=True, unless it is a log",
            (),
        ),
        (
            "views without created column",
            [view.name for view in views if not _created(view)],
            "a row that arrived late or was corrected is used before it was known",
            "set created_timestamp_column on the source",
            (),
        ),
    ):
        if names:
            yield FeastFinding("WARN", check, f"{', '.join(names)}: {detail}", remedy, upstream)
    yield from _join_key_types(views)


def _created(view: Any) -> bool:
    source = view.batch_source
    return source is None or bool(source.created_timestamp_column)


def _join_key_types(views: list[Any]) -> Iterator[FeastFinding]:
    types: dict[str, dict[str, list[str]]] = {}
    for view in views:
        for column in view.entity_columns:
            kind = column.dtype.to_value_type().name
            types.setdefault(column.name, {}).setdefault(kind, []).append(view.name)
    for name, kinds in types.items():
        if len(kinds) > 1:
            shown = "; ".join(f"{kind} in {', '.join(named)}" for kind, named in kinds.items())
            yield FeastFinding(
                "FAIL",
                "join key types",
                f"{name} is {shown}: one id has two keys online",
                "give it one type and materialize again",
            )
