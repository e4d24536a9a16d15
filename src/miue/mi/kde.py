"""Mutual information from Gaussian kernel densities, each point left out of its own estimate."""

import math

import torch
from torch import Tensor

from miue.data.arrays import real, whole
from miue.errors import InputError, choose, warn
from miue.mi.estimate import Estimate, Rows, of_terms, prepared
from miue.mi.scaling import SCALES, scores

STEPS_PER_BANDWIDTH = 4  # of the grid: linear binning then widens the kernel by 1 %
REACH = 7.0  # bandwidths; rounding hides on the grid what is farther from all other points than this
FAR_WORTH_A_WARNING = 1e-3  # of the points, over all slices: they pull the estimate down by 0.02 nats or more


def mi_kde(
    x: Rows,
    y: Rows,
    *,
    bandwidth: float | None = None,
    scale: str = "scores",
    evaluation: str = "grid",
    max_bytes: int = 2**28,
    seed: int = 0,
) -> Estimate:
    """Estimate I(X;Y) in nats from kernel densities: the mean over samples of log p(x, y) / (p(x) p(y)).

    Each density is a sum of normal kernels around all *other* samples ("leave-one-out"), with one bandwidth h: the
    kernel of the joint density has the covariance h^2 S, S that of the data, and those of the marginals its diagonal
    entries, so the marginals belong to the joint density. Smoothing then leaves the correlation of normal variables
    as it is, which a round kernel would lower (Ahmad and Lin, 1976, for the estimate; Scott, 1992, for S).

    Good where densities are smooth. One bandwidth cannot serve clusters: whatever is finer than h is blurred, and the
    estimate too low.

    Args:
        x: (n,) or (slices, n) numbers, tensor or array.
        y: the same shape as x.
        bandwidth: h > 0 in standard deviations; None for n^(-1/6), the rule of Scott for two dimensions.
        scale: "scores" replaces values by normal quantiles of their ranks, which leaves mutual information as it is
            and keeps outliers within reach of the kernels; "values" takes them as they are.
        evaluation: "grid" (sums on a grid of four steps per bandwidth, linear in n) or "exact" (all pairs).
        max_bytes: memory that one chunk may take.
        seed: taken as by every estimator, though nothing is drawn here.

    Returns:
        An `Estimate`; values float64 on whatever input, computed on x's device.

    Raises:
        InputError: shapes that differ, fewer than 4 samples, NaN or infinity, a constant slice, a bandwidth that is
            not above 0, an unknown scale or evaluation; x and y on one line, whose mutual information is infinite.

    Warns:
        DataWarning: 0.1 % of the points or more are out of reach of all others and pull the estimate down; ties.

    Example:
        >>> from miue.mi import mi_kde, tasks
        >>> task = tasks.bivariate_normal(0.9)
        >>> round(task.truth, 2), round(mi_kde(*task.sample(5000)).value, 1)
        (0.83, 0.8)
    """
    max_bytes = whole("max_bytes", max_bytes, 1)
    if bandwidth is not None:
        bandwidth = real("bandwidth", bandwidth, 0, " above 0, in standard deviations")
    choose("scale", scale, SCALES)
    choose("evaluation", evaluation, ["grid", "exact"])

    x, y = prepared("kde", x, y, n_min=4, seed=seed, scale=scale)
    n = x.shape[1]
    h = bandwidth or n ** (-1 / 6)
    at_once = max(1, max_bytes // (8 * 32 * n))
    terms = [
        _local_terms(part_x, part_y, h, scale, evaluation, max_bytes)
        for part_x, part_y in zip(x.split(at_once), y.split(at_once), strict=True)
    ]
    settings = {"bandwidth": h, "scale": scale, "evaluation": evaluation}
    return of_terms("kde", torch.cat(terms).cpu().numpy(), settings)


def _local_terms(x: Tensor, y: Tensor, h: float, scale: str, evaluation: str, max_bytes: int) -> Tensor:
    """Return (slices, n) log density ratios at the samples of rows (slices, n)."""
    x, y = (scores(v) if scale == "scores" else v - v.mean(dim=1, keepdim=True) for v in (x, y))
    x, y = (v / v.square().mean(dim=1, keepdim=True).sqrt() for v in (x, y))
    r = (x * y).mean(dim=1, keepdim=True)
    if (r.abs() > 1 - 1e-12).any():
        which = int((r[:, 0].abs() > 1 - 1e-12).nonzero()[0])
        raise InputError(
            f"x, y: slice {which} lies on one line (correlation {float(r[which]):.6f}), so the mutual information is "
            "infinite and kde says nothing; ksg shows its own limit there"
        )
    # The principal axes of two variables of unit variance are the diagonals; along them the kernel is round.
    principal = [(x + y) / (2 * (1 + r)).sqrt(), (x - y) / (2 * (1 - r)).sqrt()]
    density = _on_grid if evaluation == "grid" else _of_all_pairs
    joint = density(principal, h, max_bytes) - 0.5 * torch.log1p(-r.square())
    return joint - density([x], h, max_bytes) - density([y], h, max_bytes)


def _on_grid(axes: list[Tensor], h: float, max_bytes: int) -> Tensor:
    """Log leave-one-out densities (slices, n) at the points whose coordinates (slices, n) are `axes`, one or two.

    Each point is shared out among the corners of its cell, the grid is smoothed along each axis, and the density at a
    point is read off the same corners; what a point contributes to itself on this way is known and subtracted.
    """
    slices, n = axes[0].shape
    step = h / STEPS_PER_BANDWIDTH
    cells, weights, kernels, own = [], [], [], torch.ones((), dtype=torch.float64, device=axes[0].device)
    for axis in axes:
        place = axis / step
        first = int(place.min().floor())
        size = int(place.max().floor()) - first + 2
        if 8 * size**2 > max_bytes:
            raise InputError(
                f"bandwidth: a grid of step {step:.2g} over {size * step:.0f} standard deviations takes more than "
                f'max_bytes, {max_bytes:,}; choose a larger one, scale="scores" or evaluation="exact"'
            )
        cell = place.floor().long()
        fraction = place - cell
        cells.append(cell - first)
        weights.append(torch.stack([1 - fraction, fraction]))
        line = torch.arange(size, dtype=torch.float64, device=axis.device) * step
        kernel = torch.exp(-0.5 * ((line[:, None] - line) / h).square())
        kernels.append(kernel)
        own = own * (weights[-1].square().sum(0) + 2 * weights[-1].prod(0) * kernel[0, 1])
    total = torch.empty_like(axes[0])
    at_once = max(1, max_bytes // (3 * 8 * math.prod(len(kernel) for kernel in kernels)))
    for s in range(0, slices, at_once):
        part = slice(s, s + at_once)
        total[part] = _smoothed([c[part] for c in cells], [w[:, part] for w in weights], kernels)
    others = total - own
    far = others < math.exp(-(REACH**2) / 2)
    if (share := float(far.double().mean())) > FAR_WORTH_A_WARNING:
        warn(f"{share:.1%} of the points lie over {REACH:g} bandwidths from all others and pull kde down")
    others = others.masked_fill(far, 1.0)
    log_density = others.log() - math.log(n - 1) - len(axes) * math.log(math.sqrt(2 * math.pi) * h)
    for s in far.any(dim=1).nonzero()[:, 0].cpu().tolist():
        log_density[s, far[s]] = _of_all_pairs([axis[s : s + 1] for axis in axes], h, max_bytes, far[s])[0]
    return log_density


def _smoothed(cells: list[Tensor], weights: list[Tensor], kernels: list[Tensor]) -> Tensor:
    """Return the kernel sums (slices, n) of points shared out on a grid, read off at the points themselves."""
    slices = len(cells[0])
    sizes = [len(kernel) for kernel in kernels]
    offset = torch.arange(slices, device=cells[0].device)[:, None] * math.prod(sizes)
    corners: list[tuple[Tensor, Tensor]] = [(offset, torch.ones((), dtype=torch.float64, device=offset.device))]
    for axis, (cell, weight) in enumerate(zip(cells, weights, strict=True)):
        stride = math.prod(sizes[axis + 1 :])
        corners = [(at + (cell + up) * stride, w * weight[up]) for at, w in corners for up in (0, 1)]
    grid = torch.zeros(slices * math.prod(sizes), dtype=torch.float64, device=offset.device)
    for at, weight in corners:
        grid.index_add_(0, at.flatten(), weight.expand_as(at).flatten())
    grid = grid.reshape(slices, *sizes)
    grid = grid @ kernels[-1]
    if len(kernels) == 2:
        grid = kernels[0] @ grid
    flat = grid.flatten()
    return sum((flat[at] * weight for at, weight in corners), torch.zeros_like(weights[0][0]))


def _of_all_pairs(axes: list[Tensor], h: float, max_bytes: int, which: Tensor | None = None) -> Tensor:
    """Log leave-one-out densities (slices, n) from all pairs, or at the points `which` (n,) bool of one slice."""
    slices, n = axes[0].shape
    points = torch.arange(n, device=axes[0].device) if which is None else which.nonzero()[:, 0]
    block = max(1, max_bytes // (3 * 8 * n))
    rows = []
    for s in range(slices):
        parts = []
        for index in points.split(block):
            squared = torch.stack([((a[s, index, None] - a[s]) / h).square() for a in axes]).sum(dim=0)
            squared[torch.arange(len(index), device=index.device), index] = torch.inf
            parts.append(torch.logsumexp(-0.5 * squared, dim=1))
        rows.append(torch.cat(parts))
    return torch.stack(rows) - math.log(n - 1) - len(axes) * math.log(math.sqrt(2 * math.pi) * h)
