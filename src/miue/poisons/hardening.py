"""What makes a perturbation outlast augmentation and adversarial training; parts of REM, SEM and variants of MI-UE.

Expectation over transformation: Athalye, Engstrom, Ilyas & Kwok, "Synthesizing Robust Adversarial Examples",
ICML 2018. Adversarial training: Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from miue.augment import flip_crop
from miue.errors import Options, Unit, Whole
from miue.images import Images
from miue.pgd import attack
from miue.poisons.base import Loss
from miue.train import Moment

Inner = Callable[[Loss, Tensor, Tensor], Tensor]  # of a loss, pictures and labels: the pictures, attacked


@dataclass(frozen=True)
class Attack(Options):
    """An attack on the pictures of a batch, within a radius and from a uniform random start.

    As a `train.Defense` it trains the source network adversarially.

    Args:
        radius: L-infinity distance, as a fraction of the pixel range.
        steps: sign-gradient steps of 2 radius / steps (for 10 steps of 4/255 the published 0.8/255); with none, only
            the random start is left.
    """

    radius: Unit
    steps: Whole

    def against(self, loss: Loss, pictures: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """Return pictures, (B, C, H, W) float in [0, 1], detached, whose loss is high; `noise` is on their device."""
        step = 2 * self.radius / max(self.steps, 1)
        return attack(
            lambda moved: loss(moved, y), pictures, radius=self.radius, step=step, steps=self.steps, generator=noise
        )

    def prepare(self, images: Images, seed: int) -> Images:
        """Leave the pictures as they are."""
        return images

    def batch(self, x: Tensor, y: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Attack the network that is being trained."""

        def loss(pictures: Tensor, labels: Tensor) -> Tensor:
            return moment.scale * moment.losses(pictures, labels).sum()

        return self.against(loss, x.float() / 255, y, moment.noise), y


def expect(loss: Loss, draws: int, generator: torch.Generator, inner: Inner | None = None) -> Loss:
    """Average a loss over random flips and crops of its pictures, each attacked if so asked.

    Args:
        loss: of pictures and labels.
        draws: number of flips and crops; the crop pads by an eighth of the size, 4 pixels at 32.
        generator: of the draws, on the CPU.
        inner: how each of them is attacked, like `Attack.against`. The attack counts as a constant: gradients pass as
            if it were added.

    Returns:
        A loss that is differentiable in its pictures.
    """

    def expected(pictures: Tensor, labels: Tensor) -> Tensor:
        total = pictures.new_zeros(())
        for _ in range(draws):
            drawn = flip_crop(pictures, padding=pictures.shape[-1] // 8, flip=True, generator=generator)
            if inner is not None:
                drawn = drawn + (inner(loss, drawn, labels) - drawn).detach()
            total = total + loss(drawn, labels)
        return total / draws

    return expected
