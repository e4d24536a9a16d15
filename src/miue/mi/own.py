"""Somebody's own estimator: a function of two arrays of numbers, carried to slices as ours are."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miue.errors import InputError
from miue.mi.estimate import Estimate, Rows, prepared, summarise


def estimator_of(function: Callable[..., Any]) -> Callable[..., Estimate]:
    """Make an estimator as `miue.mi.ESTIMATORS` holds them of a function of one pair of variables.

    Args:
        function: takes x and y, (n,) float64 arrays, and options of its own; returns one finite number, in nats (or
            an `Estimate`, whose value counts), or the local terms (n,) whose mean it is, one for each sample in its
            order. A number alone has no error over samples.

    Returns:
        A function of x and y, (n,) or (slices, n), with `seed`, of which nothing is drawn; it returns an `Estimate`.
    """
    name = getattr(function, "__name__", type(function).__name__)

    def estimated(x: Rows, y: Rows, *, seed: int = 0, **options: Any) -> Estimate:
        x, y = prepared(name, x, y, n_min=2, seed=seed, ties="none")
        pairs = zip(x.cpu().numpy(), y.cpu().numpy(), strict=True)
        found = [found_by(function, *pair, **options) for pair in pairs]
        per_slice = np.array([terms.mean() for terms in found])
        per_sample = np.mean(found, axis=0) if all(terms.ndim for terms in found) else None
        return summarise(name, per_slice, per_sample, x.shape[1], options)

    return estimated


def found_by(function: Callable[..., Any], x: Any, y: Any, **options: Any) -> np.ndarray:
    """What somebody's estimator says of one pair of variables, in nats: one number (), or the local terms (n,).

    Raises:
        InputError: it fails, or returns anything else.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        found = function(x, y, **options)
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"estimator: {name} failed ({told}); it must take two arrays and return a number") from None
    value = np.asarray(found.value if isinstance(found, Estimate) else found)
    if value.shape not in ((), (len(x),)) or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        shown = f"shape {value.shape}" if value.shape else repr(found)
        raise InputError(
            f"estimator: {name} returned {shown}; it must return one finite number, in nats, or as many as samples"
        )
    return value.astype(float)
