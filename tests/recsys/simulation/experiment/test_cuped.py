from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from recsys.errors import LeakageError
from recsys.simulation.experiment import cuped, welch

TIMES = {"measured_until": 0.0, "exposed_at": 1.0}


def test_one_covariate_equals_the_loop(reference: ModuleType, rng: np.random.Generator) -> None:
    arm = rng.integers(2, size=60)
    x = rng.normal(size=60)
    y = 0.8 * x + rng.normal(size=60) + arm
    want = reference.cuped(y.tolist(), x.tolist(), arm.tolist())
    found = cuped(y, x, arm=arm, **TIMES)
    np.testing.assert_allclose(found.values, want, atol=1e-12)
    assert found.values.mean() == pytest.approx(y.mean())
    one = np.zeros(60, dtype=int)
    want = reference.cuped(y.tolist(), x.tolist(), one.tolist())
    np.testing.assert_allclose(cuped(y, x, **TIMES).values, want, atol=1e-12)


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9])
def test_variance_left(rho: float, rng: np.random.Generator) -> None:
    x = rng.normal(size=20_000)
    y = rho * x + (1 - rho**2) ** 0.5 * rng.normal(size=20_000)
    assert cuped(y, x, **TIMES).variance_ratio == pytest.approx(1 - rho**2, abs=0.03)


def test_several_covariates_explain_more(rng: np.random.Generator) -> None:
    x = rng.normal(size=(5000, 2))
    y = x @ [0.6, 0.6] + 0.53 * rng.normal(size=5000)
    one, both = cuped(y, x[:, :1], **TIMES), cuped(y, x, **TIMES)
    assert both.theta == pytest.approx([0.6, 0.6], abs=0.04)
    assert both.variance_ratio < 0.5 * one.variance_ratio


def test_a_constant_covariate_changes_nothing(rng: np.random.Generator) -> None:
    y = rng.normal(size=50)
    np.testing.assert_allclose(cuped(y, np.full(50, 3.0), **TIMES).values, y, atol=1e-12)
    flat = cuped(np.ones(50), rng.normal(size=50), **TIMES)
    np.testing.assert_allclose(flat.values, 1.0)
    assert flat.variance_ratio == 1.0


def test_unknown_covariates_become_their_mean(rng: np.random.Generator) -> None:
    """New users have no past and behave otherwise; the column that marks them says so."""
    x = rng.normal(size=4000)
    new = rng.random(4000) < 0.3
    y = np.where(new, 3.0, x) + 0.1 * rng.normal(size=4000)
    found = cuped(y, np.where(new, np.nan, x), **TIMES)
    assert found.theta.shape == (2,)
    assert found.theta[0] == pytest.approx(1.0, abs=0.02)
    assert found.variance_ratio < 0.02


def test_the_effect_stays_at_its_level(rng: np.random.Generator) -> None:
    trials, held = 500, 0
    for _ in range(trials):
        arm = np.repeat([0, 1], 150)
        x = rng.normal(size=300)
        y = x + 0.5 * rng.normal(size=300) + 0.3 * arm
        values = cuped(y, x, arm=arm, **TIMES).values
        effect = welch(values[:150], values[150:])
        held += effect.low <= 0.3 <= effect.high
    assert abs(held / trials - 0.95) <= 4 * (0.05 * 0.95 / trials) ** 0.5


def test_what_was_measured_after_exposure_is_refused(rng: np.random.Generator) -> None:
    y, until = rng.normal(size=10), np.zeros(10)
    until[3] = 1.0
    with pytest.raises(LeakageError, match="for 1 of 10 units they count what happened at or"):
        cuped(y, y, measured_until=until, exposed_at=1.0)
    assert cuped(y, y, measured_until=until, exposed_at=until + 1e-6).theta == pytest.approx(1)


def test_cuped_refuses(rng: np.random.Generator) -> None:
    y = rng.normal(size=4)
    with pytest.raises(ValueError, match=r"covariates \[n, D\] of the same units"):
        cuped(y, np.ones(3), **TIMES)
    with pytest.raises(ValueError, match="outcome must be finite"):
        cuped(y, np.full(4, np.inf), **TIMES)
    with pytest.raises(ValueError, match=r"arm must be \[n\]"):
        cuped(y, y, arm=np.ones(3), **TIMES)
    with pytest.raises(ValueError, match=r"exposed_at must be one time or \[4\], got \(3,\)"):
        cuped(y, y, measured_until=0.0, exposed_at=np.ones(3))
    with pytest.raises(ValueError, match="measured_until must be finite"):
        cuped(y, y, measured_until=np.nan, exposed_at=1.0)
