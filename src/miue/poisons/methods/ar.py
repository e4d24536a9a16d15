"""AR: autoregressive noise, without a surrogate.

Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein & Jacobs, "Autoregressive Perturbations for Data Poisoning",
NeurIPS 2022: every class and channel has a recursion in which a pixel is a weighted sum of its eight neighbours above
and to the left. Each image gets its own Gaussian seed, a little larger than itself, over which the recursion runs;
the first rows and columns are cut off and the rest is scaled to an L2 norm of 1 (for 32 x 32 x 3).

It costs no pass over the data, so the presets are equal. Published victims (ResNet-18) have 12 to 17 % on CIFAR-10 and
4 % on CIFAR-100, where the noise has that norm but no L-infinity budget; here it is clipped to the budget as well.
Random weights often make a recursion that grows without limit, or NaN in one class: such weights are drawn again.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 50, a quarter-width VGG-11 45, a two-layer perceptron
45 and a linear network 34 %, where clean training has 59, 61, 45 and 34 %. One small_resnet of four and one VGG-11 of
two found the noise; the others were not harmed. Without flips and crops the small_resnet has 41 % (clean 51 %), and 48
% when nothing is clipped; with l2=3 and epsilon 127/255 it has 13 %.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from miue.errors import Count, InputError, Positive, Range
from miue.poisons.base import Made, Options, Task
from miue.poisons.patterns import from_patterns

TRIALS = 3  # seeds on which a recursion has to prove stable
NEIGHBOURS = [(up, left) for up in range(3) for left in range(3) if up or left]


@dataclass(frozen=True)
class AR(Options):
    """Options of autoregressive noise.

    Args:
        l2: norm of a perturbation of 32 x 32 x 3 values, pixels in [0, 1].
        crop: rows and columns of the seed that are cut off, at least 2, as far as a recursion looks back.
        bound: a recursion is stable where it stays below this, started from seeds of unit variance.
        attempts: how often unstable weights are drawn again.
    """

    l2: Positive = 1.0
    crop: Annotated[int, Range(2, 1024)] = 4
    bound: Positive = 5.0
    attempts: Count = 1000


PRESETS = {name: AR() for name in ("quick", "laptop", "paper")}


def ar(task: Task) -> Made:
    """Draw autoregressive noise; the notes tell how many weights were rejected and what share was clipped."""
    options: AR = task.options
    images = task.images
    generator = task.stream("perturbation")
    channels, height, width = images.shape
    shape = (height + options.crop, width + options.crop)
    taps, rejected = stable_taps(len(images.classes) * channels, shape, options, generator)
    by_class = taps.view(len(images.classes), channels, 3, 3)

    def draw(labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels) * channels, *shape, generator=generator)
        field = recur(noise, by_class[labels].flatten(0, 1))
        return field.view(len(labels), channels, *shape)[..., options.crop :, options.crop :]

    return from_patterns(task, draw, l2=options.l2, rejected=rejected)


def draw_taps(count: int, generator: torch.Generator) -> Tensor:
    """Draw the weights of `count` recursions: (count, 3, 3) that sum to 1, the last, which is the pixel itself, 0."""
    taps = torch.randn(count, 3, 3, generator=generator)
    taps[:, 2, 2] = 0
    return taps / taps.sum((1, 2), keepdim=True)


def stable_taps(count: int, shape: tuple[int, int], options: AR, generator: torch.Generator) -> tuple[Tensor, int]:
    """Draw weights until every recursion is stable.

    Args:
        count: number of recursions.
        shape: (H, W) of the seeds that they will run over.
        options: the bound, the crop and the largest number of attempts.
        generator: on the CPU.

    Returns:
        Weights (count, 3, 3), and how many were rejected on the way.

    Raises:
        InputError: some recursion found no stable weights.
    """
    taps, rejected = draw_taps(count, generator), 0
    waiting = torch.arange(count)
    for _ in range(options.attempts):
        noise = torch.randn(TRIALS * len(waiting), *shape, generator=generator)
        fields = recur(noise, taps[waiting].repeat(TRIALS, 1, 1))[:, options.crop :, options.crop :]
        kept = (fields.abs() <= options.bound).flatten(1).all(1)  # False for NaN too
        stable = kept.view(TRIALS, len(waiting)).all(0)
        waiting = waiting[~stable]
        if not len(waiting):
            return taps, rejected
        rejected += len(waiting)
        taps[waiting] = draw_taps(len(waiting), generator)
    raise InputError(
        f"bound: {options.bound}; {len(waiting)} of {count} recursions stayed unstable after {options.attempts} "
        "attempts; a larger bound, or more attempts, would do"
    )


def recur(noise: Tensor, taps: Tensor) -> Tensor:
    """Run recursions: field[i, j] = sum over a, b of taps[a, b] * field[i - 2 + a, j - 2 + b].

    Args:
        noise: (R, H, W) float seeds; their first two rows and columns stay, all else is overwritten.
        taps: (R, 3, 3) weights; the last is not used.

    Returns:
        (R, H, W) float.
    """
    count, height, width = noise.shape
    rows = torch.arange(height)[:, None]
    diagonal = rows + torch.arange(width)
    # A pixel depends on earlier anti-diagonals only, so that one of them is computed at once: slanted[i + j, i].
    slanted = noise.new_zeros(height + width - 1, height, count)
    slanted[diagonal, rows] = noise.permute(1, 2, 0)
    for line in range(4, height + width - 1):
        first, last = max(2, line - width + 1), min(height, line - 1)
        slanted[line, first:last] = sum(
            taps[:, 2 - up, 2 - left] * slanted[line - up - left, first - up : last - up] for up, left in NEIGHBOURS
        )
    return slanted[diagonal, rows].permute(2, 0, 1)
