"""Weave: two gratings for each class, coarse stripes that JPEG keeps and fine ones in the blue channel.

Ours, and what `miue.poisons.methods.gratings` became once it was seen what stops those: JPEG of quality 10 takes every
fine stripe away. Three things follow from what this book has found, and no network is asked about any of them.

The coarse stripes lie where the class can still be read after JPEG: at about a quarter of a cycle a pixel, down and
across together, the quantisation of luma leaves most of eight levels, and images hold less than at lower frequencies.

They begin where the image's own wave of that frequency begins, so that they always strengthen what is there, and never
cancel it. Where that is differs from image to image, so that a linear function still does not read them.

The fine stripes lie in one channel, blue. Between the channels photographs hardly differ in what is fine, so that a
network which sees colours finds the class there at once; in the lightness that JPEG keeps, blue weighs a ninth, so that
the coarse stripes lose little by it. Both are added there before the sign is taken, so that each pixel moves by the
whole budget.

Which frequencies a class has is drawn. It costs no pass over the data, so the presets are equal. Who knows of it can
take it out (`miue.defenses.notch`): it is two lines in the spectrum. With `drift` the stripes of each image lie a
little beside those of its class, so that the class has no line but a hill, which such a filter finds less easily.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from miue.errors import Range, Unit
from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.methods.gratings import frequencies, lattice, phases
from miue.poisons.passes import put

WIDTH = 0.085  # of the band of coarse frequencies, to each side
WOVEN = ("blue", "all")
FEW = 10  # classes; with at most so many, one that comes later leaves the stripes of the others as they are


@dataclass(frozen=True)
class Weave(Options):
    """Options of weave.

    Args:
        coarse: about how many cycles a pixel the coarse stripes have, down and across together.
        share: of the coarse stripes where both are woven, from 0, fine ones alone, to 1, coarse ones alone.
        woven: where both are: in "blue", the last channel, or in "all" alike; elsewhere there are coarse ones alone.
        aligned: stripes begin where the image's own wave does; else anywhere.
        drift: how far, in cycles a pixel, down and across, the frequencies of an image lie from those of its class at
            most.
    """

    coarse: Annotated[float, Range(0.125, 0.75)] = 0.23
    share: Unit = 0.45
    woven: Annotated[str, WOVEN] = "blue"
    aligned: bool = True
    drift: Annotated[float, Range(0, 0.0625)] = 0.0


PRESETS = {name: Weave() for name in ("quick", "laptop", "paper")}


def weave(task: Task) -> Made:
    """Draw both gratings of each class; the notes tell their frequencies, down and across, in cycles per pixel."""
    options: Weave = task.options
    images, draws = task.images, task.stream("perturbation")
    channels, *size = images.shape
    count = max(len(images.classes), FEW)
    coarse, fine = (
        known[torch.randperm(count, generator=draws)][: len(images.classes)]
        for known in (keepers(count, options.coarse), frequencies(count))
    )
    begins = torch.rand(2, len(images), generator=draws)
    drifts = options.drift * (2 * torch.rand(2, len(images), 2, generator=draws) - 1)
    delta, limit = blank(images), task.budget.levels
    for index in images.chunks():
        x, y = (part.cpu() for part in images.batch(index))
        light = x.float().mean(1)
        waves = []
        for known, drift, begin in zip((coarse[y], fine[y]), drifts[:, index], begins[:, index], strict=True):
            turned = phases(known + drift, size)
            start = own_phase(light, turned) if options.aligned else begin
            waves.append(torch.cos(2 * math.pi * (turned - start[:, None, None])))
        both = options.share * waves[0] + (1 - options.share) * waves[1]
        woven = torch.tensor([options.woven == "all" or channel == channels - 1 for channel in range(channels)])
        pattern = torch.where(woven[:, None, None], both[:, None], waves[0][:, None])
        put(delta, index, torch.where(pattern < 0, -limit, limit))
    return Made(delta, {"coarse": coarse.tolist(), "fine": fine.tolist()})


def keepers(count: int, at: float) -> Tensor:
    """Choose frequencies (count, 2), cycles per pixel, whose sum of down and across is nearest to `at`."""
    points = lattice(count, lambda points: (points.sum(1) - at).abs() <= WIDTH)
    far, skew = (points.sum(1) - at).abs(), (points[:, 0] - points[:, 1]).abs()
    return points[sorted(range(len(points)), key=lambda row: (float(far[row]), float(skew[row])))[:count]]


def own_phase(light: Tensor, turned: Tensor) -> Tensor:
    """Where the wave of images (B, H, W) begins, (B,) in waves, `turned` counting those up to each pixel, (B, H, W)."""
    centred, angle = light - light.mean((1, 2), keepdim=True), 2 * math.pi * turned
    along, across = ((centred * wave).sum((1, 2)) for wave in (angle.cos(), angle.sin()))
    return torch.atan2(across, along) / (2 * math.pi)
