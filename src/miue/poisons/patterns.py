"""Patterns that come from a formula instead of a network: drawn, scaled to an L2 norm, cut to the budget."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from miue.poisons.base import Made, Task, blank
from miue.poisons.passes import put

CIFAR = 3 * 32 * 32
"""Values of the images that the published norms are for; other images get the same norm per value."""

BATCH = 64


def from_patterns(task: Task, draw: Callable[[Tensor], Tensor], *, l2: float, **notes: object) -> Made:
    """Draw one pattern for every image.

    The published L2 norms let single pixels leave an L-infinity budget, so they are clipped to it.

    Args:
        task: of whose images only the labels and the shape matter.
        draw: maps labels (B,) on the CPU to patterns (B, C, H, W), float, of any scale.
        l2: norm of a pattern of 32 x 32 x 3 values in the pixel range [0, 1]; scaled by the root of the number of
            values for other shapes.
        notes: more to note.

    Returns:
        (N, C, H, W) int8 levels; the notes tell the share of values that were clipped, in [0, 1].
    """
    images, budget = task.images, task.budget
    norm = 255 * l2 * math.sqrt(math.prod(images.shape) / CIFAR)
    delta = blank(images)
    labels, clipped = images.y.cpu(), 0
    for index in task.track(torch.arange(len(images)).split(BATCH), "images"):
        patterns = draw(labels[index])
        length = patterns.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        levels = (patterns * (norm / length)[:, None, None, None]).round()
        clipped += int((levels.abs() > budget.levels).sum())
        put(delta, index, levels.clamp(-budget.levels, budget.levels))
    return Made(delta, {"clipped": clipped / delta.numel(), **notes})
