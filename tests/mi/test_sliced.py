"""Slicing: the series of T6, controls, directions, and what must not change the result."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma

from miue.mi import ceiling, mi_ksg, null, sliced_mi, with_controls


def isotropic(n, d, r=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, d, generator=g, dtype=torch.float64)
    return x, r * x + math.sqrt(1 - r * r) * noise


def clustered(n, d, spread, classes=10, seed=0):
    """Two draws that share the cluster of each sample and nothing else, and the clusters."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=g, dtype=torch.float64)
    return *(centres[labels] + spread * torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2)), labels


def gaussian_smi(d, r):
    """Sliced MI of isotropic normal vectors with cross-covariance r I (theory T6)."""
    term, total = 1.0, 0.0
    for m in range(1, 400):
        term *= (m - 0.5) / (m - 1 + d / 2)
        total += r ** (2 * m) / m * term
    return total / 2


def test_series_matches_the_number_in_the_text():
    assert gaussian_smi(10, 0.9) == pytest.approx(0.04571, abs=5e-6)
    assert gaussian_smi(64, 1.0) == pytest.approx(0.5 * (digamma(32) - digamma(31.5)), rel=1e-6)


@pytest.mark.parametrize("d", [2, 10, 64])
def test_isotropic_gaussian(d):
    estimate = sliced_mi(*isotropic(5000, d, 0.9), n_slices=128, subsamples=0)
    assert abs(estimate.value - gaussian_smi(d, 0.9)) <= 3 * estimate.stderr + 0.003


@pytest.mark.parametrize("estimator", ["ksg", "histogram"])
def test_chunks_devices_and_precision_do_not_change_the_result(estimator):
    x, y = isotropic(600, 7, 0.8)
    whole = sliced_mi(x, y, estimator, n_slices=80, seed=3)
    pieces = sliced_mi(x, y, estimator, n_slices=80, seed=3, max_bytes=16 * 8 * 600 * 13)
    assert whole.per_slice.shape == (80,) and whole.per_subsample.shape == (6, 64)
    np.testing.assert_allclose(pieces.per_slice, whole.per_slice, rtol=0, atol=1e-9)
    np.testing.assert_allclose(pieces.per_subsample, whole.per_subsample, rtol=0, atol=1e-9)
    assert pieces.stderr_samples == pytest.approx(whole.stderr_samples)
    single = sliced_mi(x.float(), y.float().numpy(), estimator, n_slices=80, seed=3)
    assert single.value == pytest.approx(whole.value, abs=1e-3)
    assert sliced_mi(x, y, estimator, n_slices=80, seed=4).value != whole.value


def test_columns_are_standardised_on_request_and_dead_units_dropped():
    x, y = isotropic(600, 6, 0.8)
    scale = torch.tensor([1.0, 10.0, 100.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    plain = sliced_mi(x, y, n_slices=20)
    stretched = sliced_mi(x * scale + 5, y, n_slices=20)
    np.testing.assert_allclose(stretched.per_slice, plain.per_slice, atol=1e-6)
    assert abs(sliced_mi(x * scale, y, n_slices=20, standardise=False).value - plain.value) > 1e-3

    dead = torch.cat([x[:, :3], torch.full((600, 2), 0.1, dtype=torch.float64), x[:, 3:]], dim=1)
    with_dead = sliced_mi(dead, y, n_slices=20)
    np.testing.assert_allclose(with_dead.per_slice, plain.per_slice, atol=1e-9)
    assert with_dead.settings["dead_x"] == 2 and with_dead.settings["dead_y"] == 0
    assert with_dead.settings["d_x"] == 8


def test_one_column_each_is_the_one_dimensional_estimate():
    x, y = isotropic(600, 1, 0.8)
    one = mi_ksg(x[:, 0], y[:, 0])
    assert sliced_mi(x, y, n_slices=4).value == pytest.approx(one.value, abs=1e-9)


def test_shared_directions_see_a_coordinatewise_dependence_better():
    x, y = isotropic(1000, 10, 0.9)
    shared = sliced_mi(x, y, n_slices=16, directions="shared", subsamples=0)
    assert shared.value == pytest.approx(-0.5 * math.log(1 - 0.81), abs=0.05)
    assert sliced_mi(x, y, n_slices=16, subsamples=0).value < 0.2


def test_controls_bracket_the_measured_value():
    z, _, labels = clustered(1000, 3, 0.5)
    y = z + 0.2 * torch.randn(z.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    controls = with_controls(z, y, labels, n_slices=32)
    assert abs(controls.null.value) < 0.02
    assert controls.null.value + 0.1 < controls.within_class.value
    assert controls.within_class.value + 0.02 < controls.mi.value < controls.ceiling.value
    record = controls.record()
    assert list(record) == ["mi", "null", "within_class", "ceiling"]
    assert record["within_class"]["settings"]["shuffle"] == "within class"
    assert record["null"]["settings"]["shuffle"] == "free"
    assert controls.ceiling.value == ceiling(z, n_slices=32).value


def test_within_class_shuffle_keeps_what_the_class_explains_and_nothing_else():
    z, z_prime, labels = clustered(1000, 32, 0.1)
    given_class = sliced_mi(z, z_prime, n_slices=32)  # independent given the class by construction
    shuffled = null(z, z_prime, within=labels, n_slices=32)
    assert shuffled.value == pytest.approx(given_class.value, abs=0.03)
    assert shuffled.value > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "ceiling_value"), [(1, 0.025), (0.3, 0.38), (0.1, 1.20), (0.03, 1.90)])
def test_clusters_raise_the_ceiling(spread, ceiling_value):
    """Values of theory T5: 10 clusters, d = 512, n = 5,000; other centres and draws, hence the tolerance."""
    z, _, _ = clustered(5000, 512, spread)
    assert ceiling(z, n_slices=96, subsamples=0).value == pytest.approx(ceiling_value, rel=0.25, abs=0.01)
