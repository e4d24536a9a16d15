"""Errors and warnings with one clear line: the argument, the value, and what would be right."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R", bound=Any)


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


def require_positive(record: object, *names: str) -> None:
    """Check that the named fields of `record` are above 0.

    Raises:
        InputError: one is not.
    """
    for name in names:
        if not getattr(record, name) > 0:
            raise InputError(f"{name}: {getattr(record, name)}; it must be above 0")


def override(record: R, changes: dict[str, Any], what: str) -> R:
    """Return the frozen dataclass `record` with some fields replaced.

    Args:
        record: a named set of options.
        changes: new values by field name.
        what: the name of the set, for messages.

    Raises:
        InputError: a name is no field of it, or a value is not of the field's type.
    """
    types = get_type_hints(type(record))
    for name, value in changes.items():
        kind = types[choose(f"{what} option", name, types)]
        number = kind in (float, float | None) and type(value) is int
        if not (number or isinstance(value, kind)) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{what} option {name}: {value!r} is no {getattr(kind, '__name__', kind)}")
    return replace(record, **changes)
