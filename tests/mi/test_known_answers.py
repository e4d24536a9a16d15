"""What estimators owe to every input: invariances, honest errors, and the biases that the book shows."""

import math

import numpy as np
import pytest
import torch

from miue.errors import DataWarning, InputError
from miue.mi import default_bins, mi_histogram, mi_kde, mi_ksg, mi_ross, tasks

N, REPEATS = 5000, 8
NUMBERS = [mi_histogram, mi_kde, mi_ksg]


def draws(task, n=N, repeats=REPEATS):
    """x and y (repeats, n) and the truth."""
    x, y = zip(*(task.sample(n, seed) for seed in range(repeats)), strict=True)
    return np.stack(x), np.stack(y), task.truth


def normal(r):
    return draws(tasks.bivariate_normal(r))


def test_default_histogram_reads_strong_dependence_low():
    """The chapter shows this bias; it is a property of 30 bins, not an accident."""
    x, y, truth = normal(0.99)
    assert default_bins(N) == 30
    assert 0.10 < truth - mi_histogram(x, y).value < 0.16


def test_correction_removes_most_of_the_histograms_bias():
    """Uncorrected, 30 bins read independent variables (30 - 1)^2 / 2n = 0.084 nats high."""
    x, y, _ = normal(0.0)
    plain = mi_histogram(x, y, bins=30, correction="none").value
    assert plain == pytest.approx(29**2 / (2 * N), rel=0.1)
    assert abs(mi_histogram(x, y, bins=30).value) < plain / 10


def test_bins_of_equal_width():
    """By hand: 4 points in 2 x 2 bins of width 1 over [0, 2], the greatest value in the last bin."""
    x, y = np.array([0.0, 0.9, 1.1, 2.0]), np.array([0.0, 2.0, 1.1, 1.9])
    plain = mi_histogram(x, y, bins=2, binning="width", correction="none")
    joint = np.array([[0.25, 0.25], [0, 0.5]])
    independent = joint.sum(1)[:, None] * joint.sum(0)
    expected = (joint * np.log(np.where(joint > 0, joint, 1) / independent)).sum()
    assert plain.value == pytest.approx(expected)
    corrected = mi_histogram(x, y, bins=2, binning="width").value
    assert corrected == pytest.approx(expected - (3 - 2 - 2 + 1) / 8)


def test_bins_of_equal_width_are_at_the_mercy_of_outliers():
    x, y, truth = draws(tasks.student_t(1, 0.9))
    by_width = mi_histogram(x, y, binning="width").value
    assert abs(mi_histogram(x, y).value - truth) < 0.15 < truth - by_width


@pytest.mark.parametrize("estimator", NUMBERS)
def test_errors_over_slices_and_samples_match_the_real_spread(estimator):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 1000))
    estimates = estimator(x, 0.6 * x + 0.8 * rng.standard_normal((100, 1000)))
    spread = estimates.per_slice.std(ddof=1)
    assert estimates.stderr == pytest.approx(spread / 10)
    # The 100 slices are independent here, so both errors are of the same mean; the spread is known to 7 %.
    assert 0.65 < estimates.stderr_samples / estimates.stderr < 1.1
    for row in x[:5]:
        one = estimator(row, 0.6 * row + 0.8 * rng.standard_normal(1000))
        assert one.stderr_kind == "samples" and one.stderr == one.stderr_samples
        assert 0.6 < one.stderr / spread < 1.15


