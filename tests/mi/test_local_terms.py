"""What each sample contributes: the mean over samples is the value, and the order is that of the samples."""

import math
from functools import partial

import numpy as np
import pytest

from miue.mi import mi_discrete, mi_histogram, mi_kde, mi_ksg, mi_ksg_joint, mi_mixed, mi_ross
from miue.mi.ksg import count_within

N = 300
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, N))
Y = 0.8 * X + 0.6 * RNG.standard_normal((2, N))
VECTORS = np.stack([X, RNG.standard_normal((2, N))], axis=2), np.stack([Y, X**2], axis=2)
HALF = np.maximum(X, 0), np.maximum(Y, 0)
U = RNG.integers(0, 4, (1, N))
V = np.where(RNG.random((1, N)) < 0.7, U, RNG.integers(0, 4, (1, N)))

CASES = {
    **{
        f"ksg, {variant}, {search}": (partial(mi_ksg, noise=0, variant=variant, search=search), X, Y)
        for variant in (1, 2)
        for search in ("tree", "brute")
    },
    "ksg, vectors": (partial(mi_ksg_joint, noise=0), *VECTORS),
    "histogram": (mi_histogram, X, Y),
    "histogram, uncorrected": (partial(mi_histogram, correction="none", binning="width"), X, Y),
    "kde": (mi_kde, X, Y),
    "kde, exact": (partial(mi_kde, evaluation="exact", scale="values"), X, Y),
    "mixed": (mi_mixed, X, Y),
    "mixed, with atoms": (mi_mixed, *HALF),
    "ross": (lambda x, labels: mi_ross(x, labels[0], noise=0), X, U),
    "discrete": (lambda u, v: mi_discrete(u[0], v[0]), U, V),
    "discrete, at its entropy": (lambda u, v: mi_discrete(u[0], v[0]), U, U),
}


@pytest.mark.parametrize("case", CASES)
def test_their_mean_is_the_value_and_their_spread_its_error(case):
    estimator, x, y = CASES[case]
    found = estimator(x, y)
    assert found.per_sample.shape == (N,) and found.per_sample.dtype == np.float64
    assert found.per_sample.mean() == pytest.approx(found.value, abs=1e-12)
    assert found.stderr_samples == pytest.approx(found.per_sample.std(ddof=1) / math.sqrt(N))
    if len(x) == 2 and case != "ross":  # slices share the samples and their order
        one, other = (estimator(x[i], y[i]).per_sample for i in (0, 1))
        np.testing.assert_allclose(found.per_sample, (one + other) / 2, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_another_order_of_the_samples_is_another_order_of_the_terms(case):
    estimator, x, y = CASES[case]
    order = np.random.default_rng(1).permutation(N)
    expected = estimator(x, y).per_sample[order]
    np.testing.assert_allclose(estimator(x[:, order], y[:, order]).per_sample, expected, rtol=0, atol=1e-9)


def test_by_hand():
    """Two pairs (a, True), one (b, False), one (b, True): the logarithm of p(u, v) / p(u) p(v) of each sample."""
    found = mi_discrete(list("abba"), [True, False, True, True], correction="none")
    np.testing.assert_allclose(found.per_sample, np.log([4 / 3, 2, 2 / 3, 4 / 3]))
    clipped = mi_discrete(list("abba"), list("abba"))  # H(U) = log 2, which the correction would lift by 1/8
    np.testing.assert_allclose(clipped.per_sample, math.log(2))


def test_counts_come_in_the_order_of_the_values():
    values, eps = np.array([3.0, 0.0, 1.0, 7.0, 1.0]), np.array([2.5, 1.0, 1.0, 4.0, 0.0])
    np.testing.assert_array_equal(count_within(values, eps), [2, 0, 1, 0, 0])
    np.testing.assert_array_equal(count_within(values, eps, inclusive=True), [2, 2, 2, 1, 1])


def test_the_error_of_nearest_neighbours_is_near_the_real_spread_and_costs_no_repeats():
    """Sixty fresh draws know their spread to 9 %; neighbours share neighbours, so the error is somewhat low."""
    rng = np.random.default_rng(2)
    x, noise = rng.standard_normal((2, 60, 500))
    found = [mi_ksg(a, 0.6 * a + 0.8 * b) for a, b in zip(x, noise, strict=True)]
    ratio = np.array([one.stderr_samples for one in found]) / np.std([one.value for one in found], ddof=1)
    assert 0.6 < ratio.min() < ratio.mean() < 1.0 and ratio.std() < 0.1
