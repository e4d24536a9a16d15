"""From working size to an image's own: the perturbation of its middle, enlarged, and mirrored towards its ends.

What a scraper makes of an image is smaller than the image, and what it makes it smaller by averages over pixels. So
a perturbation that is made at a small size and enlarged smoothly comes back, where one made pixel by pixel would be
averaged away.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from miue.data.photographs import Photograph

ROWS = 512  # of an image that are perturbed at once
REACH = 3  # pixels beyond its end that cubic interpolation looks at


def perturbed(photograph: Photograph, delta: np.ndarray, levels: int) -> Photograph:
    """Add a perturbation to a photograph, within the budget; grey ones stay grey, what is transparent stays so.

    Args:
        photograph: of any size.
        delta: (3, S, S), grey levels, for the middle square of the photograph, resized to S x S pixels.
        levels: by which no pixel moves more, 1 to 127.
    """
    pixels = np.array(photograph.picture)
    colours = pixels[..., None] if pixels.ndim == 2 else pixels[..., : pixels.shape[2] - (pixels.shape[2] in (2, 4))]
    height, width, bands = colours.shape
    if bands == 1:
        delta = delta.mean(0, keepdims=True)
    for top, change in strips(delta, width, height):
        rows = colours[top : top + len(change)]
        moved = rows + np.clip(np.rint(change), -levels, levels).astype(np.int16)
        rows[...] = np.clip(moved, 0, 255)
    return replace(photograph, picture=Image.fromarray(pixels))


def strips(delta: np.ndarray, width: int, height: int) -> Iterator[tuple[int, np.ndarray]]:
    """Enlarge a perturbation (C, S, S) to an image of `width` x `height`, (rows, width, C) float32 at a time.

    Yields:
        The first row of each strip, and the strip.
    """
    side, short = delta.shape[-1], min(width, height)
    wide, high = side * width / short, side * height / short  # the image, in pixels of delta
    beside, above = (wide - side) / 2, (high - side) / 2
    left, top = math.ceil(beside) + REACH, math.ceil(above) + REACH
    mirrored = np.pad(delta, ((0, 0), (top, top), (left, left)), mode="symmetric")
    bands = [Image.fromarray(np.ascontiguousarray(band, np.float32)) for band in mirrored]
    for first in range(0, height, ROWS):
        last = min(first + ROWS, height)
        begin, end = (top - above + row * high / height for row in (first, last))
        box = (left - beside, begin, left - beside + wide, end)
        enlarged = [band.resize((width, last - first), Image.Resampling.BICUBIC, box) for band in bands]
        yield first, np.stack([np.asarray(band) for band in enlarged], axis=-1)
