"""Random noise: the control that must do nothing."""

from dataclasses import dataclass
from typing import Annotated

import torch

from miue.poisons.base import Made, Options, Task, blank, uniform
from miue.poisons.passes import put


@dataclass(frozen=True)
class Random(Options):
    """Options of random noise.

    Args:
        kind: "uniform" over the whole levels of the budget, or "sign": plus or minus the whole budget.
    """

    kind: Annotated[str, ("uniform", "sign")] = "uniform"


PRESETS = {name: Random() for name in ("quick", "laptop", "paper")}


def random(task: Task) -> Made:
    """Draw noise for every pixel independently; no surrogate takes part."""
    options: Random = task.options
    images, budget = task.images, task.budget
    generator = task.stream("perturbation")
    if options.kind == "uniform":
        return Made(uniform(images, budget, generator), {})
    delta = blank(images)
    for index in images.chunks():
        signs = 2 * torch.randint(2, (len(index), *images.shape), generator=generator, dtype=torch.int8) - 1
        put(delta, index, budget.levels * signs)
    return Made(delta, {})
