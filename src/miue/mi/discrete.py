"""Mutual information of two labels, plain or normalised, and of variables that are discrete in part."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma

from miue.data.arrays import whole
from miue.errors import InputError, choose, warn
from miue.mi.estimate import Estimate, Rows, of_terms, prepared, summarise
from miue.mi.ksg import count_within, kth_distance
from miue.mi.statistics import entropy, label_pair

CORRECTIONS = ("miller-madow", "none")
NORMS: dict[str, Callable[[float, float], float]] = {
    "min": min,
    "max": max,
    "mean": lambda a, b: (a + b) / 2,
    "sqrt": lambda a, b: math.sqrt(a * b),
}
"""By what `normalised_mi` divides: a mean of H(U) and H(V) of some kind."""


def mi_discrete(u: Rows, v: Rows, *, correction: str = "miller-madow") -> Estimate:
    """Estimate I(U;V) in nats of two labels by counting.

    With the frequencies p of labels and pairs, and K_u, K_v, K_uv the numbers of those that occur,

        I = sum p(u, v) log(p(u, v) / (p(u) p(v))) - (K_uv - K_u - K_v + 1) / 2n,

    the second term being the correction of Miller (1955) for the bias of the first. No value exceeds H(U) or H(V) of
    the given labels: where a correction would lift it above the smaller of them, it is that.

    Args:
        u: (n,) labels: whole numbers, text, truth values, categories.
        v: (n,) labels of the same samples.
        correction: "miller-madow" or "none".

    Raises:
        InputError: lengths that differ, labels that are missing or of several kinds, an unknown correction.

    Warns:
        DataWarning: most of the pairs occur once, as those of numbers do; the value is then near the smaller entropy,
            whatever they share.

    Example:
        >>> from miue.mi import mi_discrete
        >>> round(mi_discrete(["cat", "dog"] * 500, [0, 1] * 500).value, 2)  # log 2
        0.69
    """
    (first, counts_u), (second, counts_v) = label_pair(u, v)
    n = len(first)
    correct = choose("correction", correction, CORRECTIONS) == "miller-madow"
    _, pair, counts = torch.stack([first, second], dim=1).unique(dim=0, return_inverse=True, return_counts=True)
    if (once := int((counts == 1).sum())) > n / 2:
        warn(
            f"u, v: {once} of {n} pairs of labels occur once; counting needs labels that repeat, and mi_ksg is meant "
            "for numbers"
        )
    terms = (counts[pair].double() * n / (counts_u[first] * counts_v[second])).log().numpy()
    if correct:
        terms -= (len(counts) - len(counts_u) - len(counts_v) + 1) / (2 * n)
    value = min(terms.mean(), entropy(u), entropy(v))
    settings = {"correction": correction, "labels_u": len(counts_u), "labels_v": len(counts_v)}
    return summarise("discrete", np.array([value]), terms + (value - terms.mean()), n, settings)


def normalised_mi(u: Rows, v: Rows, by: str = "sqrt", *, correction: str = "none") -> float:
    """Return I(U;V) of two labels as a share of their entropies: in [0, 1], or a little below 0 where corrected.

    Args:
        u, v, correction: as in `mi_discrete`.
        by: "min", "max", "mean" or "sqrt" (the geometric mean) of H(U) and H(V). By "min" it is 1 as soon as one label
            decides the other, by "max" only if each decides the other.

    Raises:
        InputError: as `mi_discrete`; an unknown `by`; a mean of 0, of which there is no share: "min" and "sqrt" where
            one label is of one class only, "max" and "mean" where both are.

    Warns:
        DataWarning: as `mi_discrete`.

    Example:
        >>> from miue.mi import normalised_mi
        >>> animals, sizes = ["cat", "dog", "cow", "horse"] * 9, ["small", "small", "large", "large"] * 9
        >>> [round(normalised_mi(animals, sizes, by=by), 2) for by in ("min", "max")]
        [1.0, 0.5]
    """
    mean = NORMS[choose("by", by, NORMS)]
    entropies = entropy(u), entropy(v)
    if mean(*entropies) == 0:
        raise InputError(f"u, v: entropies {entropies[0]:g} and {entropies[1]:g}; there is no share of nothing")
    return mi_discrete(u, v, correction=correction).value / mean(*entropies)


def mi_mixed(x: Rows, y: Rows, *, k: int = 5, scale: str = "values", seed: int = 0) -> Estimate:
    """Estimate I(X;Y) in nats of numbers that may be discrete, continuous, or some of both.

    The mean over samples of the log of a density ratio. Where the k-th nearest neighbour of (x_i, y_i) lies at a
    distance eps_i above 0 it is, with the counts of `mi_ksg`,

        psi(k) + log n - psi(n_x(i) + 1) - psi(n_y(i) + 1)

    (Gao, Kannan, Oh and Viswanath, NeurIPS 2017, whose released code has this formula for points with eps_i > 0; their
    algorithm 1 has log(n_x + 1) with "at most eps_i"). Where eps_i is 0 the point has a probability of its own. That
    code has psi of the three counts there, we take logarithms, so that two discrete variables of which each pair occurs
    more than k times get their plug-in value, which exceeds neither entropy.

    A point of probability in the midst of a continuous part is read low: where half of the pairs are (0, 0) and the
    others normal with a correlation of 0.8, the truth is 0.949, and the mean of 10 draws is 0.764 with 2,000 samples
    and 0.878 with 32,000.

    Args:
        x: (n,) or (slices, n) numbers.
        y: the same shape as x.
        k, scale: as in `mi_ksg`; ties are left as they are.
        seed: taken as by every estimator, though nothing is drawn here.

    Raises:
        InputError: shapes that differ, n <= k, NaN or infinity, a constant slice, values that have no common scale.

    Example:
        >>> from miue.mi import mi_mixed, tasks
        >>> task = tasks.bivariate_normal(0.9)
        >>> round(task.truth, 2), round(mi_mixed(*task.sample(5000)).value, 1)
        (0.83, 0.8)
    """
    k = whole("k", k, 1, " (5 is usual)")

    x, y = prepared("mixed", x, y, n_min=k + 1, seed=seed, scale=scale, ties="none")
    terms = np.stack([_mixed(a, b, k) for a, b in zip(x.cpu().numpy(), y.cpu().numpy(), strict=True)])
    return of_terms("mixed", terms, {"k": k, "scale": scale})


def _mixed(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Local terms (n,) of x and y (n,)."""
    points = np.column_stack([x, y])
    copies = _copies(points)
    atom, eps = copies > k, np.zeros(len(points))  # the k nearest neighbours of an atom are its copies
    eps[~atom] = kth_distance(cKDTree(points), points[~atom], k)
    terms = np.where(atom, np.log(copies), digamma(k)) + math.log(len(points))
    for side in (x, y):
        terms -= np.where(atom, np.log(_copies(side)), digamma(count_within(side, eps) + 1))
    return terms


def _copies(values: np.ndarray) -> np.ndarray:
    """How many of the values (n,) or (n, d) equal each of them, itself included: (n,)."""
    _, member, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    return counts[member.reshape(-1)]
