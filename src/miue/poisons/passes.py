"""The pgd pass: sign-gradient steps on a loss, once for every image, in class-balanced batches."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from miue.data.images import Images
from miue.models.frozen import Frozen
from miue.pgd import Budget, pgd
from miue.precision import loss_scale, precision
from miue.progress import tell
from miue.replay import Replay
from miue.storage.checkpoint import Checkpoint

Loss = Callable[[Tensor, Tensor], Tensor]  # of images (B, C, H, W), float in [0, 1], and labels (B,)
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits (B, classes), features (B, d), labels (B,)

ROUNDINGS = ("once", "each_pass")
"""When delta is rounded to whole grey levels: at the end, or, as earlier versions did, after each pgd pass as well,
which loses what a pass moves by less than half a level."""


def put(delta: Tensor, index: Tensor, levels: Tensor) -> None:
    """Write `levels`, (B, C, H, W), into the rows `index` of `delta`, wherever that lies; whole ones into integers."""
    delta[index.to(delta.device)] = levels.to(delta)


def balanced_batches(
    labels: Tensor, size: int, generator: torch.Generator, repeated: bool = False
) -> tuple[Tensor, ...]:
    """Shuffle all indices into batches of at most `size` in which every class has its share.

    Each class is spread evenly over [0, 1); reading from left to right then mixes the classes in proportion. The
    batches are of one size where at most a tenth more of them makes that possible: a GPU replays only equal ones.
    With `repeated`, the images of smaller classes come again until each class has as many places as the largest.
    """
    labels = labels.cpu()
    members = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    if repeated:
        most = max(map(len, members))
        members = [rows.repeat(-(-most // len(rows)))[:most] for rows in members]
    places = []
    for rows in members:
        place = torch.randperm(len(rows), generator=generator) + torch.rand(len(rows), generator=generator)
        places.append(place / len(rows))
    index, by_row = torch.cat(members).sort(stable=True)
    return index[torch.cat(places)[by_row].argsort()].tensor_split(_batches(len(index), size))


def _batches(count: int, size: int) -> int:
    """Batches that `balanced_batches` makes of so many images."""
    least = -(-count // size)
    return next((more for more in range(least, math.floor(1.1 * least) + 1) if count % more == 0), least)


def cross_entropy(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """The objective that looks at nothing but the logits (B, classes) and the labels (B,)."""
    return F.cross_entropy(logits, labels)


def on_outputs(network: Frozen, objective: Objective) -> Loss:
    """Turn an objective on a network's outputs into a loss on images; for float16 it is scaled.

    Only the signs of its gradients count, so the scale changes nothing else. No precision has been seen to cost
    anything: of three perturbations of Digits-M (MI-UE, quick, small_resnet at half width) that were made with
    bfloat16 in all convolutions and linear layers, two strangers each kept 11 and 19, 19 and 12, 18 and 23 %; of those
    in float32 15 and 67, 13 and 14, 8 and 11 %. No chip had bfloat16; `benchmarks/rounding.py` emulates it.
    """

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return loss_scale(precision(network.number, images.device)) * objective(*network(images), labels)

    return loss


class PGDPass:
    """A pgd pass over the images: sign-gradient steps on a loss, once for every image, in class-balanced batches.

    Args:
        images: clean images, in the order of delta.
        loss: of x + delta, and labels.
        batch: images in a batch, at most.
        budget: how far a pixel may move.
        steps: sign-gradient steps on each batch.
        order: of the images, on the CPU.
        rounding: one of `ROUNDINGS`.
        begin: told the rows of `images` in each batch before its steps, for a loss that has to know them.
        flips: of the images that half of them are mirrored by for a pass, anew for each, on the CPU; their deltas are
            not. None: all as they are.
        fixed: whether the loss is the same function of images and labels throughout and draws nothing, so that a GPU
            may replay it; without `begin` only.
        repeated: as `balanced_batches` takes it.

    Attributes:
        places: how many images a pass takes up, with those that come again.
    """

    def __init__(
        self,
        images: Images,
        loss: Loss,
        *,
        batch: int,
        budget: Budget,
        steps: int,
        order: torch.Generator,
        rounding: str = "once",
        begin: Callable[[Tensor], object] | None = None,
        flips: torch.Generator | None = None,
        fixed: bool = False,
        repeated: bool = False,
    ) -> None:
        self.images, self.batch, self.steps, self.order, self.repeated = images, batch, steps, order, repeated
        self.places = len(images)
        if repeated:
            counts = images.y.bincount()
            self.places = int(counts.max() * (counts > 0).sum())
        self.rounding, self.begin, self.flips = rounding, begin, flips
        self.waiting: list[Tensor] = []  # batches of a pass that was begun and is taken in parts
        self.replayed = fixed and begin is None and images.device.type != "cpu"

        def move(x: Tensor, y: Tensor, start: Tensor, step: Tensor | float) -> Tensor:
            return pgd(loss, x, y, start, budget=budget, step=step, steps=steps)

        self._move = Replay(move) if self.replayed else move

    def __call__(
        self, delta: Tensor, step: float, keep: Checkpoint | None = None, part: tuple[int, int] = (0, 1)
    ) -> None:
        """Improve `delta`, (N, C, H, W) float16 levels, in place, by steps of length `step` (of the pixel range).

        A long pgd pass has a checkpoint of its own, `keep`, and goes on at the batch where it was stopped. Of a pass
        that is taken in parts, `part` is the number from 0 and how many they are; `waiting` holds the batches of the
        others.

        Raises:
            FloatingPointError: a gradient was not finite.
        """
        images, keep = self.images, Checkpoint() if keep is None else keep
        if part[0] == 0:
            self.waiting[:] = images.located(balanced_batches(images.y, self.batch, self.order, self.repeated))
        begun, ended = ((part[0] + more) * _batches(self.places, self.batch) // part[1] for more in (0, 1))
        batches, self.waiting[:] = self.waiting[: ended - begun], self.waiting[ended - begun :]
        length = torch.tensor(step, device=images.device) if self.replayed else step
        keep.hold(delta=delta, generator=self.order)
        if self.flips is not None:
            mirrored = (torch.rand(len(images), generator=self.flips) < 0.5).to(images.device)
        finite = torch.ones((), dtype=torch.bool, device=images.device)  # asked once, so that no batch has to wait
        for number in range(keep.restore(), len(batches)):
            index = batches[number]
            x, y = images.batch(index)
            if self.flips is not None:
                x = torch.where(mirrored[index.to(x.device), None, None, None], x.flip(3), x)
            start = delta[index.to(delta.device)].to(x.device)
            if self.begin is not None:
                self.begin(index)
            moved = self._move(x, y, start, length)
            finite &= moved.isfinite().all()
            put(delta, index, moved.round() if self.rounding == "each_pass" else moved)
            tell(images=self.steps * len(y))
            keep.save(number + 1)
        if not finite:
            raise FloatingPointError("pgd pass: a gradient is not finite; take precision float32, or another recipe")
