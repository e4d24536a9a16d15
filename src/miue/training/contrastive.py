"""Networks that learn without labels, from two views of each image: surrogates for perturbations, and victims of them.

SimCLR (Chen, Kornblith, Norouzi & Hinton, ICML 2020) tells the two views of an image from those of all others; VICReg
(Bardes, Ponce & LeCun, ICLR 2022) brings them together and keeps the units apart, and compares with no other image.
Victims see the views of `miue.training.views`; those of TUE's surrogate, `two_views`, differ by mirroring, by a shift
and by the strength of each channel. VICReg's projection has 128 dimensions here instead of 8,192.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue import seeds
from miue.data.arrays import whole
from miue.data.images import Images
from miue.errors import choose
from miue.models import Network, build_for, forward
from miue.models.handed import Spec
from miue.progress import track
from miue.training.augment import flip_crop
from miue.training.loop import default_device
from miue.training.views import draw_views

__all__ = ["OBJECTIVES", "Projecting", "nt_xent", "pretrained", "train_round", "two_views", "vicreg"]

PROJECTION = 128  # dimensions that the loss compares, as published for SimCLR
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # weights of VICReg, as published

Loss = Callable[[Tensor], Tensor]  # of projections, as `nt_xent` takes them
Views = Callable[[Tensor], Tensor]  # of images, as `two_views` takes and returns them


class Projecting(nn.Module):
    """A network with a projection in place of its logits, as in SimCLR: images to ((B, 128) projections, features).

    Args:
        network: returns (logits, features).
        seed: of the projection's weights; the global random state is left as it was.
    """

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        self.network, width = network, network.head.in_features
        with seeds.globally(seed):
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


def vicreg(projections: Tensor) -> Tensor:
    """Variance, invariance and covariance (VICReg, eq. 1 to 6).

    The mean squared distance of the two views; how far the standard deviation of a unit falls short of 1; and the
    squared covariances of different units, over their number.

    Args:
        projections: (2B, d) float; rows i and i + B belong to one image.

    Returns:
        Scalar >= 0.
    """
    first, second = projections.chunk(2)
    loss = INVARIANCE * F.mse_loss(first, second)
    for views in (first, second):
        centred = views - views.mean(0)
        spread = (centred.square().sum(0) / (len(views) - 1) + 1e-4).sqrt()
        covariance = centred.T @ centred / (len(views) - 1)
        apart = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + VARIANCE / 2 * F.relu(1 - spread).mean() + COVARIANCE * apart / views.shape[1]
    return loss


def train_round(
    network: Projecting,
    images: Images,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    views_of: Views,
    *,
    batch: int,
    share: float,
    order: torch.Generator,
) -> float:
    """Train on a loss for one pass over a random `share` of the images; returns the mean loss of its batches."""
    network.train()
    count = -(-len(images) // batch)
    batches = torch.randperm(len(images), generator=order).tensor_split(count)[: max(1, round(share * count))]
    total = torch.zeros((), device=images.device)
    for index in batches:
        x, _ = images.batch(index)
        loss = loss_of(forward(network, views_of(x.float() / 255))[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total) / len(batches)


OBJECTIVES: dict[str, Loss] = {"simclr": partial(nt_xent, temperature=0.5), "vicreg": vicreg}
"""What `pretrained` can learn from."""


def pretrained(
    images: Images,
    *,
    model: Spec = "small_resnet",
    objective: str = "simclr",
    epochs: int = 100,
    batch: int = 256,
    lr: float = 1e-3,
    strength: float = 0.5,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Network:
    """Train a network on images without their labels, for a classifier on its features.

    Args:
        images: training images, at least 4; their labels are not looked at.
        model: one of `miue.models.MODELS`, or an object as `miue.models.build` takes it.
        objective: one of `OBJECTIVES`.
        epochs: passes over the images, two views each.
        batch: images that share a loss, at least 4.
        lr: the rate of Adam, which falls along a cosine to 0.
        strength: of the views, in [0, 1], see `miue.training.views.draw_views`.
        seed: of weights, order and views, those of a victim.
        device: by default the GPU where there is one.

    Returns:
        The network in evaluation mode. Its head was never trained: what counts is `miue.features` of it.

    Raises:
        InputError: another objective, too few images or epochs.

    Example:
        >>> import miue
        >>> from miue.training.contrastive import pretrained
        >>> train, _ = miue.load("digits_m", n_train=40, n_test=20)
        >>> network = pretrained(train, model="small_resnet:width=0.25", epochs=1)
        >>> miue.features(network, train).shape
        torch.Size([40, 16])
    """
    loss_of = OBJECTIVES[choose("objective", objective, OBJECTIVES)]
    for argument, value, least in (("images", len(images), 4), ("epochs", epochs, 1), ("batch", batch, 4)):
        whole(argument, value, least)
    device = torch.device(device or default_device())
    network = build_for(images, model, seed=seeds.derived(seed, "victim weights"), outputs=max(2, len(images.classes)))
    learner = Projecting(network, seeds.derived(seed, "victim projection")).to(device)
    optimizer = torch.optim.Adam(learner.parameters(), lr, weight_decay=1e-6)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order, augmentation = (seeds.stream(seed, f"victim {what}") for what in ("order", "augmentation"))
    shown = images.on(device)

    def views_of(x: Tensor) -> Tensor:
        return draw_views(x.repeat(2, 1, 1, 1), strength=strength, generator=augmentation)

    for _ in track(range(epochs), f"{objective}, epochs", epochs):
        train_round(learner, shown, optimizer, loss_of, views_of, batch=batch, share=1.0, order=order)
        schedule.step()
    return network.eval()
