"""A protected copy of somebody's own images: perturbed so that networks learn less of them.

How little or how much that protects is measured; see `miue.audit` and the chapter *Protecting your own images*.
"""

from pathlib import Path
from typing import Any

from miue.protect.making import Protected, check, make
from miue.protect.settings import Settings

__all__ = ["Protected", "Settings", "check", "images"]


def images(
    folder: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    workers: int | None = None,
    **settings: Any,
) -> Protected:
    """Make a protected copy of a folder of images, or go on with one, or add the images that are new.

    Originals are only read. The copy lies in `out`: what may be published in `publish`, what must not be in `private`.
    Memory holds as many images as there are workers. A stopped call goes on when it is called again.

    Args:
        folder: holds a folder for each class or person, or one person's images. What is no image is counted, what
            cannot be read is named.
        out: beside `folder`, not in it.
        reference: a folder of other images, which stay as they are: what a single class is told from.
        workers: images that are read or written at the same time; by default one for each core.
        **settings: see `Settings`; a copy that was begun keeps its own. The seed is drawn if none is given.

    Raises:
        InputError: folders in one another, no images, one class without a reference, another setting than before.
        OSError: the disk is full.
    """
    at = None if reference is None else Path(reference)
    return make(Path(folder), Path(out), at, workers, settings)
