"""Statistics of features and of predictions: what the bounds are made of, and the simplest baselines beside them.

Z' = g(X') are features in R^d, Y their class. Everything is in nats, in float64, on the CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from miue import seeds
from miue.data.arrays import Array, as_classes, as_finite, as_labels, whole
from miue.errors import InputError, choose

__all__ = [
    "COVARIANCES",
    "RankCorrelation",
    "class_covariances",
    "entropy",
    "label_information",
    "linear_cka",
    "participation_ratio",
    "prediction_disagreement",
    "rank_correlation",
    "within_class_spectrum",
]

COVARIANCES = ("ledoit_wolf", "empirical")
CONSTANT = 1e-12  # deviations below this part of the features' size are rounding, not signal


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho in [-1, 1], its interval, and the number of pairs."""

    rho: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.rho:.2f} ({self.low:.2f} to {self.high:.2f}, n = {self.n})"


def entropy(labels: Array) -> float:
    """Return H(Y) in nats of the frequencies of `labels` (n,): 0 for one class, log C for C equal ones.

    Raises:
        InputError: no labels, or not a vector, or some are missing.

    Example:
        >>> import miue
        >>> round(miue.bounds.entropy(["cat", "dog", "cat", "dog"]), 3)  # log 2
        0.693
    """
    return _entropy(as_classes("labels", labels)[1])


def label_information(u: Array, v: Array) -> float:
    """Return I(U;V) in nats of the joint frequencies of two label vectors (n,): H(U) + H(V) - H(U,V).

    It describes the n given samples, without any correction for bias: Fano's inequality then holds exactly between
    it, `entropy` and `prediction_disagreement` of the same samples. As an estimate for the distribution that the
    samples came from it is too high, for independent labels by about (C_u - 1)(C_v - 1) / 2n.

    Raises:
        InputError: lengths that differ, no labels, not vectors, NaN.

    Example:
        >>> import miue
        >>> miue.bounds.label_information([0, 0, 1, 1], [0, 1, 0, 1])
        0.0
    """
    (first, first_counts), (second, second_counts) = label_pair(u, v)
    joint = torch.bincount(first * len(second_counts) + second)
    return _entropy(first_counts) + _entropy(second_counts) - _entropy(joint)


def prediction_disagreement(u: Array, v: Array) -> float:
    """Return the share of samples, in [0, 1], whose two labels (n,) differ: d = P(U != V).

    Raises:
        InputError: lengths that differ, no labels, not vectors, NaN, text beside numbers.

    Example:
        >>> import miue
        >>> miue.bounds.prediction_disagreement([0, 1, 2, 2], [0, 1, 2, 0])
        0.25
    """
    label_pair(u, v)
    first, second = as_labels("u", u), as_labels("v", v)
    if (first.dtype.kind in "US") != (second.dtype.kind in "US"):
        raise InputError(f"u, v: labels of {first.dtype} and {second.dtype}; text never equals a number")
    return float((first != second).mean())


def class_covariances(
    features: Array, labels: Array, *, covariance: str = "ledoit_wolf"
) -> Iterator[tuple[float, Tensor]]:
    """Return, class by class in ascending order of the label, (share of the samples, Sigma_y (d, d) float64).

    Args:
        features: (n, d), or (n,) for d = 1.
        labels: (n,) classes; each needs two samples or more.
        covariance: "ledoit_wolf" (Ledoit and Wolf, 2004, shrunk towards a multiple of the identity) or
            "empirical" (unbiased; singular where a class has no more samples than features).

    Raises:
        InputError: shapes that do not match, NaN or infinity, a class of one sample, an unknown covariance.

    Example:
        >>> import miue, torch
        >>> z, labels = torch.rand(10, 3), [0, 1] * 5
        >>> [(share, tuple(sigma.shape)) for share, sigma in miue.bounds.class_covariances(z, labels)]
        [(0.5, (3, 3)), (0.5, (3, 3))]
    """
    from sklearn.covariance import ledoit_wolf  # a second to import, and only needed here

    choose("covariance", covariance, COVARIANCES)
    z, member, counts = _checked(features, labels)
    if counts.min() < 2:
        raise InputError("labels: a class has one sample only; a covariance needs two or more in each class")

    def of_class(own: Tensor) -> Tensor:
        if covariance == "ledoit_wolf":
            return torch.from_numpy(ledoit_wolf(own.numpy())[0])
        return own.T.cov().reshape(z.shape[1], z.shape[1])

    return ((count / len(z), of_class(z[member == index])) for index, count in enumerate(counts.tolist()))


