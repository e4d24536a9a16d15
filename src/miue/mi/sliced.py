"""Mutual information of feature vectors through random low-dimensional projections, also given their class."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miue import seeds
from miue.data.arrays import as_classes, whole
from miue.errors import InputError, choose
from miue.mi.critic import OBJECTIVES
from miue.mi.discrete import mi_mixed
from miue.mi.estimate import Estimate, Rows, class_members, summarise
from miue.mi.histogram import mi_histogram
from miue.mi.kde import mi_kde
from miue.mi.ksg import mi_ksg, mi_ksg_joint
from miue.mi.neural import mi_neural, mi_neural_joint
from miue.mi.own import estimator_of
from miue.mi.projections import draw_directions, live_columns, slices_at_once
from miue.mi.ross import mi_ross
from miue.specs import find, is_own, load

Estimator = Callable[..., Estimate]

ESTIMATORS: dict[str, Estimator] = {
    "histogram": mi_histogram,
    "kde": mi_kde,
    "ksg": mi_ksg,
    "mixed": mi_mixed,
    **{name: partial(mi_neural, objective=name) for name in OBJECTIVES},
}
"""Estimators for pairs of numbers: each takes x and y of shape (slices, n), `seed`, which decides what it draws if it
draws anything, and its own options, and returns an `Estimate` with values per slice."""

JOINT: dict[str, Estimator] = {
    "ksg": mi_ksg_joint,
    **{name: partial(mi_neural_joint, objective=name) for name in OBJECTIVES},
}
"""The same for pairs of vectors, (slices, n, d)."""

DISCRETE: dict[str, Estimator] = {"ross": mi_ross}
"""The same where y is a class, (n,) labels."""


def check_estimator(name: str) -> None:
    """Refuse what `sliced_mi` does not take for numbers: all but `ESTIMATORS` and "FILE.py:NAME".

    Raises:
        InputError: it is neither.
    """
    find("estimator", name, ESTIMATORS)


def sliced_mi(
    x: Rows,
    y: Rows,
    estimator: str | Callable[..., Any] = "ksg",
    n_slices: int = 512,
    seed: int = 0,
    *,
    given: Rows | None = None,
    k_dim: int = 1,
    directions: str = "independent",
    standardise: bool = True,
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
        y: (n, d') features of the same samples in the same order; for "ross" (n,) class labels.
        estimator: a name in `ESTIMATORS`; in `JOINT` for k_dim > 1; "ross", E I(theta'X; Y) for a class Y; or one of
            your own: a function of two arrays (n,) that returns a number in nats, or the local terms (n,) whose mean it
            is; or "FILE.py:NAME", which is executed.
        n_slices: number of pairs of directions.
        seed: of the directions and of what the estimator draws, each a stream of its own.
        given: (n,) class labels to measure within, see `conditional_mi`; None for all samples together.
        k_dim: dimension of the projections: "k-sliced" for more than 1 (Goldfeld, Greenewald, Nuradha and Reeves,
            NeurIPS 2022), with orthonormal frames in the place of directions.
        directions: "independent" draws phi apart from theta; "shared" takes phi = theta, for d = d' only.
        standardise: scale each column to zero mean and unit standard deviation before slicing.
        max_bytes: memory for a chunk of slices, beside x and y themselves. Chunking does not change the result.
        **options: passed to the estimator: `k`, `scale`, `noise`, `variant`, `search` for ksg, `bins` for histogram...

    Returns:
        An `Estimate`, its values float64. Constant columns ("dead units") are dropped before slicing;
        `settings["dead_x"]` and `["dead_y"]` count them.

    Raises:
        InputError: wrong shapes, lengths that differ, too few samples, NaN or infinity, only dead units, an unknown
            estimator or kind of directions, a k_dim that does not fit, more slices or samples than max_bytes holds.

    Example:
        >>> import miue, torch
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> estimate = miue.sliced_mi(x, x[:, :1] + x[:, 1:], n_slices=32)
        >>> round(estimate.value, 1), estimate.n_slices, estimate.stderr_kind
        (0.6, 32, 'slices')
    """
    k_dim, n_slices = whole("k_dim", k_dim, 1), whole("n_slices", n_slices, 1, " (512 is usual)")
    seed = seeds.checked(seed)
    known = JOINT if k_dim > 1 else ESTIMATORS if given is not None else ESTIMATORS | DISCRETE
    if callable(estimator) or is_own(estimator):
        measured = estimator_of(estimator if callable(estimator) else load("estimator", estimator))
        estimator = estimator if isinstance(estimator, str) else getattr(estimator, "__name__", "own")
    else:
        measured = known[choose("estimator", estimator, known)]
    discrete = estimator in DISCRETE
    x, dead_x = live_columns("x", x, standardise)
    labels = as_classes("y", y)[0] if discrete else None
    y, dead_y = (x, 0) if discrete else live_columns("y", y, standardise)
    y = y.to(x.device)
    if len(x) != (rows := len(y if labels is None else labels)):
        raise InputError(f"x, y: {len(x)} and {rows} rows; pass features of the same samples")
    if given is not None:
        measured = _within_classes(measured, class_members(given, len(x)))
    chunk = slices_at_once(len(x), x.shape[1] + y.shape[1], n_slices, k_dim, max_bytes)
    theta, phi = draw_directions(x.shape[1], y.shape[1], n_slices, seed, directions, k_dim)
    per_slice, errors = [], []
    total: np.ndarray | None = np.zeros(len(x))
    for i in range(0, n_slices, chunk):
        part = measured(
            _project(x, theta[i : i + chunk]),
            labels if labels is not None else _project(y, phi[i : i + chunk]),
            seed=seed,
            **options,
        )
        per_slice.append(part.per_slice)
        if part.stderr_samples is not None:
            errors.append(part.stderr_samples)
        total = None if total is None or part.per_sample is None else total + part.n_slices * part.per_sample
    settings = part.settings | {
        "directions": directions,
        "k_dim": k_dim,
        "standardise": standardise,
        "seed": seed,
        "d_x": x.shape[1] + dead_x,
        "dead_x": dead_x,
    }
    if not discrete:
        settings |= {"d_y": y.shape[1] + dead_y, "dead_y": dead_y}
    per_sample = None if total is None else total / n_slices
    # The chunks share their samples, so the mean of their errors is the most that their mean can be off by.
    held_out = float(np.mean(errors)) if len(errors) == len(per_slice) else None
    return summarise(estimator, np.concatenate(per_slice), per_sample, len(x), settings, held_out)


