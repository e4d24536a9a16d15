"""Batched augmentations: tensors in, tensors out, on whatever device the batch lies."""

import torch
from torch import Tensor

from miue.errors import InputError


def flip_crop(x: Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop each image at random after zero-padding it, and mirror half of them.

    Args:
        x: (B, C, H, W), any dtype; the same shape comes back, in channels-last memory.
        padding: pixels added on every side before the crop; 0 leaves the position alone.
        flip: mirror each image left-right with probability 1/2.
        generator: on the CPU, so that a seed means the same draws on every device.

    Raises:
        InputError: so wide a padding may leave nothing of an image.
    """
    if not padding and not flip:
        return x
    count, _, height, width = x.shape
    if padding >= min(height, width):
        raise InputError(f"crop: {padding}; for {height} x {width} pixels it must be below {min(height, width)}")
    shift = torch.randint(2 * padding + 1, (count, 2), generator=generator)
    rows = shift[:, :1] + torch.arange(height)
    columns = shift[:, 1:] + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    image = torch.arange(count, device=x.device)[:, None, None]
    rows, columns = rows.to(x.device)[:, :, None], columns.to(x.device)[:, None, :]
    return padded[image, :, rows, columns].permute(0, 3, 1, 2)
