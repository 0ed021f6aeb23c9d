"""The chain from real titles to ids: content vectors, codes, unique ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.content import ContentEncoder
from recsys.semantic_ids import ResidualKMeans, SemanticIds, assign_unique, diagnose

MOVIES = Path(__file__).parents[3] / "examples" / "data" / "movies.parquet"


@pytest.mark.skipif(not MOVIES.exists(), reason="examples/data/movies.parquet is not there")
def test_movies_get_healthy_unique_ids() -> None:
    movies = pl.read_parquet(MOVIES).head(3000)
    movies = movies.with_columns(pl.col("genres").str.split("|"), pl.col("tags").cast(pl.String))
    encoder = ContentEncoder(
        text_columns=("title", "genres", "tags"),
        list_columns=("genres",),
        number_columns=("year",),
        dim=64,
    )
    vectors = encoder.fit(movies, rng=np.random.default_rng(0)).transform(movies)
    quantizer = ResidualKMeans(num_codes=64)
    quantizer.fit(vectors, generator=torch.Generator().manual_seed(0))
    codes = quantizer.assign(vectors)
    genre = movies["genres"].list.first().fill_null("none").to_list()
    found = diagnose(codes, vectors, quantizer, rng=np.random.default_rng(0), labels=genre)
    assert found.problems() == []
    assert found.relative_error < 0.25
    assert found.prefixes[0].corrected_purity > 0.5
    assert found.prefixes[0].cosine > found.prefixes[0].shuffled_cosine + 0.4
    unique = assign_unique(vectors, quantizer, num_ties=64, reassign_last_level=True)
    ids = SemanticIds.from_codes(
        unique,
        movies["movieId"].cast(pl.String).to_list(),
        num_codes=(64, 64, 64, 64),
        codebook=quantizer.fingerprint,
    )
    np.testing.assert_array_equal(ids.item_index(unique), np.arange(1, 3001))
