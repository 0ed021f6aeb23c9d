"""Checks of `recsys doctor feast` on the online store: ttl, absent ids, keys, server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from features.errors import DataError
from features.feast.direct import DirectReader, compile_plan
from features.feast.doctor_offline import source_times
from features.feast.finding import FeastFinding
from features.feast.redis_reads import stored_ids

__all__ = ["online_checks"]

_SAMPLE = 500
_DROP_IN = "use features.feast.online_store.RecsysRedisOnlineStore"
_NO_SUCH_ID: Mapping[str, Any] = {
    "STRING": "recsys-doctor-no-such-id",
    "INT32": -(2**31) + 67,
    "INT64": -(2**63) + 67,
}

Ids = Mapping[str, Sequence[Any]]


def online_checks() -> dict[str, Callable[[Any], Iterator[FeastFinding]]]:
    """The checks by name."""
    return {"server": _server, "ttl online": _ttl, "missing id": _missing, "redis keys": _keys}


def _is_redis(store: Any) -> bool:
    try:
        from feast.infra.online_stores.redis import RedisOnlineStoreConfig
    except ImportError:  # the extra is not installed, so it is another store
        return False
    return isinstance(store.config.online_store, RedisOnlineStoreConfig)


def _client(store: Any) -> Any:
    return store._get_provider().online_store._get_client(store.config.online_store)


def _kind(store: Any) -> str:
    return str(getattr(store.config.online_store, "type", store.config.online_store))


def _online_views(store: Any) -> list[Any]:
    return [view for view in store.list_feature_views() if view.online and view.features]


def _ids(store: Any, view: Any) -> Ids:
    """Ids that the online store holds, or else that the source does."""
    if _is_redis(store):
        keys = compile_plan(store, [f"{view.name}:{view.features[0].name}"]).keys
        return stored_ids(_client(store), keys, limit=_SAMPLE)
    if _kind(store) == "sqlite":
        path = Path(store.config.repo_path or ".") / store.config.online_store.path
        if not path.is_file():
            return {}  # reading would create it
    found = source_times(store, view, _SAMPLE)
    return {} if found is None else found.select(view.join_keys).to_dict(as_series=False)


def _server(store: Any) -> Iterator[FeastFinding]:
    if not _is_redis(store):
        detail = f"online store {_kind(store)}: only Redis can be read directly"
        yield FeastFinding("OK", "server", detail)
        return
    try:
        told = _client(store).info("server")
    except Exception as error:  # redis's own errors, which are not imported here
        detail = f"{store.config.online_store.connection_string}: {error}"
        yield FeastFinding("FAIL", "server", detail, "start it, or correct connection_string")
        return
    one = told if "redis_version" in told else next(iter(told.values()))
    name = "valkey" if "valkey_version" in one else "redis"
    yield FeastFinding("OK", "server", f"{name} {one[f'{name}_version']}")


def _ttl(store: Any) -> Iterator[FeastFinding]:
    """Does a row beyond its ttl come back?"""
    kept, seen, old = [], 0, 0
    for view in _online_views(store):
        ids = _ids(store, view) if view.ttl else {}
        if not any(map(len, ids.values())):
            continue
        vectors = _answer(store, view, ids)
        now = datetime.now(UTC)
        for place, stamp in enumerate(vectors[0].event_timestamps):
            if not stamp.seconds:
                continue
            seen += 1
            age = now - stamp.ToDatetime(tzinfo=UTC)
            if age <= view.ttl:
                continue
            old += 1
            if any(vector.values[place].WhichOneof("val") for vector in vectors):
                one = ", ".join(f"{name} {values[place]}" for name, values in ids.items())
                kept.append(f"{view.name} of {one} is {_days(age)} old, its ttl {_days(view.ttl)}")
    if kept:
        yield FeastFinding(
            "FAIL",
            "ttl online",
            f"{len(kept)} of {seen} rows are beyond their ttl and come back: {kept[0]}; "
            "training sees nulls there",
            f"{_DROP_IN}, or apply the ttl to the timestamps yourself",
            ("feast#6821", "feast#1802"),
        )
    elif old:
        yield FeastFinding("OK", "ttl online", f"{old} rows beyond their ttl are not answered")
    else:
        detail = f"not tested: none of {seen} rows is beyond its ttl"
        yield FeastFinding("OK", "ttl online", detail)


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.3g} days"


def _missing(store: Any) -> Iterator[FeastFinding]:
    """What is answered for an id that nobody has?"""
    if (
        _kind(store) == "sqlite"
        and not (Path(store.config.repo_path or ".") / store.config.online_store.path).is_file()
    ):
        yield FeastFinding("OK", "missing id", "not tested: nothing is materialized yet")
        return
    for view in _online_views(store):
        kinds = {column.name: column.dtype.to_value_type().name for column in view.entity_columns}
        if not set(kinds.values()) <= set(_NO_SUCH_ID):
            continue
        ids = {name: [_NO_SUCH_ID[kind]] for name, kind in kinds.items()}
        vectors = _answer(store, view, ids)
        if any(vector.values[0].WhichOneof("val") for vector in vectors):
            continue  # somebody has it after all
        if all(vector.statuses[0] == 1 for vector in vectors):
            yield FeastFinding(
                "WARN",
                "missing id",
                f"{view.name}: an id that is not there is answered PRESENT, with None",
                f"look at the value, never at the status, or {_DROP_IN}",
            )
        else:
            yield FeastFinding("OK", "missing id", f"{view.name}: it is answered NOT_FOUND")
        return
    yield FeastFinding("WARN", "missing id", "not tested: no online view", "feast apply")


def _keys(store: Any) -> Iterator[FeastFinding]:
    """Are keys and values what the direct tier takes them for?"""
    if not _is_redis(store):
        return
    compared, empty, refused = 0, [], []
    for view in _online_views(store):
        references = [f"{view.name}:{field.name}" for field in view.features]
        try:
            plan = compile_plan(store, references, exact=[field.name for field in view.features])
        except DataError as error:
            refused.append(str(error))
            continue
        reader = DirectReader(plan, _client(store))
        ids = stored_ids(_client(store), plan.keys, limit=_SAMPLE)
        unequal = _unequal_key(store, plan, ids)
        if unequal is not None:
            yield FeastFinding(
                "FAIL", "redis keys", f"{view.name}: {unequal}", "do not use the direct tier"
            )
            return
        try:
            rows = reader.check(store, ids)
        except DataError as error:
            yield FeastFinding("FAIL", "redis keys", str(error), "do not use the direct tier")
            return
        compared += rows
        if not rows:
            empty.append(view.name)
    for reason in refused:
        yield FeastFinding("WARN", "redis keys", reason, "use the direct tier for other views")
    if compared:
        detail = f"keys and values of {compared} rows are what Feast reads"
        yield FeastFinding("OK", "redis keys", detail)
    if empty:
        detail = f"{', '.join(empty)}: no row within its ttl to compare"
        yield FeastFinding("WARN", "redis rows", detail, "feast materialize")


def _unequal_key(store: Any, plan: Any, ids: Ids) -> str | None:
    """The first id whose key Feast writes in another way."""
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    names = list(ids)
    for row, own in zip(zip(*ids.values(), strict=True), plan.keys.encode(ids), strict=True):
        values = [
            Value(**{f"{plan.keys.join_keys[name].name.lower()}_val": value})
            for name, value in zip(names, row, strict=True)
        ]
        theirs = _redis_key(store.project, EntityKey(join_keys=names, entity_values=values), 3)
        if own != theirs:
            return f"Feast writes the key of {row} as {theirs!r}, expected {own!r}"
    return None


def _answer(store: Any, view: Any, ids: Ids) -> list[Any]:
    """Feast's vectors of a view's features."""
    features = [f"{view.name}:{field.name}" for field in view.features]
    proto = store.get_online_features(features=features, entity_rows=dict(ids)).proto
    by_name = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))
    return [by_name[field.name] for field in view.features]
