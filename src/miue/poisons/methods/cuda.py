"""CUDA: class-wise convolution, without a surrogate and without a budget.

Sadasivan, Soltanolkotabi & Feizi, "CUDA: Convolution-Based Unlearnable Datasets", CVPR 2023: every class has a small
random filter, one tap 1 and the others uniform up to a blur parameter; each image is convolved with the filter of
its class, the same for all channels, and divided by its largest value.

It costs one convolution, so the presets are equal, and as published: 3 x 3 taps up to 0.3. Published victims
(ResNet-18) have 18.5 % on CIFAR-10, 12.7 % on CIFAR-100 and 9 % on ImageNet-100. The change may reach 255 levels: CUDA
keeps no L-infinity budget. The name is the paper's and has nothing to do with graphics processors.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 22, a quarter-width VGG-11 33, a two-layer perceptron
37 and a linear network 32 %, where clean training has 59, 61, 45 and 34 %.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from miue.errors import InputError, Positive, Range
from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.passes import put


@dataclass(frozen=True)
class CUDA(Options):
    """Options of class-wise convolution.

    Args:
        side: of the filters, in pixels; odd, so that images stay where they are.
        blur: largest value of the taps other than the one that is 1.
    """

    side: Annotated[int, Range(1, 99)] = 3
    blur: Positive = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side % 2 == 0:
            raise InputError(f"side: {self.side}; it must be odd")


PRESETS = {name: CUDA() for name in ("quick", "laptop", "paper")}


def cuda(task: Task) -> Made:
    """Convolve every image with the filter of its class; delta is what that changes."""
    options: CUDA = task.options
    images = task.images
    filters = draw_filters(len(images.classes), options, task.stream("perturbation")).to(images.device)
    delta = blank(images, torch.int16)
    for index in task.track(images.chunks(), "images"):
        x, y = images.batch(index)
        blurred = convolve(x.float(), filters[y])
        largest = blurred.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)  # a black image stays black
        put(delta, index, (255 * blurred / largest).round().to(torch.int16) - x)
    return Made(delta, {})


def draw_filters(count: int, options: CUDA, generator: torch.Generator) -> Tensor:
    """Draw one filter for each class: (count, side, side), one tap 1, the others in [0, blur)."""
    filters = options.blur * torch.rand(count, options.side**2, generator=generator)
    filters[torch.arange(count), torch.randint(options.side**2, (count,), generator=generator)] = 1
    return filters.view(count, options.side, options.side)


def convolve(x: Tensor, filters: Tensor) -> Tensor:
    """Filter each image (B, C, H, W), float, with its own filter (B, side, side), zeros around the border."""
    height, width = x.shape[2:]
    side = filters.shape[1]
    padded = F.pad(x, (side // 2,) * 4)
    blurred = torch.zeros_like(x)
    for row in range(side):
        for column in range(side):
            tap = filters[:, row, column, None, None, None]
            blurred += tap * padded[:, :, row : row + height, column : column + width]
    return blurred
