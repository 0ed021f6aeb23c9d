from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features.computation.attributes import AttributeValues


@pytest.mark.parametrize(
    ("num_values", "most", "repeats", "one_by_one"),
    [
        (300, 3, False, True),  # 5 words of bits: looking 3 values up is less
        (300, 3, True, False),  # a value twice counts once
        (300, 9, False, False),
        (20, 3, False, False),
        (1, 1, False, True),
    ],
)
def test_shared_values_are_those_of_sets(
    num_values: int, most: int, repeats: bool, one_by_one: bool
) -> None:
    rng = np.random.default_rng(num_values + most)
    sets = [
        [f"v{one}" for one in rng.choice(num_values, rng.integers(0, most + 1), replace=False)]
        for _ in range(400)
    ]
    sets[0] = [f"v{one}" for one in range(most)]
    lists = [one + one[:1] for one in sets] if repeats else sets
    attribute = AttributeValues(pl.Series("tags", lists, dtype=pl.List(pl.String)))
    assert attribute._few_each is one_by_one
    item = rng.integers(0, 401, 30)
    others = rng.integers(0, 401, (30, 7))

    def shared(a: int, b: int) -> int:
        return len(set(sets[a - 1]) & set(sets[b - 1])) if a and b else 0

    for asked in (others, others[:1]):
        theirs = np.broadcast_to(asked, (30, 7))
        expected = [[shared(a, b) for b in row] for a, row in zip(item, theirs, strict=True)]
        assert attribute.shared(item, asked).tolist() == expected
