"""A contrastive surrogate: a network that learns without labels to tell two views of one image from all others.

SimCLR (Chen, Kornblith, Norouzi & Hinton, ICML 2020), as small as a surrogate for perturbations needs it. The
views differ by mirroring, by a shift and by the strength of each channel; the original's resized crops, change of
hue and grey images are left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue.data.images import Images
from miue.models import Network, forward
from miue.training.augment import flip_crop

PROJECTION = 128  # dimensions that the loss compares, as published


class Projecting(nn.Module):
    """A network with SimCLR's projection in place of its logits: images to ((B, 128) projections, features).

    Args:
        network: returns (logits, features).
        seed: of the projection's weights; the global random state is left as it was.
    """

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        self.network, width = network, network.head.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, PROJECTION)]
        self.projection = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images, float in [0, 1], to projections and features."""
        _, features = self.network(x)
        return self.projection(features), features


def two_views(images: Tensor, *, crop: int, jitter: float, generator: torch.Generator) -> Tensor:
    """Draw two views of every image, differentiably.

    Args:
        images: (B, C, H, W) float in [0, 1].
        crop: pixels of padding for the random shift.
        jitter: in [0, 1); each channel is multiplied by a factor from 1 - jitter to 1 + jitter.
        generator: on the CPU.

    Returns:
        (2B, C, H, W) float in [0, 1]: the first views in order, then the second ones.
    """
    moved = flip_crop(images.repeat(2, 1, 1, 1), padding=crop, flip=True, generator=generator)
    drawn = torch.rand(*moved.shape[:2], 1, 1, generator=generator)
    return (moved * (1 + jitter * (2 * drawn - 1)).to(moved.device)).clamp(max=1)


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """Normalised, temperature-scaled cross-entropy of finding the other view among all other views (SimCLR, eq. 1).

    Args:
        projections: (2B, d) float; rows i and i + B belong to one image.
        temperature: above 0, dimensionless.

    Returns:
        Scalar >= 0; log(2B - 1) when all projections are equal.
    """
    unit = F.normalize(projections, dim=1)
    alike = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
    return F.cross_entropy(alike, partner)


def train_round(
    network: Projecting,
    images: Images,
    optimizer: torch.optim.Optimizer,
    *,
    batch: int,
    share: float,
    temperature: float,
    crop: int,
    jitter: float,
    order: torch.Generator,
    augmentation: torch.Generator,
) -> float:
    """Train on `nt_xent` for one pass over a random `share` of the images; returns the mean loss of its batches."""
    network.train()
    count = -(-len(images) // batch)
    batches = torch.randperm(len(images), generator=order).tensor_split(count)[: max(1, round(share * count))]
    total = torch.zeros((), device=images.device)
    for index in batches:
        x, _ = images.batch(index)
        views = two_views(x.float() / 255, crop=crop, jitter=jitter, generator=augmentation)
        loss = nt_xent(forward(network, views)[0], temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total) / len(batches)
