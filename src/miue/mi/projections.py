"""From feature matrices to the random projections that slicing measures."""

import math

import torch
from torch import Tensor

from miue import seeds
from miue.data.arrays import Array, as_finite, whole
from miue.errors import InputError, choose
from miue.mi.scaling import standardised

DIRECTIONS = ("independent", "shared")
DEAD = 1e-6  # a column whose range is below this part of its size holds float32 rounding, not signal


def live_columns(name: str, features: Array, standardise: bool) -> tuple[Tensor, int]:
    """Return the columns of (n, d) features that vary, in float64, standardised if asked; and how many do not.

    Raises:
        InputError: no matrix, NaN or infinity, or no column that varies.
    """
    columns = as_finite(name, features)
    if columns.ndim != 2 or columns.numel() == 0:
        raise InputError(f"{name}: shape {tuple(columns.shape)}; pass a matrix (samples, features)")
    low, high = columns.amin(dim=0), columns.amax(dim=0)
    alive = high - low > DEAD * torch.maximum(low.abs(), high.abs())
    if not alive.any():
        raise InputError(f"{name}: all {columns.shape[1]} columns are constant; nothing is left to slice")
    dead = int((~alive).sum())
    columns = columns[:, alive] if dead else columns
    return (standardised(columns, dim=0) if standardise else columns), dead


def draw_directions(
    d_x: int, d_y: int, n_slices: int, seed: int = 0, kind: str = "independent", k_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Draw the directions of `sliced_mi`, all at once, so that no chunk size can change them.

    Args:
        d_x: live columns of x.
        d_y: live columns of y.
        n_slices: number of pairs.
        seed: of the draw.
        kind: "independent", or "shared" for one direction in both spaces.
        k_dim: dimension of the subspaces.

    Returns:
        Two float64 tensors, (slices, d_x) and (slices, d_y), of unit vectors; for k_dim > 1 (slices, k_dim, d) of
        orthonormal rows. Uniform on the sphere, or among the subspaces.

    Raises:
        InputError: shared directions for unequal widths, or k_dim outside 1 to the smaller width.

    Example:
        >>> from miue.mi import draw_directions
        >>> theta, phi = draw_directions(64, 32, n_slices=5, seed=1)
        >>> theta.shape, phi.shape
        (torch.Size([5, 64]), torch.Size([5, 32]))
    """
    choose("directions", kind, DIRECTIONS)
    n_slices, k_dim = whole("n_slices", n_slices, 1, " (512 is usual)"), whole("k_dim", k_dim, 1)
    if kind == "shared" and d_x != d_y:
        raise InputError(f"directions: shared ones need equal widths, but x has {d_x} live columns and y {d_y}")
    if k_dim > min(d_x, d_y):
        raise InputError(f"k_dim: {k_dim}; choose 1 to the number of live columns, {min(d_x, d_y)}")
    generator = seeds.stream(seed, "directions")

    def draw(d: int) -> Tensor:
        if k_dim == 1:
            return torch.nn.functional.normalize(torch.randn(n_slices, d, generator=generator, dtype=torch.float64))
        return torch.linalg.qr(torch.randn(n_slices, d, k_dim, generator=generator, dtype=torch.float64)).Q.mT

    theta = draw(d_x)
    return theta, theta if kind == "shared" else draw(d_y)


def slices_at_once(n: int, d: int, n_slices: int, k_dim: int, max_bytes: int) -> int:
    """Return how many slices of n samples `max_bytes` allows in one piece: an estimator holds about 20 arrays of them.

    Raises:
        InputError: not even one, or the directions alone are larger.
    """
    max_bytes, n_slices = whole("max_bytes", max_bytes, 1), whole("n_slices", n_slices, 1, " (512 is usual)")
    one, directions = 20 * 8 * n * k_dim, 8 * n_slices * d * k_dim
    if max_bytes < one:
        raise InputError(f"max_bytes: {max_bytes:,} is too little; one slice of {n:,} samples takes {one:,}")
    if max_bytes < directions:
        most = max(1, math.floor(n_slices * max_bytes / directions))
        raise InputError(
            f"n_slices: the directions of {n_slices:,} take {directions:,} bytes, more than max_bytes, {max_bytes:,}; "
            f"choose {most:,} at most or raise max_bytes"
        )
    return max_bytes // one
