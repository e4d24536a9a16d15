"""Arrays in other people's files: read without running what is in them, and turned into whole grey levels."""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from miue.data.images import Images, pieces
from miue.errors import InputError, choose, warn
from miue.storage import memory

FORMATS = (".npy", ".pt", ".pth", ".safetensors")
LABELS = ("labels", "label", "targets", "target", "y", "y_train")
"""Names under which labels are looked for in a file of several arrays."""

SCALES = ("auto", "fraction", "levels")
LAYOUTS = ("auto", "nchw", "nhwc")


def check_file(path: Path) -> None:
    """Refuse a file that is not there, or whose ending is none of `FORMATS`."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: {path.suffix or 'no ending'} is not read; it must be one of {', '.join(FORMATS)}")


def load(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a file by name; a lone one has the name "". Nothing in the file is executed.

    They are mapped from the file. An .npy file may be larger than memory.
    """
    check_file(path)
    found: Any
    try:
        if path.suffix.lower() == ".npy":
            found = _npy(path)
        elif path.suffix.lower() == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # damaged files raise all sorts of errors
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} is damaged, or holds objects that only running code could restore ({reason})"
        ) from None
    if isinstance(found, Tensor):
        found = {"": found}
    arrays = found.items() if isinstance(found, dict) else ()
    return {str(name): array.detach() for name, array in arrays if isinstance(array, Tensor)}


def _npy(path: Path) -> Tensor:
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not found.flags.c_contiguous or not found.size:
        return torch.from_numpy(np.array(found))
    dtype = torch.from_numpy(np.empty(0, found.dtype)).dtype
    return memory.mapped(path, found.shape, dtype, found.offset)


def pick(arrays: dict[str, Tensor], key: str | None, path: Path) -> tuple[Tensor, Tensor | None]:
    """Return the array that is wanted, and the labels beside it if there are any."""
    beside = next((arrays[name] for name in LABELS if name in arrays and name != key), None)
    if key is not None:
        return arrays[choose("key", key, arrays)], beside
    candidates = [name for name in arrays if name not in LABELS]
    if len(candidates) != 1:
        listed = ", ".join(arrays) or "no array"
        raise InputError(f"{path} holds {listed}; exactly one besides labels is read, or the one that key names")
    return arrays[candidates[0]], beside


def channels_first(values: Tensor, images: Images, layout: str, path: Path) -> Tensor:
    """View `values` as (R, C, H, W), if they fit the images; a grey image's channel may be missing."""
    channels, height, width = images.shape
    if values.ndim == 3 and channels == 1:
        values = values[:, None]
    shapes = {"nchw": (channels, height, width), "nhwc": (height, width, channels)}
    fitting = [name for name, shape in shapes.items() if layout in ("auto", name) and tuple(values.shape[1:]) == shape]
    if not fitting:
        other = [name for name, shape in shapes.items() if tuple(values.shape[1:]) == shape]
        reason = f"it fits as {other[0]}" if other else "perturbations are never resized"
        raise InputError(
            f"{path}: shape {tuple(values.shape)}{'' if layout == 'auto' else f' as {layout}'} does not fit the "
            f"images of {images.name}, which are {tuple(images.shape)}; {reason}"
        )
    if len(fitting) > 1:
        raise InputError(f"{path}: shape {tuple(values.shape)} may be nchw or nhwc; say which: layout nchw or nhwc")
    return values.permute(0, 3, 1, 2) if fitting == ["nhwc"] else values


@dataclass(frozen=True, eq=False)
class Levels:
    """Values (R, C, H, W) of a file, turned into whole grey levels as they are read.

    Args:
        values: floats or integers.
        factor: what a value is multiplied by to be a level.
        largest: no level is further from 0.
    """

    values: Tensor
    factor: int
    largest: int

    def read(self, rows: Tensor) -> Tensor:
        """The levels of `rows` ((B,) int64): (B, C, H, W) int16."""
        return (self.values[rows].float() * self.factor).round().to(torch.int16)


def whole_levels(values: Tensor, scale: str, kind: str, path: Path) -> Levels:
    """Find out what values (R, C, H, W) mean: whole grey levels within -255..255 (images: 0..255)."""
    if values.dtype == torch.bool or values.is_complex() or values.layout != torch.strided:
        raise InputError(f"{path}: {values.layout} of {values.dtype}; it must be a dense array of floats or integers")
    if unusable := sum(int((~torch.isfinite(part)).sum()) for part in _parts(values)):
        raise InputError(f"{path}: {unusable} values are NaN or infinite")
    low, high = min(part.min().item() for part in _parts(values)), max(part.max().item() for part in _parts(values))
    if scale == "auto":
        scale = _detect_scale(values, low, high, kind, path)
    limit = 1 if scale == "fraction" else 255
    least = 0 if kind == "images" else -limit
    if low < least or high > limit:
        raise InputError(f"{path}: values from {low:g} to {high:g}; {kind} as {scale} must lie in {least}..{limit}")
    if kind == "perturbation" and high > low >= 0:
        warn(f"{path}: no value is negative; half of the noise may have been lost when it was saved")
    factor = 255 if scale == "fraction" else 1
    return Levels(values, factor, math.ceil(factor * max(-low, high)))


def _parts(values: Tensor) -> Iterator[Tensor]:
    """Rows of `values`, so many as memory always has room for."""
    for rows in pieces(torch.arange(len(values)), values.shape[1:]):
        part = values[int(rows[0]) : int(rows[-1]) + 1]
        unsigned = part.dtype in (torch.uint16, torch.uint32, torch.uint64)  # torch can only store these
        yield part.to(torch.int64) if unsigned else part


def _detect_scale(values: Tensor, low: float, high: float, kind: str, path: Path) -> str:
    """Floats within [-1, 1] are fractions, integers beyond it are levels; the rest could be either, or is damaged."""
    small = low >= -1 and high <= 1
    if values.is_floating_point():
        if small and any(bool((part != part.round()).any()) for part in _parts(values)):
            return "fraction"
    elif values.dtype == torch.uint8 and kind == "perturbation" and high > 127:
        raise InputError(
            f"{path}: torch.uint8 up to {high}; negative levels seem to have wrapped around (-8 is kept as 248), or "
            "say that its scale is levels"
        )
    elif not small:
        return "levels"
    if low == high == 0:
        return "levels"  # refused later, for what it does
    raise InputError(
        f"{path}: {values.dtype} from {low:g} to {high:g} may be fractions of the pixel range or grey levels; say "
        "which: scale fraction or levels"
    )
