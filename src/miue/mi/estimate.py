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
"""Samples: (n,) for one pair of variables, (slices, n) for many. Of vectors: (n, d), or (slices, n, d) for many."""

Core = Callable[[Tensor, Tensor], np.ndarray]
"""Float64 x and y, (slices, n) or (slices, n, d) -> float64 values (slices,) in nats."""

MIN_SUBSAMPLE = 100  # a block of fewer points says little about the spread of a larger one
CONSTANT = 1e-12  # a range below this part of the values is rounding, as in projections of constant columns
TIES_WORTH_A_WARNING = 0.01  # float32 data of 50,000 points tie by chance in 0.3 % of the points


@dataclass(frozen=True)
class Estimate:
    """A mutual information, or the mean of it over slices, in nats; negative values are kept as they are.

    Attributes:
        value: mean over slices.
        stderr: standard error of `value`, of the kind that `stderr_kind` names; None where it cannot be had.
        stderr_kind: "slices" (spread over random directions, given the samples), "subsamples" (one slice
            only: the same number as `stderr_samples`), "held-out samples" (one slice, neural: the same) or "none".
        n: number of samples.
        n_slices: number of slices; 1 for a pair of scalar variables.
        estimator: its name in `miue.mi.ESTIMATORS`.
        settings: everything else that determines the value; plain numbers and strings.
        stderr_samples: standard error over disjoint random subsamples, scaled to n samples; of a neural estimate over
            its held-out samples. Slices share their samples, so the error over slices alone is too small for a claim
            about the distribution.
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
    vectors: bool = False,
) -> Estimate:
    """Check and scale the samples, run `core` on all of them and on disjoint subsamples, and summarise.

    Each variable is centred and scaled to unit standard deviation: mutual information does not change, and
    estimators that compare distances in x with distances in y need a common scale.

    Raises:
        InputError: shapes that do not match, fewer than `n_min` samples, NaN or infinity, a constant variable.

    Warns:
        DataWarning: ties in more than 1 % of a row.
    """
    x, y = as_rows("x", x, n_min, vectors), as_rows("y", y, n_min, vectors)
    if x.shape[:2] != y.shape[:2]:
        raise InputError(f"x, y: shapes {tuple(x.shape)} and {tuple(y.shape)} differ; pass pairs of samples")
    y = y.to(x.device)
    warn_of_ties(estimator, x, y)
    values = core(x, y)
    blocks = disjoint_blocks(x.shape[1], subsamples, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # what bends the whole has been said
        parts = [core(x[:, block], y[:, block]) for block in blocks.to(x.device)]
    per_subsample = np.stack(parts) if parts else np.empty((0, len(values)))
    return summarise(estimator, values, per_subsample, x.shape[1], settings)


def warn_of_ties(estimator: str, *variables: Tensor) -> None:
    """Warn if more than 1 % of the points of a slice, of (slices, n) or (slices, n, d) samples, equal another."""
    tied = max(_share_tied(rows) for rows in variables)
    if tied > TIES_WORTH_A_WARNING:
        warnings.warn(
            f"{tied:.0%} of the samples in a slice are tied; {estimator} expects continuous variables",
            DataWarning,
            stacklevel=4,
        )


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


def as_rows(name: str, values: Rows, n_min: int, vectors: bool = False) -> Tensor:
    """Return (slices, n) float64 rows, of `vectors` (slices, n, d), each variable of mean 0 and standard deviation 1.

    Raises:
        InputError: another shape, fewer than `n_min` samples, NaN or infinity, a constant variable.
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
        which = constant.nonzero()[0].tolist()
        value = float(rows[which[0], 0, *which[1:]])
        variable = f"column {which[1]} of slice {which[0]}" if vectors else f"slice {which[0]}"
        raise InputError(f"{name}: {variable} is constant ({value:g}); drop it before measuring")
    rows = rows - rows.mean(dim=1, keepdim=True)
    return rows / rows.std(dim=1, keepdim=True, correction=0)


def _share_tied(rows: Tensor) -> float:
    """Return the largest share, over slices, of points that equal another one before them."""
    if rows.ndim == 3:
        return max(1 - len(points.unique(dim=0)) / len(points) for points in rows)
    ordered = rows.sort(dim=1).values
    return float((ordered[:, 1:] == ordered[:, :-1]).double().mean(dim=1).max())


def class_members(labels: Rows, n: int) -> list[Tensor]:
    """Return for every class, in the order of the labels' values, the int64 indices of its samples.

    Raises:
        InputError: not one label for each of `n` samples.
    """
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.shape != (n,):
        raise InputError(f"labels: shape {tuple(labels.shape)}; pass one label for each of the {n} samples")
    return [(labels == label).nonzero()[:, 0] for label in labels.unique()]


def _standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of independent values (m,); None for fewer than two."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
