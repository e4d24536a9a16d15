"""Projected sign-gradient steps inside a budget: the one loop that every optimised perturbation runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from miue.errors import Options, Range
from miue.specs import parse_epsilon

__all__ = ["Budget", "attack", "fit_to_images", "in_levels", "pgd", "sign_steps"]

MAX_LEVELS = 127
_EPSILON = Range((1 - 5e-7) / 255, (MAX_LEVELS + 5e-7) / 255, text=" between 1/255 (1 level) and 127/255 (127 levels)")


@dataclass(frozen=True)
class Budget(Options):
    """An L-infinity budget: how far each pixel may move.

    Args:
        epsilon: fraction of the pixel range, at least 1/255 and at most 127/255.

    Raises:
        InputError: epsilon is out of range or no number.

    Example:
        >>> from miue.pgd import Budget
        >>> Budget(8 / 255).levels, Budget(0.031).levels
        (8, 7)
    """

    epsilon: Annotated[float, _EPSILON]

    @property
    def levels(self) -> int:
        """The budget in whole grey levels, floor(255 epsilon + 1e-6)."""
        return math.floor(255 * self.epsilon + 1e-6)


def in_levels(epsilon: float | str) -> str:
    """Write a budget with the whole grey levels that it takes: "8/255 (8 levels)", but "0.031 (7 levels)".

    Raises:
        InputError: epsilon is no number or out of range.
    """
    levels = Budget(parse_epsilon(epsilon)).levels
    written = epsilon if isinstance(epsilon, str) else f"{epsilon:g}"
    return f"{written} ({levels} level{'s' if levels > 1 else ''})"


def fit_to_images(delta: Tensor, x: Tensor) -> Tensor:
    """Clip `delta` (whole levels) so that x + delta stays in 0..255; `x` is uint8 of the same shape."""
    levels = x.to(torch.int16)
    return torch.clamp(delta.to(torch.int16), -levels, 255 - levels).to(delta.dtype)


def sign_steps(
    objective: Callable[[Tensor], Tensor],
    moving: Tensor,
    low: Any,
    high: Any,
    *,
    step: float | Tensor,
    steps: int,
    ascend: bool = False,
) -> Tensor:
    """Move a tensor by sign-gradient steps on a scalar objective, inside a box.

    Args:
        objective: maps the moving tensor to a scalar.
        moving: float, where to start.
        low, high: the box: two numbers, or two tensors whose shapes broadcast to that of `moving`.
        step: length of a step; a number, or a scalar on the device of `moving`.
        steps: number of steps.
        ascend: go up instead of down.

    Returns:
        A tensor of the same shape, detached; NaN where the gradient of the last step was not finite.
    """
    signed = step if ascend else -step
    for _ in range(steps):
        moving.requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(moving), moving)
        moving = torch.clamp(moving.detach() + signed * gradient.sign(), low, high)
    return torch.where(gradient.isfinite(), moving, torch.nan) if steps else moving.detach()


def pgd(
    objective: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    delta: Tensor,
    *,
    budget: Budget,
    step: float | Tensor,
    steps: int,
) -> Tensor:
    """Move `delta` by sign-gradient steps on `objective(x + delta, y)`, inside the budget and the pixel range.

    Args:
        objective: maps images (B, C, H, W), float in [0, 1], and labels to a scalar; whatever augmentation it
            applies, it applies to x + delta, so that delta stays in the image's own frame.
        x: (B, C, H, W) uint8.
        y: (B,) int64 labels, handed to the objective.
        delta: (B, C, H, W) grey levels to start from, of any real type.
        budget: the L-infinity limit.
        step: length of a step, as a fraction of the pixel range; a number, or a scalar on the device of `x`.
        steps: number of steps.

    Returns:
        (B, C, H, W) float32 levels, not rounded, on which x + delta lies in [0, 255] but for float32 rounding.
    """
    pixels = x.float() / 255
    limit = budget.levels / 255
    low, high = (-pixels).clamp(min=-limit), (1 - pixels).clamp(max=limit)

    def loss(moving: Tensor) -> Tensor:
        return objective(pixels + moving, y)

    return 255 * sign_steps(loss, delta.float() / 255, low, high, step=step, steps=steps)


def attack(
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    radius: float,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Move images to where a scalar objective is high: the inner maximisation of adversarial training.

    Args:
        objective: maps images, float in [0, 1], to a scalar.
        images: (B, C, H, W) float in [0, 1].
        radius: L-infinity distance that they may move, as a fraction of the pixel range.
        step, steps: length and number of sign-gradient steps; with none, only the random start is left.
        generator: on the images' device; with it, the start is drawn uniformly within the radius.

    Returns:
        Images of the same shape in [0, 1], detached.
    """
    images = images.detach()
    low, high = (images - radius).clamp(min=0), (images + radius).clamp(max=1)
    start = images
    if generator is not None:
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        start = torch.clamp(images + radius * (2 * noise - 1), low, high)
    return sign_steps(objective, start.clone(), low, high, step=step, steps=steps, ascend=True)
