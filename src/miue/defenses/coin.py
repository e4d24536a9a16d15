"""COIN: every pixel is read anew from a random place near its own.

Li, Wang, Yu, Hu, Zhou, Zhang & Zhang, "Detecting and Corrupting Convolution-based Unlearnable Examples", AAAI 2025
(first as "Corrupting Convolution-based Unlearnable Datasets with Pixel-based Image Transformations", arXiv 2023). A
filter of one kind for each class, as CUDA has, multiplies the image by a matrix that all images of the class share. So
the image is multiplied by another matrix, drawn afresh: each pixel takes its value from a place that lies up to alpha
rows and columns away, both uniform, by linear interpolation between the four pixels around it; all channels from the
same place. What leaves the image comes in at the opposite edge. The authors' code does it after flip and crop, with
alpha = 2 at 32 px.

There the result is cut to whole grey levels, which are not cut here, and the edge is passed by SciPy's "wrap", for
which first and last pixel are the same place; here an image has its full period. It costs next to nothing beside a
training step.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from miue.defenses.base import Defense
from miue.errors import Range
from miue.training.loop import BatchContext


@dataclass(frozen=True)
class COIN(Defense):
    """Reads each pixel from a random place near it, between pixels by linear interpolation.

    Args:
        alpha: how many pixels away the place is at most, in each direction; the published code offers 0.8 to 3.2.
    """

    alpha: Annotated[float, Range(0, 64, above=True)] = 2.0

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Draw a place for every pixel and read it."""
        count, _, height, width = x.shape
        drawn = torch.rand(2, count, height, width, generator=context.noise, device=x.device)
        down, right = self.alpha * (2 * drawn - 1)
        rows = torch.arange(height, device=x.device)[:, None] + down
        columns = torch.arange(width, device=x.device) + right
        return interpolate(x.float() / 255, rows, columns), y


def interpolate(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read images (B, C, H, W) at places (B, H, W), in pixels; beyond an edge the image begins again."""
    _, channels, height, width = images.shape
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    pixels = images.flatten(2)

    def read(row: Tensor, column: Tensor) -> Tensor:
        index = row.long() % height * width + column.long() % width
        return pixels.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view(images.shape)

    upper = torch.lerp(read(top, left), read(top, left + 1), right)
    lower = torch.lerp(read(top + 1, left), read(top + 1, left + 1), right)
    return torch.lerp(upper, lower, down)
