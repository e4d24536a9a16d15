"""Folders of images: decoded once into a file in the cache, which is mapped and checked ever after."""

import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from miue.data.arrays import whole
from miue.data.digests import contents, digest, fingerprint
from miue.data.folders import listing
from miue.data.images import Images, pieces
from miue.data.seeing import as_seen
from miue.errors import InputError, printable
from miue.progress import say, track
from miue.storage import memory
from miue.storage.files import atomic, cache_dir, cache_locked, clear_parts

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What images are decoded as, whatever their names say; of the other formats, some would start other programs."""
MIN_SIZE, MAX_SIZE = 8, 4096  # px
DECODING = 3  # in the names of cached files; raised whenever a file comes out otherwise than before


def read_folder(path: Path, size: int, name: str, anew: bool = False) -> Images:
    """Read class folders of images as RGB, resized (short side) and centre-cropped to `size`.

    Greys of 16 bits come out by their upper 8. What is transparent shows white, so that nothing is learned from colours
    that nobody sees. Of several images in one file, the first is read. What is left out of the folder is said.

    Args:
        path: holds one folder for each class, see `miue.data.folders.listing`.
        size: height and width in pixels, 8 to 4,096.
        name: of the data set.
        anew: decode the images although the cache holds them.

    Returns:
        Images mapped from the cache, with the fingerprints that they had when they were decoded, and with the names of
        their files.

    Raises:
        InputError: fewer than two classes, an empty class, an unreadable image, or a size that is too small or large.
    """
    check_size(size)
    found = listing(path)
    if found.left_out:
        say(f"{name}: left out of {printable(path.name)}: {found.told()}")
    relative, labels, classes = found.files, found.labels, found.classes
    target = cache_dir() / "images" / f"{digest(f'{DECODING} {size} {contents(path, relative)}'.encode()).hex()}.npy"
    shape = (len(relative), 3, size, size)
    kept = None if anew else _kept(target, shape)
    if kept is None:
        with cache_locked(target, f"decoding {name}"):
            kept = None if anew else _kept(target, shape)
            if kept is None:
                _decode([path / r for r in relative], labels, shape, target, name)
                kept = _kept(target, shape)
    if kept is None:
        raise OSError(f"cache: {target} is damaged as soon as it is written")
    ids = [int.from_bytes(digest(os.fsencode(Path(r).as_posix()))[:8], "little", signed=True) for r in relative]
    x, fingerprints = kept
    return Images(
        x,
        torch.tensor(labels),
        classes,
        ids=torch.tensor(ids),
        name=name,
        names=["/".join(PurePath(r).parts[1:]) for r in relative],
        fingerprints=fingerprints,
        layout="nchw",
    )


def check_size(size: int) -> None:
    """Refuse a height and width of images that is no whole number from `MIN_SIZE` to `MAX_SIZE`.

    Raises:
        InputError: it is not.
    """
    if whole("size", size, MIN_SIZE) > MAX_SIZE:
        raise InputError(f"size: {size}; images must be at most {MAX_SIZE} px")


def _fingerprints(target: Path) -> Path:
    return target.with_suffix(".fingerprints.npy")


def _kept(target: Path, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    """Pixels and fingerprints as they lie in the cache; None where one of them is missing or cut off."""
    try:
        pixels, fingerprints = np.load(target, mmap_mode="r"), np.load(_fingerprints(target))
        if (pixels.shape, pixels.dtype, fingerprints.dtype) != (shape, np.uint8, np.int64):
            return None
        return memory.mapped(target, shape, torch.uint8, pixels.offset), torch.from_numpy(fingerprints)
    except (OSError, ValueError, EOFError):
        return None


def _decode(files: list[Path], labels: list[int], shape: tuple[int, ...], target: Path, name: str) -> None:
    if target.exists():
        say(f"{name}: the decoded images in the cache are damaged; they are decoded anew")
    clear_parts(target)

    def one(row: int) -> tuple[bytes, bytes, list[str]]:
        pixels, notes = _image(files[row], shape[-1])
        return pixels.tobytes(), fingerprint(pixels, labels[row]), notes

    told: Counter[str] = Counter()
    with atomic(target) as part, part.open("wb") as out, ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # on metadata; what bears on the pixels is told below
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        decoded = (image for rows in pieces(torch.arange(len(files)), shape[1:]) for image in pool.map(one, rows))
        digests = []
        for pixels, taken, notes in track(decoded, f"decoding {name}", len(files)):
            out.write(pixels)
            digests.append(taken)
            told.update(notes)
        with atomic(_fingerprints(target)) as beside, beside.open("wb") as second:
            np.save(second, np.frombuffer(b"".join(digests), dtype="<i8"))
    for note, count in told.items():
        say(f"{name}: {count} of the files {note}")


def _image(file: Path, size: int) -> tuple[np.ndarray, list[str]]:
    """Decode one file: pixels (3, size, size) uint8, and what has to be told of it."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return as_seen(image, size)
    except Exception as error:  # damaged files raise all sorts of errors
        reason = str(error) or type(error).__name__
        raise InputError(printable(f"data: {file} cannot be read as an image ({reason})")) from None
