"""Distributions whose mutual information is known: each function returns a `Task`, which draws samples and carries the
true value, in closed form or as a large Monte Carlo mean with its standard error. `miue.mi.acceptance` holds estimators
against them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator, default_rng
from scipy.special import digamma, gammaln, logsumexp
from scipy.stats import special_ortho_group

from miue import seeds
from miue.data.arrays import whole
from miue.errors import InputError

__all__ = [
    "Task",
    "additive_uniform",
    "bivariate_normal",
    "gaussian_mixture",
    "mixture_classes",
    "monotone",
    "multivariate_normal",
    "rotated",
    "sliced_mixture",
    "sliced_normal",
    "student_t",
]

MONTE_CARLO = 400_000  # samples behind a truth without a closed form
Draw = Callable[[int, Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Task:
    """A distribution of (X, Y) and its mutual information.

    Attributes:
        name: for tables.
        kind: "numbers", X and Y (n,); "vectors", (n, d) both; "slices", (n, d) both and the truth is the *sliced*
            mutual information; "classes", X (n,) and Y (n,) integer labels.
        truth: in nats.
        draw: samples, given n and a NumPy generator.
        truth_stderr: standard error of `truth`; 0 for a closed form.
        correlation: `|r|` of a pair of normal variables, or of a monotone map of one; None for all else.

    Example:
        >>> from miue.mi import tasks
        >>> task = tasks.bivariate_normal(0.9)
        >>> x, y = task.sample(1000, seed=0)
        >>> x.shape, round(task.truth, 4)
        ((1000,), 0.8304)
    """

    name: str
    kind: str
    truth: float
    draw: Draw
    truth_stderr: float = 0.0
    correlation: float | None = None

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Draw n samples of (X, Y), float64 (labels: int64), in the shapes of `kind`."""
        return self.draw(whole("n", n, 1), default_rng(seeds.checked(seed)))


def bivariate_normal(r: float) -> Task:
    """Two normal variables of correlation r, `|r|` < 1: I = -1/2 log(1 - r^2)."""
    _below_one("r", r)
    return Task(f"normal, r = {r:g}", "numbers", -0.5 * math.log1p(-r * r), _normal_pairs(r), correlation=abs(r))


def multivariate_normal(d: int, mi: float) -> Task:
    """Two normal vectors of d entries each, in d independent pairs of one correlation, with I = `mi` >= 0 in total."""
    d = whole("d", d, 1)
    if not 0 <= mi < math.inf:
        raise InputError(f"mi: {mi}; choose a finite number, 0 or above")
    r = math.sqrt(-math.expm1(-2 * mi / d))
    return Task(f"normal, d = {d}, I = {mi:g}", "vectors", mi, _normal_pairs(r, d))


def additive_uniform(eps: float) -> Task:
    """X uniform on [0, 1], Y = X + noise uniform on [-eps, eps]: I = eps - log 2 eps for eps <= 1/2, else 1/(4 eps)."""
    if not eps > 0:
        raise InputError(f"eps: {eps}; choose a width above 0")

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.uniform(size=n)
        return x, x + rng.uniform(-eps, eps, size=n)

    truth = eps - math.log(2 * eps) if eps <= 0.5 else 1 / (4 * eps)
    return Task(f"uniform, eps = {eps:g}", "numbers", truth, draw)


def student_t(dof: float, r: float) -> Task:
    """Two variables of a joint Student t distribution, heavy-tailed, and dependent even for r = 0.

    From the entropies of t distributions in one and in two dimensions (Arellano-Valle et al., 2013).

    Args:
        dof: degrees of freedom, above 0.
        r: correlation of the normal pair that is divided by a common chi, `|r|` < 1.
    """
    _below_one("r", r)
    if not dof > 0:
        raise InputError(f"dof: {dof}; choose degrees of freedom above 0")

    def entropy(d: int) -> float:
        half = (dof + d) / 2
        spread = gammaln(dof / 2) - gammaln(half) + d / 2 * math.log(dof * math.pi)
        return spread + half * (digamma(half) - digamma(dof / 2))

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        x, y = _normal_pairs(r)(n, rng)
        chi = np.sqrt(dof / rng.chisquare(dof, n))
        return x * chi, y * chi

    truth = float(2 * entropy(1) - entropy(2)) - 0.5 * math.log1p(-r * r)
    return Task(f"Student t, {dof:g} d.o.f., r = {r:g}", "numbers", truth, draw)


