"""PIL: perturbation-induced linearisation, with a surrogate that is merely linear.

Liu, Chen & Zhang, "Perturbation-Induced Linearization: Constructing Unlearnable Data with Solely Linear Classifiers",
ICLR 2026: a linear classifier f without bias is trained on the clean images x. Sign-gradient steps then make a
perturbation p that f alone tells the class of, while f can tell nothing of x - p: they descend on
0.9 CE(f(p), y) + 0.1 KL(uniform, f(x - p)). What is published is x - p, so delta is -p.

Passes go through a matrix of pixels by classes, a matter of seconds, so the presets are equal; whatever surrogate
is asked for is not used. Learning rate and schedule of the classifier are our choice. Published victims (ResNet-18)
have 12.8 % on CIFAR-10, 2.1 % on CIFAR-100 and 2.3 % on ImageNet-100.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 47, a quarter-width VGG-11 38, a two-layer perceptron
30 and a linear network 16 %, where clean training has 59, 61, 45 and 34 %. Without flips and crops the small_resnet has
13 %, after clean training 51 %.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue import seeds
from miue.errors import Count, Share, Unit
from miue.models.plain import Linear
from miue.pgd import sign_steps
from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.passes import put
from miue.poisons.patterns import CIFAR
from miue.training.recipes import Recipe


@dataclass(frozen=True)
class PIL(Options):
    """Options of perturbation-induced linearisation.

    Args:
        surrogate: how the linear classifier is trained.
        steps: sign-gradient steps.
        step: their length, as a fraction of the pixel range.
        obfuscation: weight of the KL term, in [0, 1]; the cross-entropy has the rest.
        pass_batch: images that are perturbed at once; it changes nothing but memory.
    """

    surrogate: Recipe
    steps: Count = 30
    step: Share = 0.8 / 255
    obfuscation: Unit = 0.1
    pass_batch: Count = 512

    @property
    def passes(self) -> float:
        """Forward-and-backward passes over the data, through the linear classifier."""
        return self.surrogate.epochs + self.steps


_SURROGATE = Recipe(epochs=30, lr=0.01, schedule="cosine", precision="float32")

PRESETS = {name: PIL(surrogate=_SURROGATE) for name in ("quick", "laptop", "paper")}


def pil(task: Task) -> Made:
    """Generate perturbations; the notes tell how the classifier was fitted, and the loss before and after the steps."""
    options: PIL = task.options
    images, budget = task.images, task.budget
    inputs = math.prod(images.shape)
    weights = seeds.surrogate(task.seed).weights
    with seeds.globally(weights):  # the scale lets one learning rate fit images of every size
        linear = Linear(inputs, len(images.classes), scale=math.sqrt(CIFAR / inputs))
    last = task.learn(linear)[-1]
    delta = blank(images, torch.float16)
    before = after = 0.0
    for index in task.track(torch.arange(len(images)).split(options.pass_batch), "perturbations"):
        x, y = images.batch(index)
        pixels = x.float() / 255

        def loss(moving: Tensor, pixels: Tensor = pixels, y: Tensor = y) -> Tensor:
            return pil_loss(linear, pixels, y, moving, options.obfuscation)

        limit = budget.levels / 255
        low, high = (pixels - 1).clamp(min=-limit), pixels.clamp(max=limit)
        start = torch.zeros_like(pixels)
        moved = sign_steps(loss, start, low, high, step=options.step, steps=options.steps)
        put(delta, index, -255 * moved)
        with torch.no_grad():
            before += len(index) * float(loss(torch.zeros_like(pixels)))
            after += len(index) * float(loss(moved))
    notes = {name: last[name] for name in ("surrogate_loss", "surrogate_accuracy")}
    return Made(delta, notes | {"loss_before": before / len(images), "loss_after": after / len(images)})


def pil_loss(linear: nn.Module, pixels: Tensor, y: Tensor, moving: Tensor, obfuscation: float) -> Tensor:
    """(1 - w) CE(f(p), y) + w KL(uniform, f(x - p)), a mean over the batch.

    Args:
        linear: f, returns (logits, features).
        pixels: x, (B, C, H, W) float in [0, 1].
        y: (B,) int64.
        moving: p, of the shape of x.
        obfuscation: w.
    """
    shortcut = F.cross_entropy(linear(moving)[0], y)
    rest = F.log_softmax(linear(pixels - moving)[0], dim=1)
    return (1 - obfuscation) * shortcut + obfuscation * (-rest.mean() - math.log(rest.shape[1]))
