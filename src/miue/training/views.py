"""Views of an image as contrastive learning draws them: resized crops, mirrors, colours and grey, all differentiable.

SimCLR (Chen, Kornblith, Norouzi & Hinton, ICML 2020), with one strength for all of it, as Wang, Zhu & Gao ("Efficient
Availability Attacks against Supervised and Contrastive Learning Simultaneously", NeurIPS 2024) set it. Ours: grey is
the mean of the channels, the hue turns about the grey axis instead of in HSV, the four changes of colour come in one
order, and a crop that would leave the image is cut to it. Images of one channel have neither saturation nor hue.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from miue.errors import Options, Unit
from miue.training.loop import BatchContext, Defense

SMALLEST, LONGEST = 0.1, 4 / 3  # share of the area that a crop keeps at least, at strength 1; its sides' largest ratio
COLOURED, GREYED = 0.8, 0.2  # probabilities, at strength 1
RANGE, TURN = 0.4, 0.1  # of brightness, contrast and saturation; of the hue, in turns; both at strength 1
DRAWS = 11  # random numbers for each view


@dataclass(frozen=True)
class Viewed(Options, Defense):
    """Trains on one view of each image.

    Args:
        strength: as `draw_views` takes it.
    """

    strength: Unit

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Draw a view of each image of the batch."""
        return draw_views(x.float() / 255, strength=self.strength, generator=context.generator), y


def draw_views(images: Tensor, *, strength: float, generator: torch.Generator) -> Tensor:
    """Draw one view of every image, differentiably.

    Args:
        images: (B, C, H, W) float in [0, 1].
        strength: in [0, 1]. 1 is SimCLR's; with 0 images are mirrored, and cut by up to 14 % on one side, no more.
        generator: on the CPU.

    Returns:
        Images of the same shape in [0, 1].
    """
    drawn = torch.rand(DRAWS, len(images), generator=generator).to(images.device)
    moved = _cropped(images, drawn[:5], strength)
    return _coloured(moved, drawn[5:], strength)


def _cropped(images: Tensor, drawn: Tensor, strength: float) -> Tensor:
    """Cut a rectangle out of each image, enlarge it to the whole, and mirror half of them."""
    area = 1 - (1 - SMALLEST) * strength * drawn[0]
    ratio = LONGEST ** (2 * drawn[1] - 1)
    width, height = ((area * power).sqrt().clamp(max=1) for power in (ratio, 1 / ratio))
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = torch.where(drawn[2] < 0.5, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * (2 * drawn[3] - 1), (1 - height) * (2 * drawn[4] - 1)
    where = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, where, padding_mode="border", align_corners=False)


def _coloured(images: Tensor, drawn: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast, saturation and hue of most images, and take the colour from some."""
    drawn = drawn[..., None, None, None]
    light, contrast, saturation = 1 + RANGE * strength * (2 * drawn[:3] - 1)
    changed = (light * images).clamp(max=1)
    middle = changed.mean((1, 2, 3), keepdim=True)
    changed = (middle + contrast * (changed - middle)).clamp(0, 1)
    grey = changed.mean(1, keepdim=True)
    changed = (grey + saturation * (changed - grey)).clamp(0, 1)
    if images.shape[1] == 3:
        changed = _turned(changed, 2 * math.pi * TURN * strength * (2 * drawn[3] - 1)).clamp(0, 1)
    seen = torch.where(drawn[4] < COLOURED * strength, changed, images)
    return torch.where(drawn[5] < GREYED * strength, seen.mean(1, keepdim=True), seen)


def _turned(images: Tensor, angle: Tensor) -> Tensor:
    """Turn the colours of images (B, 3, H, W) about the grey axis, by an angle (B, 1, 1, 1) each."""
    grey = images.mean(1, keepdim=True)
    across = (images.roll(1, 1) - images.roll(-1, 1)) / math.sqrt(3)
    return grey + (images - grey) * angle.cos() + across * angle.sin()
