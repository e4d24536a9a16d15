"""Variants in one word: a name and some of its options, `em:scope=class` or `resnet18:width=0.25`."""

from collections.abc import Iterable, Mapping
from typing import Any

from miue.errors import InputError

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


def pairs(texts: Iterable[str], what: str) -> dict[str, Any]:
    """Read NAME=VALUE texts.

    Raises:
        InputError: a text is not so written, or a name stands twice; `what` says where it stood.
    """
    read: dict[str, Any] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        if not (name and equals and written):
            raise InputError(f"{what}: {text!r}; write it as NAME=VALUE")
        if name in read:
            raise InputError(f"{what}: {name} is given twice")
        read[name] = value(written)
    return read


def parse(spec: str, changes: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """Split `NAME:OPTION=VALUE:OPTION=VALUE` into the name and its options, beside which `changes` are given too.

    Raises:
        InputError: an option is not written so, or stands in both.
    """
    name, *written = spec.split(":")
    options = pairs(written, spec)
    for both in options.keys() & (changes or {}).keys():
        raise InputError(f"{spec}: {both} is given a second time, as {(changes or {})[both]!r}")
    return name, options | dict(changes or {})
