"""Mutual information of a number and a class, from nearest neighbours within the class (Ross, 2014)."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.special import digamma

from miue import seeds
from miue.data.arrays import whole
from miue.errors import InputError
from miue.mi.estimate import Estimate, Rows, class_members, of_terms
from miue.mi.ksg import count_within
from miue.mi.scaling import NOISE, as_rows, checked_noise, scaled, ties_broken, warn_of_ties


def mi_ross(
    x: Rows,
    labels: Rows,
    *,
    k: int = 5,
    scale: str = "values",
    noise: float = NOISE,
    seed: int = 0,
) -> Estimate:
    """Estimate I(X;Y) in nats of a number X and a class Y.

    With d_i the distance of x_i to its k-th nearest neighbour of the same class, m_i the number of samples of any class
    nearer than d_i, itself included, and n_i the size of its class,

        I = psi(n) + psi(k) - mean_i [ psi(n_i) + psi(m_i) ]

    (Ross, PLoS ONE 9(2), e87357, 2014). At most H(Y) up to its error.

    Args:
        x: (n,) or (slices, n) numbers, tensor or array.
        labels: (n,) classes, the same for all slices; at least two.
        k: which neighbour, 1 to the size of the smallest class minus 1.
        scale, noise: as in `mi_ksg`, for x.
        seed: of the noise.

    Returns:
        An `Estimate`; values float64.

    Raises:
        InputError: lengths that differ, one class only, a class of no more than k samples, NaN or infinity, a
            constant slice; values that spread over too many powers of ten; k copies of a value and no noise.

    Warns:
        DataWarning: ties in more than 1 % of a row.

    Example:
        >>> from miue.mi import mi_ross, tasks
        >>> task = tasks.mixture_classes(spread=0.1, classes=4)
        >>> round(task.truth, 1), round(mi_ross(*task.sample(2000)).value, 1)
        (0.9, 0.9)
    """
    k, seed, noise = whole("k", k, 1, " (5 is usual)"), seeds.checked(seed), checked_noise(noise)
    rows = as_rows("x", x, k + 1).cpu()
    members = class_members(labels, rows.shape[1])
    smallest = min(len(own) for own in members)
    if len(members) < 2:
        raise InputError("labels: one class only, which shares nothing with anything; pass two or more")
    if smallest <= k:
        raise InputError(f"labels: a class has {smallest} samples; k = {k} needs at least {k + 1} in each")
    warn_of_ties("ross", rows)
    [rows] = ties_broken([scaled("x", rows, scale)], noise, seed)
    terms = _local_terms(rows.numpy(), [own.numpy() for own in members], k)
    return of_terms("ross", terms, {"k": k, "scale": scale, "noise": noise, "seed": seed, "classes": len(members)})


def _local_terms(x: np.ndarray, members: list[np.ndarray], k: int) -> np.ndarray:
    """Return local terms (slices, n) of rows (slices, n); `members` holds the places of each class."""
    n = x.shape[1]
    psi = digamma(np.arange(1, n + 1))  # psi[m] is psi(m + 1)
    of_class = np.empty(n)
    for own in members:
        of_class[own] = psi[n - 1] + psi[k - 1] - psi[len(own) - 1]

    def one_slice(row: np.ndarray) -> np.ndarray:
        distance = np.empty(n)
        for own in members:
            order = own[np.argsort(row[own])]
            distance[order] = _kth_in_line(row[order], k)
        if copies := int((distance == 0).sum()):
            raise InputError(
                f"noise: 0 leaves {copies} samples at no distance from {k} of their class, where ross is not defined; "
                f"take the usual {NOISE:g}, or mi_discrete"
            )
        return of_class - psi[count_within(row, distance)]

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.stack(list(pool.map(one_slice, x)))


def _kth_in_line(values: np.ndarray, k: int) -> np.ndarray:
    """Distance (n,) of each of the rising `values` to its k-th nearest among the others.

    The k nearest and the point itself are k + 1 neighbours in line: the best of the windows that hold it.
    """
    n = len(values)
    width = np.full((k + 1, n), np.inf)
    for left in range(k + 1):
        i = np.arange(left, n - k + left)
        width[left, i] = np.maximum(values[i] - values[i - left], values[i + k - left] - values[i])
    return width.min(axis=0)
