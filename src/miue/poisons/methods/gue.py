"""GUE: perturbations from a generator that plays against the classifier it misleads.

Liu, Wang & Gao, "Game-Theoretic Unlearnable Example Generator", AAAI 2024. The leader, a U-Net, turns an image into
its perturbation; the follower, a classifier, fits the perturbed images; the leader wants the fitted classifier to
be wrong on the clean ones. The first-order bi-level method BOME (Liu, Ye, Wright, Stone & Liu, NeurIPS 2022) moves
both at once: for every batch, a copy of the classifier takes some steps on the perturbed images; then both descend on
the clean loss plus a multiplier times the gap between classifier and copy, so that the classifier stays nearly optimal.

The generator sees images only, never labels, and can perturb new images of the same kind. Ours rather than
published: the generator of the last epoch is used (the authors also keep the one with the best accuracy on the test
set), batch norm in the generator is measured anew before its last use, and images whose size is no multiple of 8 are
padded for the U-Net.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 58, a quarter-width VGG-11 59, a two-layer perceptron
44 and a linear network 33 %, where clean training has 59, 61, 45 and 34 %. paper: about 700 passes; published victims
have 12 % on CIFAR-10, not measured here.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from miue import seeds
from miue.errors import Count, InputError, Positive, Range, Width
from miue.models import Network, forward
from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.passes import balanced_batches, put


@dataclass(frozen=True)
class GUE(Options):
    """Options of GUE.

    Args:
        epochs: passes over the data.
        width: channels of the U-Net at full size; they double at each of three halvings.
        inner_steps: Adam steps of the copy of the classifier, in every batch.
        inner_lr: their learning rate.
        eta: how fast the gap must close, BOME's control barrier; above 0.
        lr: learning rate of the generator (SGD).
        classifier_lr: learning rate of the classifier (SGD).
        batch: images in a batch, at least 4, for batch norm in the U-Net.
    """

    epochs: Count
    width: Width
    inner_steps: Count = 10
    inner_lr: Positive = 1e-4
    eta: Positive = 1.5
    lr: Positive = 0.1
    classifier_lr: Positive = 0.01
    batch: Annotated[int, Range(4)] = 256

    @property
    def passes(self) -> float:
        """The copy's steps, the clean loss, the gap's two sides, and one pass of the U-Net."""
        return self.epochs * (self.inner_steps + 4)


# Few epochs need a faster follower: at the published rates, four epochs left its loss where it began.
_QUICK = GUE(epochs=4, width=8, inner_steps=3, inner_lr=1e-3, classifier_lr=0.1, batch=32)

PRESETS = {
    "quick": _QUICK,
    "laptop": replace(_QUICK, epochs=15),
    "paper": GUE(epochs=50, width=64),
}


def _block(inside: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inside, out):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Maps images (B, C, H, W) of any size, float in [0, 1], to perturbations of that shape in [-1, 1]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        a, b, c, d = (width * 2**level for level in range(4))
        self.down = nn.ModuleList([_block(channels, a), _block(a, b), _block(b, c)])
        self.bottom = _block(c, d)
        self.up = nn.ModuleList([_block(d + c, c), _block(c + b, b), _block(b + a, a)])
        self.last = nn.Sequential(nn.Conv2d(a, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Perturb; sides that are no multiple of 8 are padded by their last pixels and cut again."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        skipped = []
        for block in self.down:
            skipped.append(block(x))
            x = F.avg_pool2d(skipped[-1], 2)
        x = self.bottom(x)
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([x, skipped.pop()], dim=1))
        return torch.tanh(self.last(x))[:, :, :height, :width]


def wrong_class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What the leader wants low on clean images: the largest cross-entropy among the wrong classes, on average.

    It is least where the right class has no probability and the wrong ones share it evenly: log(classes - 1).

    Args:
        logits: (B, classes) float.
        labels: (B,) int64, the right classes.
    """
    losses = -F.log_softmax(logits, dim=1)
    return losses.scatter(1, labels[:, None], -torch.inf).amax(1).mean()


def multiplier(clean: Tensor, gap: Tensor, eta: float) -> Tensor:
    """Weight of the gap's gradient beside that of the clean loss, so that the gap keeps closing (BOME, eq. 6).

    max(0, (eta |gap|^2 - <clean, gap>) / |gap|^2): a step along clean + weight * gap lowers the gap at a rate of at
    least eta |gap|^2.

    Args:
        clean, gap: flat gradients, over the same parameters.
        eta: above 0.
    """
    squared = gap.square().sum()
    return F.relu((eta * squared - clean @ gap) / (squared + 1e-8))


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in gradients])


