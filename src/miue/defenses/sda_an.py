"""SDA+AN: stronger augmentation, and noise that a small network finds hardest.

Zhu, Yu & Gao, "Detection and Defense of Unlearnable Examples", AAAI 2024; of the authors of MI-UE. Perturbations are
found by simple networks, so they are hidden from these. A network of two layers is trained adversarially on the
perturbed images: 10 steps of 2/255 within 8/255. Then each image is moved once, by 10 steps of 1/255 within 8/255, to
where that network errs most. A victim trains on the result under the augmentation of contrastive learning, of strength
s (`miue.training.views`): a crop of 1 - 0.9 s to all of the area, scaled to full size; in 0.8 s of the images
brightness, contrast and saturation times up to 1 + 0.4 s and hue turned by up to 0.1 s; 0.2 s of them grey. The
authors' code takes s = 1.

Our reading:

- The network is `mlp2`, with 512 hidden units; theirs has as many as the image has values (`width=6` at 32 px).
- By default 20 epochs, for a few thousand images. Published: `epochs=100`, for 50,000. A tenth of the learning rate
  remains after 40 % and a hundredth after 80 %; theirs changes after 75 % and 90 %.
- The steps of the adversarial training start from a random place within the distance, theirs from the image.
- The strong crop follows flip and crop of the victim's recipe, where theirs takes the place of the crop, and half of
  the images are mirrored once more.
- Noise is rounded to whole grey levels; theirs is cut to them.

Cost: for each of the epochs eleven passes of the small network, once more for the noise, and for each batch of a
victim an augmentation.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.defenses.adversarial import AdversarialTraining
from miue.defenses.base import Defense
from miue.defenses.pixels import rewrite
from miue.errors import Count, InputError, Positive, Range, Share, Unit
from miue.models import build_for
from miue.pgd import attack
from miue.progress import track
from miue.training import loop
from miue.training.loop import BatchContext
from miue.training.recipes import Recipe
from miue.training.views import draw_views


@dataclass(frozen=True)
class SDAAN(Defense):
    """Adds to each image the noise that misleads a small network most, and augments strongly.

    Args:
        strength: of the augmentation, in [0, 1]; 0 leaves it out.
        epsilon: L-infinity distance of the noise, and of the small network's training, as a fraction of the pixel
            range, in (0, 1].
        steps: sign-gradient steps of both.
        train_step: their length in that training, as a fraction of the pixel range.
        noise_step: their length for the noise, as a fraction of the pixel range.
        epochs: of that training, by SGD.
        lr: its learning rate at the start.
        width: hidden units of the network, in multiples of 512, in (0, 8].
    """

    strength: Unit = 1.0
    epsilon: Share = 8 / 255
    steps: Count = 10
    train_step: Share = 2 / 255
    noise_step: Share = 1 / 255
    epochs: Count = 20
    lr: Positive = 0.01
    width: Annotated[float, Range(0, 8, above=True)] = 1.0

    def prepare(self, images: Images, seed: int) -> Images:
        """Train the small network and move all images, on the GPU where there is one.

        Raises:
            InputError: neither one nor three channels.
        """
        if images.shape[0] not in (1, 3):
            raise InputError(f"sda_an: images of {images.shape[0]} channels; it needs 1 or 3, as its colours do")
        there = images.on(loop.default_device())
        network = self.train(there, seeds.derived(seed, "first purifier"))

        @torch.enable_grad()
        def move(x: Tensor, y: Tensor) -> Tensor:
            def loss(moved: Tensor) -> Tensor:
                return F.cross_entropy(network(moved)[0], y, reduction="sum")

            return attack(loss, x, radius=self.epsilon, step=self.noise_step, steps=self.steps)

        return rewrite(there, move).on(images.device)

    def train(self, images: Images, seed: int) -> nn.Module:
        """Train the small network adversarially and return it in evaluation mode."""
        recipe = Recipe(epochs=self.epochs, lr=self.lr, schedule="steps", precision="float32")
        harder = AdversarialTraining(epsilon=self.epsilon, steps=self.steps, step=self.train_step)
        network = build_for(images, f"mlp2:width={self.width}", seed=seeds.derived(seed, "victim weights"))
        trained = loop.epochs(network, images, recipe, seed=seed, device=images.device, defense=harder)
        for _ in track(trained, "SDA+AN, epochs of the small network", self.epochs):
            pass
        return network.eval()

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Augment each image apart; in one channel crop, brightness and contrast are what changes."""
        images = x.float() / 255
        if self.strength:
            images = draw_views(images, strength=self.strength, generator=context.generator)
        return images, y
