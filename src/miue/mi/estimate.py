"""The record that every estimator returns, and the checks and standard errors that all of them share."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miue import seeds
from miue.data.arrays import Array, as_classes, whole
from miue.errors import DataWarning, InputError
from miue.mi.scaling import as_rows, scaled, ties_broken, warn_of_ties

Rows = Array
"""Samples: (n,) for one pair of variables, (slices, n) for many. Of vectors: (n, d), or (slices, n, d) for many."""

Core = Callable[[Tensor, Tensor], np.ndarray]
"""Float64 x and y, (slices, n) or (slices, n, d) -> float64 values (slices,) in nats."""

MIN_SUBSAMPLE = 100  # a block of fewer points says little about the spread of a larger one


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

    Example:
        >>> from miue.mi import mi_ksg, tasks
        >>> estimate = mi_ksg(*tasks.bivariate_normal(0.9).sample(1000))
        >>> estimate.n, estimate.estimator, estimate.stderr_kind
        (1000, 'ksg', 'subsamples')
        >>> f"{estimate.value:.1f} nats, {estimate.bits:.1f} bits"
        '0.8 nats, 1.2 bits'
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
    scale: str = "values",
    noise: float = 0.0,
    ties: str = "apart",
) -> Estimate:
    """Check and scale the samples, run `core` on all of them and on disjoint subsamples, and summarise.

    Args:
        estimator, core, settings: what measures, and what its record says of it.
        x, y: samples, of `vectors` or of numbers; they meet on x's device.
        n_min: the fewest samples that `core` takes.
        subsamples, seed: see `disjoint_blocks`.
        scale: "values" or "scores", see `scaled`.
        noise: of `ties_broken`, in units of the scaled variables.
        ties: which of them to warn of: "apart", those of x and those of y; "jointly", as well from the first in both at
            once; "none".

    Raises:
        InputError: shapes that do not match, fewer than `n_min` samples, NaN or infinity, a constant variable, values
            that have no common scale.

    Warns:
        DataWarning: see `ties`.
    """
    subsamples, seed = whole("subsamples", subsamples, 0), seeds.checked(seed)
    x, y = as_rows("x", x, n_min, vectors), as_rows("y", y, n_min, vectors)
    if x.shape[:2] != y.shape[:2]:
        raise InputError(f"x, y: shapes {tuple(x.shape)} and {tuple(y.shape)} differ; pass pairs of samples")
    y = y.to(x.device)
    if ties != "none":
        warn_of_ties(estimator, x, y, jointly=ties == "jointly")
    x, y = ties_broken([scaled("x", x, scale), scaled("y", y, scale)], noise, seed)
    values = core(x, y)
    blocks = disjoint_blocks(x.shape[1], subsamples, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # what bends the whole has been said
        parts = [core(x[:, block], y[:, block]) for block in blocks.to(x.device)]
    per_subsample = np.stack(parts) if parts else np.empty((0, len(values)))
    return summarise(estimator, values, per_subsample, x.shape[1], settings)


def disjoint_blocks(n: int, subsamples: int, seed: int) -> Tensor:
    """Draw (blocks, n // blocks) int64 indices: at most `subsamples` disjoint blocks of at least 100 points.

    Fewer than two blocks allow no spread, so none are returned then. Random, because samples often come
    sorted by class.
    """
    blocks = min(whole("subsamples", subsamples, 0), n // MIN_SUBSAMPLE)
    if blocks < 2:
        return torch.empty((0, 0), dtype=torch.int64)
    order = torch.randperm(n, generator=seeds.stream(seed, "subsamples"))
    return order[: n // blocks * blocks].reshape(blocks, -1)


def class_members(labels: Rows, n: int) -> list[Tensor]:
    """Return for every class, in the order of the labels' values, the int64 indices of its samples.

    Raises:
        InputError: see `as_classes`; not one label for each of `n` samples.
    """
    member, counts = as_classes("labels", labels)
    if len(member) != n:
        raise InputError(f"labels: shape {tuple(member.shape)}; pass one label for each of the {n} samples")
    return list(member.argsort(stable=True).split(counts.tolist()))


def _standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of independent values (m,); None for fewer than two."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
