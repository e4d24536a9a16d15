"""Batched augmentations: tensors in, tensors out, on whatever device the batch lies."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from miue.errors import InputError

__all__ = ["Moves", "draw_moves", "flip_crop", "move"]

Moves = Tensor
"""How images are moved, (B, 3) int64: by how many rows and columns of the padding, and 1 where mirrored, else 0."""


def flip_crop(x: Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop each image at random after zero-padding it, and mirror half of them: what `draw_moves` draws, `move` does.

    Args:
        x: as `move` takes it.
        padding, flip, generator: as `draw_moves` takes them.

    Raises:
        InputError: so wide a padding may leave nothing of an image.
    """
    return move(x, draw_moves(len(x), padding=padding, flip=flip, generator=generator), padding)


def draw_moves(count: int, *, padding: int, flip: bool, generator: torch.Generator) -> Moves | None:
    """Draw a crop for each of `count` images, and mirror half of them; None where nothing is asked.

    Args:
        count: number of images.
        padding: pixels added on every side before the crop; 0 leaves the position alone.
        flip: mirror each image left-right with probability 1/2.
        generator: on the CPU, so that a seed means the same draws on every device.
    """
    if not padding and not flip:
        return None
    shift = torch.randint(2 * padding + 1, (count, 2), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5 if flip else torch.zeros(count, 1, dtype=torch.bool)
    return torch.cat([shift, mirrored.long()], 1)


def move(x: Tensor, moves: Moves | None, padding: int) -> Tensor:
    """Zero-pad images, crop each to its size and mirror some, as `moves` say; None leaves them as they are.

    Args:
        x: (B, C, H, W), any dtype, and differentiable; the same shape comes back, in channels-last memory.
        moves: as `draw_moves` returns them, for this padding; they go to the device of `x`.
        padding: pixels added on every side.

    Raises:
        InputError: so wide a padding may leave nothing of an image.
    """
    if moves is None:
        return x
    height, width = x.shape[2:]
    if padding >= min(height, width):
        raise InputError(f"crop: {padding}; for {height} x {width} pixels it must be below {min(height, width)}")
    moved: Tensor = _Moved.apply(x, moves.to(x.device, non_blocking=True), padding)
    return moved


class _Moved(torch.autograd.Function):
    """Each pixel goes to one place at most, so that gradients go back by the inverse move, which reads each once."""

    @staticmethod
    def forward(context: Any, x: Tensor, moves: Moves, padding: int) -> Tensor:
        context.save_for_backward(moves)
        context.padding = padding
        return _read(x, moves, padding)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (moves,) = context.saved_tensors
        back = 2 * context.padding - moves
        columns = torch.where(moves[:, 2] == 1, moves[:, 1], back[:, 1])  # the inverse of a mirror mirrors the shift
        inverse = torch.stack([back[:, 0], columns, moves[:, 2]], 1)
        return _read(gradient, inverse, context.padding), None, None


def _read(x: Tensor, moves: Moves, padding: int) -> Tensor:
    count, _, height, width = x.shape
    rows = moves[:, :1] + torch.arange(height, device=x.device)
    columns = moves[:, 1:2] + torch.arange(width, device=x.device)
    columns = torch.where(moves[:, 2:] == 1, columns.flip(1), columns)
    padded = F.pad(x, (padding,) * 4)
    image = torch.arange(count, device=x.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
