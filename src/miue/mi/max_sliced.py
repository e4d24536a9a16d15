"""Max-sliced mutual information: measured along the directions, or in the subspaces, that share most."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miue import seeds
from miue.data.arrays import whole
from miue.errors import InputError, choose
from miue.mi.critic import Critic
from miue.mi.estimate import Estimate, Rows
from miue.mi.projections import live_columns
from miue.mi.sliced import ESTIMATORS, JOINT
from miue.mi.training import N_MIN, Curves, Fitted, Neural, joined, over_rows

SHORT = 0.1  # of a starting frame: only its direction counts, and the optimiser's steps turn a short one faster


@dataclass(frozen=True)
class MaxSliced:
    """A max-sliced mutual information, and the directions that it was measured along.

    Attributes:
        mi: the measured value, on samples that had no part in finding the directions.
        theta: (k_dim, d) orthonormal rows over the live columns of x, as `standardise` has left them.
        phi: (k_dim, d') the same for y.
        searched: (restarts,) nats, what the critic of each restart sees, on searching samples held out of its training.
        curves: of the search.
    """

    mi: Estimate
    theta: np.ndarray = field(repr=False, compare=False)
    phi: np.ndarray = field(repr=False, compare=False)
    searched: np.ndarray = field(repr=False, compare=False)
    curves: Curves = field(repr=False, compare=False)


def max_sliced_mi(
    x: Rows,
    y: Rows,
    estimator: str = "ksg",
    *,
    k_dim: int = 1,
    restarts: int = 8,
    steps: int = 300,
    objective: str = "mine",
    seed: int = 0,
    standardise: bool = True,
    **options: Any,
) -> MaxSliced:
    """Estimate the max-sliced mutual information of two sets of feature vectors, in nats.

        max I(theta'X; phi'Y)   over unit vectors theta and phi; for k_dim > 1 over orthonormal frames

    (Tsur, Goldfeld and Greenewald, NeurIPS 2023). A lower bound of I(X;Y), never below the sliced one, and unlike
    that one the same for all invertible linear maps of the features. The directions are found on one half of the
    samples, by gradient ascent together with a neural critic, from several random starts at once; the start that
    ends best is chosen there too. The value is measured on the *other* half, by `estimator`: directions fitted to
    noise share nothing on samples that they have not seen. The search may miss the maximum, so the value is at most
    it, up to the error of `estimator`.

    Args:
        x: (n, d) features, tensor or array; the work is done where it lies.
        y: (n, d') features of the same samples in the same order.
        estimator: a name in `miue.mi.ESTIMATORS`, for k_dim > 1 in `miue.mi.JOINT`; it measures n / 2 samples.
        k_dim: dimension of the projections.
        restarts: random starts; 10 MB and about a second of one core each.
        steps: of the ascent.
        objective: of the critic that leads the search, as in `mi_neural`.
        seed: of the halves, the starts, the critics, and what the estimator draws.
        standardise: scale each column to mean 0 and standard deviation 1 first; `theta` and `phi` are for these. The
            maximum is the same without. For the search alone, columns are whitened as well.
        **options: passed to the estimator.

    Returns:
        A `MaxSliced` record; `settings` of its `mi` count dead columns as `sliced_mi` does.

    Raises:
        InputError: as `sliced_mi`; fewer than 200 samples; no restart; an unknown objective.
        FloatingPointError: the search diverged.

    Example:
        >>> import torch
        >>> from miue.mi import max_sliced_mi
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> found = max_sliced_mi(x, x[:, :1], restarts=2, steps=20)
        >>> found.theta.shape, found.mi.n
        ((1, 3), 200)
    """
    steps = whole("steps", steps, 1)
    restarts, k_dim = whole("restarts", restarts, 1, " (8 is usual)"), whole("k_dim", k_dim, 1)
    seed = seeds.checked(seed)
    known = JOINT if k_dim > 1 else ESTIMATORS
    measured = known[choose("estimator", estimator, known)]
    search = Neural(objective=objective, steps=steps, train=0.75)
    x, dead_x = live_columns("x", x, standardise)
    y, dead_y = live_columns("y", y, standardise)
    y = y.to(x.device)
    if len(x) != len(y):
        raise InputError(f"x, y: {len(x)} and {len(y)} rows; pass features of the same samples")
    if len(x) < 2 * N_MIN:
        raise InputError(f"x: {len(x)} samples are too few; a search on half of them needs at least {2 * N_MIN}")
    if k_dim > min(x.shape[1], y.shape[1]):
        raise InputError(f"k_dim: {k_dim}; choose 1 to the number of live columns, {min(x.shape[1], y.shape[1])}")

    generator = seeds.stream(seed, "directions")
    half = len(x) // 2
    order = torch.randperm(len(x), generator=generator).to(x.device)
    searching, measuring = order[:half], order[half:]
    whiten_x, whiten_y = _whitening(x[searching]), _whitening(y[searching])
    white_x, white_y = x[searching] @ whiten_x, y[searching] @ whiten_y
    shared_x, shared_y = white_x[None].float(), white_y[None].float()
    parts = search.split(half, generator)
    starts = [SHORT * torch.randn(restarts, v.shape[1], k_dim, generator=generator) for v in (x, y)]
    drawn = generator.get_state()

    def climb(rows: slice) -> tuple[Fitted, tuple[Tensor, Tensor]]:
        own = torch.Generator()
        own.set_state(drawn)
        critic = _FramedCritic([start[rows] for start in starts], (white_x, white_y), search, own)
        return search.train_and_report(critic, shared_x, shared_y, parts, own, 2**28), critic.frames()

    climbs = over_rows(climb, restarts, restarts, x.device)
    searched = joined([fitted for fitted, _ in climbs])
    best = int(searched.values.argmax())
    theta, phi = (
        torch.linalg.qr(whiten @ torch.cat(frames)[best].detach().double()).Q
        for whiten, frames in zip((whiten_x, whiten_y), zip(*(f for _, f in climbs), strict=True), strict=True)
    )
    along_x, along_y = x[measuring] @ theta, y[measuring] @ phi
    if k_dim == 1:
        along_x, along_y = along_x[:, 0], along_y[:, 0]
    estimate = measured(along_x, along_y, seed=seed, **options)
    settings = estimate.settings | {
        "k_dim": k_dim,
        "restarts": restarts,
        "steps": steps,
        "objective": objective,
        "standardise": standardise,
        "seed": seed,
        "d_x": x.shape[1] + dead_x,
        "d_y": y.shape[1] + dead_y,
        "dead_x": dead_x,
        "dead_y": dead_y,
    }
    return MaxSliced(
        mi=replace(estimate, settings=settings),
        theta=theta.T.cpu().numpy(),
        phi=phi.T.cpu().numpy(),
        searched=searched.values,
        curves=searched.curves,
    )


def _whitening(columns: Tensor) -> Tensor:
    """Return the symmetric map (d, d) to columns without correlation, of the covariance shrunk by Ledoit and Wolf.

    Any direction before the map is one after it, so the maximum stays; the ascent is far less easily stuck.
    """
    from sklearn.covariance import ledoit_wolf  # a second to import, and only needed here

    covariance = torch.from_numpy(ledoit_wolf(columns.cpu().numpy())[0]).to(columns.device)
    values, vectors = torch.linalg.eigh(covariance)
    return vectors / values.clamp(min=values[-1] * 1e-12).sqrt() @ vectors.T


class _FramedCritic(Critic):
    """Critics of projections, the frames of which are trained along; each row has its own start.

    x and y come as (1, n, d), the same for all rows. Projections are divided by their standard deviation over the
    searching half, which changes no mutual information but keeps the critic's inputs at one scale.
    """

    def __init__(self, starts: list[Tensor], sides: tuple[Tensor, Tensor], search: Neural, generator: torch.Generator):
        rows, _, k_dim = starts[0].shape
        super().__init__(rows, k_dim, k_dim, search.hidden, search.layers, generator, sides[0].device)
        self.covariances = [side.T.cov().reshape(side.shape[1], -1).float() for side in sides]
        self.free = [start.to(side.device).requires_grad_() for start, side in zip(starts, sides, strict=True)]
        self.parameters += self.free

    def frames(self) -> tuple[Tensor, Tensor]:
        """Orthonormal columns (rows, d, k_dim) for x and for y."""
        theta, phi = (torch.linalg.qr(free).Q for free in self.free)
        return theta, phi

    def _first_layer(self, x: Tensor, y: Tensor, group: int) -> tuple[Tensor, Tensor]:
        theta, phi = self.frames()
        return super()._first_layer(self._project(x, theta, 0), self._project(y, phi, 1), group)

    def _project(self, points: Tensor, frame: Tensor, side: int) -> Tensor:
        variance = (frame * (self.covariances[side] @ frame)).sum(dim=1, keepdim=True)
        return points @ (frame / variance.sqrt())