@pytest.mark.parametrize("estimator", NUMBERS)
def test_invariances(estimator):
    x, y, _ = normal(0.7)
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
    x, y, _ = normal(0.7)
    np.testing.assert_allclose(mi_ksg(-x, y).per_slice, mi_ksg(x, y).per_slice, rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", [mi_histogram, mi_kde])
def test_ranks_are_all_that_counts(estimator):
    x, y, _ = normal(0.7)
    np.testing.assert_array_equal(estimator(np.exp(x), y**3).per_slice, estimator(x, y).per_slice)


@pytest.mark.parametrize("scale", ["scores", "values"])
@pytest.mark.parametrize("task", [tasks.bivariate_normal(0.8), tasks.additive_uniform(0.2), tasks.student_t(5, 0.3)])
@pytest.mark.filterwarnings("ignore::miue.errors.DataWarning")
def test_kde_on_the_grid_is_kde(task, scale):
    x, y, _ = draws(task, n=800, repeats=2)
    exact = mi_kde(x, y, evaluation="exact", scale=scale).per_slice
    np.testing.assert_allclose(mi_kde(x, y, scale=scale).per_slice, exact, rtol=0, atol=0.004)
    whole, pieces = (mi_kde(x, y, scale=scale, max_bytes=b).per_slice for b in (2**28, 2**22))
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-9)


def test_kde_by_hand():
    """Four points, kernels of the data's own covariance, each point left out of its own density."""
    x, y = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([-1.0, -1.0, 1.0, 1.0])  # uncorrelated, unit variance
    h = 0.8

    def kernel(u):
        return np.exp(-(u**2) / 2 / h**2) / math.sqrt(2 * math.pi) / h

    near = kernel(0.0)
    far = kernel(2.0)
    marginal = (near + 2 * far) / 3
    joint = (2 * near * far + far * far) / 3
    with pytest.warns(DataWarning, match="tied"):
        value = mi_kde(x, y, bandwidth=h, scale="values", evaluation="exact").value
    assert value == pytest.approx(math.log(joint / marginal**2))


def test_kde_says_when_points_are_out_of_reach_or_on_a_line():
    x, y, _ = draws(tasks.student_t(1, 0.0), n=1000, repeats=1)
    with pytest.warns(DataWarning, match="of the points lie over 7 bandwidths from all others"):
        mi_kde(x, y, scale="values")
    mi_kde(x, y)  # by scores they are within reach
    with pytest.raises(InputError, match="slice 0 lies on one line .correlation -1.0"):
        mi_kde(x, -x)


def test_kde_blurs_clusters():
    """Shown in the book: one bandwidth cannot serve ten tight clusters."""
    x, y, truth = draws(tasks.gaussian_mixture(0.1))
    assert truth - mi_kde(x, y).value > 0.2
    assert abs(mi_ksg(x, y).value - truth) < 0.05


def test_ross_by_hand():
    """k = 1: distances 1, 1 in the first class, 1, 1 in the second; strictly nearer, with oneself: 1, 1, 1, 1."""
    x, labels = np.array([0.0, 1.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    value = mi_ross(x, labels, k=1).value
    from scipy.special import digamma

    assert value == pytest.approx(digamma(4) + digamma(1) - digamma(2) - digamma(1))


def test_ross_agrees_with_scikit_learn_and_has_an_error():
    from sklearn.feature_selection import mutual_info_classif

    x, labels = tasks.mixture_classes(0.4, classes=3).sample(2000, 1)
    own = mi_ross(x, labels, k=4)
    assert own.value == pytest.approx(mutual_info_classif(x[:, None], labels, n_neighbors=4)[0], abs=1e-6)
    assert own.stderr_kind == "samples" and 0.01 < own.stderr < 0.03


def test_values_below_zero_are_kept():
    x, y, _ = normal(0.0)
    assert mi_ksg(x, y).per_slice.min() < 0
    assert mi_histogram(x, y, bins=5).per_slice.min() < 0


def test_estimate_is_a_record():
    import json

    x, y, _ = normal(0.5)
    estimate = mi_ksg(x, y, k=3)
    assert estimate.bits == pytest.approx(estimate.value / math.log(2))
    record = json.loads(json.dumps(estimate.record()))
    assert record["value"] == estimate.value and record["unit"] == "nats"
    assert record["settings"]["k"] == 3 and record["n"] == N and record["n_slices"] == REPEATS
