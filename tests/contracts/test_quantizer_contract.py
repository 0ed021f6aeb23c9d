"""What every `Quantizer` must do; a new quantiser is added to `BUILDERS` and nothing else."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from recsys.errors import ArtifactError, ConfigError, NotFittedError
from recsys.semantic_ids import (
    QUANTIZERS,
    RQVAE,
    Quantizer,
    ResidualKMeans,
    diagnose,
    load_quantizer,
)
from tests.recsys.semantic_ids.planted_clusters import planted_clusters

BUILDERS: dict[str, Callable[[], Quantizer]] = {
    "residual_kmeans": lambda: ResidualKMeans(num_codes=8, num_levels=3),
    "residual_kmeans_plain": lambda: ResidualKMeans(
        num_codes=8, reduced_dim=None, by_direction=False, num_init=2
    ),
    "residual_kmeans_reduced": lambda: ResidualKMeans(num_codes=8, reduced_dim=6),
    "rqvae": lambda: RQVAE(
        num_codes=8, latent_dim=8, hidden=(32,), epochs=24, warm_up_epochs=6, batch_size=64
    ),
}


def fit(name: str, vectors: np.ndarray, seed: int = 1) -> Quantizer:
    return BUILDERS[name]().fit(vectors, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    return planted_clusters()


@pytest.fixture(scope="module")
def fitted(planted: tuple[np.ndarray, np.ndarray]) -> Callable[[str], Quantizer]:
    return functools.cache(lambda name: fit(name, planted[0]))


def test_codes_are_in_range_and_alike_one_by_one(name, fitted, planted) -> None:
    quantizer, vectors = fitted(name), planted[0]
    codes = quantizer.assign(vectors)
    assert isinstance(quantizer, Quantizer)
    assert codes.shape == (600, 3)
    assert codes.dtype == np.int64
    assert 0 <= codes.min() <= codes.max() < 8
    alone = np.concatenate([quantizer.assign(vectors[i : i + 1]) for i in range(40)])
    np.testing.assert_array_equal(alone, codes[:40])
    assert quantizer.assign(vectors[:0]).shape == (0, 3)
    assert quantizer.decode(codes[:0]).shape == (0, 16)
    assert (quantizer.num_levels, quantizer.num_codes) == (3, 8)


def test_level_0_finds_the_planted_clusters(name, fitted, planted) -> None:
    vectors, cluster = planted
    codes = fitted(name).assign(vectors)
    assert adjusted_mutual_info_score(cluster, codes[:, 0]) > 0.9


def test_unit_norm_inputs_do_not_collapse(name, fitted, planted) -> None:
    vectors = planted[0]
    codes = fitted(name).assign(vectors)
    found = diagnose(codes, vectors, fitted(name), rng=np.random.default_rng(0))
    assert min(found.perplexity) > 4
    assert found.relative_error < 0.25


def test_decode_is_close_and_the_same_for_equal_codes(name, fitted, planted) -> None:
    quantizer, vectors = fitted(name), planted[0]
    codes = quantizer.assign(vectors)
    decoded = quantizer.decode(codes)
    assert decoded.shape == vectors.shape
    assert decoded.dtype == np.float32
    first = {tuple(code): row for row, code in zip(decoded, codes, strict=True)}
    for row, code in zip(decoded, codes, strict=True):
        np.testing.assert_allclose(row, first[tuple(code)], atol=1e-6)


def test_level_distances_are_what_assign_minimises(name, fitted, planted) -> None:
    quantizer, vectors = fitted(name), planted[0]
    codes = quantizer.assign(vectors)
    for level in range(3):
        distance = quantizer.level_distances(vectors, level)
        assert distance.shape == (600, 8)
        chosen = distance[np.arange(600), codes[:, level]]
        np.testing.assert_allclose(chosen, distance.min(axis=1), atol=1e-5)


def test_every_level_says_something_of_its_vector(name, fitted, planted) -> None:
    quantizer, vectors = fitted(name), planted[0]

    def error(codes: np.ndarray) -> float:
        return float(((vectors - quantizer.decode(codes)) ** 2).sum())

    codes = quantizer.assign(vectors)
    for level in range(3):
        of_another = codes.copy()
        of_another[:, level] = np.roll(codes[:, level], 7)
        assert error(of_another) > 1.1 * error(codes)


def test_inputs_are_not_changed(name, fitted, planted) -> None:
    quantizer, vectors = fitted(name), planted[0].copy()
    codes = quantizer.assign(vectors)
    kept = codes.copy()
    quantizer.decode(codes)
    quantizer.level_distances(vectors, 1)
    np.testing.assert_array_equal(vectors, planted[0])
    np.testing.assert_array_equal(codes, kept)


def test_the_seed_decides_and_fitting_again_replaces(name, fitted, planted) -> None:
    vectors, wanted = planted[0].copy(), fitted(name)
    other = fit(name, vectors, seed=2)
    assert other.fingerprint != wanted.fingerprint
    again = other.fit(vectors, generator=torch.Generator().manual_seed(1))
    assert again is other
    assert again.fingerprint == wanted.fingerprint
    np.testing.assert_array_equal(again.assign(vectors), wanted.assign(vectors))
    np.testing.assert_array_equal(vectors, planted[0])


def test_save_and_load_are_equal(name, fitted, planted, tmp_path: Path) -> None:
    quantizer = fitted(name)
    quantizer.save(tmp_path / "q")
    again = load_quantizer(tmp_path / "q")
    assert type(again) is type(quantizer)
    assert again.fingerprint == quantizer.fingerprint
    codes = quantizer.assign(planted[0])
    np.testing.assert_array_equal(again.assign(planted[0]), codes)
    np.testing.assert_array_equal(again.decode(codes), quantizer.decode(codes))


def test_every_quantizer_is_here() -> None:
    assert set(QUANTIZERS.values()) == {type(build()) for build in BUILDERS.values()}


def test_loading_half_or_damaged_files(name, fitted, tmp_path: Path) -> None:
    fitted(name).save(tmp_path)
    files = sorted(path for path in tmp_path.iterdir())
    assert [path.name for path in files] == ["quantizer.json", "quantizer.safetensors"]
    for path in files:
        whole = path.read_bytes()
        for content in (b"", b"\x01", whole[: len(whole) // 2]):
            path.write_bytes(content)
            with pytest.raises(ArtifactError, match=str(tmp_path)):
                load_quantizer(tmp_path)
        path.unlink()
        with pytest.raises(ArtifactError, match=str(tmp_path)):
            load_quantizer(tmp_path)
        path.write_bytes(whole)
    assert load_quantizer(tmp_path).fingerprint == fitted(name).fingerprint


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_load_refuses_what_it_cannot_read(kind, fitted, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no quantizer in"):
        load_quantizer(tmp_path)
    fitted(kind).save(tmp_path)
    path = tmp_path / "quantizer.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps(header | {"fingerprint": "0"}))
    with pytest.raises(ArtifactError, match="are not those the header names"):
        load_quantizer(tmp_path)
    path.write_text(json.dumps(header | {"format": 2}))
    with pytest.raises(ArtifactError, match="must have format 1, got 2"):
        load_quantizer(tmp_path)
    path.write_text(json.dumps(header | {"kind": "pq"}))
    with pytest.raises(ConfigError, match="unknown quantizer 'pq'"):
        load_quantizer(tmp_path)
    with pytest.raises(ArtifactError, match=f"must hold a '{kind}', got 'pq'"):
        QUANTIZERS[kind].load(tmp_path)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_refuses_use_before_fit(kind, tmp_path: Path) -> None:
    quantizer = QUANTIZERS[kind]()
    for use in (
        lambda: quantizer.assign(np.zeros((1, 4), dtype=np.float32)),
        lambda: quantizer.decode(np.zeros((1, 3), dtype=np.int64)),
        lambda: quantizer.level_distances(np.zeros((1, 4), dtype=np.float32), 0),
        lambda: quantizer.save(tmp_path),
        lambda: quantizer.fingerprint,
    ):
        with pytest.raises(NotFittedError, match="call fit or load"):
            use()


def test_refuses_bad_vectors_and_codes(name, fitted, planted) -> None:
    quantizer, vectors = fitted(name), planted[0]
    with pytest.raises(ValueError, match=r"vectors must be \[N, 16\], got shape \(2, 3\)"):
        quantizer.assign(np.zeros((2, 3), dtype=np.float32))
    broken = vectors.copy()
    broken[5, 2] = np.nan
    for use in (quantizer.assign, lambda v: fit(name, v)):
        with pytest.raises(ValueError, match="1 rows hold a NaN or infinity, the first is row 5"):
            use(broken)
    with pytest.raises(ValueError, match="got 8 codes for 5 vectors; lower num_codes"):
        fit(name, vectors[:5])
    with pytest.raises(ValueError, match=r"codes must be \[N, 3\], got shape \(1, 2\)"):
        quantizer.decode(np.zeros((1, 2), dtype=np.int64))
    with pytest.raises(ValueError, match=r"codes must lie in 0\.\.7, got 0\.\.8"):
        quantizer.decode(np.array([[0, 0, 8]]))
    with pytest.raises(ValueError, match="codes must be integers, got float64"):
        quantizer.decode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"level must lie in 0\.\.2, got 3"):
        quantizer.level_distances(vectors, 3)


def test_duplicate_vectors_are_no_harm(name) -> None:
    vectors = np.repeat(np.eye(6, 16, dtype=np.float32), 5, axis=0)  # 6 distinct, 8 codes
    codes = fit(name, vectors).assign(vectors)
    assert len(np.unique(codes.reshape(6, 5, 3), axis=1)) == 6
    np.testing.assert_array_equal(
        codes.reshape(6, 5, 3), codes.reshape(6, 5, 3)[:, :1].repeat(5, 1)
    )
