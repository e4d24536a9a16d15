"""What callers hand over, read as what it is or refused by name: numbers, labels and whole numbers.

Arrays of NumPy in any layout and byte order, series and frames of pandas with or without nullable types, tensors of
torch on any device, and lists come here first, and in no other place.
"""

import math
import numbers
import operator
import textwrap
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from miue.errors import InputError

Array = Tensor | ArrayLike
"""A tensor, or whatever NumPy makes an array of."""

EXACT = 2**53  # whole numbers beyond it have no float64 of their own
TOO_WIDE = "{}: whole numbers beyond 2^53, which float64 cannot tell apart; subtract an offset first"


def as_finite(name: str, values: Array) -> Tensor:
    """Return real numbers as a float64 tensor where they lie, on the CPU if that device has no float64.

    Args:
        name: of the argument, for messages.
        values: any shape. Tensors are detached; float64 arrays may share their memory with the result.

    Raises:
        InputError: no numbers (text, dates, objects, complex numbers), masked or missing entries, NaN, infinity,
            whole numbers that float64 cannot tell apart, a tensor that is not dense.
    """
    plain = _plain(name, values)
    tensor = _double(name, plain) if isinstance(plain, Tensor) else torch.from_numpy(_floats(name, values, plain))
    if not (finite := tensor.isfinite()).all():
        raise InputError(f"{name}: {int((~finite).sum())} values are NaN or infinite; remove or mend them first")
    return tensor


def as_labels(name: str, labels: Array) -> np.ndarray:
    """Return labels (n,) as an array of whole numbers, floats, truth values or text, in which equal means equal.

    Raises:
        InputError: no vector, no labels at all, labels that are masked, missing, NaN or infinite, or of several kinds.
    """
    plain = _plain(name, labels)
    if isinstance(plain, Tensor):
        plain = plain.cpu()
        plain = (plain.double() if plain.is_floating_point() else plain).numpy()
    elif isinstance(labels, list | tuple):
        plain = np.array(labels, dtype=object)  # else NumPy would turn 1 and NaN into text beside a text
    if plain.ndim != 1 or len(plain) == 0:
        raise InputError(f"{name}: shape {plain.shape}; pass one label for each sample, (n,)")
    if plain.dtype.kind == "O":
        plain = _of_one_kind(name, plain)
    if plain.dtype.kind == "f" and not np.isfinite(plain).all():
        raise InputError(f"{name}: some labels are NaN or infinite; remove those samples first")
    if plain.dtype.kind not in "biufUS":
        raise InputError(f"{name}: labels of type {plain.dtype}; pass whole numbers or text")
    return plain


def as_classes(name: str, labels: Array) -> tuple[Tensor, Tensor]:
    """Return the class (n,) int64 of each label, numbered by rising value, and the samples (C,) int64 of each class.

    Raises:
        InputError: as `as_labels`.
    """
    _, member, counts = np.unique(as_labels(name, labels), return_inverse=True, return_counts=True)
    return torch.from_numpy(member), torch.from_numpy(counts)


def whole(argument: str, value: object, least: int, advice: str = "") -> int:
    """Return `value` as a plain int, also where NumPy or torch hands it over.

    Raises:
        InputError: it is no whole number (3.0 is none: a count that was computed may come out as 2.9999), or below
            `least`; the message names the `argument`.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{argument}: {value!r}; it must be a whole number, {least} or above{advice}")
    return number


def real(argument: str, value: object, above: float = -math.inf, advice: str = "") -> float:
    """Return `value` as a plain finite float, also where NumPy or torch hands it over.

    Raises:
        InputError: it is no number (a truth value is none), NaN or infinite, or not above `above`; the message names
            the `argument`.
    """
    single = value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value
    known = isinstance(single, numbers.Real | Decimal) and not isinstance(single, bool)
    try:
        number = float(single) if known else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not above < number < math.inf:
        raise InputError(f"{argument}: {textwrap.shorten(repr(value), 60)} must be a finite number{advice}")
    return number


def _plain(name: str, values: Array) -> Tensor | np.ndarray:
    """Return a dense real tensor or an array, none of its entries masked or missing."""
    if isinstance(values, list | tuple) and values and all(isinstance(value, Tensor) for value in values):
        if len({(value.shape, value.device) for value in values}) > 1:
            raise InputError(f"{name}: tensors of several shapes or devices; pass one tensor")
        values = torch.stack(tuple(values))
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_quantized or values.is_meta:
            raise InputError(
                f"{name}: a tensor of {values.layout}, {values.dtype} on {values.device}; pass a dense one"
            )
        if values.is_complex():
            raise InputError(f"{name}: complex numbers are not supported; pass real ones")
        return values.detach()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InputError(f"{name}: {int(np.ma.count_masked(values))} values are masked; remove or fill them first")
    if hasattr(values, "isna") and (missing := int(np.sum(np.asarray(values.isna())))):
        raise InputError(f"{name}: {missing} values are missing (NA or NaN); remove or fill them first")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name}: {type(values).__name__} is not an array of numbers ({reason})") from error


def _double(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype in (torch.int64, torch.uint64):
        _refuse_wide(name, tensor.cpu().numpy())
    try:
        return tensor.to(torch.float64)
    except TypeError:  # an accelerator without float64, Apple's for one
        return tensor.cpu().to(torch.float64)


def _floats(name: str, values: Array, array: np.ndarray) -> np.ndarray:
    """Return an array of real numbers as float64: native, contiguous, writable."""
    if array.dtype.kind == "c":
        raise InputError(f"{name}: complex numbers are not supported; pass real ones")
    if isinstance(values, list | tuple) and array.dtype.kind == "f" and (abs(array) >= EXACT).any():
        array = np.array(values, dtype=object)  # NumPy has turned whole numbers beside others into floats
    if array.dtype.kind == "O":
        strange = {type(v).__name__ for v in array.flat if not isinstance(v, numbers.Real | Decimal | np.bool_)}
    else:
        strange = set() if array.dtype.kind in "biuf" else {str(array.dtype)}
    if strange:
        held = ", ".join(sorted(strange))
        raise InputError(f"{name}: {type(values).__name__} is not an array of numbers (it holds {held})")
    _refuse_wide(name, array)
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            array = array.astype(np.float64, order="C", copy=False)
    except OverflowError as error:
        raise InputError(f"{name}: a number is too large for float64 ({error})") from error
    return array if array.flags.writeable else array.copy()


def _refuse_wide(name: str, array: np.ndarray) -> None:
    """Refuse whole numbers, also among objects, that have no float64 of their own."""
    if array.dtype.kind == "O":
        wide = any(isinstance(value, numbers.Integral) and abs(int(value)) > EXACT for value in array.flat)
    else:
        wide = array.dtype.kind in "iu" and array.size > 0 and bool(array.max() > EXACT or array.min() < -EXACT)
    if wide:
        raise InputError(TOO_WIDE.format(name))


def _of_one_kind(name: str, labels: np.ndarray) -> np.ndarray:
    """Return an object array of texts, or of numbers, as an array of that kind."""

    def kind(label: Any) -> str:
        if isinstance(label, numbers.Real | np.bool_):
            return "numbers"
        return "text" if isinstance(label, str) else "bytes" if isinstance(label, bytes) else type(label).__name__

    kinds = sorted({kind(label) for label in labels})
    if kinds not in (["numbers"], ["text"], ["bytes"]):
        raise InputError(f"{name}: labels of the kinds {', '.join(kinds)}; pass numbers or text, one for each sample")
    plain = np.array(labels.tolist())
    if plain.dtype.kind == "f":
        _refuse_wide(name, labels)
    return plain
