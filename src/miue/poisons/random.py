"""Random noise: the control that must do nothing."""

from dataclasses import dataclass

import torch

from miue.errors import choose
from miue.images import Images
from miue.pgd import Budget
from miue.poisons.base import Made


@dataclass(frozen=True)
class Random:
    """Options of random noise.

    Args:
        kind: "uniform" over the whole levels of the budget, or "sign": plus or minus the whole budget.
    """

    kind: str = "uniform"

    def __post_init__(self) -> None:
        choose("kind", self.kind, ("uniform", "sign"))

    @property
    def passes(self) -> float:
        """Forward-and-backward passes over the data: none."""
        return 0


PRESETS = {name: Random() for name in ("quick", "laptop", "paper")}


def random(images: Images, model: str, budget: Budget, options: Random, seed: int) -> Made:
    """Draw noise for every pixel independently; no source network takes part."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(images), *images.shape)
    if options.kind == "uniform":
        levels = torch.randint(-budget.levels, budget.levels + 1, shape, generator=generator, dtype=torch.int8)
    else:
        levels = budget.levels * (2 * torch.randint(2, shape, generator=generator, dtype=torch.int8) - 1)
    return Made(levels.to(images.device), {})
