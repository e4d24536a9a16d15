"""D-VAE: images rebuilt by a variational autoencoder that may pass on only so much.

Yu, Wang, Xia, Yang, Lu, Tan & Kot, "Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders",
ICML 2024. An autoencoder whose rate (the KL divergence of its code from a standard normal) is limited reconstructs
images without their perturbation; a second decoder, which also sees a learned embedding of the label, predicts what
is missing. Stage one subtracts that prediction from the images. Stage two trains a new network on the result,
subtracts again, and keeps the reconstruction.

The objective, its constants and the two stages are those of the published code: `Stage` and `DVAE._loss`. Our reading:

- The network is smaller, and plain: three convolutions and a code at half the images' size, where theirs is the
  first seven layers of a ResNet-18 (64 and 128 channels, a code of 256).
- The decoders have batch norm, where theirs have instance norm: after 6 epochs on 600 images of Digits-M the
  reconstruction was 35 levels off instead of 42 (one run each).
- The second decoder starts at zero, and purification uses the mean of the code, where theirs draws from it.
- By default 10 epochs of batches of 32, for a few thousand images. Published: `epochs=60, fit_batch=128, width=64,
  latent=256`, for 50,000.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.defenses.base import Defense
from miue.defenses.pixels import rewrite
from miue.errors import Count, Positive, Width
from miue.progress import track
from miue.training.loop import default_device

PURIFY_BATCH = 256
CLIP_NORM = 5.0
FREE_EPOCHS = 1 / 6  # share of the training in which the predicted perturbation may be of any size
FREE_ENERGY = 0.002  # mean square up to which it may be so later: 11 levels


class Stage(NamedTuple):
    """How tightly a stage limits the rate: nats per position of the code that are free, and what a nat more costs."""

    rate: float
    weight: float


class Parts(NamedTuple):
    """What the network makes of images (B, C, H, W): two of that shape, and its mean rate in nats per position."""

    reconstruction: Tensor
    perturbation: Tensor
    rate: Tensor


@dataclass(frozen=True)
class DVAE(Defense):
    """Purifies the training images in two stages.

    Args:
        epochs: passes over the data in each stage.
        lr: of Adam at the start; a cosine brings it to 0.
        fit_batch: images in a batch of the training.
        width: channels at full size; twice as many at half size.
        latent: channels of the code.
        rough_rate: rate that stage one leaves free, in nats per position of the code.
        fine_rate: the same for stage two.
    """

    epochs: Count = 10
    lr: Positive = 0.005
    fit_batch: Count = 32
    width: Width = 8
    latent: Width = 32
    rough_rate: Positive = 1.0
    fine_rate: Positive = 3.0

    def prepare(self, images: Images, seed: int) -> Images:
        """Purify all images, on the GPU where there is one."""
        there = images.on(default_device())
        of_first, of_second = (seeds.derived(seed, f"{which} purifier") for which in ("first", "second"))
        first = self.train(there, Stage(self.rough_rate, 0.01), of_first, "D-VAE, epochs of stage one")
        rough = rewrite(there, lambda x, y: x - first(x, y).perturbation, PURIFY_BATCH)
        second = self.train(rough, Stage(self.fine_rate, 0.5), of_second, "D-VAE, epochs of stage two")

        def refine(x: Tensor, y: Tensor) -> Tensor:
            without = (x - second(x, y).perturbation).clamp(0, 1)
            return second(without, y).reconstruction

        return rewrite(rough, refine, PURIFY_BATCH).on(images.device)

    def train(self, images: Images, stage: Stage, seed: int, label: str) -> "Disentangler":
        """Train a network on `images` and return it in evaluation mode; `label` stands beside the progress."""
        with seeds.globally(seeds.derived(seed, "victim weights")):
            network = Disentangler(images.shape, len(images.classes), self.width, self.latent)
        network = network.to(images.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), self.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        order = seeds.stream(seed, "victim order")
        noise = seeds.stream(seed, "victim noise", images.device)
        for epoch in track(range(self.epochs), label):
            for index in torch.randperm(len(images), generator=order).split(self.fit_batch):
                x, y = images.batch(index)
                loss = self._loss(network, x.float() / 255, y, stage, epoch / self.epochs, noise)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
                optimizer.step()
            scheduler.step()
        return network.eval()

    def _loss(
        self, network: "Disentangler", x: Tensor, y: Tensor, stage: Stage, done: float, noise: torch.Generator
    ) -> Tensor:
        """Errors of the reconstruction without and with the perturbation, and what rate and perturbation cost."""
        parts = network(x, y, noise)
        whole = (parts.reconstruction + parts.perturbation).clamp(0, 1)
        loss = F.mse_loss(parts.reconstruction, x) + F.mse_loss(whole, x)
        loss = loss + stage.weight * parts.rate.clamp(min=stage.rate)
        if done >= FREE_EPOCHS:
            loss = loss + parts.perturbation.square().mean().clamp(min=FREE_ENERGY)
        return loss


class Disentangler(nn.Module):
    """An encoder and two decoders: of the image, from the code; of the perturbation, from code and label.

    The label's embedding has a value for each channel and position of the widened code, so that it grows with the
    images: 3 MB for 100 classes at 32 px and width 16, 49 times that at 224 px.

    Args:
        shape: (C, H, W) of the images.
        n_classes: number of labels.
        width, latent: as in `DVAE`.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, width: int, latent: int) -> None:
        super().__init__()
        channels, height, wide = shape
        self.grid = (2 * width, (height + 1) // 2, (wide + 1) // 2)
        self.encoder = nn.Sequential(
            *_layer(nn.Conv2d(channels, width, 3, 1, 1, bias=False)),
            *_layer(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)),
            *_layer(nn.Conv2d(2 * width, 2 * width, 3, 1, 1, bias=False)),
        )
        self.code = nn.Conv2d(2 * width, 2 * latent, 1)
        self.widen = nn.Conv2d(latent, 2 * width, 1)
        self.embedding = nn.Embedding(n_classes, 2 * width * self.grid[1] * self.grid[2])
        self.image, self.perturbation = (nn.Sequential(*_decoder(channels, width)) for _ in range(2))
        for parameter in self.perturbation[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, y: Tensor, noise: torch.Generator | None = None) -> Parts:
        """Take images (B, C, H, W), float in [0, 1], and labels apart; with `noise` (on their device) in training."""
        mean, log_variance = self.code(self.encoder(x)).chunk(2, 1)
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        if self.training:
            drawn = torch.randn(mean.shape, generator=noise, device=mean.device)
            mean = mean + (0.5 * log_variance).exp() * drawn
        code = self.widen(mean)
        height, wide = x.shape[2:]  # images of odd size come out one pixel larger
        reconstruction = self.image(code).sigmoid()[..., :height, :wide]
        perturbation = self.perturbation(code + self.embedding(y).view(-1, *self.grid))[..., :height, :wide]
        return Parts(reconstruction, perturbation, rate)


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d) -> Iterator[nn.Module]:
    yield from (convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def _decoder(channels: int, width: int) -> Iterator[nn.Module]:
    yield from _layer(nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False))
    yield from _layer(nn.Conv2d(width, width, 3, 1, 1, bias=False))
    yield nn.Conv2d(width, channels, 3, 1, 1)
