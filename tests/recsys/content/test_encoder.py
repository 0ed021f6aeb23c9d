from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.content import ContentEncoder
from recsys.errors import ArtifactError, NotFittedError

COLUMNS = {
    "text_columns": ("title", "genres"),
    "list_columns": ("genres",),
    "category_columns": ("studio",),
    "number_columns": ("year",),
}


def fitted(catalogue: pl.DataFrame, **settings: object) -> ContentEncoder:
    arguments = {**COLUMNS, "dim": 16, **settings}
    return ContentEncoder(**arguments).fit(catalogue, rng=np.random.default_rng(0))  # type: ignore[arg-type]


def test_vectors_are_unit_rows_that_find_the_planted_kinds(catalogue: pl.DataFrame) -> None:
    vectors = fitted(catalogue, weights={"year": 0.1}).transform(catalogue)
    assert vectors.shape == (60, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    near = vectors @ vectors.T
    same = np.equal.outer(np.arange(60) % 5, np.arange(60) % 5)
    assert near[same].mean() > near[~same].mean() + 0.3


def test_transform_never_refits(catalogue: pl.DataFrame) -> None:
    encoder = fitted(catalogue)
    all_rows = encoder.transform(catalogue)
    np.testing.assert_allclose(encoder.transform(catalogue[3:4]), all_rows[3:4], atol=1e-6)
    new = encoder.transform(catalogue[1:2].with_columns(pl.lit("new studio").alias("studio")))[0]
    assert new @ all_rows[1] > new @ all_rows[0]


def test_same_seed_is_bit_equal(catalogue: pl.DataFrame) -> None:
    one, two = fitted(catalogue).transform(catalogue), fitted(catalogue).transform(catalogue)
    np.testing.assert_array_equal(one, two)


def test_an_item_without_content_is_a_zero_row(catalogue: pl.DataFrame) -> None:
    encoder = fitted(catalogue, number_columns=())
    empty = pl.DataFrame(
        {"title": [None], "genres": [[]], "studio": [None]},
        schema={"title": pl.String, "genres": pl.List(pl.String), "studio": pl.String},
    )
    np.testing.assert_array_equal(encoder.transform(empty), np.zeros((1, 16)))


def test_weights_move_the_vectors(catalogue: pl.DataFrame) -> None:
    by_year = fitted(catalogue, weights={"text": 0, "genres": 0, "studio": 0}).transform(catalogue)
    # Only year and its missing flag are left: two informative dimensions.
    assert (np.abs(by_year).max(axis=0) > 1e-6).sum() == 2


def test_save_and_load_are_equal(catalogue: pl.DataFrame, tmp_path: Path) -> None:
    encoder = fitted(catalogue, weights={"text": 0.5})
    encoder.save(tmp_path / "content")
    again = ContentEncoder.load(tmp_path / "content")
    np.testing.assert_array_equal(again.transform(catalogue), encoder.transform(catalogue))
    assert again.weights == encoder.weights


def test_load_refuses_what_it_cannot_read(catalogue: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no content encoder"):
        ContentEncoder.load(tmp_path)
    fitted(catalogue).save(tmp_path)
    path = tmp_path / "content_encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(ArtifactError, match="format 1, got 9"):
        ContentEncoder.load(tmp_path)


def test_refuses_bad_input(catalogue: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one column"):
        ContentEncoder()
    with pytest.raises(ValueError, match="a column must be named once"):
        ContentEncoder(list_columns=("genres",), category_columns=("genres",))
    with pytest.raises(ValueError, match=r"weights must name blocks among .*'color'"):
        ContentEncoder(text_columns=("title",), weights={"color": 1})
    with pytest.raises(ValueError, match="must have the text_columns column 'plot'"):
        fitted(catalogue, text_columns=("plot",))
    with pytest.raises(ValueError, match="'title' must be a list of strings, got String"):
        fitted(catalogue, list_columns=("title",))
    with pytest.raises(NotFittedError, match="call fit or load"):
        ContentEncoder(**COLUMNS).transform(catalogue)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError, match="call fit or load"):
        ContentEncoder(**COLUMNS).save(tmp_path)  # type: ignore[arg-type]
