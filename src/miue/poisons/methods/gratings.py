"""Gratings: fine stripes of one direction and spacing for each class, without a surrogate.

Ours, read off this book's findings. A victim relies on what tells the class soonest, so delta should be easy to read by
convolutions, and the class should be in it whatever the image shows. Natural images hold little at high frequencies,
so stripes a few pixels wide stand out there at the budget of eight levels. They are the same in all channels, so that
grey images keep them. Where the stripes begin is drawn for each image, so that a grating is as likely as its opposite:
a linear function without offset names such a class in half of the cases at most. Convolutions followed by a mean over
places do not ask where stripes begin.

The frequencies are spread over a band, from a quarter to half a cycle a pixel, each as far as can be from the others;
small shifts leave them as they are.

It costs no pass over the data, so the presets are equal. AR (Sandoval-Segura et al., NeurIPS 2022) has textures of
class-wise recursions in the same spirit, with an L2 norm of 1 instead of 1.7 for 32 x 32 pixels. Who knows of gratings
can take them out (`miue.defenses.notch`): they are lines in the spectrum.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 11, a quarter-width VGG-11 19, a two-layer perceptron
42 and a linear network 34 %, where clean training has 59, 61, 45 and 34 %. On 2,000 photographs of ten classes at 64 px
a small_resnet of fifteen epochs has 16 % (MI-UE 26, TAP 25, EM 48, clean 57 %).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.passes import put

LOWEST = 0.25  # cycles a pixel, down or across, whichever has more
STEPS = 16  # of the coarsest lattice of frequencies, in a cycle a pixel

PRESETS = {name: Options() for name in ("quick", "laptop", "paper")}


def gratings(task: Task) -> Made:
    """Draw gratings; the notes tell the frequency of each class, down and across, in cycles per pixel."""
    images = task.images
    channels, *size = images.shape
    chosen = frequencies(len(images.classes))
    begins = torch.rand(len(images), generator=task.stream("perturbation"))
    delta, limit = blank(images), task.budget.levels
    for index in images.chunks():
        turned = phases(chosen[images.y.cpu()[index]], size) + begins[index, None, None]
        stripes = torch.where(torch.cos(2 * math.pi * turned) < 0, -limit, limit)
        put(delta, index, stripes[:, None].expand(-1, channels, -1, -1))
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


def frequencies(count: int) -> Tensor:
    """Choose frequencies far from one another, (count, 2) cycles per pixel, down and across, none negative.

    From the points of a lattice in the band, the highest first, and then always the one whose nearest chosen one is
    farthest.
    """
    points = lattice(count, lambda points: points.amax(1) >= LOWEST)
    chosen = [int((points.sum(1)).argmax())]
    nearest = (points - points[chosen[0]]).norm(dim=1)
    for _ in range(count - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).norm(dim=1))
    return points[chosen]
