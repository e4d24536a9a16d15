"""One scale for all variables: standardised values or normal scores, with ties broken, seen and told."""

import numpy as np
import torch
from torch import Tensor

from miue import seeds
from miue.data.arrays import Array, as_finite
from miue.errors import InputError, choose, warn

SCALES = ("values", "scores")
NOISE = 1e-10  # standard deviations: above the rounding of float64, below that of float32
CONSTANT = 1e-12  # a range below this part of the values is rounding, as in projections of constant columns
ROUNDING = 1e-9  # gaps between neighbours below this part of their values may be rounding, those above are not
LOST_AT_MOST = 0.1  # share of the samples that one scale may push together
TIES_WORTH_A_WARNING = 0.01  # float32 data of 50,000 points tie by chance in 0.3 % of the points
FEW = 0.1  # distinct values as a share of the samples, from which on a variable counts as discrete


def as_rows(name: str, values: Array, n_min: int, vectors: bool = False) -> Tensor:
    """Return (slices, n) float64 rows, of `vectors` (slices, n, d), as they are.

    Raises:
        InputError: as `as_finite`; another shape, fewer than `n_min` samples, a constant variable.
    """
    rows = as_finite(name, values)
    shapes = "(n, d) or (slices, n, d)" if vectors else "(n,) or (slices, n)"
    single = 2 if vectors else 1
    if rows.ndim not in (single, single + 1) or rows.numel() == 0:
        raise InputError(f"{name}: shape {tuple(rows.shape)}; pass {shapes}")
    rows = rows[None] if rows.ndim == single else rows
    if rows.shape[1] < n_min:
        raise InputError(f"{name}: {rows.shape[1]} samples are too few; this estimator needs at least {n_min}")
    low, high = rows.amin(dim=1), rows.amax(dim=1)
    constant = high - low <= CONSTANT * torch.maximum(low.abs(), high.abs())
    if constant.any():
        which = constant.nonzero()[0].cpu().tolist()
        value = float(rows[which[0], 0, *which[1:]])
        raise InputError(f"{name}: {_variable(which)} is constant ({value:g}); drop it before measuring")
    return rows


def scaled(name: str, rows: Tensor, scale: str = "values") -> Tensor:
    """Bring each variable of (slices, n) or (slices, n, d) rows to mean 0 and standard deviation 1, or to scores.

    Mutual information does not change under invertible maps of a variable; estimators that compare distances in x with
    distances in y need a common scale.

    Raises:
        InputError: the scale is unknown, or is "values" and more than 10 % of the samples, though they differ, come
            closer than 1e-10 to their neighbours, as where few values are larger than all others by many powers of ten.
    """
    if choose("scale", scale, SCALES) == "scores":
        return scores(rows.mT).mT if rows.ndim == 3 else scores(rows)
    ordered = rising(rows)
    differ = ordered.diff(dim=1) > ROUNDING * torch.maximum(ordered[:, 1:].abs(), ordered[:, :-1].abs())
    lost = (differ & (standardised(ordered, dim=1).diff(dim=1) < NOISE)).double().mean(dim=1)
    if (lost > LOST_AT_MOST).any():
        which = (lost > LOST_AT_MOST).nonzero()[0].cpu().tolist()
        raise InputError(
            f"{name}: {float(lost[*which]):.0%} of the samples of {_variable(which)} differ from another by less than "
            f"{NOISE:g} standard deviations, as values do that spread over many powers of ten; choose "
            'scale="scores" where there is a scale to choose, or take logarithms'
        )
    return standardised(rows, dim=1)


def standardised(values: Tensor, dim: int) -> Tensor:
    """Return `values` with mean 0 and standard deviation 1 along `dim`, also where squares would leave float64."""
    exponent = torch.frexp(values.abs().amax(dim=dim, keepdim=True)).exponent
    values = values / torch.exp2(exponent.double() - 1)  # a power of two changes no digit
    values = values - values.mean(dim=dim, keepdim=True)
    return values / values.std(dim=dim, keepdim=True, correction=0)


