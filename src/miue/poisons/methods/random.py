"""Random noise: the control that must do nothing."""

from dataclasses import dataclass

import torch

from miue.errors import Options, choose
from miue.poisons.base import Made, Task, blank, put, uniform


@dataclass(frozen=True)
class Random(Options):
    """Options of random noise.

    Args:
        kind: "uniform" over the whole levels of the budget, or "sign": plus or minus the whole budget.
    """

    kind: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("kind", self.kind, ("uniform", "sign"))

    @property
    def passes(self) -> float:
        """Forward-and-backward passes over the data: none."""
        return 0


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
