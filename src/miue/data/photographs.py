"""Somebody's own photographs: of any size, format and mode, each read as it is seen and written so that it stays that.

A folder of them may hold anything. What is no image is counted, what cannot be read is named, and nothing stops.
"""

import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from miue.data.folders import entries, hidden, images_under
from miue.data.seeing import UPRIGHT, as_seen, coloured, on_white, turned
from miue.errors import InputError, printable
from miue.storage.files import atomic

LEFT_OUT = {"BUFR", "EPS", "FPX", "GRIB", "HDF5", "MIC", "MPEG", "WMF"}
"""Formats that Pillow only names, or for which it starts other programs."""
SMALLEST, LONGEST = 16, 64
"""Pixels of the shorter side that a photograph has at least, and how many times as long the longer one is at most."""
GREYS = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}


class Unreadable(Exception):
    """A file is no image that could be read; the message says why, in a few words."""


@cache
def formats() -> tuple[str, ...]:
    """What photographs are read as, whatever the names of files say: HEIC, too, where `pillow_heif` is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(sorted(set(Image.OPEN) - LEFT_OUT))


@cache
def endings() -> tuple[str, ...]:
    """Endings of the files that may be photographs, in small letters."""
    known = formats()
    return tuple(sorted(ending for ending, kind in Image.registered_extensions().items() if kind in known))


@dataclass(frozen=True)
class Found:
    """The files of a folder that may be photographs.

    Args:
        files: by their paths in the folder, sorted within each class; by the names of the classes, sorted.
        left_out: what else the folder holds, and how much of it.
    """

    files: dict[str, list[str]]
    left_out: Counter[str]

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))


def find(folder: Path) -> Found:
    """List the photographs of a folder: each folder in it is a class; without such folders it is one class itself.

    Links are left out and counted, so that nothing outside the folder is read, and nothing twice.

    Raises:
        InputError: there is no such folder, it cannot be read, or it holds no photograph.
    """
    left_out: Counter[str] = Counter()
    inside = entries(folder)
    names = [entry.name for entry in inside if entry.is_dir(follow_symlinks=False) and not hidden(entry.name)]
    if not names:
        files = {folder.resolve().name: sorted(images_under(folder, ".", left_out, endings(), links=False))}
    else:
        left_out["hidden files or folders"] += sum(hidden(entry.name) for entry in inside)
        left_out["links to folders"] += sum(entry.is_dir() and entry.is_symlink() for entry in inside)
        left_out["files beside the class folders"] += sum(
            not entry.is_dir() and not hidden(entry.name) for entry in inside
        )
        files = {name: sorted(images_under(folder, name, left_out, endings(), links=False)) for name in names}
        left_out["class folders without photographs"] += sum(not found for found in files.values())
    found = Found({name: of for name, of in files.items() if of}, +left_out)
    if not found.files:
        raise InputError(printable(f"images: {folder} holds no photograph"))
    return found


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image at its own size.

    Args:
        picture: upright; its mode is L, LA, RGB or RGBA.
        turn: what turned it upright, None where it was.
        about: what belongs to it in its file: `icc_profile` and `exif`, bytes, where it has them.
        notes: what of the file does not come along, in a few words each.
    """

    picture: Image.Image
    turn: Image.Transpose | None
    about: dict[str, bytes]
    notes: tuple[str, ...]

    def seen(self, size: int) -> np.ndarray:
        """(3, size, size) uint8: RGB on white, resized by the shorter side and cropped in the middle."""
        return as_seen(self.picture, size)[0]


