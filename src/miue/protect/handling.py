"""What happens to a published image before somebody trains on it: it is resized, cropped and stored anew."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from miue.data.seeing import as_seen

Step = Callable[[Image.Image], Image.Image]


def stored(kind: str, quality: int) -> Step:
    """Store an image as JPEG or WebP of a quality, colours at half resolution as is usual, and read it again."""

    def step(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, kind, quality=quality)
        with Image.open(file) as again:
            return again.convert("RGB")

    return step


def cropped(share: float, across: float, down: float) -> Step:
    """Cut out a part of an image.

    Args:
        share: of its width and of its height, in (0, 1].
        across, down: where the part lies, from 0 (left, top) to 1.
    """

    def step(image: Image.Image) -> Image.Image:
        wide, high = (round(share * side) for side in image.size)
        left, top = round(across * (image.width - wide)), round(down * (image.height - high))
        return image.crop((left, top, left + wide, top + high))

    return step


HANDLINGS: dict[str, tuple[list[Step], list[Step]]] = {
    "as published": ([], []),
    "JPEG 90": ([stored("JPEG", 90)], []),
    "JPEG 75": ([stored("JPEG", 75)], []),
    "JPEG 50": ([stored("JPEG", 50)], []),
    "WebP 80": ([stored("WEBP", 80)], []),
    "a crop of 80 %": ([cropped(0.8, 0.2, 0.7)], []),
    "resized, then JPEG 90": ([], [stored("JPEG", 90)]),
    "resized, then JPEG 75": ([], [stored("JPEG", 75)]),
    "resized, then JPEG 50": ([], [stored("JPEG", 50)]),
}
"""By name: what is done to an image at its own size, and what once it is resized for training."""


def handled(image: Image.Image, name: str, size: int) -> np.ndarray:
    """(3, size, size) uint8: what training sees of an image, after what `HANDLINGS` says.

    Args:
        image: upright; what is transparent in it shows white.
        name: one of `HANDLINGS`.
        size: pixels of the short side, to which the image is resized and cropped in the middle.
    """
    before, after = HANDLINGS[name]
    picture = Image.fromarray(as_seen(image)[0].transpose(1, 2, 0))
    for step in before:
        picture = step(picture)
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    for step in after:
        picture = step(picture)
    return np.asarray(picture).transpose(2, 0, 1)
