"""What makes a perturbation outlast augmentation and adversarial training; parts of REM, SEM and variants of MI-UE.

Expectation over transformation: Athalye, Engstrom, Ilyas & Kwok, "Synthesizing Robust Adversarial Examples",
ICML 2018. Adversarial training: Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from miue.defenses.adversarial import AdversarialTraining
from miue.pgd import attack
from miue.poisons.passes import Loss
from miue.training.augment import flip_crop

Inner = Callable[[Loss, Tensor, Tensor], Tensor]  # of a loss, images and labels: the images, attacked


def against(loss: Loss, images: Tensor, y: Tensor, noise: torch.Generator, *, radius: float, steps: int) -> Tensor:
    """Attack images within a radius, from a uniform random start.

    Args:
        loss: of images and labels.
        images: (B, C, H, W) float in [0, 1].
        y: (B,) int64.
        noise: of the start, on the images' device.
        radius: L-infinity distance, as a fraction of the pixel range.
        steps: sign-gradient steps of 2 radius / steps (for 10 steps of 4/255 the published 0.8/255); with none, only
            the random start is left.

    Returns:
        Images of the same shape in [0, 1], detached, whose loss is high.
    """
    step = 2 * radius / max(steps, 1)
    return attack(lambda moved: loss(moved, y), images, radius=radius, step=step, steps=steps, generator=noise)


def adversarial(radius: float, steps: int) -> AdversarialTraining:
    """Training under the attacks of `against`, of one step at least; none is longer than the pixel range."""
    return AdversarialTraining(epsilon=radius, steps=steps, step=min(1.0, 2 * radius / steps))


def expect(loss: Loss, draws: int, generator: torch.Generator, inner: Inner | None = None) -> Loss:
    """Average a loss over random flips and crops of its images, each attacked if so asked.

    Args:
        loss: of images and labels.
        draws: number of flips and crops; the crop pads by an eighth of the size, 4 pixels at 32.
        generator: of the draws, on the CPU.
        inner: how each of them is attacked, as by `against`. The attack counts as a constant: gradients pass as
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
