from __future__ import annotations

import numpy as np
import pytest

from tests.recsys.semantic_ids.planted_clusters import planted_clusters


@pytest.fixture(scope="session")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """See `planted_clusters`."""
    return planted_clusters()
