"""Plug-in mutual information from equiprobable bins, with the Miller-Madow correction."""

import numpy as np
import torch
from torch import Tensor

from miue.errors import InputError
from miue.mi.estimate import Estimate, Rows, measure, share_tied


def default_bins(n: int) -> int:
    """Return the number of bins for n samples: n^(2/5) rounded, at least 2; 30 for 5,000.

    The uncorrected bias for independent variables, (bins - 1)^2 / 2n, then falls as n^(-1/5), while the bins
    still narrow as n grows.
    """
    return max(2, round(n**0.4))


def mi_histogram(x: Rows, y: Rows, *, bins: int | None = None, subsamples: int = 10, seed: int = 0) -> Estimate:
    """Estimate I(X;Y) in nats by counting in bins that hold equally many samples of x, and of y.

    With counts n_ij in the occupied cells and K_x, K_y, K_xy the numbers of occupied bins and cells,

        I = sum_ij n_ij/n log(n n_ij / (n_i n_j)) - (K_xy - K_x - K_y + 1) / 2n,

    the second term being the correction of Miller (1955) for the bias of the first. Ranks make the estimate
    invariant under monotone maps of x and of y; equal values share a bin. Strong dependence is read too low,
    since no estimate exceeds log(bins): with 30 bins a correlation of 0.99 (1.959 nats) reads 0.13 low.

    Args:
        x: (n,) or (slices, n) numbers, tensor or array.
        y: the same shape as x.
        bins: number of bins of each variable, 2 to n; None for `default_bins(n)`.
        subsamples: number of disjoint subsamples for `stderr_samples`; 0 for none. Their bins follow their
            size when `bins` is None.
        seed: of the split into subsamples.

    Returns:
        An `Estimate`; values float64 on whatever input, computed on x's device.

    Raises:
        InputError: shapes that differ, fewer than 4 samples, NaN or infinity, a constant slice, bins out of
            range.
    """
    n = np.shape(x)[-1] if np.ndim(x) else 0
    if bins is not None and not 2 <= bins <= max(n, 2):
        raise InputError(f"bins: {bins} is out of range; choose 2 to the number of samples, {n}")

    def core(rows_x: Tensor, rows_y: Tensor) -> tuple[np.ndarray, float]:
        b = bins or default_bins(rows_x.shape[1])
        cells_x, tied_x = _rank_bins(rows_x, b)
        cells_y, tied_y = _rank_bins(rows_y, b)
        return _corrected_plug_in(cells_x, cells_y, b).cpu().numpy(), max(tied_x, tied_y)

    settings = {"bins": bins or default_bins(n), "binning": "rank", "correction": "miller-madow"}
    return measure("histogram", core, x, y, n_min=4, settings=settings, subsamples=subsamples, seed=seed)


def _rank_bins(rows: Tensor, bins: int) -> tuple[Tensor, float]:
    """Return bin numbers (slices, n) int64 in 0..bins-1, and the share of ties."""
    rows = rows.contiguous()
    ordered = rows.sort(dim=1).values
    rank = torch.searchsorted(ordered, rows)  # the lowest rank among equals: they share a bin
    return rank * bins // rows.shape[1], share_tied(ordered)


def _corrected_plug_in(cells_x: Tensor, cells_y: Tensor, bins: int) -> Tensor:
    """Return (slices,) float64 plug-in values with the Miller-Madow correction, in nats."""
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
    return h_x + h_y - h_xy - (k_xy - k_x - k_y + 1) / (2 * n)
