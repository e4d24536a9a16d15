"""Somebody's own method: a function, made into what the methods of this package are."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from miue.errors import InputError
from miue.poisons.base import Made, Method, Options, Task


def method_of(function: Callable[..., Any]) -> Method:
    """Make a method of a function `(images, levels, seed) -> delta`.

    Args:
        function: takes clean `Images`, the budget in whole grey levels and a seed; returns a tensor or array
            (N, C, H, W) of grey levels, which are rounded to whole ones. What leaves the budget or the pixel range is
            refused or clipped as for every other method.
    """

    @wraps(function)  # so that the cache sees whose code it is
    def make(task: Task) -> Made:
        delta = torch.as_tensor(function(task.images, task.budget.levels, task.seed))
        return Made(_checked(delta, task, function), {})

    return Method(make, {preset: Options() for preset in ("quick", "laptop", "paper")})


def _checked(delta: Tensor, task: Task, function: Callable[..., Any]) -> Tensor:
    name, wanted = getattr(function, "__name__", "own"), (len(task.images), *task.images.shape)
    if tuple(delta.shape) != wanted or delta.dtype == torch.bool or delta.is_complex():
        raise InputError(
            f"method: {name} returned {tuple(delta.shape)}, {delta.dtype}; it must be {wanted}, grey levels"
        )
    if not bool(delta.isfinite().all()):
        raise InputError(f"method: {name} returned values that are not finite; it must return grey levels")
    most = float(delta.abs().max())
    if round(most) > task.budget.levels:
        raise InputError(f"method: {name} moved a pixel by {most:g} levels; the budget is {task.budget.levels}")
    return delta.to(task.images.device).float().round().to(torch.int8)
