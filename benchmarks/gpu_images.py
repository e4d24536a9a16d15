"""The images of an archive of CIFAR-10 as JPEG files, decoded by many processes into the cache of the package.

    MIUE_CACHE=/dev/shm/miue python benchmarks/gpu_images.py FOLDER/cifar10-jpeg.tar.xz

`miue.load("cifar10", FOLDER)` finds them afterwards as if it had unpacked and decoded the archive itself. It would
write and read 60,000 small files one after the other; here many are decoded at once, while the archive is being read.
"""

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from miue.data.archives import is_unpacked, unpacked
from miue.data.decoding import DECODING, FORMATS
from miue.data.digests import contents, digest, fingerprint
from miue.data.folders import listing
from miue.data.seeing import as_seen
from miue.errors import InputError
from miue.storage.files import atomic, atomic_folder, cache_dir

SIZE = 32  # px
AT_ONCE = 1000  # files that a process takes together

Packed = tuple[Path, list[tuple[str, bytes]]]  # a folder, and names in it with the contents of their files


def packed(archive: Path, folder: Path) -> Iterator[Packed]:
    """Read an archive in its order, some files at a time."""
    waiting = []
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is None:
                continue
            if ".." in Path(member.name).parts or Path(member.name).is_absolute():
                raise InputError(f"archive: {archive} holds {member.name!r}, which lies outside of its folder")
            waiting.append((member.name, file.read()))
            if len(waiting) == AT_ONCE:
                yield folder, waiting
                waiting = []
    yield folder, waiting


def decoded(given: Packed) -> tuple[list[str], np.ndarray]:
    """Write files into their folder, and decode them as the package does: names, and pixels (n, 3, 32, 32) uint8."""
    folder, files = given
    pixels = np.empty((len(files), 3, SIZE, SIZE), np.uint8)
    for row, (name, content) in enumerate(files):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels[row], _ = as_seen(image, SIZE)
    return [name for name, _ in files], pixels


def keep(part: Path, inside: Path, rows: dict[str, np.ndarray]) -> None:
    """Put the pixels of one part, `train` or `test`, to where the package looks for them."""
    found = listing(part)
    target = cache_dir() / "images" / f"{digest(f'{DECODING} {SIZE} {contents(part, found.files)}'.encode()).hex()}.npy"
    pixels = np.stack([rows[f"{(part / file).relative_to(inside).as_posix()}"] for file in found.files])
    prints = b"".join(fingerprint(one, label) for one, label in zip(pixels, found.labels, strict=True))
    for place, array in ((target, pixels), (target.with_suffix(".fingerprints.npy"), np.frombuffer(prints, "<i8"))):
        with atomic(place) as written, written.open("wb") as file:
            np.save(file, array)


def decode(archive: Path, processes: int) -> int:
    """Decode an archive into the cache, unless it lies there; return the number of images.

    Raises:
        InputError: it holds a file that lies outside of its folder, or other images than class folders of CIFAR-10.
    """
    if is_unpacked(archive):
        return 0
    with archive.open("rb") as file:
        name = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    rows: dict[str, np.ndarray] = {}
    inside = cache_dir() / "unpacked" / name
    with atomic_folder(inside) as part, get_context("fork").Pool(processes) as pool:
        for names, pixels in pool.imap_unordered(decoded, packed(archive, part)):
            rows.update(zip(names, pixels, strict=True))
    place = unpacked(archive)
    for one in ("train", "test"):
        keep(place / one, inside, rows)
    return len(rows)


def main(
    archive: Annotated[Path, typer.Argument(help="A tar file of cifar10/{train,test}/<class>/*.jpg.")],
    processes: Annotated[int, typer.Option(help="How many decode at once (default: one for each core).")] = 0,
) -> None:
    """Decode an archive of CIFAR-10 into the cache."""
    began = time.perf_counter()
    count = decode(archive, processes or len(os.sched_getaffinity(0)))
    print(f"{count:,} images in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    typer.run(main)