def _follow(classifier: Network, shown: Tensor, labels: Tensor, options: GUE) -> Network:
    """A copy of the classifier, some steps closer to the best response to these perturbed images."""
    follower = copy.deepcopy(classifier)
    optimizer = torch.optim.Adam(follower.parameters(), options.inner_lr)
    for _ in range(options.inner_steps):
        loss = F.cross_entropy(forward(follower, shown)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return follower


class _Game:
    """Generator, classifier and their optimizers; `play` moves both by one batch."""

    def __init__(self, task: Task) -> None:
        images, options = task.images, task.options
        self.options, self.limit = options, task.budget.levels / 255
        self.classifier = task.network().train()
        with seeds.globally(seeds.derived(task.seed, "generator weights")):
            self.generator = UNet(images.shape[0], options.width).to(images.device)
        self.parameters = [*self.classifier.parameters(), *self.generator.parameters()]
        groups = [
            {"params": list(self.classifier.parameters()), "lr": options.classifier_lr},
            {"params": list(self.generator.parameters()), "lr": options.lr},
        ]
        self.optimizer = torch.optim.SGD(groups)

    def play(self, x: Tensor, y: Tensor) -> dict[str, float]:
        """One step of leader and follower; returns what they lost before it."""
        pixels = x.float() / 255
        shown = (pixels + self.limit * self.generator(pixels)).clamp(0, 1)
        follower = _follow(self.classifier, shown.detach(), y, self.options)

        clean = wrong_class_loss(forward(self.classifier, pixels)[0], y)
        fitted = F.cross_entropy(forward(self.classifier, shown)[0], y)
        gap = fitted - F.cross_entropy(forward(follower, shown)[0], y)
        # The clean loss does not see the generator, and the gap does not see through the copy's steps.
        of_clean = torch.autograd.grad(clean, self.parameters, allow_unused=True, materialize_grads=True)
        of_gap = torch.autograd.grad(gap, self.parameters)
        weight = multiplier(_flat(of_clean), _flat(of_gap), self.options.eta)
        for parameter, one, other in zip(self.parameters, of_clean, of_gap, strict=True):
            parameter.grad = one + weight * other
        self.optimizer.step()
        told = {"clean_loss": clean, "perturbed_loss": fitted, "gap": gap, "multiplier": weight}
        return {name: float(value.detach()) for name, value in told.items()}


@torch.no_grad()
def _perturb(generator: UNet, task: Task) -> Tensor:
    """Run the finished generator over all images: (N, C, H, W) levels."""
    images = task.images
    order = balanced_batches(images.y, task.options.batch, task.stream("generator order"))
    # The running averages of batch norm lag behind the weights, far behind after the few batches of a short run.
    update_bn((images.batch(index)[0].float() / 255 for index in order), generator)
    generator.eval()
    delta = blank(images, torch.float16)
    for index in order:
        x, _ = images.batch(index)
        put(delta, index, task.budget.levels * generator(x.float() / 255))
    return delta


def gue(task: Task) -> Made:
    """Generate a GUE perturbation; the notes hold one row per epoch, means over its batches.

    Raises:
        InputError: fewer than two images.
        FloatingPointError: a loss is no longer finite.
    """
    options: GUE = task.options
    images, keep = task.images, task.keep
    if len(images) < 2:
        raise InputError(f"images: {len(images)} image; GUE needs at least 2")
    game = _Game(task)
    order = task.stream("surrogate order")
    trace: list[dict[str, float]] = []
    keep.hold(classifier=game.classifier, leader=game.generator, optimizer=game.optimizer, order=order, trace=trace)
    for epoch in task.track(range(keep.restore() + 1, options.epochs + 1), "epochs"):
        rows = [game.play(*images.batch(index)) for index in balanced_batches(images.y, options.batch, order)]
        means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        if not math.isfinite(sum(means.values())):
            rates = f"generator {options.lr}, classifier {options.classifier_lr}"
            raise FloatingPointError(f"GUE diverged in epoch {epoch} at learning rates {rates}: {means}")
        trace.append({"epoch": epoch} | means)
        keep.save(epoch)
    return Made(_perturb(game.generator, task), {"epochs": trace})