def within_class_spectrum(features: Array, labels: Array) -> Tensor:
    """Return the eigenvalues (d,) float64, descending, of the pooled covariance within classes, E_Y Sigma_Y.

    Their sum is the mean squared distance of a feature vector from the mean of its class.

    Args:
        features: (n, d), or (n,) for d = 1.
        labels: (n,) classes.

    Raises:
        InputError: shapes that do not match, NaN or infinity.

    Example:
        >>> import miue
        >>> miue.bounds.within_class_spectrum([[0.0, 0.0], [0.0, 2.0], [5.0, 0.0], [5.0, 2.0]], [0, 0, 1, 1])
        tensor([1., 0.], dtype=torch.float64)
    """
    centred = _within(features, labels)
    return eigenvalues(centred.T @ centred / len(centred)).flip(0)


def participation_ratio(features: Array, labels: Array | None = None) -> float:
    """Return over how many directions the variance is spread: (sum lambda)^2 / sum lambda^2, from 1 to d.

    lambda are the eigenvalues of the features' covariance; with labels, of the pooled covariance within classes.
    d for isotropic features, 1 for features on a line; the scale does not matter. It cannot exceed n - 1 (with
    labels, n - C), and with few samples it is too low: independent unit features read nd / (n + d) or so.

    Args:
        features: (n, d), or (n,) for d = 1.
        labels: (n,) classes, or None.

    Raises:
        InputError: shapes that do not match, NaN or infinity, no variance at all (within classes).

    Example:
        >>> import miue, torch
        >>> round(miue.bounds.participation_ratio(torch.eye(3)), 3)  # of three points, which span a plane
        2.0
    """
    z = _matrix("features", features)
    centred = _within(z, torch.zeros(len(z)) if labels is None else labels)
    size = centred.abs().max()
    if size <= CONSTANT * z.abs().max():
        within = "" if labels is None else " within the classes"
        raise InputError(f"features: no variance{within}, so it is spread over no direction; {len(z)} samples")
    centred = centred / size
    product = centred.T @ centred
    return float(product.trace() ** 2 / product.square().sum())


def linear_cka(x: Array, y: Array) -> float:
    """Return the linear centred kernel alignment of two sets of features of the same samples, in [0, 1].

        |Y'X|_F^2 / (|X'X|_F |Y'Y|_F),   the columns of X and Y centred

    (Kornblith, Norouzi, Lee and Hinton, ICML 2019). 1 for the same features up to rotation, shift and one
    common scale; 0 where no feature of one correlates with any of the other. Independent features read well above
    0 unless n is much larger than d and d'. Memory and time grow with d d', not with n^2.

    Args:
        x: (n, d), or (n,) for d = 1.
        y: (n, d') features of the same samples in the same order.

    Raises:
        InputError: lengths that differ, wrong shapes, NaN or infinity, features that are all constant.

    Example:
        >>> import miue, torch
        >>> x = torch.rand(20, 3)
        >>> round(miue.bounds.linear_cka(x, 2 * x.flip(1) + 1), 3)
        1.0
    """
    first, second = _centred("x", x), _centred("y", y)
    if len(first) != len(second):
        raise InputError(f"x, y: {len(first)} and {len(second)} rows; pass features of the same samples")
    shared = (second.T @ first).square().sum()
    alignment = shared / (torch.linalg.norm(first.T @ first) * torch.linalg.norm(second.T @ second))
    return min(float(alignment), 1.0)  # the Cauchy-Schwarz inequality, which rounding may break in the last digit


def eigenvalues(sigma: Tensor) -> Tensor:
    """Ascending eigenvalues (d,) of a covariance; rounding may bring them under 0, where none belongs."""
    return torch.linalg.eigvalsh(sigma).clamp(min=0)


def _entropy(counts: Tensor) -> float:
    return float(torch.special.entr(counts.double() / counts.sum()).sum())


def _within(features: Array, labels: Array) -> Tensor:
    """Return the deviations (n, d) of the features from the means of their classes."""
    z, member, counts = _checked(features, labels)
    means = torch.zeros(len(counts), z.shape[1], dtype=z.dtype).index_add_(0, member, z) / counts[:, None]
    return z - means[member]


