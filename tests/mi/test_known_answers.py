"""Estimators against distributions whose mutual information is known in closed form."""

import math

import numpy as np
import pytest
import torch

from miue.mi import default_bins, mi_histogram, mi_ksg

N, REPEATS = 5000, 8


def normal(r, rng):
    """I = -1/2 log(1 - r^2)."""
    x = rng.standard_normal((REPEATS, N))
    return x, r * x + math.sqrt(1 - r * r) * rng.standard_normal((REPEATS, N)), -0.5 * math.log(1 - r * r)


def monotone(r, rng):
    """Maps that rise or fall leave I as it is."""
    x, y, truth = normal(r, rng)
    return np.exp(x / 2), -np.arctan(y), truth


def additive_uniform(eps, rng):
    """X uniform on [0, 1], Y = X + uniform on [-eps, eps]."""
    x = rng.uniform(size=(REPEATS, N))
    truth = eps - math.log(2 * eps) if eps <= 0.5 else 1 / (4 * eps)
    return x, x + rng.uniform(-eps, eps, size=(REPEATS, N)), truth


CASES = [
    (mi_ksg, normal, 0.0, 0.03),
    (mi_ksg, normal, 0.5, 0.03),
    (mi_ksg, normal, -0.9, 0.03),
    (mi_ksg, normal, 0.99, 0.04),
    (mi_ksg, monotone, 0.9, 0.03),
    (mi_ksg, additive_uniform, 0.1, 0.05),
    (mi_ksg, additive_uniform, 0.75, 0.03),
    (mi_histogram, normal, 0.0, 0.05),
    (mi_histogram, normal, 0.5, 0.05),
    (mi_histogram, normal, -0.9, 0.05),
    (mi_histogram, monotone, 0.9, 0.05),
    (mi_histogram, additive_uniform, 0.75, 0.05),
]


@pytest.mark.parametrize(("estimator", "task", "parameter", "limit"), CASES)
def test_known_answer(estimator, task, parameter, limit):
    x, y, truth = task(parameter, np.random.default_rng(0))
    estimate = estimator(x, y, subsamples=0)
    assert abs(estimate.value - truth) <= limit
    assert estimate.per_slice.shape == (REPEATS,)


def test_default_histogram_reads_strong_dependence_low():
    """The chapter shows this bias; it is a property of 30 bins, not an accident."""
    x, y, truth = normal(0.99, np.random.default_rng(0))
    assert default_bins(N) == 30
    assert 0.10 < truth - mi_histogram(x, y, subsamples=0).value < 0.16


def test_correction_removes_most_of_the_histograms_bias():
    """Uncorrected, 30 bins read independent variables (30 - 1)^2 / 2n = 0.084 nats high."""
    x, y, _ = normal(0.0, np.random.default_rng(0))
    assert abs(mi_histogram(x, y, bins=30, subsamples=0).value) < 0.084 / 4


@pytest.mark.parametrize("estimator", [mi_ksg, mi_histogram])
def test_errors_over_slices_and_subsamples_match_the_real_spread(estimator):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 1000))
    estimates = estimator(x, 0.6 * x + 0.8 * rng.standard_normal((100, 1000)))
    spread = estimates.per_slice.std(ddof=1)
    assert estimates.stderr == pytest.approx(spread / 10)
    # The 100 slices are independent here, so the subsamples see the same error of the mean, to within its own.
    assert estimates.stderr_samples == pytest.approx(estimates.stderr, rel=0.75)
    one = estimator(x[0], 0.6 * x[0] + 0.8 * rng.standard_normal(1000))
    assert one.stderr_kind == "subsamples" and one.stderr == one.stderr_samples
    assert spread / 3 < one.stderr < spread * 3


@pytest.mark.parametrize("estimator", [mi_ksg, mi_histogram])
def test_invariances(estimator):
    x, y, _ = normal(0.7, np.random.default_rng(2))
    x, y = x[:, :800], y[:, :800]
    value = estimator(x, y).per_slice
    order = np.random.default_rng(3).permutation(800)
    for other in (
        estimator(y, x),
        estimator(3 + 40 * x, y),
        estimator(x[:, order], y[:, order]),
        estimator(torch.from_numpy(x), torch.from_numpy(y)),
    ):
        np.testing.assert_allclose(other.per_slice, value, rtol=0, atol=1e-9)
    single = estimator(x.astype(np.float32), y.astype(np.float32))
    assert single.per_slice.dtype == np.float64
    np.testing.assert_allclose(single.per_slice, value, rtol=0, atol=2e-3)
    assert estimator(x[0], y[0]).value == pytest.approx(value[0], abs=1e-12)


def test_ksg_does_not_mind_a_mirror():
    x, y, _ = normal(0.7, np.random.default_rng(2))
    np.testing.assert_allclose(mi_ksg(-x, y).per_slice, mi_ksg(x, y).per_slice, rtol=0, atol=1e-9)


def test_histogram_sees_ranks_only():
    x, y, _ = normal(0.7, np.random.default_rng(2))
    np.testing.assert_array_equal(mi_histogram(np.exp(x), y**3).per_slice, mi_histogram(x, y).per_slice)


def test_values_below_zero_are_kept():
    x, y, _ = normal(0.0, np.random.default_rng(0))
    assert mi_ksg(x, y, subsamples=0).per_slice.min() < 0
    assert mi_histogram(x, y, bins=5, subsamples=0).per_slice.min() < 0


def test_estimate_is_a_record():
    import json

    x, y, _ = normal(0.5, np.random.default_rng(0))
    estimate = mi_ksg(x, y, k=3)
    assert estimate.bits == pytest.approx(estimate.value / math.log(2))
    record = json.loads(json.dumps(estimate.record()))
    assert record["value"] == estimate.value and record["unit"] == "nats"
    assert record["settings"]["k"] == 3 and record["n"] == N and record["n_slices"] == REPEATS
