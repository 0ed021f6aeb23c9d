"""Is what the direct tier reads what Feast itself answers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import DataError
from features.feast.redis_format import KeyType
from features.packing.schema import FeatureBlock

if TYPE_CHECKING:
    from feast import FeatureStore

    from features.feast.direct_plan import ReadPlan

__all__ = ["compare_with_feast"]


def compare_with_feast(
    store: FeatureStore,
    plan: ReadPlan,
    ids: Mapping[str, Sequence[object] | np.ndarray],
    blocks: Mapping[str, FeatureBlock],
) -> int:
    """Compare values with ``get_online_features``, rows beyond their ttl left out.

    Args:
        store: the feature store.
        plan: what was read.
        ids: by join key, [N].
        blocks: what the direct tier read for them.

    Returns:
        How many rows, counted by view, were there to be compared.

    Raises:
        DataError: a value differs.
    """
    rows = {
        name: [_native(value, plan.keys.join_keys[name]) for value in column]
        for name, column in ids.items()
    }
    if not next(iter(rows.values())):
        return 0
    features = plan.features
    answer = store.get_online_features(
        features=store.get_feature_service(features)
        if isinstance(features, str)
        else list(features),
        entity_rows=rows,
        full_feature_names=True,
    ).to_dict()
    compared = 0
    for view in plan.views:
        block = blocks[view.name]
        compared += int(block.present.sum())
        absent = np.ones(len(block.present), bool) if block.age_s is None else np.isnan(block.age_s)
        for column in view.columns:
            theirs, ours = answer[f"{view.name}__{column.name}"], block.values[column.name]
            for place in np.flatnonzero(block.present | absent).tolist():
                if not _same(ours[place], theirs[place]):
                    shown = ", ".join(f"{name}={values[place]!r}" for name, values in rows.items())
                    raise DataError(
                        f"direct read of {view.name}:{column.name} must equal Feast's for {shown}: "
                        f"Feast answers {theirs[place]!r}, the hash says {ours.tolist()[place]!r}; "
                        "read through Feast, and look for another writer or Feast version"
                    )
    return compared


def _native(value: Any, kind: KeyType) -> str | int:
    return str(value) if kind == KeyType.STRING else int(value)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, np.datetime64):
        if theirs is None:
            return bool(np.isnat(ours))
        return bool(ours == np.datetime64(theirs.astimezone(UTC).replace(tzinfo=None), "s"))
    if isinstance(ours, np.ndarray):
        if theirs is None:
            return bool(np.isnan(ours).all())
        return np.array_equal(ours, np.asarray(theirs, dtype=ours.dtype), equal_nan=True)
    if ours is None or theirs is None:
        missing = ours is None or (isinstance(ours, np.floating) and bool(np.isnan(ours)))
        return missing and theirs is None
    if isinstance(ours, np.floating) and np.isnan(ours):
        return isinstance(theirs, float) and theirs != theirs
    return bool(ours == theirs)
