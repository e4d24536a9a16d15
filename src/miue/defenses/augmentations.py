"""Stronger augmentation: cutout, CutMix, Mixup, Gaussian blur and Gaussian noise.

DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv 2017; Yun et al.,
"CutMix", ICCV 2019; Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Every comparison of
unlearnable examples trains with them, and most methods survive them. They cost next to nothing beside a training step.

Blur is the same in every epoch and is applied once, to the uint8 training images; the others are drawn afresh for
every batch, after flip and crop.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from miue import seeds
from miue.data.images import Images
from miue.defenses.base import Defense
from miue.defenses.pixels import rewrite
from miue.errors import Count, InputError, Positive, Range, Share
from miue.training.loop import BatchContext

GREY = 0.5  # what the networks' own normalisation maps to 0


@dataclass(frozen=True)
class Cutout(Defense):
    """One square hole in every image, its centre anywhere, so that it may hang over the edge; filled with grey.

    Args:
        hole: side of the hole in pixels, smaller than the image's; by default half the image's: 16 at 32 pixels,
            the published value (8 is published for CIFAR-100).
    """

    hole: Count | None = None

    def side(self, size: int) -> int:
        """The hole's side in images of `size` pixels.

        Raises:
            InputError: nothing of the image would be left.
        """
        hole = size // 2 if self.hole is None else self.hole
        if hole >= size:
            raise InputError(f"cutout option hole: {hole}; in images of {size} pixels it must be below {size}")
        return hole

    def prepare(self, images: Images, seed: int) -> Images:
        """Refuse images that are too small, before any training."""
        self.side(min(images.shape[1:]))
        return images

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Cut one hole out of each image."""
        hole = self.side(min(x.shape[2:]))

        def covered(length: int) -> Tensor:
            first = torch.randint(length, (len(x), 1), generator=context.generator) - hole // 2
            along = torch.arange(length)
            return (along >= first) & (along < first + hole)

        rows, columns = covered(x.shape[2]), covered(x.shape[3])
        holes = (rows[:, None, :, None] & columns[:, None, None, :]).to(x.device)
        return (x.float() / 255).masked_fill(holes, GREY), y


@dataclass(frozen=True)
class Mixup(Defense):
    """Blends each image and its label with another of the batch, in the same proportion for the whole batch.

    Args:
        alpha: the proportion is drawn from Beta(alpha, alpha); 1 is uniform.
        probability: share of batches that are mixed, in (0, 1]; published as all of them.
    """

    alpha: Positive = 1.0
    probability: Share = 1.0

    def mix(self, images: Tensor, y: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
        """Blend float images; the targets are (B, n_classes) probabilities."""
        from torchvision.transforms.v2 import MixUp  # seconds to import

        return MixUp(alpha=self.alpha, num_classes=n_classes)(images, y)

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Mix the batch, or leave it and its labels as they are."""
        images = x.float() / 255
        if torch.rand((), generator=context.generator) >= self.probability:
            return images, y
        with seeds.globally(context.generator, x.device):
            return self.mix(images, y, context.n_classes)


@dataclass(frozen=True)
class CutMix(Mixup):
    """Pastes the same rectangle of another image of the batch into each, and mixes the labels by area.

    Args:
        alpha: of Mixup, published as 1.
        probability: share of batches that are pasted into, in (0, 1]; published for CIFAR as one half.
    """

    probability: Share = 0.5

    def mix(self, images: Tensor, y: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
        """Paste into float images; the targets are (B, n_classes) probabilities."""
        from torchvision.transforms import v2  # seconds to import

        return v2.CutMix(alpha=self.alpha, num_classes=n_classes)(images, y)


@dataclass(frozen=True)
class GaussianBlur(Defense):
    """Blurs the training images.

    A sigma of 0.1, as some comparisons report it, leaves every uint8 image as it is; it is refused. The kernel is
    theirs, the sigma our choice.

    Args:
        sigma: standard deviation of the kernel, in pixels.
        kernel: side of the kernel in pixels, odd.
    """

    sigma: Positive = 1.0
    kernel: Annotated[int, Range(3)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise InputError(f"kernel: {self.kernel}; it must be odd")
        reach = self.kernel // 2
        weights = [math.exp(-((i / self.sigma) ** 2) / 2) for i in range(-reach, reach + 1)]
        others = 1 - (1 / sum(weights)) ** 2  # weight of all pixels but the middle one
        if 255 * others < 0.5:
            raise InputError(f"sigma: {self.sigma} moves no pixel by half a grey level; 0.3 or more blurs")

    def prepare(self, images: Images, seed: int) -> Images:
        """Blur every image once, reflected at its edges.

        Raises:
            InputError: the kernel reaches beyond the image.
        """
        from torchvision.transforms.v2.functional import gaussian_blur  # seconds to import

        size = min(images.shape[1:])
        if self.kernel // 2 >= size:
            raise InputError(f"gaussian_blur option kernel: {self.kernel} is too large for images of {size} pixels")
        return rewrite(images, lambda x, y: gaussian_blur(x, [self.kernel] * 2, [self.sigma] * 2))


@dataclass(frozen=True)
class GaussianNoise(Defense):
    """Adds fresh Gaussian noise to every pixel of every batch.

    Args:
        sigma: its standard deviation in grey levels, of 255.
    """

    sigma: Annotated[float, Range(0, 255, above=True)] = 8.0

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Add noise and clip to [0, 1]."""
        noise = torch.randn(x.shape, generator=context.noise, device=x.device)
        return ((x + self.sigma * noise) / 255).clamp(0, 1), y
