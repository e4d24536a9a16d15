"""The acceptance table: an estimator, of this package or anyone's, against distributions whose truth is known."""

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from miue import seeds
from miue.data.arrays import whole
from miue.errors import InputError, choose
from miue.mi import tasks
from miue.mi.critic import OBJECTIVES
from miue.mi.own import found_by
from miue.mi.sliced import DISCRETE, ESTIMATORS, JOINT, sliced_mi
from miue.mi.tasks import Task

__all__ = ["check", "standard_tasks"]

KNOWN = sorted({*ESTIMATORS, *JOINT, *DISCRETE})


@cache
def standard_tasks() -> tuple[Task, ...]:
    """The tasks of the table: numbers, vectors, a class, and slices; the Monte Carlo truths take a second or two."""
    normal = [tasks.bivariate_normal(r) for r in (0.0, 0.5, 0.9, 0.99)]
    numbers = [
        *normal,
        tasks.monotone(normal[2]),
        tasks.additive_uniform(0.1),
        tasks.additive_uniform(0.75),
        tasks.student_t(3, 0.5),
        *(tasks.gaussian_mixture(spread) for spread in (0.3, 0.1)),
    ]
    vectors = [tasks.multivariate_normal(2, 1.0), tasks.multivariate_normal(5, 1.0)]
    vectors += [tasks.rotated(vectors[1]), tasks.multivariate_normal(5, 2.0)]
    classes = [tasks.mixture_classes(0.3)]
    slices = [*(tasks.sliced_normal(d, 0.9) for d in (2, 10, 64)), tasks.sliced_mixture(64, 0.1)]
    return (*numbers, *vectors, *classes, *slices)


def limit(estimator: str, task: Task, stderr: float) -> float | None:
    """How far the estimate of `task` may be from the truth, at 5,000 samples; None where no limit is set.

    Limits are set for pairs of normal variables and monotone maps of them, for neural estimators up to 2 nats, and for
    the slices of normal vectors (three standard errors over slices and 0.003).
    """
    if task.kind == "slices" and task.truth_stderr == 0 and "slices" in _kinds(estimator):
        return 3 * stderr + 0.003
    if estimator in OBJECTIVES and task.kind in ("numbers", "vectors") and task.truth <= 2:
        return 0.1
    if task.correlation is not None:
        up_to_09 = {"ksg": 0.03, "histogram": 0.05, "kde": 0.06}
        above = {"ksg": 0.04}
        return (up_to_09 if task.correlation <= 0.9 else above).get(estimator)
    return None


def check(
    estimator: str | Callable[..., Any],
    given: Iterable[Task] | None = None,
    *,
    n: int = 5000,
    repeats: int = 8,
    n_slices: int = 512,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Hold an estimator against tasks whose truth is known.

    Args:
        estimator: a name of this package; or a function of two arrays, x and y of one task in the shapes of its kind,
            that returns a number in nats, an `Estimate`, or one number for each sample, of which the mean counts.
        given: the tasks; by default those of `standard_tasks` that the estimator can do (a function: numbers).
        n: samples of each repeat.
        repeats: independent draws, 2 or more; slices are drawn once and measured along `n_slices` directions.
        n_slices: pairs of directions for tasks of slices.
        seed: of everything random.
        **options: passed to the estimator.

    Returns:
        One row a task: its truth; the mean estimate and its standard error over repeats (slices: over directions),
        which includes that of the truth; the error, also in standard errors; the limit, if one is set, and whether the
        error is within it.

    Raises:
        InputError: an unknown estimator, fewer than two repeats, a task of a kind that the estimator cannot do.
    """
    name = choose("estimator", estimator, KNOWN) if isinstance(estimator, str) else ""
    n, seed = whole("n", n, 1), seeds.checked(seed)
    repeats, n_slices = whole("repeats", repeats, 2, " to show a spread"), whole("n_slices", n_slices, 1)
    if given is None:
        given = [task for task in standard_tasks() if task.kind in _kinds(name)]
    rows = []
    for task in given:
        if name and task.kind not in _kinds(name):
            raise InputError(f"task: {task.name} has {task.kind}, which {name} cannot do; it does {_kinds(name)}")
        values = _values(estimator, task, n, repeats, n_slices, seed, options)
        stderr = math.hypot(values.std(ddof=1) / math.sqrt(len(values)), task.truth_stderr)
        error = float(values.mean()) - task.truth
        most = limit(name, task, stderr)
        rows.append(
            {
                "task": task.name,
                "truth": task.truth,
                "estimate": float(values.mean()),
                "error": error,
                "standard error": stderr,
                "error in s.e.": error / stderr if stderr else math.nan,
                "limit": most,
                "within": None if most is None else abs(error) <= most,
            }
        )
    return pd.DataFrame(rows).set_index("task").astype({"within": object})


def _kinds(name: str) -> list[str]:
    """The kinds of tasks that an estimator can do; a function of the caller's can do what it can."""
    if name in DISCRETE:
        return ["classes"]
    able = {"numbers": not name or name in ESTIMATORS, "vectors": name in JOINT, "slices": name in ESTIMATORS}
    return [kind for kind, can in able.items() if can and not (kind == "slices" and name in OBJECTIVES)]


def _values(
    estimator: str | Callable[..., Any],
    task: Task,
    n: int,
    repeats: int,
    n_slices: int,
    seed: int,
    options: dict[str, Any],
) -> np.ndarray:
    """Estimates (repeats,), of slices (n_slices,)."""
    if isinstance(estimator, str) and task.kind == "slices":
        x, y = task.sample(n, seed)
        standardise = task.truth_stderr == 0  # the definition of the mixture's truth is without
        return sliced_mi(x, y, estimator, n_slices, seed, standardise=standardise, **options).per_slice
    draws = [task.sample(n, seed + 1 + repeat) for repeat in range(repeats)]
    if not isinstance(estimator, str) or estimator in DISCRETE:
        if isinstance(estimator, str):
            return np.array([DISCRETE[estimator](x, y, **options).value for x, y in draws])
        return np.array([found_by(estimator, x, y, **options).mean() for x, y in draws])
    function = (JOINT if task.kind == "vectors" else ESTIMATORS)[estimator]
    x, y = (np.stack(side) for side in zip(*draws, strict=True))
    return function(x, y, seed=seed, **options).per_slice
