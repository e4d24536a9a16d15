"""Images, labels and rows as callers hand them over: arrays of any kind, read as what they are or refused by name."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miue.data.arrays import Array, _plain, as_labels
from miue.errors import InputError, choose

CHANNELS = 4
"""Up to so many values are taken for the channels of a pixel, wherever they stand in the shape."""
LAYOUTS = ("auto", "nchw", "nhwc")
MOST_CLASSES = 10**5  # that are named by their numbers; a label beyond is more likely to be no class number


def as_pixels(x: Array, layout: str = "auto") -> Tensor:
    """Return images as (N, C, H, W) uint8, where the data lie; uint8 is shared, not copied.

    Args:
        x: (N, C, H, W), or (N, H, W, C); whole grey levels from 0 to 255 of any type, or fractions from 0 to 1 of a
            floating-point type, which are rounded to levels.
        layout: "nchw" or "nhwc"; "auto" takes the axis of up to 4 values for the channels, if only one can be.

    Raises:
        InputError: no images, another shape, one that leaves open where the channels are, or values that are neither;
            truth values; an unknown layout.
    """
    choose("layout", layout, LAYOUTS)
    given = as_tensor("x", x)
    shape = tuple(given.shape)
    if given.ndim != 4 or given.numel() == 0:
        grey = "; for grey images, pass x[:, None]" if given.ndim == 3 else ""
        raise InputError(f"x: shape {shape}; images must be (N, C, H, W), at least one{grey}")
    if layout == "nhwc":
        given = given.permute(0, 3, 1, 2)
    elif layout == "auto":
        given = _channels_first(given)
    return as_levels("x", given, getattr(x, "dtype", given.dtype))


def as_whole(name: str, values: Array, count: int) -> Tensor:
    """Return one whole number for each of `count` images, (N,) int64 on the CPU.

    Raises:
        InputError: as `miue.data.arrays.as_labels`; another number of them, text, or fractions.
    """
    read = as_labels(name, values)
    whole = read.dtype.kind in "bi" or (
        read.dtype.kind in "uf" and ((read == np.round(read)) & (abs(read) < 2**63)).all()
    )
    if len(read) != count or not whole:
        raise InputError(
            f"{name}: shape {read.shape}, {read.dtype}; it must be {count} whole numbers, one for each image"
        )
    return torch.from_numpy(read.astype(np.int64))


def numbered(name: str, labels: Array, classes: Sequence[str] | None) -> tuple[Array, Sequence[str] | None]:
    """Number labels that are names, and refuse numbers that are no classes or leave some out.

    Args:
        name: of the argument, for messages.
        labels: (N,) whole numbers, or texts.
        classes: class names; where there are none, texts are the names, in sorted order.

    Returns:
        Labels that are numbers, (N,), and the class names; None where the numbers are the names.

    Raises:
        InputError: as `as_whole`; a label that is no class; without `classes`, a number below the largest label that
            no image has.
    """
    read = as_labels(name, labels)
    if read.dtype.kind == "U":
        names = sorted(set(read.tolist())) if classes is None else [str(c) for c in classes]
        number = {one: place for place, one in enumerate(names)}
        if strange := sorted(set(read.tolist()) - number.keys()):
            raise InputError(f"{name}: label {strange[0]!r} is no class; the classes are {reprlib.repr(names)}")
        return torch.tensor([number[one] for one in read.tolist()]), names
    present = as_whole(name, read, len(read)).unique()
    high = largest(name, present, classes)
    missing = np.setdiff1d(np.arange(high + 1), present.numpy()).tolist()
    if classes is None and missing:
        raise InputError(
            f"{name}: labels go up to {high}, but no image has {reprlib.repr(missing)[1:-1]}; number the classes "
            f"from 0 on without gaps, or name all {high + 1} in classes"
        )
    return labels, classes


def largest(name: str, labels: Tensor, classes: Sequence[str] | None) -> int:
    """The largest of labels that are numbers; see `numbered` for the errors."""
    low, high = int(labels.min()), int(labels.max())
    most = MOST_CLASSES if classes is None else len(classes)
    if low < 0 or high >= most:
        wrong, unlabelled = (low, "; leave out images without a label") if low < 0 else (high, "")
        raise InputError(f"{name}: label {wrong} is no class; labels must be from 0 to {most - 1:,}{unlabelled}")
    return high


def as_rows(index: Array, count: int) -> Tensor:
    """Return which of `count` rows are meant, (M,) int64: their places, or a mask.

    Raises:
        InputError: a mask of another length, fractions, or a place that does not exist.
    """
    rows = as_tensor("index", index)
    if rows.dtype == torch.bool and rows.shape == (count,):
        return rows.nonzero()[:, 0]
    if rows.shape == (0,):
        return rows.long()
    if rows.ndim != 1 or rows.dtype == torch.bool or rows.is_floating_point():
        raise InputError(
            f"index: shape {tuple(rows.shape)}, {rows.dtype}; it must be (M,) integers or a mask ({count},)"
        )
    if int(rows.min()) < -count or int(rows.max()) >= count:
        raise InputError(f"index: from {int(rows.min())} to {int(rows.max())}; there are {count} images")
    return rows.long()


def as_tensor(name: str, values: Array) -> Tensor:
    """Read real numbers of any type, in the machine's byte order; shared with the caller where torch can share."""
    plain: Any = _plain(name, values)
    if isinstance(plain, Tensor):
        return plain
    if plain.dtype.kind not in "biuf":
        raise InputError(f"{name}: {type(values).__name__} of {plain.dtype}; pass an array of numbers")
    kinds: dict[str, type] = {"u": np.int64, "f": np.float64}  # for what torch lacks, or has little for
    size = plain.dtype.itemsize
    odd = (plain.dtype.kind == "u" and size > 1) or size > 8
    plain = plain.astype(kinds[plain.dtype.kind] if odd else plain.dtype.newbyteorder("="), copy=False)
    shareable = min(plain.strides, default=0) >= 0 and (plain.flags.writeable or isinstance(plain, np.memmap))
    return torch.from_numpy(plain if shareable else plain.copy())


def _channels_first(given: Tensor) -> Tensor:
    _, first, height, last = given.shape
    either = 3 <= first <= CHANNELS and height >= 3 and 3 <= last <= CHANNELS and first != last
    if not either and (first <= CHANNELS or first < min(height, last)):
        return given
    if not either and last <= CHANNELS:
        return given.permute(0, 3, 1, 2)
    raise InputError(
        f"x: shape {tuple(given.shape)}, in which any may be the channels; images must be (N, C, H, W): "
        'say layout="nchw", or layout="nhwc" where the channels come last'
    )


def as_levels(name: str, given: Tensor, dtype: Any) -> Tensor:
    """Return pixels of any shape as uint8; `dtype` is that which the caller handed over, for messages.

    Raises:
        InputError: neither whole grey levels from 0 to 255 nor fractions from 0 to 1.
    """
    if given.dtype == torch.uint8:
        return given
    if given.dtype == torch.bool:
        raise InputError(f"{name}: truth values; images must be grey levels, 0 to 255")
    low, high = float(given.min()), float(given.max())
    if given.is_floating_point() and low >= 0 and high <= 1:
        return (given.float() * 255).round().to(torch.uint8)
    if low >= 0 and high <= 255 and (not given.is_floating_point() or bool((given == given.round()).all())):
        return given.to(torch.uint8)
    raise InputError(
        f"{name}: {dtype} from {low:g} to {high:g}; "
        "images must be whole grey levels from 0 to 255, or fractions from 0 to 1"
    )
