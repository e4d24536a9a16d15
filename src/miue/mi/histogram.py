"""Plug-in mutual information from bins, with the Miller-Madow correction."""

import numpy as np
import torch
from torch import Tensor

from miue.data.arrays import as_finite, whole
from miue.errors import InputError, choose
from miue.mi.estimate import Estimate, Rows, measure


def default_bins(n: int) -> int:
    """Return the number of bins for n samples: n^(2/5) rounded, at least 2; 30 for 5,000.

    The uncorrected bias for independent variables, (bins - 1)^2 / 2n, then falls as n^(-1/5), while the bins
    still narrow as n grows.

    Example:
        >>> from miue.mi import default_bins
        >>> default_bins(5000)
        30
    """
    return max(2, round(n**0.4))


def mi_histogram(
    x: Rows,
    y: Rows,
    *,
    bins: int | None = None,
    binning: str = "rank",
    correction: str = "miller-madow",
    max_bytes: int = 2**28,
    subsamples: int = 10,
    seed: int = 0,
) -> Estimate:
    """Estimate I(X;Y) in nats by counting in bins.

    With counts n_ij in the occupied cells and K_x, K_y, K_xy the numbers of occupied bins and cells,

        I = sum_ij n_ij/n log(n n_ij / (n_i n_j)) - (K_xy - K_x - K_y + 1) / 2n,

    the second term being the correction of Miller (1955) for the bias of the first. Rank bins, each with as many
    samples of x, and of y, as any other, make the estimate invariant under monotone maps of x and of y; equal values
    share a bin. Strong dependence is read too low, since no uncorrected estimate exceeds log(bins), and the
    correction adds (bins - 1) / 2n at most: with 30 bins a correlation of 0.99 (1.959 nats) reads 0.13 low.

    Args:
        x: (n,) or (slices, n) numbers, tensor or array.
        y: the same shape as x.
        bins: number of bins of each variable, 2 to n; None for `default_bins(n)`.
        binning: "rank" (equally many samples in each), or "width" (equally wide, from the least to the greatest
            value: one outlier can leave most of them empty).
        correction: "miller-madow" or "none".
        max_bytes: memory for the tables of counts of a chunk of slices.
        subsamples: number of disjoint subsamples for `stderr_samples`; 0 for none. Their bins follow their
            size when `bins` is None.
        seed: of the split into subsamples.

    Returns:
        An `Estimate`; values float64 on whatever input, computed on x's device.

    Raises:
        InputError: shapes that differ, fewer than 4 samples, NaN or infinity, a constant slice, bins out of
            range, an unknown binning or correction, a table of counts larger than max_bytes; with bins of equal width
            values that spread over too many powers of ten.

    Example:
        >>> from miue.mi import mi_histogram, tasks
        >>> task = tasks.bivariate_normal(0.9)
        >>> round(task.truth, 2), round(mi_histogram(*task.sample(5000)).value, 1)
        (0.83, 0.8)
    """
    x, y, max_bytes = as_finite("x", x), as_finite("y", y), whole("max_bytes", max_bytes, 1)
    n = x.shape[-1] if x.ndim else 0
    bins = None if bins is None else whole("bins", bins, 2)
    if bins is not None and bins > max(n, 2):
        raise InputError(f"bins: {bins} is out of range; choose 2 to the number of samples, {n}")
    place = {"rank": _rank_bins, "width": _width_bins}[choose("binning", binning, ["rank", "width"])]
    correct = choose("correction", correction, ["miller-madow", "none"]) == "miller-madow"
    table = 8 * 4 * (bins or default_bins(n)) ** 2
    if table > max_bytes:
        raise InputError(f"bins: a table of {bins} x {bins} counts takes {table:,} bytes, more than max_bytes")

    def core(rows_x: Tensor, rows_y: Tensor) -> np.ndarray:
        b = bins or default_bins(rows_x.shape[1])
        at_once = max_bytes // table
        values = [
            _plug_in(place(part_x, b), place(part_y, b), b, correct)
            for part_x, part_y in zip(rows_x.split(at_once), rows_y.split(at_once), strict=True)
        ]
        return torch.cat(values).cpu().numpy()

    settings = {"bins": bins or default_bins(n), "binning": binning, "correction": correction}
    scale = "scores" if binning == "rank" else "values"  # any scale that keeps the ranks
    return measure("histogram", core, x, y, n_min=4, settings=settings, subsamples=subsamples, seed=seed, scale=scale)


def _rank_bins(rows: Tensor, bins: int) -> Tensor:
    """Return bin numbers (slices, n) int64 in 0..bins-1 that follow ranks; equals have the lowest rank among them."""
    rows = rows.contiguous()
    return torch.searchsorted(rows.sort(dim=1).values, rows) * bins // rows.shape[1]


def _width_bins(rows: Tensor, bins: int) -> Tensor:
    """Return bin numbers (slices, n) int64 in 0..bins-1 of equal width; the greatest value is in the last."""
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    return ((rows - low) / (high - low) * bins).long().clamp(max=bins - 1)


def _plug_in(cells_x: Tensor, cells_y: Tensor, bins: int, correct: bool) -> Tensor:
    """Return (slices,) float64 plug-in values in nats, with the Miller-Madow correction if asked."""
    slices, n = cells_x.shape
    offset = torch.arange(slices, device=cells_x.device)[:, None] * bins**2
    joint = torch.bincount((offset + cells_x * bins + cells_y).flatten(), minlength=slices * bins**2)
    joint = joint.reshape(slices, bins, bins)

    def entropy_and_support(counts: Tensor) -> tuple[Tensor, Tensor]:
        counts = counts.reshape(slices, -1).double()
        return -torch.special.xlogy(counts / n, counts / n).sum(dim=1), (counts > 0).sum(dim=1)

    h_x, k_x = entropy_and_support(joint.sum(dim=2))
    h_y, k_y = entropy_and_support(joint.sum(dim=1))
    h_xy, k_xy = entropy_and_support(joint)
    plug_in = h_x + h_y - h_xy
    return plug_in - (k_xy - k_x - k_y + 1) / (2 * n) if correct else plug_in
