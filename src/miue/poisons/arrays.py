"""Arrays in other people's files: read without running what is in them, and turned into whole grey levels."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from miue.errors import DataWarning, InputError, choose
from miue.images import CHUNK, Images

FORMATS = (".npy", ".pt", ".pth", ".safetensors")
LABELS = ("labels", "label", "targets", "target", "y", "y_train")
"""Names under which labels are looked for in a file of several arrays."""

SCALES = ("auto", "fraction", "levels")
LAYOUTS = ("auto", "nchw", "nhwc")


def load(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a file by name; a lone one has the name "". Nothing in the file is executed."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: {path.suffix or 'no ending'} is not read; it must be one of {', '.join(FORMATS)}")
    found: Any
    try:
        if path.suffix.lower() == ".npy":
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        elif path.suffix.lower() == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise all sorts of errors
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} is damaged, or holds objects that only running code could restore ({reason})"
        ) from None
    if isinstance(found, Tensor):
        found = {"": found}
    arrays = found.items() if isinstance(found, dict) else ()
    return {str(name): array.detach() for name, array in arrays if isinstance(array, Tensor)}


def pick(arrays: dict[str, Tensor], key: str | None, path: Path) -> tuple[Tensor, Tensor | None]:
    """Return the array that is wanted, and the labels beside it if there are any."""
    beside = next((arrays[name] for name in LABELS if name in arrays and name != key), None)
    if key is not None:
        return arrays[choose("key", key, arrays)], beside
    candidates = [name for name in arrays if name not in LABELS]
    if len(candidates) != 1:
        listed = ", ".join(arrays) or "no array"
        raise InputError(f"{path} holds {listed}; exactly one besides labels is read, or the one named by key=")
    return arrays[candidates[0]], beside


def channels_first(values: Tensor, images: Images, layout: str, path: Path) -> Tensor:
    """View `values` as (R, C, H, W), if they fit the pictures; a grey picture's channel may be missing."""
    channels, height, width = images.shape
    if values.ndim == 3 and channels == 1:
        values = values[:, None]
    shapes = {"nchw": (channels, height, width), "nhwc": (height, width, channels)}
    fitting = [name for name, shape in shapes.items() if layout in ("auto", name) and tuple(values.shape[1:]) == shape]
    if not fitting:
        raise InputError(
            f"{path}: shape {tuple(values.shape)} does not fit the pictures of {images.name}, which are "
            f"{tuple(images.shape)}; perturbations are never resized"
        )
    if len(fitting) > 1:
        raise InputError(f"{path}: shape {tuple(values.shape)} may be nchw or nhwc; say which with layout=")
    return values.permute(0, 3, 1, 2) if fitting == ["nhwc"] else values


def whole_levels(values: Tensor, scale: str, kind: str, path: Path) -> Tensor:
    """Convert values (R, C, H, W) to whole grey levels, int16, within -255..255 (pictures: 0..255)."""
    if values.dtype == torch.bool or values.is_complex() or values.layout != torch.strided:
        raise InputError(f"{path}: {values.layout} of {values.dtype}; it must be a dense array of floats or integers")
    if values.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch can only store these
        values = values.to(torch.int64)
    if not torch.isfinite(values).all():
        raise InputError(f"{path}: {int((~torch.isfinite(values)).sum())} values are NaN or infinite")
    low, high = values.min().item(), values.max().item()
    if scale == "auto":
        scale = _detect_scale(values, low, high, kind, path)
    limit = 1 if scale == "fraction" else 255
    least = 0 if kind == "pictures" else -limit
    if low < least or high > limit:
        raise InputError(f"{path}: values from {low:g} to {high:g}; {kind} as {scale} must lie in {least}..{limit}")
    if kind == "perturbation" and high > low >= 0:
        warnings.warn(
            f"{path}: no value is negative; half of the noise may have been lost when it was saved",
            DataWarning,
            stacklevel=3,
        )
    factor = 255 if scale == "fraction" else 1
    return torch.cat([(part.float() * factor).round().to(torch.int16) for part in values.split(CHUNK)])


def _detect_scale(values: Tensor, low: float, high: float, kind: str, path: Path) -> str:
    """Floats within [-1, 1] are fractions, integers beyond it are levels; the rest could be either, or is damaged."""
    small = low >= -1 and high <= 1
    if values.is_floating_point():
        if small and not (values == values.round()).all():
            return "fraction"
    elif values.dtype == torch.uint8 and kind == "perturbation" and high > 127:
        raise InputError(
            f"{path}: torch.uint8 up to {high}; negative levels seem to have wrapped around (-8 is kept as 248), or "
            "say scale='levels'"
        )
    elif not small:
        return "levels"
    if low == high == 0:
        return "levels"  # refused later, for what it does
    raise InputError(
        f"{path}: {values.dtype} from {low:g} to {high:g} may be fractions of the pixel range or grey levels; say "
        "which with scale="
    )
