"""Variants in one word: a name and some of its options, `em:scope=class` or `resnet18:width=0.25`.

The name is one of this package, or `FILE.py:NAME` for a thing of somebody's own; that file is executed.
"""

import importlib
import runpy
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from miue.errors import InputError, choose

T = TypeVar("T")

WORDS = {"true": True, "false": False, "none": None}


def parse_epsilon(value: float | str) -> float:
    """Read a fraction of the pixel range: "8/255" or a number.

    Raises:
        InputError: not a number.
    """
    try:
        numerator, _, denominator = str(value).partition("/")
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"epsilon: {value!r} is no fraction of the pixel range; write it like 8/255 (8 levels)"
        ) from None


def value(text: str) -> Any:
    """Read a number, a fraction such as 0.8/255, true, false, none, or else a word."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float, parse_epsilon):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def pairs(texts: Iterable[str], what: str, *, as_text: bool = False) -> dict[str, Any]:
    """Read NAME=VALUE texts; `as_text` leaves values as they stand, which may then be empty.

    Raises:
        InputError: a text is not so written, or a name stands twice; `what` says where it stood.
    """
    read: dict[str, Any] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        if not (name and equals and (written or as_text)):
            raise InputError(f"{what}: {text!r}; write it as NAME=VALUE")
        if name in read:
            raise InputError(f"{what}: {name} is given twice, {read[name]} and {written}; give it once")
        read[name] = written if as_text else value(written)
    return read


def parse(spec: str, changes: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """Split `NAME:OPTION=VALUE:OPTION=VALUE` into the name and its options, beside which `changes` are given too.

    Of `FILE.py:NAME:OPTION=VALUE` the first two parts are the name.

    Raises:
        InputError: an option is not written so, or stands in both.
    """
    name, *written = spec.split(":")
    if name.endswith(".py") and written:
        name = f"{name}:{written.pop(0)}"
    return name, merged(spec, pairs(written, spec), changes or {})


def merged(spec: str, written: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put the options that stand in `spec` and those that are given beside it together.

    Raises:
        InputError: an option stands in both.
    """
    for both in written.keys() & changes.keys():
        raise InputError(f"{spec}: {both} is given a second time, as {changes[both]!r}")
    return {**written, **changes}


def is_own(name: str) -> bool:
    """Whether a name is that of a thing in somebody's own file: `FILE.py:NAME`."""
    return name.rpartition(":")[0].endswith(".py")


def settled(spec: str) -> str:
    """Return `FILE.py:NAME` with the whole path of its file, so that it means the same in every working folder."""
    file, own, rest = spec.partition(".py:")
    return f"{Path(file + '.py').resolve()}:{rest}" if own else spec


def portable(spec: str) -> str:
    """Return `FILE.py:NAME` with the path from the top of the checkout that holds its file, as records keep it."""
    file = file_of(spec)
    if file is None:
        return spec
    whole = file.resolve()
    top = next((folder for folder in whole.parents if (folder / ".git").exists()), whole.parent)
    return f"{whole.relative_to(top).as_posix()}:{spec.partition('.py:')[2]}"


def file_of(spec: str) -> Path | None:
    """The file that a spec names; None for a name of this package."""
    file, own, _ = spec.partition(".py:")
    return Path(file + ".py") if own else None


def find(argument: str, name: str, known: Mapping[str, T]) -> T:
    """Return what a name stands for: one of `known`, or what `FILE.py` calls `NAME`.

    Raises:
        InputError: it is neither (the message lists `known`), or the file fails.
    """
    return load(argument, name) if is_own(name) else known[choose(argument, name, known)]


def load(argument: str, name: str) -> Any:
    """Return what `FILE.py:NAME` or `MODULE:NAME` stands for; the file or module is executed, once for each content.

    Raises:
        InputError: there is no such file, module or name, or it fails.
    """
    place, _, own = name.rpartition(":")
    try:
        path = Path(place)
        scope = (
            _executed(path.resolve(), path.read_bytes())
            if place.endswith(".py")
            else vars(importlib.import_module(place))
        )
        return scope[own]
    except (Exception, SystemExit) as error:
        told = f"{own} is not defined there" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        reason = " ".join(told.split())
        raise InputError(f"{argument}: {name!r} cannot be taken ({reason}); write FILE.py:NAME") from None


@cache
def _executed(path: Path, content: bytes) -> dict[str, Any]:
    """What a file defines; `content` tells whether it is still the same."""
    return runpy.run_path(str(path))