def gaussian_mixture(spread: float, classes: int = 10, seed: int = 0) -> Task:
    """Clusters: X and Y have a common class, and given it they are independent and normal.

    The centres are drawn once from the standard normal distribution. I tends to log `classes` as the clusters tighten.

    Args:
        spread: standard deviation within a class, above 0.
        classes: of equal probability, 2 or more.
        seed: of the centres.
    """
    _clusters(spread, classes, seed)
    centres = default_rng(seed).standard_normal((2, classes))
    draw = _clusters_around(centres, spread)
    x, y = draw(MONTE_CARLO, default_rng([seed, 1]))
    log_ratio = _mixture_log_ratio(x, y, centres[0], centres[1], spread)
    return _monte_carlo(f"{classes} clusters, s.d. {spread:g}", "numbers", log_ratio, draw)


def mixture_classes(spread: float, classes: int = 10, seed: int = 0) -> Task:
    """The class of a cluster: X as in `gaussian_mixture`, Y the label itself; at most log `classes`."""
    _clusters(spread, classes, seed)
    centres = default_rng(seed).standard_normal(classes)

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        label = rng.integers(classes, size=n)
        return centres[label] + spread * rng.standard_normal(n), label

    x, label = draw(MONTE_CARLO, default_rng([seed, 1]))
    log_ratio = -0.5 * ((x - centres[label]) / spread) ** 2 - _log_mixture(x, centres, spread)
    return _monte_carlo(f"class of {classes} clusters, s.d. {spread:g}", "classes", log_ratio, draw)


def monotone(task: Task) -> Task:
    """The same pair of numbers, X stretched by exp(x / 2) and Y squashed and turned by -arctan(y); I is the same."""
    _of_kind(task, "numbers")

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        x, y = task.draw(n, rng)
        return np.exp(x / 2), -np.arctan(y)

    return replace(task, name=f"monotone map of {task.name}", draw=draw)


def rotated(task: Task, seed: int = 0) -> Task:
    """The same vectors, X and Y each turned by a random rotation; I is the same."""
    _of_kind(task, "vectors")
    seed = seeds.checked(seed)

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        x, y = task.draw(n, rng)
        turns = (special_ortho_group.rvs(v.shape[1], random_state=seed + i) for i, v in enumerate((x, y)))
        x, y = (v @ np.atleast_2d(turn) for v, turn in zip((x, y), turns, strict=True))
        return x, y

    return replace(task, name=f"rotation of {task.name}", draw=draw)


def sliced_normal(d: int, r: float) -> Task:
    """Isotropic normal vectors of d >= 2 entries with cross-covariance r I: the sliced mutual information is a series.

    SMI = 1/2 sum_{m >= 1} (r^{2m} / m) (1/2)_m / (d/2)_m with rising factorials, the mean of -1/2 log(1 - rho^2) over
    rho^2 = r^2 B, B of the Beta(1/2, (d - 1)/2) law of the squared cosine of two random directions.
    """
    d = whole("d", d, 2)
    if not abs(r) <= 1:
        raise InputError(f"r: {r}; choose a correlation from -1 to 1")
    m = np.arange(1, 100_000)
    log_term = 2 * m * math.log(max(abs(r), 1e-300)) - np.log(m)
    log_term += gammaln(m + 0.5) - gammaln(0.5) - gammaln(m + d / 2) + gammaln(d / 2)
    truth = 0.5 * float(np.exp(log_term).sum()) if abs(r) < 1 else 0.5 * float(digamma(d / 2) - digamma((d - 1) / 2))
    return Task(f"slices of normal, d = {d}, r = {r:g}", "slices", truth, _normal_pairs(r, d))


