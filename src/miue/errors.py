"""Errors and warnings with one clear line: the argument, the value, and what would be right."""

from collections.abc import Iterable


class InputError(ValueError):
    """The caller asked for something that cannot be done; the command line exits with status 2."""


class DataWarning(UserWarning):
    """The input is usable, but a property of it (ties, dead units) bends the result."""


def choose(argument: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is one of `known`.

    Raises:
        InputError: `value` is unknown; the message lists what exists.
    """
    names = list(known)
    if value not in names:
        raise InputError(f"{argument}: {value!r} does not exist; choose one of {', '.join(names)}")
    return value
