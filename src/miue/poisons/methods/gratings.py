"""Gratings: fine stripes of one direction and spacing for each class, without a surrogate.

Ours, read off this book's findings. A victim relies on what tells the class soonest, so delta should be easy to read by
convolutions, and the class should be in it whatever the image shows. Natural images hold little at high frequencies,
so stripes a few pixels wide stand out there at the budget of eight levels. They are the same in all channels, so that
grey images keep them. Where the stripes begin is drawn for each image (`phase="image"`), so that a grating is as likely
as its opposite: a linear function without offset names such a class in half of the cases at most. Convolutions followed
by a mean over places do not ask where stripes begin.

The frequencies are spread over a band, from `lowest` to half a cycle a pixel, each as far as can be from the others;
small shifts leave them as they are. A band of low ones is `lowest=0.0625:highest=0.1875`.

It costs no pass over the data, so the presets are equal. AR (Sandoval-Segura et al., NeurIPS 2022) has textures of
class-wise recursions in the same spirit, with an L2 norm of 1 instead of 1.7 for 32 x 32 pixels. Who knows of gratings
can take them out: they are lines in the spectrum.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 11, a quarter-width VGG-11 19, a two-layer perceptron
42 and a linear network 34 %, where clean training has 59, 61, 45 and 34 %. On 2,000 photographs of ten classes at 64 px
a small_resnet of fifteen epochs has 16 % (MI-UE 26, TAP 25, EM 48, clean 57 %).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from miue.errors import InputError, Range
from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.passes import put

PHASES = ("image", "class")
STEPS = 16  # of the coarsest lattice of frequencies, in a cycle a pixel


@dataclass(frozen=True)
class Gratings(Options):
    """Options of gratings.

    Args:
        lowest, highest: the band of the frequencies, cycles per pixel, the larger of down and across; from 0 to 0.5.
        phase: where the stripes begin is drawn for each "image", or the same for a "class".
        sharp: stripes with hard edges, that move every pixel by the budget; else a cosine.
    """

    lowest: Annotated[float, Range(0, 0.5)] = 0.25
    highest: Annotated[float, Range(0, 0.5, above=True)] = 0.5
    phase: Annotated[str, PHASES] = "image"
    sharp: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lowest >= self.highest:
            raise InputError(f"lowest: {self.lowest:g}; it must be below highest, {self.highest:g}")


PRESETS = {name: Gratings() for name in ("quick", "laptop", "paper")}


def gratings(task: Task) -> Made:
    """Draw gratings; the notes tell the frequency of each class, down and across, in cycles per pixel."""
    options: Gratings = task.options
    images, draws = task.images, task.stream("perturbation")
    channels, *size = images.shape
    chosen = frequencies(len(images.classes), options.lowest, options.highest)
    begins = torch.rand(len(images if options.phase == "image" else images.classes), generator=draws)
    delta = blank(images)
    for index in images.chunks():
        labels = images.y.cpu()[index]
        begin = begins[index if options.phase == "image" else labels]
        waves = torch.cos(2 * math.pi * (phases(chosen[labels], size) + begin[:, None, None]))
        levels = task.budget.levels * (torch.where(waves < 0, -1.0, 1.0) if options.sharp else waves)
        put(delta, index, levels.round()[:, None].expand(-1, channels, -1, -1))
    return Made(delta, {"frequencies": chosen.tolist()})


def phases(frequencies: Tensor, size: Sequence[int]) -> Tensor:
    """How many waves of each frequency (B, 2), down and across, lie between the corner and each pixel, (B, H, W)."""
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in size)
    down, across = frequencies.T[..., None, None]
    return down * rows[:, None] + across * columns


def lattice(count: int, inside: Callable[[Tensor], Tensor]) -> Tensor:
    """Points (at least count, 2) of a square lattice, cycles per pixel down and across, of which `inside` is true.

    The lattice is halved until it has as many.
    """
    steps = STEPS
    while True:
        line = torch.arange(steps // 2 + 1) / steps
        points = torch.cartesian_prod(line, line)
        points = points[inside(points) & (points.amax(1) > 0)]
        if len(points) >= count:
            return points
        steps *= 2


def frequencies(count: int, lowest: float, highest: float) -> Tensor:
    """Choose frequencies far from one another, (count, 2) cycles per pixel, down and across, none negative.

    From the points of a lattice in the band, the highest first, and then always the one whose nearest chosen one is
    farthest.
    """
    points = lattice(count, lambda points: (points.amax(1) >= lowest) & (points.amax(1) <= highest))
    chosen = [int((points.sum(1)).argmax())]
    nearest = (points - points[chosen[0]]).norm(dim=1)
    for _ in range(count - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).norm(dim=1))
    return points[chosen]
