"""Folders of images: decoded once into a file in the cache, which is mapped and checked ever after."""

import hashlib
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps
from torch import Tensor

from miue.data.arrays import whole
from miue.data.folders import listing
from miue.data.images import Images, fingerprint, pieces
from miue.errors import InputError, printable
from miue.progress import say, track
from miue.storage import memory
from miue.storage.files import atomic, cache_dir, cache_locked, clear_parts

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What images are decoded as, whatever their names say; of the other formats, some would start other programs."""
MIN_SIZE, MAX_SIZE = 8, 4096  # px
DECODING = 3  # in the names of cached files; raised whenever a file comes out otherwise than before
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the orientation in its EXIF data."""
KEY_LEVELS = {"L;2": 85, "L;4": 17}
"""Grey levels of one step in PNG files of 2 and 4 bits, whose transparent grey is given in steps."""
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF files
SEVERAL = "hold more than one image; the first of each is read"
UNKNOWN = "have damaged EXIF data; they are read as if they were upright"


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


def digest(content: bytes) -> bytes:
    """16 bytes that tell contents apart."""
    return hashlib.blake2b(content, digest_size=16).digest()


def remembered(question: str, answer: Callable[[], str]) -> str:
    """Return a hex digest that is expensive to take: `answer()`, or what it was for this `question` before."""
    if known := answered(question):
        return known
    found = answer()
    with atomic(_note(question)) as part:
        part.write_text(found)
    return found


def answered(question: str) -> str | None:
    """The digest that `remembered` took for this `question` before; None where it took none."""
    file = _note(question)
    known = file.read_bytes() if file.exists() else b""
    return known.decode() if re.fullmatch(rb"[0-9a-f]{32}", known) else None


def _note(question: str) -> Path:
    return cache_dir() / "images" / f"{digest(question.encode(errors='surrogateescape')).hex()}.key"


def contents(path: Path, relative: list[str]) -> str:
    """Digest of images' names and contents, remembered by sizes and times so that unchanged files are not read again.

    Args:
        path: a folder.
        relative: the images, by their paths in it.

    Raises:
        InputError: one is no ordinary file.
    """
    stats = []
    for r in relative:
        try:
            found = os.stat(path / r)
        except OSError as error:  # a link to nothing, for one
            raise InputError(printable(f"data: {path / r} cannot be read ({error.strerror})")) from None
        if not stat.S_ISREG(found.st_mode):
            raise InputError(printable(f"data: {path / r} is no ordinary file"))
        stats.append((r, found.st_size, found.st_mtime_ns))

    def read() -> str:
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(lambda r: digest((path / r).read_bytes()), relative))
        return digest(f"{list(zip(relative, digests, strict=True))}".encode()).hex()

    return remembered(f"{path.resolve()} {stats}", read)


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


def as_seen(image: Image.Image, size: int | None = None) -> tuple[np.ndarray, list[str]]:
    """Return an image as it is seen, RGB on white and upright: (3, H, W) uint8, and what has to be told of it.

    Args:
        image: of any mode, from a file or not.
        size: height and width in pixels, to which it is resized (short side) and centre-cropped; by default its own.

    Raises:
        ValueError: nothing says which of its values is white. What is damaged raises errors of all sorts.
    """
    seen, notes = _colours(image), []
    turn, damaged = turned(image)
    if damaged:
        notes.append(UNKNOWN)
    if getattr(image, "n_frames", 1) > 1:
        notes.append(SEVERAL)
    if turn is not None:
        seen = seen.transpose(turn)
    if size is not None and seen.size != (size, size):
        seen = ImageOps.fit(seen, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(seen).transpose(2, 0, 1), notes


def turned(image: Image.Image) -> tuple[Image.Transpose | None, bool]:
    """What turns an image upright, None where it is; and whether its EXIF data are damaged, so that none can tell."""
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1)), False
    except Exception:  # damaged EXIF data raise errors of all sorts
        return None, True


def _colours(image: Image.Image) -> Image.Image:
    """The image as RGB on white; see `coloured` for the errors."""
    seen = coloured(image)
    if seen.mode == "RGB":
        return seen
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def coloured(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA where some of it may be transparent; of 16 bits the upper 8 stay.

    Colours of CMYK are those that its profile says, where it has one.

    Raises:
        ValueError: nothing says which of its values is white.
    """
    tags = getattr(image, "tag_v2", {})
    tile = getattr(image, "tile", None)  # gone once an image is loaded
    samples = tile[0][3] if tile and image.format == "PNG" else None
    image.load()
    unsigned = set(tags.get(SAMPLE_FORMAT, (1,))) == {1}
    if image.mode == "F" or not unsigned or (image.mode == "I" and image.format in ("TIFF", None)):
        raise ValueError(
            "signed, 32-bit or floating-point values, of which none is known to be white; save 8 or 16 bits"
        )
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        levels = values >> (tags.get(BITS, (16,))[0] - 8)
        if tags.get(PHOTOMETRIC) == 0:  # white is zero
            levels = 255 - levels
        levels[values == key] = 255
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if samples == "RGB;16B" and key is not None:
        raise ValueError("one of its 16-bit colours means transparent; save it with an alpha channel")
    if samples in KEY_LEVELS and key is not None:
        image.info["transparency"] = key * KEY_LEVELS[samples]
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        with suppress(ImageCms.PyCMSError, OSError):  # a profile that is damaged, or of other colours
            made = ImageCms.profileToProfile(image, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert made is not None
            return made
    if not image.has_transparency_data:
        return image.convert("RGB")
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
