"""Somebody's own estimator: a function of two arrays of numbers, carried to slices and subsamples as ours are."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from miue.errors import InputError
from miue.mi.estimate import Estimate, Rows, measure


def estimator_of(function: Callable[..., Any]) -> Callable[..., Estimate]:
    """Make an estimator as `miue.mi.ESTIMATORS` holds them of a function of one pair of variables.

    Args:
        function: takes x and y, (n,) float64 arrays, and options of its own; returns one finite number, in nats (or
            an `Estimate`, whose value counts).

    Returns:
        A function of x and y, (n,) or (slices, n), with `subsamples` and `seed`; it returns an `Estimate`.
    """
    name = getattr(function, "__name__", type(function).__name__)

    def estimated(x: Rows, y: Rows, *, subsamples: int = 0, seed: int = 0, **options: Any) -> Estimate:
        def core(x: Tensor, y: Tensor) -> np.ndarray:
            pairs = zip(x.cpu().numpy(), y.cpu().numpy(), strict=True)
            return np.array([value_of(function, *pair, **options) for pair in pairs])

        return measure(name, core, x, y, n_min=2, settings=options, subsamples=subsamples, seed=seed, ties="none")

    return estimated


def value_of(function: Callable[..., Any], x: Any, y: Any, **options: Any) -> float:
    """What somebody's estimator says of one pair of variables, in nats.

    Raises:
        InputError: it fails, or returns anything but one finite number.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        found = function(x, y, **options)
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"estimator: {name} failed ({told}); it must take two arrays and return a number") from None
    value = np.asarray(found.value if isinstance(found, Estimate) else found)
    if value.shape != () or value.dtype.kind not in "fiu" or not np.isfinite(value):
        shown = f"shape {value.shape}" if value.shape else repr(found)
        raise InputError(f"estimator: {name} returned {shown}; it must return one finite number, in nats")
    return float(value)