def sliced_mixture(d: int, spread: float, classes: int = 10, seed: int = 0) -> Task:
    """Clusters in d dimensions: X and Y have a common class and are independent given it; the truth is sliced.

    By Monte Carlo over 1,000 pairs of directions, with 2,000 samples for each; centres as in `gaussian_mixture`.
    Measure with `standardise=False`: columns of centres differ in their spread.
    """
    _clusters(spread, classes, seed)
    d = whole("d", d, 1)
    centres = default_rng(seed).standard_normal((2, classes, d))
    rng = default_rng([seed, 1])
    values = []
    for _ in range(1000):
        direction = rng.standard_normal((2, d))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        c_x, c_y = (c @ v for c, v in zip(centres, direction, strict=True))
        label = rng.integers(classes, size=2000)
        noise = spread * rng.standard_normal((2, 2000))
        values.append(_mixture_log_ratio(c_x[label] + noise[0], c_y[label] + noise[1], c_x, c_y, spread).mean())
    name = f"slices of {classes} clusters, d = {d}, s.d. {spread:g}"
    return _monte_carlo(name, "slices", np.array(values), _clusters_around(centres, spread))


def _normal_pairs(r: float, *shape: int) -> Draw:
    """Draws X and Y, (n, *shape), whose entries are pairs of normal numbers of correlation r."""

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        x, noise = rng.standard_normal((2, n, *shape))
        return x, r * x + math.sqrt(1 - r * r) * noise

    return draw


def _clusters_around(centres: np.ndarray, spread: float) -> Draw:
    """Draws X and Y of a common class from `centres`, (2, classes) or (2, classes, d), each with noise of its own."""

    def draw(n: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        own = centres[:, rng.integers(centres.shape[1], size=n)]
        x, y = own + spread * rng.standard_normal(own.shape)
        return x, y

    return draw


def _monte_carlo(name: str, kind: str, values: np.ndarray, draw: Draw) -> Task:
    """A task whose truth is the mean of independent `values`."""
    return Task(name, kind, float(values.mean()), draw, float(values.std(ddof=1) / math.sqrt(len(values))))


def _log_mixture(x: np.ndarray, centres: np.ndarray, spread: float) -> np.ndarray:
    """Log density of x (n,) without the constant of the normal density."""
    return logsumexp(-0.5 * ((x[:, None] - centres) / spread) ** 2, axis=1) - math.log(len(centres))


def _mixture_log_ratio(x: np.ndarray, y: np.ndarray, c_x: np.ndarray, c_y: np.ndarray, spread: float) -> np.ndarray:
    """Log p(x, y) / p(x) p(y), (n,), of two variables that are independent given a common class."""
    squared = ((x[:, None] - c_x) / spread) ** 2 + ((y[:, None] - c_y) / spread) ** 2
    joint = logsumexp(-0.5 * squared, axis=1) - math.log(len(c_x))
    return joint - _log_mixture(x, c_x, spread) - _log_mixture(y, c_y, spread)


def _below_one(name: str, r: float) -> None:
    if not abs(r) < 1:
        raise InputError(f"{name}: {r}; choose a correlation between -1 and 1")


def _clusters(spread: float, classes: int, seed: int) -> None:
    whole("classes", classes, 2), seeds.checked(seed)
    if not 0 < spread < math.inf:
        raise InputError(f"spread: {spread}; choose a finite standard deviation above 0")


def _of_kind(task: Task, kind: str) -> None:
    if task.kind != kind:
        raise InputError(f"task: {task.name} is a task of {task.kind}; this needs one of {kind}")
