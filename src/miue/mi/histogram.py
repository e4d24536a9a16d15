"""Plug-in mutual information from bins, with the Miller-Madow correction."""

import math

import torch
from torch import Tensor

from miue.data.arrays import whole
from miue.errors import InputError, choose
from miue.mi.estimate import Estimate, Rows, of_terms, prepared
from miue.mi.scaling import rising


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
        seed: taken as by every estimator, though nothing is drawn here.

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
    max_bytes = whole("max_bytes", max_bytes, 1)
    place = {"rank": _rank_bins, "width": _width_bins}[choose("binning", binning, ["rank", "width"])]
    correct = choose("correction", correction, ["miller-madow", "none"]) == "miller-madow"
    scale = "scores" if binning == "rank" else "values"  # any scale that keeps the ranks
    x, y = prepared("histogram", x, y, n_min=4, seed=seed, scale=scale)
    n = x.shape[1]
    bins = default_bins(n) if bins is None else whole("bins", bins, 2)
    if bins > n:
        raise InputError(f"bins: {bins} is out of range; choose 2 to the number of samples, {n}")
    table = 8 * 4 * bins**2
    if table > max_bytes:
        raise InputError(f"bins: a table of {bins} x {bins} counts takes {table:,} bytes, more than max_bytes")
    at_once = max_bytes // table
    terms = [
        _local_terms(place(part_x, bins), place(part_y, bins), bins, correct)
        for part_x, part_y in zip(x.split(at_once), y.split(at_once), strict=True)
    ]
    settings = {"bins": bins, "binning": binning, "correction": correction}
    return of_terms("histogram", torch.cat(terms).cpu().numpy(), settings)


def _rank_bins(rows: Tensor, bins: int) -> Tensor:
    """Return bin numbers (slices, n) int64 in 0..bins-1 that follow ranks; equals have the lowest rank among them."""
    rows = rows.contiguous()
    return torch.searchsorted(rising(rows), rows) * bins // rows.shape[1]


def _width_bins(rows: Tensor, bins: int) -> Tensor:
    """Return bin numbers (slices, n) int64 in 0..bins-1 of equal width; the greatest value is in the last."""
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    return ((rows - low) / (high - low) * bins).long().clamp(max=bins - 1)


def _local_terms(cells_x: Tensor, cells_y: Tensor, bins: int, correct: bool) -> Tensor:
    """Return (slices, n) float64 logarithms of n n_ij / (n_i n_j) in the cell of each sample, corrected if asked."""
    slices, n = cells_x.shape
    cells = (torch.arange(slices, device=cells_x.device)[:, None] * bins + cells_x) * bins + cells_y
    joint = torch.bincount(cells.flatten(), minlength=slices * bins**2).reshape(slices, bins, bins)
    counts = joint, joint.sum(dim=2, keepdim=True), joint.sum(dim=1, keepdim=True)
    log_xy, log_x, log_y = (count.clamp(min=1).double().log() for count in counts)
    terms = (log_xy - log_x - log_y + math.log(n)).flatten()[cells]
    k_xy, k_x, k_y = ((count > 0).sum(dim=(1, 2)) for count in counts)
    return terms - ((k_xy - k_x - k_y + 1) / (2 * n))[:, None] if correct else terms
