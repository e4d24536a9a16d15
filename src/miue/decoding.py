"""Folders of pictures: decoded once into a file in the cache, which is mapped and checked ever after."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from miue import memory
from miue.errors import InputError
from miue.files import atomic, cache_dir, cache_locked, clear_parts
from miue.images import Images, fingerprint, pieces, printable
from miue.progress import say, track

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What pictures are decoded as, whatever their names say; of the other formats, some would start other programs."""


def read_folder(path: Path, size: int, name: str, anew: bool = False) -> Images:
    """Read class folders of pictures, resized (short side) and centre-cropped to `size`.

    Args:
        path: holds one folder for each class.
        size: height and width in pixels, at least 8.
        name: of the data set.
        anew: decode the pictures although the cache holds them.

    Returns:
        Pictures mapped from the cache, with the fingerprints that they had when they were decoded.

    Raises:
        InputError: fewer than two classes, an empty class, an unreadable picture, or a size that is too small.
    """
    if size < 8:
        raise InputError(f"size: {size}; pictures must be at least 8 px")
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise InputError(f"data: {path} holds {len(classes)} class folder(s); at least two are needed")
    relative: list[str] = []
    labels: list[int] = []
    for label, one in enumerate(classes):
        found = sorted(_pictures(path, one))
        if not found:
            raise InputError(printable(f"data: {path / one} holds no picture ({', '.join(ENDINGS)})"))
        relative += found
        labels += [label] * len(found)
    target = cache_dir() / "pictures" / f"{digest(f'{size} {contents(path, relative)}'.encode()).hex()}.npy"
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
    return Images(x, torch.tensor(labels), classes, ids=torch.tensor(ids), name=name, fingerprints=fingerprints)


def digest(content: bytes) -> bytes:
    """16 bytes that tell contents apart."""
    return hashlib.blake2b(content, digest_size=16).digest()


def remembered(question: str, answer: Callable[[], str]) -> str:
    """Return a hex digest that is expensive to take: `answer()`, or what it was for this `question` before."""
    file = cache_dir() / "pictures" / f"{digest(question.encode(errors='surrogateescape')).hex()}.key"
    known = file.read_bytes() if file.exists() else b""
    if re.fullmatch(rb"[0-9a-f]{32}", known):
        return known.decode()
    found = answer()
    with atomic(file) as part:
        part.write_text(found)
    return found


def _pictures(path: Path, one: str) -> Iterator[str]:
    for where, _, files in os.walk(path / one):
        for file in files:
            if file.lower().endswith(ENDINGS) and not file.startswith("."):
                yield os.path.relpath(os.path.join(where, file), path)


def contents(path: Path, relative: list[str] | None = None) -> str:
    """Digest of pictures' names and contents, remembered by sizes and times so that unchanged files are not read again.

    Args:
        path: a folder.
        relative: the pictures, by their paths in it; by default all.

    Raises:
        InputError: one is no ordinary file.
    """
    relative = sorted(_pictures(path, ".")) if relative is None else relative
    stats = [os.stat(path / r) for r in relative]
    for r, found in zip(relative, stats, strict=True):
        if not stat.S_ISREG(found.st_mode):
            raise InputError(printable(f"data: {path / r} is no ordinary file"))
    listing = [(r, found.st_size, found.st_mtime_ns) for r, found in zip(relative, stats, strict=True)]

    def read() -> str:
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(lambda r: digest((path / r).read_bytes()), relative))
        return digest(f"{list(zip(relative, digests, strict=True))}".encode()).hex()

    return remembered(f"{path.resolve()} {listing}", read)


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
        say(f"{name}: the decoded pictures in the cache are damaged; they are decoded anew")
    clear_parts(target)

    def one(row: int) -> tuple[bytes, bytes]:
        pixels = _picture(files[row], shape[-1]).transpose(2, 0, 1)
        return pixels.tobytes(), fingerprint(pixels, labels[row])

    with atomic(target) as part, part.open("wb") as out, ThreadPoolExecutor() as pool:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        decoded = (picture for rows in pieces(torch.arange(len(files)), shape[1:]) for picture in pool.map(one, rows))
        digests = []
        for pixels, taken in track(decoded, f"decoding {name}", len(files)):
            out.write(pixels)
            digests.append(taken)
        with atomic(_fingerprints(target)) as beside, beside.open("wb") as second:
            np.save(second, np.frombuffer(b"".join(digests), dtype="<i8"))


def _picture(file: Path, size: int) -> np.ndarray:
    try:
        with Image.open(file, formats=FORMATS) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(printable(f"data: {file} cannot be read as a picture ({error})")) from None
    if upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(upright)
