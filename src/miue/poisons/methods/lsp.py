"""LSP: linearly separable patches, without a surrogate.

Yu, Zhang, Chen, Yin & Liu, "Availability Attacks Create Shortcuts", KDD 2022: every class is a Gaussian cluster around
a corner of a cube, far from the others; a point of it, drawn for each image, is painted as squares of 8 pixels and
scaled to an L2 norm of about 1.3 (6/255 for each of 32 x 32 x 3 values).

It costs no pass over the data, so the presets are equal. Published victims (ResNet-18) have 19 % on CIFAR-10. Three
things differ from what was published: the noise is clipped to the L-infinity budget as well; on images that hold
too few squares of 8 pixels to tell the classes apart the squares are halved; and how wide a cluster is for the distance
of the corners, `spread`, is our choice.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 48, a quarter-width VGG-11 30, a two-layer perceptron
34 and a linear network 23 %, where clean training has 59, 61, 45 and 34 %. Without flips and crops the small_resnet has
26 %, after clean training 51 %.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from miue.errors import Count, Positive
from miue.poisons.base import Made, Options, Task
from miue.poisons.patterns import CIFAR, from_patterns

CANDIDATES = 32  # corners drawn for each class, of which the one farthest from the other classes is kept


@dataclass(frozen=True)
class LSP(Options):
    """Options of linearly separable patches.

    Args:
        l2: norm of a perturbation of 32 x 32 x 3 values, pixels in [0, 1].
        patch: largest side of a square, in pixels.
        spread: standard deviation of a cluster, in each direction, where the corners are at plus and minus 1.
    """

    l2: Positive = 6 / 255 * math.sqrt(CIFAR)
    patch: Count = 8
    spread: Positive = 0.4


PRESETS = {name: LSP() for name in ("quick", "laptop", "paper")}


def lsp(task: Task) -> Made:
    """Draw linearly separable patches; the notes tell the side of the squares and what share was clipped."""
    options: LSP = task.options
    images = task.images
    generator = task.stream("perturbation")
    channels, height, width = images.shape
    patch = patch_side(options.patch, images.shape, len(images.classes))
    grid = (channels, math.ceil(height / patch), math.ceil(width / patch))
    centres = distant_corners(len(images.classes), math.prod(grid), generator).view(-1, *grid)

    def draw(labels: Tensor) -> Tensor:
        points = centres[labels] + options.spread * torch.randn(len(labels), *grid, generator=generator)
        painted = points.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
        return painted[..., :height, :width]

    return from_patterns(task, draw, l2=options.l2, patch=patch)


def patch_side(largest: int, shape: tuple[int, int, int], n_classes: int) -> int:
    """Halve `largest` until images of `shape` (C, H, W) have 4 squares for each binary digit of a class number."""
    channels, height, width = shape
    patch = largest
    while patch > 1 and channels * math.ceil(height / patch) * math.ceil(width / patch) < 4 * math.log2(n_classes):
        patch //= 2
    return patch


def distant_corners(count: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Draw `count` corners of the cube, (count, dimensions) of plus and minus 1, far from one another."""
    corners = torch.zeros(0, dimensions)
    for _ in range(count):
        drawn = 2.0 * torch.randint(2, (CANDIDATES, dimensions), generator=generator) - 1
        nearest = torch.cdist(drawn, corners).amin(1) if len(corners) else torch.zeros(CANDIDATES)
        corners = torch.cat([corners, drawn[nearest.argmax()][None]])
    return corners
