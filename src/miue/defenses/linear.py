"""A linear network on pixels: what the projection removes and what detection asks."""

import math

from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.training import loop
from miue.training.recipes import Recipe


class Linear(nn.Module):
    """Logits as a linear function of all pixels; the features are those pixels.

    Args:
        inputs: number of values in an image.
        n_classes: number of logits.
        centre, scale: pixels in [0, 1] enter as (x - centre) / scale.
        bias: whether each class has an offset.
    """

    def __init__(self, inputs: int, n_classes: int, *, centre: float = 0.0, scale: float = 1.0, bias: bool) -> None:
        super().__init__()
        self.centre, self.scale = centre, scale
        self.head = nn.Linear(inputs, n_classes, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W), float in [0, 1], to logits (B, n_classes) and features (B, C H W)."""
        features = (x.flatten(1) - self.centre) / self.scale
        return self.head(features), features


def fit_linear(images: Images, recipe: Recipe, *, seed: int, bias: bool, standardise: bool = False) -> Linear:
    """Train a linear network on `images`; `standardise` maps pixels to (x - 0.5) / 0.25, else they enter as is."""
    centre, scale = (0.5, 0.25) if standardise else (0.0, 1.0)
    with seeds.globally(seeds.derived(seed, "victim weights")):
        network = Linear(math.prod(images.shape), len(images.classes), centre=centre, scale=scale, bias=bias)
    for _ in loop.epochs(network, images, recipe, seed=seed):
        pass
    return network.eval()
