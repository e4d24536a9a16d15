"""What a sliced mutual information has to be compared with: its null, its within-class shuffle, its ceiling."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miue import seeds
from miue.data.arrays import as_finite, whole
from miue.errors import InputError
from miue.mi.estimate import Estimate, Rows, class_members
from miue.mi.sliced import sliced_mi


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

    Example:
        >>> import torch
        >>> from miue.mi import null
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> abs(null(x, x, n_slices=16).value) < 0.03
        True
    """
    y = as_finite("y", y)
    order = shuffled(len(y), within, seed)
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

    Example:
        >>> import torch
        >>> from miue.mi import ceiling
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> ceiling(x, n_slices=1).value > 4  # nats; the truth is infinite
        True
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
        x: (n, d) features, of the clean images as a rule: the ceiling is theirs.
        y: (n, d') features of the same samples.
        labels: (n,) classes.
        **settings: those of `sliced_mi`, for all four alike.

    Raises:
        InputError: as `sliced_mi` and `null`.

    Example:
        >>> import miue, torch
        >>> labels = torch.arange(500) % 2
        >>> x, y = labels[:, None] + 0.1 * torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0))
        >>> measured = miue.with_controls(x, y, labels, n_slices=16)
        >>> {name: round(estimate.value, 1) for name, estimate in vars(measured).items()}
        {'mi': 0.6, 'null': 0.0, 'within_class': 0.6, 'ceiling': 0.7}
    """
    within_class = null(x, y, within=labels, **settings)  # first: wrong labels are refused before any work
    return Controls(
        mi=sliced_mi(x, y, **settings),
        null=null(x, y, **settings),
        within_class=within_class,
        ceiling=ceiling(x, **settings),
    )


def shuffled(n: int, within: Rows | None = None, seed: int = 0) -> Tensor:
    """Return a random permutation (n,) int64 that keeps each sample in its class of `within`, if given.

    Raises:
        InputError: n or seed is no whole number of 0 or above; labels that are missing or NaN, not one for each sample,
            of one class only, or of no class of two samples.

    Example:
        >>> from miue.mi import shuffled
        >>> order = shuffled(6, within=[0, 0, 0, 1, 1, 1])
        >>> sorted(order[:3].tolist()), sorted(order[3:].tolist())
        ([0, 1, 2], [3, 4, 5])
    """
    generator = seeds.stream(seed, "shuffle")
    n = whole("n", n, 0)
    if within is None:
        return torch.randperm(n, generator=generator)
    classes = class_members(within, n)
    if len(classes) < 2 or max(map(len, classes)) < 2:
        raise InputError(
            f"labels: {len(classes)} classes for {n} samples; a shuffle within classes needs at least "
            "two classes and one of them with two samples"
        )
    order = torch.empty(n, dtype=torch.int64)
    for members in classes:
        order[members] = members[torch.randperm(len(members), generator=generator)]
    return order
