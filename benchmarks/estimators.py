"""Cost against error of all estimators, where the truth is known, by the number of samples and of slices.

    python benchmarks/estimators.py

Rows go to book/results/records/estimators.jsonl: seconds, and what four repeats were off by.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measured import Measured

from miue.mi import ESTIMATORS, Estimate, max_sliced_mi, mi_ross, shared_critic_mi, sliced_mi, tasks

ROWS = Path("book/results/records/estimators.jsonl")
REPEATS = 4
NEURAL = ("mine", "infonce", "smile")
PLAIN = ("histogram", "kde", "ksg")
SAMPLES, SLICES = (250, 1000, 4000, 16_000), (8, 64, 512)
DIMENSIONS, CORRELATION, SPREAD = 10, 0.9, 0.3
BEST_SLICE = -0.5 * float(np.log1p(-(CORRELATION**2)))

Measure = Callable[..., Estimate]  # of x, y and a seed


def best_slice(x: Any, y: Any, seed: int) -> Estimate:
    """The value along the best pair of directions that four starts find."""
    return max_sliced_mi(x, y, restarts=4, seed=seed).mi


def plain_ross(x: Any, y: Any, seed: int) -> Estimate:
    """Ross' estimate, which draws nothing."""
    return mi_ross(x, y)


def wanted() -> Iterator[tuple[str, tasks.Task, float, str, Measure, int, int]]:
    """Kind, distribution, truth, estimator, what measures, samples and slices."""
    normal, classes = tasks.bivariate_normal(CORRELATION), tasks.mixture_classes(SPREAD)
    for n in SAMPLES:
        for name in (*PLAIN, *NEURAL):
            yield "numbers", normal, normal.truth, name, ESTIMATORS[name], n, 1
        yield "classes", classes, classes.truth, "ross", plain_ross, n, 1
    sliced = {"vectors": tasks.sliced_normal(DIMENSIONS, CORRELATION), "clusters": tasks.sliced_mixture(64, SPREAD)}
    for kind, task in sliced.items():
        for n in SAMPLES[1:3]:
            for slices in SLICES:
                for name in PLAIN + (("mine",) if slices == SLICES[0] else ()):
                    measure = partial(sliced_mi, estimator=name, n_slices=slices, standardise=False)
                    yield kind, task, task.truth, name, measure, n, slices
            shared = partial(shared_critic_mi, n_slices=64, standardise=False)
            yield kind, task, task.truth, "shared critic", shared, n, 64
            if kind == "vectors":
                yield "best slice", task, BEST_SLICE, "max-sliced", best_slice, n, 1


def errors(task: tasks.Task, truth: float, measure: Measure, n: int) -> dict[str, Any]:
    """What four repeats were off by, and how long one took."""
    began = time.perf_counter()
    off = [measure(*task.sample(n, seed=repeat), seed=repeat).value - truth for repeat in range(REPEATS)]
    each = (time.perf_counter() - began) / REPEATS
    return {"truth": truth, "each_seconds": each, "error": float(np.sqrt(np.mean(np.square(off)))), "errors": off}


if __name__ == "__main__":
    rows = Measured(ROWS)
    for kind, task, truth, name, measure, n, slices in wanted():
        rows.measure(partial(errors, task, truth, measure, n), task=kind, estimator=name, n=n, slices=slices)