def read(file: Path, animated: str = "first") -> Photograph:
    """Read a photograph whole.

    Args:
        file: of one of `formats`.
        animated: of a file with several frames the "first", or "refuse".

    Raises:
        Unreadable: it is none of them, damaged, empty, larger than Pillow's limit against decompression bombs
            (179 million pixels), smaller than `SMALLEST`, longer than `LONGEST`, or has frames that are refused.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on metadata, and on sizes that are large and allowed
        try:
            with Image.open(file, formats=formats()) as image:
                return _read(image, animated)
        except Unreadable:
            raise
        except Image.DecompressionBombError:
            raise Unreadable(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
        except Exception as error:  # damaged files raise all sorts of errors
            raise Unreadable(_reason(error, file)) from None


def _reason(error: Exception, file: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "empty" if file.exists() and not file.stat().st_size else "no image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return printable(" ".join(str(error).split()) or type(error).__name__)[:100]


def _read(image: Image.Image, animated: str) -> Photograph:
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # whose others are previews of the first
    if frames > 1 and animated == "refuse":
        raise Unreadable(f"{frames} frames")
    short, long = sorted(image.size)
    if short < SMALLEST:
        raise Unreadable(f"{image.width} x {image.height} pixels, too small")
    if long > LONGEST * short:
        raise Unreadable(f"{image.width} x {image.height} pixels, too long")
    notes = [f"the first of {frames} frames"] if frames > 1 else []
    about = {name: image.info[name] for name in ("icc_profile", "exif") if isinstance(image.info.get(name), bytes)}
    mode = image.mode
    turn, damaged = turned(image)
    picture = coloured(image)
    if mode in GREYS:
        picture = picture.convert("L" if picture.mode == "RGB" else "LA")
    elif mode in ("CMYK", "LAB", "YCbCr"):
        about.pop("icc_profile", None)  # that of other colours than these
    if mode.startswith("I"):
        notes.append("of 16 bits the upper 8")
    elif mode == "CMYK":
        notes.append("RGB instead of CMYK")
    if damaged:
        notes.append("damaged EXIF data")
        about.pop("exif", None)
    if turn is not None:
        picture = picture.transpose(turn)
    picture.info = {}  # it would be turned again
    return Photograph(picture, turn, about, tuple(notes))


ENDINGS = {"png": ".png", "jpeg": ".jpg"}
"""What a photograph may be written as, and how such files end."""
ORIENTATION = ExifTags.Base.Orientation
NUMBERS = {turn: number for number, turn in UPRIGHT.items()}
"""What EXIF calls an image that such a turn makes upright."""
BACK = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}


def write(
    file: Path,
    photograph: Photograph,
    *,
    kind: str = "png",
    quality: int = 95,
    orientation: str = "apply",
    metadata: str = "strip",
) -> None:
    """Write a photograph, atomically, with its colour profile.

    Args:
        file: its ending is that of the kind.
        photograph: what `read` read, or that with another picture of the same size and mode.
        kind: "png", without loss, or "jpeg", whose colours are not halved; what is transparent is then on white.
        quality: of JPEG, 1 to 100.
        orientation: "apply": upright pixels; or "keep": pixels as they lay in the file, and what says how to turn them.
        metadata: "strip", or "keep" what EXIF says, the place where it was taken included.

    Raises:
        Unwritable: it cannot be written.
    """
    picture, exif = photograph.picture, Image.Exif()
    if metadata == "keep" and "exif" in photograph.about:
        exif.load(photograph.about["exif"])
    exif.pop(ORIENTATION, None)
    if orientation == "keep" and photograph.turn is not None:
        picture = picture.transpose(BACK.get(photograph.turn, photograph.turn))
        exif[ORIENTATION] = NUMBERS[photograph.turn]
    how: dict[str, Any] = {"compress_level": 3} if kind == "png" else {"quality": quality, "subsampling": 0}
    if kind == "jpeg" and picture.mode in ("LA", "RGBA"):
        picture = on_white(picture).convert(picture.mode.removesuffix("A"))
    if profile := photograph.about.get("icc_profile"):
        how["icc_profile"] = profile
    if len(exif):
        how["exif"] = exif.tobytes()
    with atomic(file) as part:
        picture.save(part, kind.upper(), **how)


def named(relative: str, kind: str, taken: set[str]) -> str:
    """The name that a file gets once it is written as `kind`; one that is taken keeps its own ending before the new.

    Args:
        relative: path of the photograph in its folder.
        kind: one of `ENDINGS`.
        taken: names, in small letters, that others have; this one is put there.
    """
    path, ending = PurePath(relative), ENDINGS[kind]
    same = path.suffix.lower() in (ending, ".jpeg" if kind == "jpeg" else ending)
    choices = [path if same else path.with_suffix(ending), path.with_name(path.name + ending)]
    choices += [path.with_name(f"{path.name}-{number}{ending}") for number in range(2, 10_000)]
    chosen = next(choice.as_posix() for choice in choices if choice.as_posix().lower() not in taken)
    taken.add(chosen.lower())
    return chosen
