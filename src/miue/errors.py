"""Errors and warnings with one clear line (the argument, the value, what would be right), and the check of options."""

import math
import reprlib
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["DataWarning", "InputError"]

R = TypeVar("R", bound=Any)
LARGE = 10**9


class InputError(ValueError):
    """The caller asked for something that cannot be done; the command line exits with status 2."""


class DataWarning(UserWarning):
    """The input is usable, but a property of it (ties, dead units) bends the result."""


def warn(message: str) -> None:
    """Warn of the data at the line, outside of this package, that handed them over."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "miue":
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, DataWarning, stacklevel=depth)


def printable(text: str) -> str:
    """Return `text` with everything escaped that would not be seen: line ends, terminal codes, other bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def choose(argument: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is one of `known`.

    Raises:
        InputError: `value` is unknown; the message lists what exists.
    """
    names = list(known)
    if value not in names:
        raise InputError(f"{argument}: {value!r} does not exist; choose one of {', '.join(names)}")
    return value


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold, declared with its type: `steps: Annotated[int, Range(1)]`.

    Args:
        low, high: the ends; what is larger than `LARGE` is a slip.
        above, below: whether the end itself is left out.
        text: what messages say behind "a number" instead of the ends.
    """

    low: float
    high: float = LARGE
    above: bool = False
    below: bool = False
    text: str = ""

    def __contains__(self, number: Any) -> bool:
        low = self.low < number if self.above else self.low <= number
        return bool(low and (number < self.high if self.below else number <= self.high))

    def __str__(self) -> str:
        if self.text:
            return self.text
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        if self.above:
            return f" above {low} and {'below' if self.below else 'at most'} {high}"
        return f" from {low} to {'below ' if self.below else ''}{high}"


ANY = Range(-math.inf, math.inf, above=True, below=True, text=", finite")
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Width = Annotated[int, Range(1, 4096)]  # of a layer: memory grows with its square
Seed = Annotated[int, Range(0, math.inf, text=", 0 or above")]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Unit = Annotated[float, Range(0, 1)]
Share = Annotated[float, Range(0, 1, above=True)]


@dataclass(frozen=True)
class _Kind:
    """One type that a field may have, with the range of its numbers, or the words that it may be."""

    type: Any
    range: Range
    words: tuple[str, ...]

    def fits(self, value: Any) -> bool:
        if self.type in (int, float):
            number: type = Integral if self.type is int else Real
            return isinstance(value, number) and not isinstance(value, bool) and value in self.range
        return not isinstance(self.type, type) or isinstance(value, self.type)

    def __str__(self) -> str:
        if self.type in (int, float):
            return f"a {'whole number' if self.type is int else 'number'}{self.range}"
        return {str: "text", bool: "true or false", NoneType: "none"}.get(self.type, f"a {self.type.__name__}")


def kinds(options: type) -> dict[str, list[_Kind]]:
    """What the fields of a dataclass of options may hold, by name; a number without a range may be any finite one."""
    hints = get_type_hints(options, include_extras=True)
    found = {}
    for field in fields(options):
        hint = hints[field.name]
        either = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        found[field.name] = [_kind(one) for one in either]
    return found


def _kind(hint: Any) -> _Kind:
    plain, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    declared = next((one for one in more if isinstance(one, Range)), ANY)
    return _Kind(get_origin(plain) or plain, declared, next((one for one in more if isinstance(one, tuple)), ()))


class Options:
    """What all dataclasses of options are: as one is made, its fields are held against their types, ranges and words.

    A range is declared with the type of a number, `Annotated[int, Range(1)]`, and words with that of a text,
    `Annotated[str, ("sample", "class")]`.
    """

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(options: Any) -> None:
    """Hold every field against its declared type, range and words, and make plain numbers of NumPy's.

    Raises:
        InputError: a value is of another type, out of range or another word.
    """
    for name, allowed in kinds(type(options)).items():
        object.__setattr__(options, name, _fitting(name, getattr(options, name), allowed))


def fitting(options: type, name: str, value: Any) -> Any:
    """Return `value` as the field `name` of a dataclass of options may hold it, a plain number where it is one.

    Raises:
        InputError: it is of another type, out of range or another word.
    """
    return _fitting(name, value, kinds(options)[name])


def _fitting(name: str, value: Any, allowed: list[_Kind]) -> Any:
    kind = next((kind for kind in allowed if kind.fits(value)), None)
    if kind is None:
        shown = " ".join(reprlib.repr(value).split())
        raise InputError(f"{name}: {shown}; it must be {', or '.join(map(str, allowed))}")
    if kind.words:
        choose(name, value, kind.words)
    return kind.type(value) if kind.type in (int, float) else value


def override(options: R, changes: dict[str, Any], what: str) -> R:
    """Return the frozen `Options` with some fields replaced.

    Args:
        options: a named set of options.
        changes: new values by field name.
        what: the name of the set, for messages.

    Raises:
        InputError: a name is no field of it, or a value does not fit the field.
    """
    for name in changes:
        choose(f"{what} option", name, kinds(type(options)))
    try:
        return replace(options, **changes)
    except InputError as error:
        raise InputError(f"{what} option {error}") from None
