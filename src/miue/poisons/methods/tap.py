"""TAP: targeted adversarial poisons, "AP" in the paper.

Fowl, Goldblum, Chiang, Geiping, Czaja & Goldstein, "Adversarial Examples Make Strong Poisons", NeurIPS 2021: train a
surrogate on the clean images, then make each image an adversarial example of the *next* class, (y + 1) mod C,
by sign-gradient descent on the cross-entropy to it, with the augmentation of the training applied to x + delta in every
step. Of several restarts from random noise, each image keeps the one that left it the lowest loss. A victim learns
the features of the next class under the label y.

The paper preset costs 40 epochs of training and 250 passes for each of 8 restarts; one restart is said to work too.
Published victims (ResNet-18) have 8 to 11 % on CIFAR-10, 3.7 % on CIFAR-100 and 9.1 % on an ImageNet subset of 100
classes. The noise of a restart is uniform in the budget and the surrogate's schedule a cosine: choices of ours. So are
the small presets: one restart, after 10 (quick) or 20 epochs, of 15 steps of 1.2/255 or 80 of 0.4/255.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 17, a quarter-width VGG-11 37, a two-layer perceptron
40 and a linear network 29 %, where clean training has 59, 61, 45 and 34 %.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from miue.data.images import Images, pieces
from miue.errors import Count, NotNegative
from miue.models import Network
from miue.models.frozen import Frozen
from miue.poisons.base import Made, PgdOptions, Task, blank, uniform, whole
from miue.poisons.mine_term import Mine
from miue.poisons.passes import put
from miue.storage.checkpoint import Checkpoint
from miue.training import loop
from miue.training.augment import flip_crop
from miue.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class TAP(PgdOptions):
    """Options of TAP: those of `PgdOptions`, the surrogate's flip and crop augmenting the steps as well, and

    Args:
        restarts: from random noise; each image keeps its best.
        targeted: lower the loss of the next class, or else raise that of the right one (published, and weaker).
        mine: weight of the estimate of `miue.poisons.mine_term` in what the steps lower; 0 leaves it out. Which weight
            the paper takes is not known to us; 0.1 is where to begin.
    """

    restarts: Count = 1
    targeted: bool = True
    mine: NotNegative = 0.0

    @property
    def passes(self) -> float:
        """Training, then the steps of each restart and the look at what it brought."""
        return self.surrogate.epochs + self.restarts * (self.steps + 1)


_SURROGATE = Recipe(epochs=10, lr=0.1, schedule="cosine", flip=True, crop=2, precision="float32")
_QUICK = TAP(surrogate=_SURROGATE, steps=15, step=1.2 / 255)

PRESETS = {
    "quick": _QUICK,
    "laptop": replace(_QUICK, surrogate=replace(_SURROGATE, epochs=20), steps=80, step=0.4 / 255),
    "paper": TAP(
        surrogate=replace(_SURROGATE, epochs=40, crop=4), steps=250, step=0.4 / 255, restarts=8, pass_batch=512
    ),
}


def tap(task: Task) -> Made:
    """Generate targeted adversarial poisons; the notes hold one row per surrogate epoch and one per restart."""
    options: TAP = task.options
    images, keep = task.images, task.keep
    network = task.network()
    curve = task.learn(network)
    order, draws = task.stream("pgd order"), task.stream("perturbation")
    critics = task.stream("perturbation critic")
    best = blank(images)
    lowest = torch.full((len(images),), torch.inf, device=images.device)
    rows: list[dict[str, float]] = []
    keep.hold(best=best, lowest=lowest, order=order, draws=draws, critics=critics, rows=rows)
    for restart in task.track(range(keep.restore() + 1, options.restarts + 1), "restarts"):
        mine = Mine(options.mine, network, critics)
        delta = whole(images, _attack(task, network, mine, order, draws, keep.part(f"restart-{restart}")))
        losses = _losses(network, images.plus(delta), options)
        better = losses < lowest
        for index in pieces(better.nonzero()[:, 0], images.shape):
            put(best, index, delta[index.to(delta.device)])
        lowest[better] = losses[better]
        rows.append(
            {"restart": restart, "loss": float(losses.mean()), "lowest_loss": float(lowest.mean())} | mine.notes()
        )
        keep.save(restart)
    return Made(best, {"epochs": curve, "restarts": rows})


def _attack(
    task: Task, network: Network, mine: Mine, order: torch.Generator, draws: torch.Generator, keep: Checkpoint
) -> Tensor:
    """One restart: move uniform noise down the loss of the augmented images."""
    options: TAP = task.options
    delta = uniform(task.images, task.budget, draws, torch.float16)

    def objective(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return loss_of_each(logits, labels, options.targeted).mean()

    keep.hold(mine=mine, draws=draws)
    mine.look(network, task.images)
    on_images = mine.on_outputs(Frozen(network, options.surrogate.precision), objective)

    def augmented(x: Tensor, labels: Tensor) -> Tensor:
        recipe = options.surrogate
        return on_images(flip_crop(x, padding=recipe.crop, flip=recipe.flip, generator=draws), labels)

    options.pgd_pass(task, augmented, order, begin=mine.begin)(delta, options.step, keep)
    return delta


def loss_of_each(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """What the steps lower, for each image: cross-entropy to class (y + 1) mod C, or minus that to y itself.

    Args:
        logits: (B, C) float.
        labels: (B,) int64.
        targeted: which of the two.
    """
    if targeted:
        return F.cross_entropy(logits, (labels + 1) % logits.shape[1], reduction="none")
    return -F.cross_entropy(logits, labels, reduction="none")


@torch.no_grad()
def _losses(network: Network, poisoned: Images, options: TAP) -> Tensor:
    """The loss (N,) of every image as it would be published: rounded, and not augmented."""
    logits = network.head(loop.features(network, poisoned))
    return loss_of_each(logits, poisoned.y, options.targeted)
