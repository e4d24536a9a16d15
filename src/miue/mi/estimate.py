"""The record that every estimator returns, and the checks and standard errors that all of them share."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miue.errors import DataWarning, InputError

Rows = Tensor | np.ndarray
"""Samples: (n,) for one pair of variables, (slices, n) for many."""

Core = Callable[[Tensor, Tensor], tuple[np.ndarray, float]]
"""(slices, n) float64 x and y -> values (slices,) in nats, and the largest share of tied points."""

MIN_SUBSAMPLE = 100  # a block of fewer points says little about the spread of a larger one
TIES_WORTH_A_WARNING = 0.01  # float32 data of 50,000 points tie by chance in 0.3 % of the points


@dataclass(frozen=True)
class Estimate:
    """A mutual information, or the mean of it over slices, in nats; negative values are kept as they are.

    Attributes:
        value: mean over slices.
        stderr: standard error of `value`, of the kind that `stderr_kind` names; None where it cannot be had.
        stderr_kind: "slices" (spread over random directions, given the samples), "subsamples" (one slice
            only: the same number as `stderr_samples`) or "none".
        n: number of samples.
        n_slices: number of slices; 1 for a pair of scalar variables.
        estimator: its name in `miue.mi.ESTIMATORS`.
        settings: everything else that determines the value; plain numbers and strings.
        stderr_samples: standard error over disjoint random subsamples, scaled to n samples. Slices share
            their samples, so the error over slices alone is too small for a claim about the distribution.
        per_slice: (slices,) float64, the values whose mean is `value`.
        per_subsample: (subsamples, slices) float64, the same on each disjoint subsample (`sliced_mi`: of the first
            64 slices); fewer samples, so with more bias: read their spread, not their level.
    """

    value: float
    stderr: float | None
    stderr_kind: str
    n: int
    n_slices: int
    estimator: str
    settings: dict[str, Any]
    stderr_samples: float | None
    per_slice: np.ndarray = field(repr=False, compare=False)
    per_subsample: np.ndarray = field(repr=False, compare=False)

    @property
    def bits(self) -> float:
        """The value in bits."""
        return self.value / math.log(2)

    def record(self) -> dict[str, Any]:
        """Return a plain dict for JSON: numbers and strings, without the arrays."""
        return {
            "value": self.value,
            "unit": "nats",
            "stderr": self.stderr,
            "stderr_kind": self.stderr_kind,
            "stderr_samples": self.stderr_samples,
            "n": self.n,
            "n_slices": self.n_slices,
            "estimator": self.estimator,
            "settings": dict(self.settings),
        }


def summarise(
    estimator: str, per_slice: np.ndarray, per_subsample: np.ndarray, n: int, settings: dict[str, Any]
) -> Estimate:
    """Turn values per slice (slices,) and per subsample (subsamples, slices) into an `Estimate`."""
    over_slices = _standard_error(per_slice)
    over_samples = _standard_error(per_subsample.mean(axis=1))
    kind = "slices" if over_slices is not None else "subsamples" if over_samples is not None else "none"
    return Estimate(
        value=float(per_slice.mean()),
        stderr=over_slices if over_slices is not None else over_samples,
        stderr_kind=kind,
        n=n,
        n_slices=len(per_slice),
        estimator=estimator,
        settings=settings | {"subsamples": len(per_subsample)},
        stderr_samples=over_samples,
        per_slice=per_slice,
        per_subsample=per_subsample,
    )


def measure(
    estimator: str,
    core: Core,
    x: Rows,
    y: Rows,
    *,
    n_min: int,
    settings: dict[str, Any],
    subsamples: int,
    seed: int,
) -> Estimate:
    """Check and scale the samples, run `core` on all of them and on disjoint subsamples, and summarise.

    Each row is centred and scaled to unit standard deviation: mutual information does not change, and
    estimators that compare distances in x with distances in y need a common scale.

    Raises:
        InputError: shapes that do not match, fewer than `n_min` samples, NaN or infinity, a constant row.

    Warns:
        DataWarning: ties in more than 1 % of a row.
    """
    x, y = _rows("x", x, n_min), _rows("y", y, n_min)
    if x.shape != y.shape:
        raise InputError(f"x, y: shapes {tuple(x.shape)} and {tuple(y.shape)} differ; pass pairs of samples")
    y = y.to(x.device)
    values, tied = core(x, y)
    if tied > TIES_WORTH_A_WARNING:
        warnings.warn(
            f"{tied:.0%} of the samples in a slice are tied; {estimator} expects continuous variables",
            DataWarning,
            stacklevel=3,
        )
    blocks = disjoint_blocks(x.shape[1], subsamples, seed)
    parts = [core(x[:, block], y[:, block])[0] for block in blocks.to(x.device)]
    per_subsample = np.stack(parts) if parts else np.empty((0, len(values)))
    return summarise(estimator, values, per_subsample, x.shape[1], settings)


def disjoint_blocks(n: int, subsamples: int, seed: int) -> Tensor:
    """Draw (blocks, n // blocks) int64 indices: at most `subsamples` disjoint blocks of at least 100 points.

    Fewer than two blocks allow no spread, so none are returned then. Random, because samples often come
    sorted by class.
    """
    if subsamples < 0:
        raise InputError(f"subsamples: {subsamples} is negative; give 0 for no subsample error, or 2 and more")
    blocks = min(subsamples, n // MIN_SUBSAMPLE)
    if blocks < 2:
        return torch.empty((0, 0), dtype=torch.int64)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // blocks * blocks].reshape(blocks, -1)


def as_finite(name: str, values: Rows) -> Tensor:
    """Return `values` as a float64 tensor, where it lies if that is a CUDA device, else on the CPU.

    Raises:
        InputError: not numbers, or some of them NaN or infinite.
    """
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {type(values).__name__} is not an array of numbers ({error})") from error
    if tensor.is_complex():
        raise InputError(f"{name}: complex numbers are not supported; pass real ones")
    tensor = tensor.detach()
    # Other accelerators (Apple's, for one) have no float64.
    tensor = (tensor if tensor.is_cuda else tensor.cpu()).to(torch.float64)
    if not (finite := tensor.isfinite()).all():
        raise InputError(f"{name}: {int((~finite).sum())} values are NaN or infinite; remove or mend them first")
    return tensor


def share_tied(rows: Tensor) -> float:
    """Return the largest share, over (slices, n) sorted rows, of points that equal their predecessor."""
    return float((rows[:, 1:] == rows[:, :-1]).double().mean(dim=1).max())


def _rows(name: str, values: Rows, n_min: int) -> Tensor:
    """Return (slices, n) float64 rows of zero mean and unit standard deviation."""
    rows = as_finite(name, values)
    if rows.ndim not in (1, 2) or rows.numel() == 0:
        raise InputError(f"{name}: shape {tuple(rows.shape)}; pass (n,) or (slices, n)")
    rows = rows.reshape(-1, rows.shape[-1])
    if rows.shape[1] < n_min:
        raise InputError(f"{name}: {rows.shape[1]} samples are too few; this estimator needs at least {n_min}")
    constant = (rows == rows[:, :1]).all(dim=1)
    if constant.any():
        which = int(constant.nonzero()[0])
        raise InputError(f"{name}: slice {which} is constant ({float(rows[which, 0]):g}); drop it before measuring")
    rows = rows - rows.mean(dim=1, keepdim=True)
    return rows / rows.std(dim=1, keepdim=True, correction=0)


def _standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of independent values (m,); None for fewer than two."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
