"""What cannot be measured is refused in one line that names the argument."""

import numpy as np
import pytest
import torch

from miue.errors import DataWarning, InputError
from miue.mi import conditional_mi, mi_histogram, mi_kde, mi_ksg, mi_ksg_joint, mi_ross, null, sliced_mi, with_controls

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 200))
F, G = RNG.standard_normal((2, 200, 5))
L = np.arange(200) % 2


def broken(value):
    x = X.copy()
    x[7] = value
    return x


@pytest.mark.parametrize("estimator", [mi_histogram, mi_kde, mi_ksg])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:-1], r"x, y: shapes .*200.* and .*199.* differ"),
        (broken(np.nan), Y, "x: 1 values are NaN or infinite"),
        (X, broken(-np.inf), "y: 1 values are NaN or infinite"),
        (np.stack([X, np.full(200, 0.5)]), np.stack([Y, Y]), r"x: slice 1 is constant \(0.5\)"),
        (X[:3], Y[:3], "x: 3 samples are too few"),
        (X[None, None], Y[None, None], r"x: shape \(1, 1, 200\)"),
        (X.astype(complex), Y, "x: complex"),
        (["a"] * 200, Y, "x: list is not an array of numbers"),
        (0.5, 0.5, r"x: shape \(\)"),
    ],
)
def test_samples(estimator, x, y, message):
    with pytest.raises(InputError, match=message) as caught:
        estimator(x, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mi_ksg(X, Y, k=0), "k: 0"),
        (lambda: mi_ksg(X, Y, k=200), "x: 200 samples are too few; this estimator needs at least 201"),
        (lambda: mi_ksg(X, Y, search="gpu"), "search: 'gpu' does not exist; choose one of auto, tree, brute"),
        (lambda: mi_histogram(X, Y, bins=1), "bins: 1; it must be a whole number, 2 or above"),
        (lambda: mi_histogram(X, Y, bins=201), "bins: 201 is out of range"),
        (lambda: sliced_mi(F, G[:-1]), "x, y: 200 and 199 rows"),
        (lambda: sliced_mi(X, Y), r"x: shape \(200,\); pass a matrix"),
        (lambda: sliced_mi(F, np.ones((200, 3))), "y: all 3 columns are constant"),
        (lambda: mi_ksg(X, Y, variant=3), r"variant: 3; choose 1 \(KSG-1\) or 2"),
        (lambda: mi_ksg_joint(X, Y), r"x: shape \(200,\); pass \(n, d\) or \(slices, n, d\)"),
        (lambda: mi_ksg_joint(np.hstack([F, F[:, :1] * 0]), G), "x: column 5 of slice 0 is constant"),
        (lambda: mi_histogram(X, Y, binning="even"), "binning: 'even' does not exist; choose one of rank, width"),
        (lambda: mi_histogram(X, Y, correction="full"), "correction: 'full' does not exist"),
        (lambda: mi_histogram(X, Y, bins=200, max_bytes=10**5), "bins: a table of 200 x 200 counts takes 1,280,000"),
        (lambda: mi_kde(X, Y, bandwidth=0), "bandwidth: 0 must be a finite number above 0"),
        (lambda: mi_kde(X, Y, scale="ranks"), "scale: 'ranks' does not exist; choose one of values, scores"),
        (lambda: mi_kde(X, Y, evaluation="fft"), "evaluation: 'fft' does not exist"),
        (lambda: mi_kde(X, Y, bandwidth=1e-4), "bandwidth: a grid of step 2.5e-05 over"),
        (lambda: mi_ross(X, L[:-1]), r"labels: shape \(199,\)"),
        (lambda: mi_ross(X, L * 0), "labels: one class only"),
        (lambda: mi_ross(X, np.arange(200)), "labels: a class has 1 samples; k = 5 needs at least 6"),
        (lambda: mi_ross(X, L, k=0), "k: 0"),
        (lambda: mi_ross(broken(np.nan), L), "x: 1 values are NaN"),
        (lambda: sliced_mi(F, G, "mines"), "estimator: 'mines' does not exist; choose one of histogram, kde, ksg"),
        (lambda: sliced_mi(F, L[:-1], "ross"), "x, y: 200 and 199 rows"),
        (lambda: sliced_mi(F, G, k_dim=6), "k_dim: 6; choose 1 to the number of live columns, 5"),
        (lambda: sliced_mi(F, G, "kde", k_dim=2), "estimator: 'kde' does not exist; choose one of ksg"),
        (
            lambda: sliced_mi(F, G, max_bytes=1000),
            "max_bytes: 1,000 is too little; one slice of 200 samples takes 32,",
        ),
        (
            lambda: sliced_mi(F, G, n_slices=10**9),
            "n_slices: the directions of 1,000,000,000 take 80,000,000,000",
        ),
        (lambda: conditional_mi(F, G, L[:-1]), r"labels: shape \(199,\)"),
        (lambda: conditional_mi(F, G, np.arange(200) // 4), "within class number 0: x: 4 samples are too few"),
        (lambda: conditional_mi(F * (L > 0)[:, None], G, L), "within class number 0: x: slice 0 is constant"),
        (lambda: sliced_mi(F, G, n_slices=0), "n_slices: 0"),
        (lambda: sliced_mi(F, G, directions="same"), "directions: 'same' does not exist"),
        (lambda: sliced_mi(F, G[:, :3], directions="shared"), "directions: .*x has 5 live columns and y 3"),
        (lambda: null(F, G, within=np.zeros(200)), "labels: 1 classes for 200 samples"),
        (lambda: null(F, G, within=np.arange(200)), "labels: 200 classes for 200 samples"),
        (lambda: with_controls(F, G, np.arange(100)), r"labels: shape \(100,\)"),
    ],
)
def test_settings(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("estimator", [mi_histogram, mi_kde, mi_ksg])
def test_ties_warn_beyond_what_float32_makes(estimator):
    rounded = torch.tensor(X).mul(2).round() / 2
    with pytest.warns(DataWarning, match="of the samples in a slice are tied"):
        estimator(rounded, torch.tensor(Y))
    one_pair = X.copy()
    one_pair[0] = one_pair[1]
    estimator(one_pair, Y)  # the suite turns a DataWarning into an error


def test_shared_zeros_carry_no_more_than_their_pattern():
    """Ties must not be told apart by their position, or two independent half-constant variables look dependent."""
    rng = np.random.default_rng(0)
    x, y = np.maximum(rng.standard_normal((2, 5000)), 0)
    with pytest.warns(DataWarning):
        assert abs(mi_histogram(x, y).value) < 0.02
