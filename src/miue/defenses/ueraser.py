"""UEraser: augmentations that leave the perturbation's budget, the worst of several.

Qin, Gao, Zhao, Ye & Xu, "Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable Example Attacks",
2023. Every image is brightened and contrasted by plasma fractals, its channels are shuffled half of the time, and
TrivialAugment adds one more operation. In the first phase of the training this is drawn K = 5 times, and each image
is trained on in the version with the highest loss; then K = 1. The `lite` variant has K = 1 throughout: `draws=1`.

Cost: a draw of 128 images of 32x32 takes about 0.1 s on one core, more than training small_resnet on them, and the
first phase adds five forward passes to each training step.
"""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import torch
from torch import Tensor

from miue import seeds
from miue.defenses.base import Defense
from miue.errors import Range, Unit
from miue.training.loop import BatchContext

ROUGHNESS, INTENSITY = (0.3, 0.7), (0.5, 1.0)  # published


@cache
def _policy(device: torch.device) -> Any:
    """The published augmentations; fractals are drawn on `device`, where they are used."""
    from kornia import augmentation  # seconds to import

    plasma = (
        augmentation.RandomPlasmaBrightness(ROUGHNESS, INTENSITY, p=1.0),
        augmentation.RandomPlasmaContrast(ROUGHNESS, p=1.0),
    )
    for transform in plasma:
        transform.set_rng_device_and_dtype(device, torch.float32)
    return torch.nn.Sequential(*plasma, augmentation.RandomChannelShuffle(p=0.5), augmentation.auto.TrivialAugment())


@dataclass(frozen=True)
class UEraser(Defense):
    """Trains on augmented images, in the first phase on the worst of several draws for each.

    Args:
        draws: K of the first phase; 1 is the `lite` variant.
        first_phase: share of the training that it lasts, in [0, 1]; half of it is our choice.
    """

    draws: Annotated[int, Range(1, 100)] = 5
    first_phase: Unit = 0.5

    @torch.no_grad()
    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Augment the batch; with several draws, take for each image the one that the network finds hardest."""
        images, policy = x.float() / 255, _policy(x.device)
        draws = self.draws if context.done < self.first_phase else 1
        with seeds.globally(context.generator, x.device):
            drawn = torch.stack([policy(images) for _ in range(draws)])
        if draws == 1:
            return drawn[0], y
        worst = torch.stack([context.losses(candidate, y) for candidate in drawn]).argmax(0)
        return drawn[worst, torch.arange(len(y), device=x.device)], y
