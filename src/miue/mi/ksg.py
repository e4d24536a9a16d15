"""Nearest-neighbour mutual information (Kraskov, Stoegbauer and Grassberger, 2004), exact and batched."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from miue.errors import InputError, choose
from miue.mi.estimate import Estimate, Rows, measure, share_tied


def mi_ksg(
    x: Rows,
    y: Rows,
    *,
    k: int = 5,
    search: str = "auto",
    max_bytes: int = 2**28,
    subsamples: int = 10,
    seed: int = 0,
) -> Estimate:
    """Estimate I(X;Y) in nats from the distances to the k-th nearest neighbours: "KSG-1".

    With eps_i the max-norm distance of (x_i, y_i) to its k-th nearest neighbour among the other points, and
    n_x(i) the number of other points with |x_j - x_i| strictly below eps_i (n_y alike),

        I = psi(k) + psi(n) - mean_i [ psi(n_x(i) + 1) + psi(n_y(i) + 1) ]

    (Kraskov, Stoegbauer and Grassberger, Phys. Rev. E 69, 066138, eq. 8). Nearly free of bias for independent
    variables; 0.017 high at a correlation of 0.99 with k = 5 and 5,000 samples. Counts are exact: the
    neighbour that defines eps_i is never counted by a rounding error.

    Args:
        x: (n,) or (slices, n) numbers, tensor or array.
        y: the same shape as x.
        k: which neighbour, 1 to n - 1.
        search: "tree" (a k-d tree for each slice, on the CPU over torch's number of threads), "brute" (all
            distances, in chunks, on x's device) or "auto": brute on a CUDA device, else tree. Same result.
        max_bytes: memory that one chunk of "brute" may take.
        subsamples: number of disjoint subsamples for `stderr_samples`; 0 for none.
        seed: of the split into subsamples.

    Returns:
        An `Estimate`; values float64 on whatever input.

    Raises:
        InputError: shapes that differ, n <= k, NaN or infinity, a constant slice, an unknown search.
    """
    if k < 1:
        raise InputError(f"k: {k} is no neighbour; choose 1 or more (5 is usual)")
    choose("search", search, ["auto", "tree", "brute"])

    def core(rows_x: Tensor, rows_y: Tensor) -> tuple[np.ndarray, float]:
        if rows_x.shape[1] <= k:
            raise InputError(f"k: {k} neighbours need more than the {rows_x.shape[1]} samples of a subsample")
        if search == "brute" or (search == "auto" and rows_x.is_cuda):
            return _brute_force(rows_x, rows_y, k, max_bytes)
        return _trees(rows_x.cpu().numpy(), rows_y.cpu().numpy(), k)

    settings = {"k": k}
    return measure("ksg", core, x, y, n_min=k + 1, settings=settings, subsamples=subsamples, seed=seed)


def _trees(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Values (slices,) and the share of ties, by a k-d tree for each slice; SciPy's code frees the GIL."""
    psi = digamma(np.arange(1, x.shape[1] + 1))  # psi[m] is psi(m + 1)

    def one_slice(row: int) -> tuple[float, float]:
        order = np.argsort(x[row])
        points = np.column_stack([x[row][order], y[row][order]])  # in order: neighbours in space are so in memory
        tree = cKDTree(points, leafsize=8, balanced_tree=False, compact_nodes=False)
        eps = tree.query(points, k=[k + 1], p=np.inf)[0][:, 0]  # the nearest is the point itself
        n_x, tied_x = _count_within(points[:, 0], eps)
        n_y, tied_y = _count_within(points[:, 1], eps)
        return psi[k - 1] + psi[-1] - (psi[n_x] + psi[n_y]).mean(), max(tied_x, tied_y)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        values, tied = zip(*pool.map(one_slice, range(len(x))), strict=True)
    return np.array(values), max(tied)


def _count_within(values: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, float]:
    """Count for each point the others with |v_j - v_i| < eps_i; also return the share of tied points.

    The counts come in the order of rising values: only their mean is wanted, and looking up sorted
    numbers is several times faster.

    Looking up v +- eps among the sorted values is off where rounding moves an end point across a neighbour,
    and there *is* a neighbour at the very end point: the one that defined eps. So each end is moved until
    the distance itself, as the search for neighbours computed it, says inside or outside.
    """
    order = np.argsort(values)
    values, eps = values[order], eps[order]
    below = np.append(np.flatnonzero(np.append(True, values[1:] != values[:-1])), len(values))
    ladder = values[below[:-1]]  # the distinct values; below[i] samples lie under the i-th of them
    bottom, top = np.append(-np.inf, ladder), np.append(ladder, np.inf)
    first = np.searchsorted(ladder, values - eps, side="right")
    last = np.searchsorted(ladder, values + eps, side="left")  # one past the last inside
    first = _settle(first, -1, lambda i: values - bottom[i] < eps)
    first = _settle(first, +1, lambda i: values - top[i] >= eps)
    last = _settle(last, +1, lambda i: top[i] - values < eps)
    last = _settle(last, -1, lambda i: bottom[i] - values >= eps)
    # The point itself is inside its own interval, unless eps is 0 (k copies of it): then nothing is.
    return np.maximum(below[last] - below[first] - 1, 0), 1 - len(ladder) / len(values)


def _settle(index: np.ndarray, step: int, off: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Move each index by `step` as long as `off` says that it is off; a few steps at most, by rounding."""
    while (move := off(index)).any():
        index = index + step * move
    return index


def _brute_force(x: Tensor, y: Tensor, k: int, max_bytes: int) -> tuple[np.ndarray, float]:
    """Values (slices,) and the share of ties, from all n^2 distances of a slice, in chunks of `max_bytes`."""
    slices, n = x.shape
    psi = torch.as_tensor(digamma(np.arange(1, n + 1)), device=x.device)
    budget = max(1, max_bytes // (8 * 5 * n))  # rows of n distances; about five arrays of them live at once
    at_once = min(slices, budget)
    block = min(n, max(1, budget // at_once))
    total = torch.zeros(slices, dtype=torch.float64, device=x.device)
    for s in range(0, slices, at_once):
        for i in range(0, n, block):
            rows = torch.arange(i, min(i + block, n), device=x.device)
            d_x, d_y = ((v[s : s + at_once, None, :] - v[s : s + at_once, rows, None]).abs() for v in (x, y))
            for d in (d_x, d_y):
                d[:, torch.arange(len(rows), device=x.device), rows] = torch.inf  # a point is not its own neighbour
            eps = torch.maximum(d_x, d_y).topk(k, dim=2, largest=False).values[..., -1:]
            for d in (d_x, d_y):
                total[s : s + at_once] += psi[(d < eps).sum(dim=2)].sum(dim=1)
    values = psi[k - 1] + psi[-1] - total / n
    return values.cpu().numpy(), max(share_tied(v.sort(dim=1).values) for v in (x, y))
