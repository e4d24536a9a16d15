"""Mutual information of feature vectors through random one-dimensional projections, and its controls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miue.errors import InputError, choose
from miue.mi.estimate import Estimate, Rows, as_finite, summarise
from miue.mi.histogram import mi_histogram
from miue.mi.ksg import mi_ksg

ESTIMATORS: dict[str, Callable[..., Estimate]] = {"histogram": mi_histogram, "ksg": mi_ksg}
"""One-dimensional estimators by name: each takes x and y of shape (slices, n), `subsamples`, `seed` and its
own options, and returns an `Estimate` with values per slice."""

DIRECTIONS = ("independent", "shared")
SUBSAMPLED_SLICES = 64  # the error over subsamples needs no more of them; fewer can only make it larger
DEAD = 1e-6  # a column whose range is below this part of its size holds float32 rounding, not signal


def sliced_mi(
    x: Rows,
    y: Rows,
    estimator: str = "ksg",
    n_slices: int = 512,
    seed: int = 0,
    *,
    directions: str = "independent",
    standardise: bool = True,
    subsamples: int = 10,
    max_bytes: int = 2**28,
    **options: Any,
) -> Estimate:
    """Estimate the sliced mutual information of two sets of feature vectors, in nats.

        SMI(X;Y) = E I(theta'X; phi'Y),   theta and phi uniform on the unit spheres

    (Goldfeld and Greenewald, NeurIPS 2021), the mean of a one-dimensional estimate over random directions. A
    lower bound of I(X;Y), and not invariant under linear maps of the features: their standardisation is part
    of the definition, and is recorded. Isotropic features have tiny values even of SMI(X;X) (about 1/2d), so
    print `null` and `ceiling` beside it.

    Args:
        x: (n, d) features, tensor or array; the work is done where it lies.
        y: (n, d') features of the same samples in the same order.
        estimator: a name in `ESTIMATORS`.
        n_slices: number of pairs of directions.
        seed: of the directions and of the split into subsamples.
        directions: "independent" draws phi apart from theta; "shared" takes phi = theta, for d = d' only.
        standardise: scale each column to zero mean and unit standard deviation before slicing.
        subsamples: number of disjoint subsamples for `stderr_samples`; 0 for none. Measured with the first 64 slices.
        max_bytes: memory for the projections of a chunk of slices. Chunking does not change the result.
        **options: passed to the estimator: `k` and `search` for ksg, `bins` for histogram.

    Returns:
        An `Estimate`, its values float64. Constant columns ("dead units") are dropped before slicing;
        `settings["dead_x"]` and `["dead_y"]` count them.

    Raises:
        InputError: wrong shapes, lengths that differ, too few samples, NaN or infinity, only dead units,
            an unknown estimator or kind of directions.
    """
    one_dimensional = ESTIMATORS[choose("estimator", estimator, ESTIMATORS)]
    choose("directions", directions, DIRECTIONS)
    if n_slices < 1:
        raise InputError(f"n_slices: {n_slices} leaves nothing to average; choose 1 or more (512 is usual)")
    x, dead_x = _columns("x", x, standardise)
    y, dead_y = _columns("y", y, standardise)
    if len(x) != len(y):
        raise InputError(f"x, y: {len(x)} and {len(y)} rows; pass features of the same samples")
    theta, phi = _directions(x.shape[1], y.shape[1], n_slices, seed, directions)
    theta, phi, y = theta.to(x.device), phi.to(x.device), y.to(x.device)

    # An estimator holds about 16 arrays as large as its input.
    chunk = min(SUBSAMPLED_SLICES, max(1, max_bytes // (16 * 8 * len(x))))
    parts = [
        one_dimensional(
            theta[i : i + chunk] @ x.T,
            phi[i : i + chunk] @ y.T,
            subsamples=subsamples if i < SUBSAMPLED_SLICES else 0,
            seed=seed,
            **options,
        )
        for i in range(0, n_slices, chunk)
    ]
    with_error = parts[: -(-SUBSAMPLED_SLICES // chunk)]
    per_subsample = np.concatenate([part.per_subsample for part in with_error], axis=1)
    settings = parts[0].settings | {
        "directions": directions,
        "standardise": standardise,
        "seed": seed,
        "d_x": x.shape[1] + dead_x,
        "d_y": y.shape[1] + dead_y,
        "dead_x": dead_x,
        "dead_y": dead_y,
    }
    return summarise(
        estimator,
        np.concatenate([part.per_slice for part in parts]),
        per_subsample[:, :SUBSAMPLED_SLICES],
        len(x),
        settings,
    )


def null(x: Rows, y: Rows, *, within: Rows | None = None, seed: int = 0, **settings: Any) -> Estimate:
    """Measure what is left of `sliced_mi(x, y)` after the rows of y have been shuffled.

    Shuffled freely, x and y are independent and the truth is 0: the value is the estimator's bias. Shuffled
    within classes, they share nothing but the class: the value is what agreement on the class alone brings.

    Args:
        x: (n, d) features.
        y: (n, d') features of the same samples.
        within: (n,) class labels to shuffle within; None to shuffle freely.
        seed: of the shuffle, and of the directions as in `sliced_mi`.
        **settings: those of `sliced_mi`.

    Returns:
        An `Estimate` over the same directions as `sliced_mi` with the same seed; `settings["shuffle"]` says
        which shuffle it was.

    Raises:
        InputError: as `sliced_mi`; labels of another length; one class only, or no class of two samples,
            where a shuffle within classes would be the free one or none.
    """
    y = as_finite("y", y)
    order = _shuffled(len(y), within, seed)
    estimate = sliced_mi(x, y[order.to(y.device)], seed=seed, **settings)
    estimate.settings["shuffle"] = "free" if within is None else "within class"
    return estimate


def ceiling(x: Rows, **settings: Any) -> Estimate:
    """Measure SMI(X;X): what features of this shape show when everything is shared.

    Finite under independent directions though I(X;X) is infinite; under shared ones it only shows the estimator's
    own limit (about log n for ksg). A yardstick, not a strict maximum of `sliced_mi(x, y)`: a y that shows the
    classes more clearly than x does can pass it.

    Args:
        x: (n, d) features.
        **settings: those of `sliced_mi`.
    """
    return sliced_mi(x, x, **settings)


@dataclass(frozen=True)
class Controls:
    """A sliced mutual information beside what it has to be compared with; all four over the same directions.

    Attributes:
        mi: the measured SMI(X;Y).
        null: after a free shuffle; the truth is 0.
        within_class: after a shuffle within classes; what agreement on the class alone brings.
        ceiling: SMI(X;X).
    """

    mi: Estimate
    null: Estimate
    within_class: Estimate
    ceiling: Estimate

    def record(self) -> dict[str, dict[str, Any]]:
        """Return the four records by name, for JSON."""
        return {name: estimate.record() for name, estimate in vars(self).items()}


def with_controls(x: Rows, y: Rows, labels: Rows, **settings: Any) -> Controls:
    """Measure SMI(X;Y) together with its permutation null, its within-class shuffle and its ceiling.

    Args:
        x: (n, d) features, of the clean pictures as a rule: the ceiling is theirs.
        y: (n, d') features of the same samples.
        labels: (n,) classes.
        **settings: those of `sliced_mi`, for all four alike.

    Raises:
        InputError: as `sliced_mi` and `null`.
    """
    within_class = null(x, y, within=labels, **settings)  # first: wrong labels are refused before any work
    return Controls(
        mi=sliced_mi(x, y, **settings),
        null=null(x, y, **settings),
        within_class=within_class,
        ceiling=ceiling(x, **settings),
    )


def _columns(name: str, features: Rows, standardise: bool) -> tuple[Tensor, int]:
    """Return the live columns of (n, d) features in float64, standardised if asked, and count the dead."""
    columns = as_finite(name, features)
    if columns.ndim != 2 or columns.numel() == 0:
        raise InputError(f"{name}: shape {tuple(columns.shape)}; pass a matrix (samples, features)")
    low, high = columns.amin(dim=0), columns.amax(dim=0)
    alive = high - low > DEAD * torch.maximum(low.abs(), high.abs())
    if not alive.any():
        raise InputError(f"{name}: all {columns.shape[1]} columns are constant; nothing is left to slice")
    dead = int((~alive).sum())
    columns = columns[:, alive] if dead else columns
    if standardise:
        columns = columns - columns.mean(dim=0)
        columns /= columns.std(dim=0, correction=0)
    return columns, dead


def _directions(d_x: int, d_y: int, n_slices: int, seed: int, kind: str) -> tuple[Tensor, Tensor]:
    """Draw unit vectors (slices, d_x) and (slices, d_y), all at once: no chunk size can change them."""
    if kind == "shared" and d_x != d_y:
        raise InputError(f"directions: shared ones need equal widths, but x has {d_x} live columns and y {d_y}")
    generator = torch.Generator().manual_seed(seed)

    def draw(d: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(n_slices, d, generator=generator, dtype=torch.float64))

    theta = draw(d_x)
    return theta, theta if kind == "shared" else draw(d_y)


def _shuffled(n: int, within: Rows | None, seed: int) -> Tensor:
    """Return a random permutation (n,) int64 that keeps each sample in its class of `within`, if given."""
    generator = torch.Generator().manual_seed(seed)
    if within is None:
        return torch.randperm(n, generator=generator)
    labels = torch.as_tensor(within).cpu()
    if labels.shape != (n,):
        raise InputError(f"labels: shape {tuple(labels.shape)}; pass one label for each of the {n} samples")
    classes, sizes = labels.unique(return_counts=True)
    if len(classes) < 2 or sizes.max() < 2:
        raise InputError(
            f"labels: {len(classes)} classes for {n} samples; a shuffle within classes needs at least "
            "two classes and one of them with two samples"
        )
    order = torch.empty(n, dtype=torch.int64)
    for label in classes:
        members = (labels == label).nonzero()[:, 0]
        order[members] = members[torch.randperm(len(members), generator=generator)]
    return order
