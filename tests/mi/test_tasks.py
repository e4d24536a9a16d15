"""The truths themselves, each against a computation of another kind."""

import math

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.special import digamma
from scipy.stats import multivariate_t, norm, t

from miue.errors import InputError
from miue.mi import mi_ksg, tasks


def monte_carlo(task, log_ratio, n=200_000):
    """Mean of log p(x, y) / p(x) p(y) over samples, and its standard error."""
    values = log_ratio(*task.sample(n, seed=7))
    return values.mean(), values.std() / math.sqrt(n)


def test_bivariate_normal_and_vectors():
    assert tasks.bivariate_normal(-0.9).truth == pytest.approx(0.8304, abs=5e-5)
    assert tasks.bivariate_normal(0.99).truth == pytest.approx(1.9585, abs=5e-5)
    x, y = tasks.multivariate_normal(5, 2.0).sample(200_000)
    r = np.array([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(5)])
    assert -0.5 * np.log1p(-(r**2)).sum() == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("eps", [0.1, 0.5, 0.75])
def test_additive_uniform_is_the_entropy_of_the_sum_less_that_of_the_noise(eps):
    def density(v):
        return max(0.0, min(1, v + eps) - max(0, v - eps)) / (2 * eps)

    edges = sorted({-eps, eps, 1 - eps, 1 + eps})
    entropy = quad(lambda v: -density(v) * math.log(density(v)) if density(v) else 0.0, -eps, 1 + eps, points=edges)[0]
    assert tasks.additive_uniform(eps).truth == pytest.approx(entropy - math.log(2 * eps), abs=1e-6)


@pytest.mark.parametrize(("dof", "r"), [(1, 0.0), (3, 0.5), (30, -0.8)])
def test_student_t(dof, r):
    joint = multivariate_t([0, 0], [[1, r], [r, 1]], df=dof)

    def log_ratio(x, y):
        return joint.logpdf(np.column_stack([x, y])) - t.logpdf(x, dof) - t.logpdf(y, dof)

    task = tasks.student_t(dof, r)
    mean, error = monte_carlo(task, log_ratio)
    assert abs(mean - task.truth) < 4 * error


def test_gaussian_mixture():
    spread, classes = 0.5, 3
    task = tasks.gaussian_mixture(spread, classes, seed=1)
    c_x, c_y = np.random.default_rng(1).standard_normal((2, classes))

    def integrand(y, x):
        p_x, p_y = norm.pdf(x, c_x, spread), norm.pdf(y, c_y, spread)
        joint = (p_x * p_y).mean()
        return joint * math.log(joint / (p_x.mean() * p_y.mean())) if joint > 1e-300 else 0.0

    truth = dblquad(integrand, -5, 5, -5, 5, epsabs=1e-3)[0]
    assert abs(task.truth - truth) < 4 * task.truth_stderr + 1e-4
    assert 0 < task.truth_stderr < 0.005


def test_mixture_classes():
    spread, classes = 0.5, 3
    task = tasks.mixture_classes(spread, classes, seed=1)
    centres = np.random.default_rng(1).standard_normal(classes)

    def density(x):
        return norm.pdf(x, centres, spread).mean()

    entropy = quad(lambda x: -density(x) * math.log(density(x)), -6, 6)[0]
    truth = entropy - 0.5 * math.log(2 * math.pi * math.e * spread**2)
    assert abs(task.truth - truth) < 4 * task.truth_stderr + 1e-4
    assert task.truth < math.log(classes)


def test_sliced_normal_is_the_mean_over_directions():
    assert tasks.sliced_normal(10, 0.9).truth == pytest.approx(0.04571, abs=5e-6)
    assert tasks.sliced_normal(64, 1.0).truth == pytest.approx(0.5 * (digamma(32) - digamma(31.5)))
    assert tasks.sliced_normal(64, 0.999999).truth == pytest.approx(tasks.sliced_normal(64, 1.0).truth, rel=1e-3)
    rng = np.random.default_rng(0)
    theta, phi = rng.standard_normal((2, 200_000, 10))
    cosine = (theta * phi).sum(1) / np.linalg.norm(theta, axis=1) / np.linalg.norm(phi, axis=1)
    values = -0.5 * np.log1p(-((0.9 * cosine) ** 2))
    assert abs(values.mean() - tasks.sliced_normal(10, 0.9).truth) < 4 * values.std() / math.sqrt(len(values))


@pytest.mark.slow
def test_sliced_mixture_tends_to_the_class_as_clusters_tighten():
    loose, tight = (tasks.sliced_mixture(8, spread, classes=3) for spread in (1.0, 0.001))
    assert loose.truth < 0.1 < tight.truth < math.log(3) + 0.01
    assert tight.truth > 0.95 * math.log(3)
    # Along given directions the sampled clusters have the truth of their own mixture.
    x, y = loose.sample(4000, 3)
    assert x.shape == y.shape == (4000, 8)
    assert abs(mi_ksg(x @ np.eye(8)[0], y @ np.eye(8)[1]).value) < 0.5


def test_maps_keep_the_truth_and_change_the_samples():
    pair, vectors = tasks.bivariate_normal(0.5), tasks.multivariate_normal(3, 1.0)
    mapped, turned = tasks.monotone(pair), tasks.rotated(vectors)
    assert (mapped.truth, turned.truth) == (pair.truth, vectors.truth)
    (x, y), (u, v) = pair.sample(100, 5), mapped.sample(100, 5)
    np.testing.assert_array_equal(np.argsort(u), np.argsort(x))
    np.testing.assert_array_equal(np.argsort(-v), np.argsort(y))
    (x, _), (u, _) = vectors.sample(100, 5), turned.sample(100, 5)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), np.linalg.norm(x, axis=1))
    assert not np.allclose(u, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.bivariate_normal(1.0), "r: 1.0"),
        (lambda: tasks.student_t(0, 0.5), "dof: 0"),
        (lambda: tasks.additive_uniform(0), "eps: 0"),
        (lambda: tasks.multivariate_normal(3, -1), "mi: -1"),
        (lambda: tasks.gaussian_mixture(0.1, 1), "classes: 1"),
        (lambda: tasks.sliced_normal(1, 0.5), "d: 1"),
        (lambda: tasks.rotated(tasks.bivariate_normal(0)), "task: normal, r = 0 is a task of numbers"),
        (lambda: tasks.bivariate_normal(0).sample(0), "n: 0; it must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
