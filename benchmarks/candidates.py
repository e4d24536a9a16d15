"""A candidate for a better method: class patterns that JPEG keeps, found by a surrogate.

    miue poison --method benchmarks/candidates.py:coarse --data cifar10 --out delta.safetensors
    miue sweep book/experiments/sweeps/candidates.yaml

JPEG leaves of a pattern what is coarse. `coarse` writes one pattern for each class into the eight by eight pixels that
JPEG works on, equal in all channels, in the frequencies that quality 10 leaves; a surrogate finds it, as in EM for
classes, and what it sees is mirrored, shifted, and stored as JPEG in a share of the batches, with the gradient passed
on as if nothing had been stored. Beside it stand gratings of low frequency (`miue.poisons.methods.gratings`).
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from miue import seeds
from miue.data.images import Images
from miue.defenses.pixels import to_levels
from miue.defenses.squeezing import ISS
from miue.errors import Count, Positive, Unit
from miue.models.frozen import Frozen
from miue.poisons.base import Made, Method, PgdOptions, Task, blank
from miue.poisons.passes import balanced_batches, put
from miue.progress import track
from miue.training import loop
from miue.training.augment import flip_crop
from miue.training.loop import BatchContext
from miue.training.recipes import Recipe

BLOCK = 8  # pixels on each side, of JPEG
KEPT = [(3, 0), (0, 3), (3, 1), (1, 2), (2, 2), (2, 0), (0, 2), (2, 1), (3, 2), (1, 1), (2, 3), (1, 3)]
"""Frequencies, down and across, that quality 10 leaves of a pattern of eight levels, in luma."""
SIGNS = ("same", "columns", "both", "rows")  # how the sign of a pattern goes from block to block


def cosine(frequency: tuple[int, int], signs: str, size: tuple[int, int]) -> Tensor:
    """One pattern (H, W) in [-1, 1]: the same cosine in each block, its sign going over from block to block."""
    rows, columns = (torch.arange(side) for side in size)
    down, across = (
        torch.cos((place % BLOCK + 0.5) * number * math.pi / BLOCK)
        for place, number in zip((rows, columns), frequency, strict=True)
    )
    turned = {"same": torch.zeros(1, 1), "rows": (rows // BLOCK)[:, None], "columns": columns[None] // BLOCK}
    turned["both"] = turned["rows"] + turned["columns"]
    return (down[:, None] * across) * (1 - 2 * (turned[signs] % 2))


def patterns(size: tuple[int, int]) -> Tensor:
    """All cosines that JPEG keeps, (48, H, W) in [-1, 1], those of one sign first."""
    return torch.stack([cosine(frequency, signs, size) for signs in SIGNS for frequency in KEPT])


@dataclass(frozen=True, kw_only=True)
class Coarse(PgdOptions):
    """Options of `coarse`: those of `PgdOptions`, the surrogate's epochs being rounds and the step Adam's rate, and

    Args:
        stored: share of the batches that are seen as JPEG of quality 10, in training and in the steps.
        steepness: how fast a pattern goes over from one end of the budget to the other.
    """

    steps: Count = 2
    stored: Unit = 0.5
    steepness: Positive = 4.0

    @property
    def passes(self) -> float:
        """A round trains on all images once at most, and passes over them."""
        return self.surrogate.epochs * (1 + self.steps)


@dataclass(frozen=True)
class Stored:
    """A defense of the surrogate: it sees a share of its batches as JPEG of quality 10."""

    share: float

    def prepare(self, images: Images, seed: int) -> Images:
        """Leave the images as they are."""
        return images

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Store the batch, or not."""
        return squeezed(x.float() / 255, self.share, context.generator), y


def squeezed(x: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Store images (B, C, H, W) in [0, 1] as JPEG, with this probability; gradients pass as if they had not been."""
    if float(torch.rand((), generator=draws)) >= share:
        return x
    return x + (ISS().squeeze(to_levels(x)).to(x.device).float() / 255 - x).detach()


def learn_coarse(task: Task) -> Made:
    """Learn one pattern for each class among the sums of cosines that JPEG keeps; notes as EM's."""
    options: Coarse = task.options
    images, network = task.images, task.network()
    draws, order = task.stream("perturbation"), task.stream("pgd order")
    known = patterns(images.shape[1:]).to(images.device)
    weights = torch.randn(len(images.classes), len(known), generator=draws).to(images.device).requires_grad_()
    optimiser = torch.optim.Adam([weights], options.step)
    delta, limit = blank(images, torch.float16), task.budget.levels / 255
    recipe, _ = task.round_of(options.surrogate)
    frozen = Frozen(network, recipe.precision)

    def own(labels: Tensor) -> Tensor:
        sums = torch.einsum("ck,khw->chw", F.normalize(weights, dim=1), known)
        return limit * torch.tanh(options.steepness * sums)[labels][:, None].expand(-1, images.shape[0], -1, -1)

    rows: list[dict[str, float]] = []
    how = {"seed": seeds.surrogate(task.seed), "device": images.device, "defense": Stored(options.stored)}
    for done in track(loop.epochs(network, images.plus(delta), recipe, **how), "coarse, rounds", recipe.epochs):
        frozen.refresh()
        for _ in range(options.steps):
            for index in balanced_batches(images.y, options.pass_batch, order):
                x, y = images.batch(index)
                shown = (x.float() / 255 + own(y)).clamp(0, 1)
                moved = flip_crop(shown, padding=recipe.crop, flip=recipe.flip, generator=draws)
                loss = F.cross_entropy(frozen(squeezed(moved, options.stored, draws))[0], y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            for index in images.chunks():
                put(delta, index, 255 * own(images.batch(index)[1]))
        rows.append({"round": done.epoch, "surrogate_loss": done.loss, "accuracy_on_perturbed": done.train_accuracy})
    return Made(delta, {"rounds": rows})


_ROUNDS = Recipe(
    epochs=20, lr=0.1, schedule="constant", clip_norm=5.0, batches_per_epoch=12, flip=True, crop=2, precision="float32"
)
_COARSE = Coarse(surrogate=_ROUNDS, step=0.05)
PRESETS = {"quick": _COARSE, "laptop": replace(_COARSE, steps=4), "paper": replace(_COARSE, steps=4)}

coarse = Method(learn_coarse, PRESETS, "surrogate.epochs")