def _centred(name: str, features: Array) -> Tensor:
    """Return (n, d) features of zero mean and largest deviation 1."""
    z = _matrix(name, features)
    centred = z - z.mean(0)
    size = centred.abs().max()
    if size <= CONSTANT * z.abs().max():
        raise InputError(f"{name}: all {z.shape[1]} features are constant over {len(z)} samples; nothing to align")
    return centred / size


def _checked(features: Array, labels: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (n, d) float64 on the CPU, class index of each (n,) and samples of each class (C,)."""
    z = _matrix("features", features)
    member, counts = as_classes("labels", labels)
    if len(member) != len(z):
        raise InputError(f"labels: {len(member)} labels for {len(z)} samples; pass one for each")
    return z, member, counts


def _matrix(name: str, features: Array) -> Tensor:
    z = as_finite(name, features).cpu()
    z = z[:, None] if z.ndim == 1 else z
    if z.ndim != 2 or z.numel() == 0:
        raise InputError(f"{name}: shape {tuple(z.shape)}; pass (samples, features)")
    return z


def label_pair(u: Array, v: Array) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return class (n,) and samples of each class, see `as_classes`, of two labels of the same samples."""
    first, second = as_classes("u", u), as_classes("v", v)
    if len(first[0]) != len(second[0]):
        raise InputError(f"u, v: {len(first[0])} and {len(second[0])} labels; pass two for each sample")
    return first, second


def rank_correlation(
    x: Array, y: Array, given: Array | None = None, *, draws: int = 2000, seed: int = 0
) -> RankCorrelation:
    """Spearman's correlation of paired values with a 95 % bootstrap interval over the pairs.

    Args:
        x, y: (n,) values, n >= 4, for instance an MI gap and an accuracy gap of each method.
        given: (n,) values of a third thing. What x and y share then is what is left when the ranks of both have been
            cleared of what the ranks of `given` say by a straight line: the partial rank correlation.
        draws: bootstrap samples of the n pairs; the interval lies between the percentiles 2.5 and 97.5. Samples in
            which x, y or given is constant, or given orders x or y without exception, have no correlation and are left
            out.
        seed: of the bootstrap.

    Raises:
        InputError: lengths that differ, fewer than 4 pairs, NaN or infinity, values that are all the same, or an x or y
            that given orders without exception.

    Example:
        >>> from miue.mi.statistics import rank_correlation
        >>> print(rank_correlation([1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 12], draws=100))
        1.00 (1.00 to 1.00, n = 6)
    """
    named = {"x": x, "y": y} | ({} if given is None else {"given": given})
    values = [as_finite(name, value).cpu().numpy() for name, value in named.items()]
    names, n = ", ".join(named), len(values[0])
    if any(one.ndim != 1 or one.shape != values[0].shape for one in values) or n < 4:
        told = " and ".join(str(one.shape) for one in values)
        raise InputError(f"{names}: shapes {told}; all must be (n,) with n of 4 or more")
    if not all(np.ptp(one) > 0 for one in values):
        raise InputError(f"{names}: all values of one of them are the same; there is no order to compare")
    size = whole("draws", draws, 1), n
    rows = torch.randint(n, size, generator=seeds.stream(seed, "subsamples")).numpy()
    rho = _spearman([one[None] for one in values])
    if not np.isfinite(rho).all():
        raise InputError("given: it orders x or y without exception, so that nothing of them is left to compare")
    drawn = _spearman([one[rows] for one in values])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return RankCorrelation(float(rho[0]), float(low), float(high), n)


def _spearman(values: list[np.ndarray]) -> np.ndarray:
    """Spearman's correlation in each row of x and y, or the partial one of x, y and given; NaN where there is none."""
    ranks = [stats.rankdata(value, axis=1) for value in values]
    x, y, *given = [rank - rank.mean(1, keepdims=True) for rank in ranks]

    def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))

    with np.errstate(invalid="ignore", divide="ignore"):
        rho = correlation(x, y)
        for z in given:
            with_x, with_y = correlation(x, z), correlation(y, z)
            left = (1 - with_x**2) * (1 - with_y**2)
            rho = np.where(left > CONSTANT, (rho - with_x * with_y) / np.sqrt(left), np.nan)
    return rho
