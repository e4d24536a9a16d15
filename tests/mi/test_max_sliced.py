"""Max-sliced mutual information: the directions that share most, and an honest value along them."""

import json
import math

import numpy as np
import pytest
import torch

from miue import seeds
from miue.errors import InputError
from miue.mi import mi_ksg
from miue.mi.max_sliced import max_sliced_mi

QUICK = {"restarts": 3, "steps": 120}


def canonical(rhos, n, seed=0):
    """Jointly normal vectors, mixed at random; the canonical correlations are `rhos`."""
    rng = np.random.default_rng(seed)
    d = len(rhos)
    z, noise = rng.standard_normal((2, n, d))
    mix_x, mix_y = rng.standard_normal((2, d, d))
    w = rhos * z + np.sqrt(1 - np.square(rhos)) * noise
    return z @ mix_x, w @ mix_y, mix_x, mix_y


def nats(*rhos):
    return -0.5 * sum(math.log(1 - rho * rho) for rho in rhos)


def largest_canonical_correlation(x, y):
    """From the samples: the largest singular value of the product of the two whitened bases."""
    bases = [np.linalg.qr(v - v.mean(axis=0))[0] for v in (x, y)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)[0]


@pytest.mark.slow
def test_finds_the_largest_canonical_correlation():
    x, y, mix_x, _ = canonical([0.8, 0.5, 0.2, 0.0], 2000)
    assert largest_canonical_correlation(x, y) == pytest.approx(0.8, abs=0.03)
    found = max_sliced_mi(x, y, restarts=3, steps=120)
    assert abs(found.mi.value - nats(0.8)) < 0.1
    assert found.mi.stderr_kind == "samples" and found.mi.per_sample.shape == (1000,)
    # theta is for standardised columns; brought back to those of z, it picks the first.
    along = mix_x @ (found.theta[0] / x.std(axis=0))
    assert abs(along[0]) / np.linalg.norm(along) > 0.95
    assert abs(found.searched.max() - nats(0.8)) < 0.25


def test_sees_what_correlation_does_not():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 2000, 4))
    y[:, 0] = x[:, 0] ** 2 + 0.3 * rng.standard_normal(2000)
    assert largest_canonical_correlation(x, y) < 0.2  # 0.02 nats
    found = max_sliced_mi(x, y, restarts=3, steps=100)
    best = mi_ksg(x[:, 0], y[:, 0]).value
    assert found.mi.value == pytest.approx(best, abs=0.1) and best > 0.7
    assert abs(found.theta[0, 0]) > 0.98 and abs(found.phi[0, 0]) > 0.98


def test_overfitted_directions_do_not_count():
    """With 100 columns and 400 samples there is a perfect fit, and it is worth nothing on the other half."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 400, 100))
    found = max_sliced_mi(x, y, **QUICK)
    assert found.curves.training.max() > 0.5
    assert abs(found.mi.value) < 0.15


@pytest.mark.slow
def test_the_restart_is_chosen_on_the_searching_half():
    """Replacing every sample of the measuring half changes the value and neither directions nor search."""
    x, y, *_ = canonical([0.8, 0.3], 600)
    found = max_sliced_mi(x, y, standardise=False, **QUICK)
    measuring = torch.randperm(600, generator=seeds.stream(0, "directions"))[300:]
    x[measuring] = np.random.default_rng(3).standard_normal((300, 2))
    other = max_sliced_mi(x, y, standardise=False, **QUICK)
    np.testing.assert_array_equal(other.searched, found.searched)
    np.testing.assert_array_equal(other.theta, found.theta)
    assert found.mi.value > 0.35 and abs(other.mi.value) < 0.12


def test_frames():
    x, y, *_ = canonical([0.8, 0.7, 0.0], 2400)
    found = max_sliced_mi(x, y, k_dim=2, restarts=3, steps=100)
    assert found.theta.shape == found.phi.shape == (2, 3)
    np.testing.assert_allclose(found.theta @ found.theta.T, np.eye(2), atol=1e-5)
    assert found.mi.value == pytest.approx(nats(0.8, 0.7), abs=0.15)
    assert nats(0.8) + 0.1 < found.mi.value


def test_record_and_dead_columns():
    x, y, *_ = canonical([0.6, 0.1], 300)
    with_dead = np.column_stack([x[:, 0], np.ones(300), x[:, 1]])
    settings = {**QUICK, "steps": 20, "seed": 5}
    found = max_sliced_mi(with_dead, y, "histogram", bins=5, objective="nwj", **settings)
    assert found.theta.shape == (1, 2)
    record = json.loads(json.dumps(found.mi.record()))
    assert record["estimator"] == "histogram"
    expected = {"dead_x": 1, "d_x": 3, "dead_y": 0, "d_y": 2, "bins": 5, "objective": "nwj", "restarts": 3, "seed": 5}
    assert expected.items() <= record["settings"].items()
    assert max_sliced_mi(x, y, "histogram", bins=5, objective="nwj", **settings).mi.value == found.mi.value


F, G = np.random.default_rng(0).standard_normal((2, 250, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_sliced_mi(F, G, "ross"), "estimator: 'ross' does not exist"),
        (lambda: max_sliced_mi(F, G, "kde", k_dim=2), "estimator: 'kde' does not exist; choose one of ksg"),
        (lambda: max_sliced_mi(F, G, objective="dv"), "objective: 'dv' does not exist"),
        (lambda: max_sliced_mi(F, G, restarts=0), "restarts: 0"),
        (lambda: max_sliced_mi(F, G, steps=0), "steps: 0; it must be a whole number, 1 or above"),
        (lambda: max_sliced_mi(F, G, k_dim=4), "k_dim: 4; choose 1 to the number of live columns, 3"),
        (lambda: max_sliced_mi(F, G[:-1]), "x, y: 250 and 249 rows"),
        (lambda: max_sliced_mi(F[:180], G[:180]), "x: 180 samples are too few; .*at least 200"),
        (lambda: max_sliced_mi(F[:, 0], G), r"x: shape \(250,\); pass a matrix"),
        (lambda: max_sliced_mi(F, 0 * G), "y: all 3 columns are constant"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.slow
def test_acceptance():
    """At 5,000 samples and the default settings: ten dimensions, against the truth."""
    x, y, *_ = canonical([0.9, 0.8, 0.5, 0.3, 0, 0, 0, 0, 0, 0], 5000)
    found = max_sliced_mi(x, y)
    assert abs(found.mi.value - nats(0.9)) < 3 * found.mi.stderr  # about 0.07
    assert max_sliced_mi(*np.random.default_rng(0).standard_normal((2, 5000, 10))).mi.value < 0.03