def conditional_mi(
    x: Rows,
    y: Rows,
    labels: Rows,
    estimator: str | Callable[..., Any] = "ksg",
    n_slices: int = 512,
    seed: int = 0,
    **settings: Any,
) -> Estimate:
    """Estimate the sliced mutual information that is left once the class L is known, in nats.

        E I(theta'X; phi'Y | L) = E sum_l p(l) I(theta'X; phi'Y | L = l)

    measured within each class and weighted by its share, over the same directions as `sliced_mi` with the same seed.
    The bias of an estimator depends on the number of samples, here those of a class: the null to compare with is this
    measure of rows that were shuffled within classes, `y[shuffled(n, labels)]`.

    Args:
        x: (n, d) features.
        y: (n, d') features of the same samples.
        labels: (n,) classes.
        estimator: a name in `ESTIMATORS`, or in `JOINT` for k_dim > 1.
        n_slices, seed: as in `sliced_mi`.
        **settings: those of `sliced_mi`. Columns are standardised over all classes together.

    Returns:
        An `Estimate`; `settings["given"]` is the number of classes.

    Raises:
        InputError: as `sliced_mi`; labels of another length; a class too small for the estimator, or constant in it.

    Example:
        >>> import torch
        >>> from miue.mi import conditional_mi, sliced_mi
        >>> labels = torch.arange(500) % 2
        >>> x, y = labels[:, None] + 0.1 * torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0))
        >>> round(sliced_mi(x, y, n_slices=16).value, 1)
        0.6
        >>> abs(conditional_mi(x, y, labels, n_slices=16).value) < 0.02  # they share the class, and nothing else
        True
    """
    return sliced_mi(x, y, estimator, n_slices, seed, given=labels, **settings)


def _within_classes(one_class: Estimator, members: list[Tensor]) -> Estimator:
    """Return the estimator that applies `one_class` to the samples of each class and weights by its share."""

    def measured(rows_x: Tensor, rows_y: Tensor, seed: int, **options: Any) -> Estimate:
        parts = []
        for label, own in enumerate(members):
            at = own.to(rows_x.device)
            try:
                parts.append(one_class(rows_x[:, at], rows_y[:, at], seed=seed, **options))
            except InputError as error:
                raise InputError(f"within class number {label}: {error}") from None
        n = rows_x.shape[1]
        per_slice = np.average([part.per_slice for part in parts], axis=0, weights=[part.n / n for part in parts])
        terms = [part.per_sample for part in parts if part.per_sample is not None]
        per_sample = np.empty(n) if len(terms) == len(parts) else None
        if per_sample is not None:
            per_sample[torch.cat(members).numpy()] = np.concatenate(terms)
        settings = parts[0].settings | {"given": len(members)}
        return summarise(parts[0].estimator, per_slice, per_sample, n, settings)

    return measured


def _project(columns: Tensor, directions: Tensor) -> Tensor:
    """Map (n, d) columns along directions (slices, d) to (slices, n), along frames (slices, k, d) to (slices, n, k)."""
    directions = directions.to(columns.device)
    return directions @ columns.T if directions.ndim == 2 else columns @ directions.mT