def scores(rows: Tensor) -> Tensor:
    """Replace values along the last axis by normal quantiles of their ranks; equal values share one."""
    rows = rows.contiguous()
    ordered = rising(rows, dim=-1)
    low, high = (torch.searchsorted(ordered, rows, side=side) for side in ("left", "right"))
    return torch.special.ndtri((low + high).double() / (2 * rows.shape[-1]))


def rising(rows: Tensor, dim: int = 1) -> Tensor:
    """Return `rows` sorted along `dim`; on the CPU by NumPy, which is several times as fast there as torch."""
    if rows.device.type != "cpu":
        return rows.sort(dim=dim).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=dim))


def checked_noise(noise: object) -> float:
    """Return `noise` as a float.

    Raises:
        InputError: it is no number from 0 to below 1.
    """
    if not isinstance(noise, int | float | np.number) or isinstance(noise, bool) or not 0 <= noise < 1:
        raise InputError(
            f"noise: {noise!r}; choose 0 for none, or a part of the standard deviation ({NOISE:g} is usual)"
        )
    return float(noise)


def ties_broken(variables: list[Tensor], noise: float, seed: int) -> list[Tensor]:
    """Add normal noise of standard deviation `noise` to scaled (slices, n) or (slices, n, d) rows.

    Drawn on the CPU, the same for all slices, so that neither device nor chunk changes a result.
    """
    if noise == 0:
        return variables
    generator = seeds.stream(seed, "ties")
    draws = [torch.randn(rows.shape[1:], generator=generator, dtype=torch.float64) for rows in variables]
    return [rows + noise * drawn.to(rows.device) for rows, drawn in zip(variables, draws, strict=True)]


def warn_of_ties(estimator: str, *variables: Tensor, jointly: bool = False) -> None:
    """Warn if more than 1 % of the points of a slice, of (slices, n) or (slices, n, d) samples, equal another.

    Args:
        estimator: its name.
        *variables: x and y, or x alone.
        jointly: else warn from the first sample on that equals another in x and y at once.
    """
    shares = [_share_tied(rows) for rows in variables]
    if max(shares) > TIES_WORTH_A_WARNING:
        discrete = sum(share > 1 - FEW for share in shares)
        told = f"{max(shares):.0%} of the samples in a slice are tied; {estimator} expects continuous variables"
        slices, *vectors = (variables[0].shape[0], *variables[0].shape[2:])
        if estimator == "ross":
            meant = "mi_discrete" if discrete else "mi_mixed"
        elif slices > 1:
            meant = 'mi_mixed ("mixed" in sliced_mi)'
        else:
            meant = ("mi_mixed", "mi_ross" if len(variables) == 2 else "mi_discrete", "mi_discrete")[discrete]
        kind = "discrete" if discrete else "partly discrete"
        warn(told if vectors else f"{told}, and {meant} is meant for {kind} ones")
    elif jointly and min(shares) > 0 and (tied := _tied_jointly(*variables)):
        warn(
            f"{tied} samples equal another one in x and in y at once; {estimator} takes each such group for a point of "
            "probability, which is shared in full: drop copies that are none"
        )


def _share_tied(rows: Tensor) -> float:
    """Return the largest share, over slices, of points that equal another one before them."""
    if rows.ndim == 3:
        return max(1 - len(points.unique(dim=0)) / len(points) for points in rows)
    ordered = rising(rows)
    return float((ordered[:, 1:] == ordered[:, :-1]).double().mean(dim=1).max())


def _tied_jointly(x: Tensor, y: Tensor) -> int:
    """Return the largest number, over slices, of points whose x and y both equal those of another one."""
    x, y = (rows if rows.ndim == 3 else rows[..., None] for rows in (x, y))
    counts = (points.unique(dim=0, return_counts=True)[1] for points in torch.cat([x, y], dim=2))
    return max(int(count[count > 1].sum()) for count in counts)


def _variable(which: list[int]) -> str:
    return f"column {which[1]} of slice {which[0]}" if len(which) > 1 else f"slice {which[0]}"
