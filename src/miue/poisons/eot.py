"""What makes a perturbation outlast augmentation and adversarial training; parts of REM, SEM and variants of MI-UE.

Expectation over transformation: Athalye, Engstrom, Ilyas & Kwok, "Synthesizing Robust Adversarial Examples",
ICML 2018. Adversarial training: Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from miue.data.images import Images
from miue.errors import Options, Unit, Whole
from miue.pgd import attack
from miue.poisons.passes import Loss
from miue.training.augment import flip_crop
from miue.training.loop import BatchContext

Inner = Callable[[Loss, Tensor, Tensor], Tensor]  # of a loss, images and labels: the images, attacked


@dataclass(frozen=True)
class Attack(Options):
    """An attack on the images of a batch, within a radius and from a uniform random start.

    As a `train.Defense` it trains the surrogate adversarially.

    Args:
        radius: L-infinity distance, as a fraction of the pixel range.
        steps: sign-gradient steps of 2 radius / steps (for 10 steps of 4/255 the published 0.8/255); with none, only
            the random start is left.
    """

    radius: Unit
    steps: Whole

    def against(self, loss: Loss, images: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """Return images, (B, C, H, W) float in [0, 1], detached, whose loss is high; `noise` is on their device."""
        step = 2 * self.radius / max(self.steps, 1)
        return attack(
            lambda moved: loss(moved, y), images, radius=self.radius, step=step, steps=self.steps, generator=noise
        )

    def prepare(self, images: Images, seed: int) -> Images:
        """Leave the images as they are."""
        return images

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Attack the network that is being trained."""

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return context.scale * context.losses(images, labels).sum()

        return self.against(loss, x.float() / 255, y, context.noise), y


def expect(loss: Loss, draws: int, generator: torch.Generator, inner: Inner | None = None) -> Loss:
    """Average a loss over random flips and crops of its images, each attacked if so asked.

    Args:
        loss: of images and labels.
        draws: number of flips and crops; the crop pads by an eighth of the size, 4 pixels at 32.
        generator: of the draws, on the CPU.
        inner: how each of them is attacked, like `Attack.against`. The attack counts as a constant: gradients pass as
            if it were added.

    Returns:
        A loss that is differentiable in its images.
    """

    def expected(images: Tensor, labels: Tensor) -> Tensor:
        total = images.new_zeros(())
        for _ in range(draws):
            drawn = flip_crop(images, padding=images.shape[-1] // 8, flip=True, generator=generator)
            if inner is not None:
                drawn = drawn + (inner(loss, drawn, labels) - drawn).detach()
            total = total + loss(drawn, labels)
        return total / draws

    return expected
