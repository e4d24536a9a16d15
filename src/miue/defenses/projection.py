"""Orthogonal projection: remove from the images what a linear network can learn of them.

Sandoval-Segura, Singla, Geiping, Goldblum & Goldstein, "What Can We Learn from Unlearnable Datasets?", NeurIPS 2023:
a bias-free logistic regression is trained on the perturbed pixels, its weight vectors (one per class) are made
orthonormal by a QR decomposition, and their span is projected out of every training image. Class-wise
perturbations, which are linearly separable, go with it; perturbations that differ from image to image mostly stay.

Two things differ from the published procedure. There, the projected images stay floating-point numbers of any sign;
here they are uint8 like all images, and what leaves 0..255 is clipped. On Digits-M with a random class-wise pattern
of 8 levels (3,000 images), half of all pixels would be clipped so, because the mean image lies partly in the span,
and a quarter of the component would be back. So only the images' deviations from their mean are projected: they carry
the same information, 1 % of the pixels are clipped, 1 % of the component stays, and a small_resnet that learns from
the result reaches 88 % (one run). And the published batch of 1,024 makes 980 steps on 50,000 images; here it is 64,
which makes as many on 3,000.

Cost: 20 passes of a linear network, 2 s for 3,000 images of 32 px on one core of an AMD EPYC. Beside the images
(see `pixels.rewrite`) it holds 3 matrices of C H W x classes: 60 MB each for 100 classes at 224 px, 600 MB for 1,000.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from miue import seeds
from miue.data.images import Images
from miue.defenses.base import Defense
from miue.defenses.pixels import images_per_batch, rewrite
from miue.errors import Count, Positive, Range
from miue.models.plain import Linear
from miue.training import loop
from miue.training.recipes import Recipe


@dataclass(frozen=True)
class OrthogonalProjection(Defense):
    """Projects the training images off the weights of a linear network.

    Args:
        epochs, lr, fit_batch: of that network's training by plain SGD at a constant learning rate.
        keep_mean: project deviations from the mean image; without it, the images themselves, as published.
    """

    epochs: Count = 20
    lr: Positive = 0.1
    fit_batch: Annotated[int, Range(2)] = 64
    keep_mean: bool = True

    def prepare(self, images: Images, seed: int) -> Images:
        """Project all images; round and clip them to uint8."""
        basis = self.basis(images, seed).to(images.device)
        centre = mean_image(images) if self.keep_mean else torch.zeros(images.shape, device=images.device)
        return rewrite(images, lambda x, y: centre + project_out(x - centre, basis))

    def basis(self, images: Images, seed: int) -> Tensor:
        """Train the linear network and return an orthonormal basis of its weights: (C H W, classes) float32."""
        recipe = Recipe(
            epochs=self.epochs,
            lr=self.lr,
            schedule="constant",
            batch=self.fit_batch,
            momentum=0.0,
            weight_decay=0.0,
            precision="float32",
        )
        own = seeds.derived(seed, "projection")
        with seeds.globally(seeds.derived(own, "victim weights")):
            network = Linear(math.prod(images.shape), len(images.classes))
        for _ in loop.epochs(network, images, recipe, seed=own):
            pass
        return torch.linalg.qr(network.head.weight.detach().T).Q


def mean_image(images: Images) -> Tensor:
    """The mean of all images: (C, H, W) float32 in [0, 1]."""
    total = torch.zeros(images.shape, dtype=torch.float64, device=images.device)
    for index in torch.arange(len(images)).split(images_per_batch(images)):
        total += images.batch(index)[0].sum(0)
    return (total / (255 * len(images))).float()


def project_out(x: Tensor, basis: Tensor) -> Tensor:
    """Remove from images (B, C, H, W) their component in the span of `basis`, (C H W, K) with orthonormal columns."""
    flat = x.flatten(1)
    return (flat - flat @ basis @ basis.T).view_as(x)
