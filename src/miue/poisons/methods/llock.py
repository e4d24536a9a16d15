"""LLock: learnability lock, one linear change of the pixels for each class.

Peng & Chen, "Learnability Lock: Authorized Learnability Control Through Adversarial Invertible Transformations", ICLR
2022. All images of class y become w_y x + b_y, pixel by pixel, where each w lies within half the budget of 1 and each b
within half of it of 0, so that no pixel moves by more than the budget. Rounds of a few training batches of a surrogate
on the locked images, then descent on its cross-entropy by w and b in passes over all of them, until the locked images
are all but fitted. Who has w and b can undo the change, on images made later, too: they are the key.

Only this linear lock is here. The paper's other one, an invertible residual network for each class, is not; nor is the
key kept, for a perturbation undoes itself on the images that it was made for. What was rounded to whole levels or cut
to the range of an image no key brings back.

The paper preset has the defaults of the authors' code, 50 rounds of 30 batches and two passes: 150 passes at most. Ours
rather than published: w and b take steps of a fixed length along the signs of their gradients and stay in their box
throughout, where the authors' take SGD and are cut to it after each round; the batches of a pass are class-balanced;
the number of rounds; and the rate of the surrogate in the small presets. What the paper measured is not known to us in
numbers. Measured with `quick` on 3,000 images of CIFAR-10 (JPEG-75 copy), one perturbation, a half-width small_resnet
as surrogate and victim: 10 %, in grayscale 47 % and behind JPEG of quality 10 46 %, as clean images bring there.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from miue.errors import Count, Share
from miue.models.frozen import Frozen
from miue.poisons.base import Made, PgdOptions, Task
from miue.poisons.methods.em import alternate, move_shared
from miue.poisons.passes import cross_entropy, on_outputs, put
from miue.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class LLock(PgdOptions):
    """Options of the linear lock: those of `PgdOptions`, the surrogate's epochs being the largest number of rounds, and

    Args:
        steps: passes over the images in a round, one step on each batch.
        step: its length, of w as of b, as a fraction of the pixel range.
        stop_accuracy: end when the surrogate's accuracy on the locked images exceeds it, in (0, 1].
    """

    steps: Count = 2
    step: Share = 0.4 / 255
    stop_accuracy: Share = 0.9

    @property
    def passes(self) -> float:
        """A round trains on at most all images (on 3,840 of them, as published), and passes over them."""
        return self.surrogate.epochs * (1 + self.steps)


_SURROGATE = Recipe(
    epochs=50, lr=0.01, schedule="constant", weight_decay=0.0, clip_norm=5.0, batches_per_epoch=30, precision="float32"
)
_PAPER = LLock(surrogate=_SURROGATE)

PRESETS = {
    "quick": replace(_PAPER, surrogate=replace(_SURROGATE, epochs=20, lr=0.1)),
    "laptop": replace(_PAPER, surrogate=replace(_SURROGATE, epochs=40, lr=0.1)),
    "paper": _PAPER,
}


def llock(task: Task) -> Made:
    """Lock the images; the notes hold one row per round and why the rounds ended."""
    options: LLock = task.options
    images, order = task.images, task.stream("pgd order")
    network = task.network()
    key = torch.zeros(2, len(images.classes), *images.shape, device=images.device)  # w - 1, and b
    frozen = Frozen(network, options.surrogate.precision)
    loss = on_outputs(frozen, cross_entropy)

    def move(delta: Tensor) -> None:
        frozen.refresh()
        for _ in range(options.steps):
            move_shared(task, key, locked, loss, order, task.budget.levels / 255 / 2)
        for index in images.chunks():
            x, y = images.batch(index)
            pixels = x.float() / 255
            levels = 255 * (locked(pixels, key, y) - pixels)
            put(delta, index, levels.round() if options.rounding == "each_pass" else levels)

    return alternate(task, network, move, key=key, order_of_passes=order)


def locked(pixels: Tensor, key: Tensor, labels: Tensor) -> Tensor:
    """Apply the lock of each image's class: w x + b, which may leave the pixel range.

    Args:
        pixels: (B, C, H, W) float in [0, 1].
        key: (2, classes, C, H, W) float: w - 1, and b.
        labels: (B,) int64.
    """
    return pixels + key[0][labels] * pixels + key[1][labels]
