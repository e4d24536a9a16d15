"""The parameters of a template: read from its `parameters` cell, and checked before anything starts.

Papermill runs a notebook with an unknown or ill-typed parameter after a warning at most. Here the cell
tagged `parameters` is the interface: each line `name: type = default  # what it is, with its unit`
declares one parameter, and a value that does not fit is refused.
"""

import ast
import io
import math
import tokenize
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import numpy as np

from miue.errors import InputError
from miue.runs import vocabulary
from miue.specs import parse_epsilon

SIMPLE: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}

BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
FROM_TEXT: dict[type, Callable[[str], Any]] = {
    NoneType: {"none": None, "null": None}.__getitem__,
    bool: BOOLS.__getitem__,
    int: int,
    float: parse_epsilon,  # 0.031, 1e-4 or 8/255
}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: its name, declared type, default (of that type) and comment."""

    name: str
    kind: Any
    default: Any
    help: str

    @property
    def type_name(self) -> str:
        """The type as it is written in the cell, such as `list[int]` or `float | None`."""
        return _written(self.kind)


def read(source: str, template: str = "template") -> dict[str, Parameter]:
    """Return the parameters that the Python `source` of a parameters cell declares, in their order.

    Raises:
        InputError: a line is no annotated assignment, its type is not made of int, float, str, bool,
            list[...] and None, or its default does not fit its type.
    """
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Parameter] = {}
    for line in ast.parse(source).body:
        try:
            name, kind, default = _declared(line)
        except (ValueError, TypeError, LookupError, ArithmeticError):
            raise InputError(
                f"{template}: {ast.unparse(line)!r} in the parameters cell is not of the form `name: type = default  "
                "# help`, with a type made of int, float, str, bool, list[...] and None, and a literal default"
            ) from None
        found[name] = Parameter(name, kind, coerce(name, default, kind), comments.get(line.end_lineno or 0, ""))
    return found


def check(given: Mapping[str, object], declared: Mapping[str, Parameter], template: str) -> dict[str, Any]:
    """Return the values of all `declared` parameters, defaults filled in, as plain JSON-ready Python.

    Args:
        given: values by name; texts (of a command line) are read as the declared type, NumPy numbers,
            arrays, tuples and paths are turned into plain numbers, lists and texts.
        declared: what `read` returned.
        template: its name, for messages.

    Raises:
        InputError: a name is unknown (the message lists what exists), a value is not of the declared
            type, or what it becomes refuses it (see `vocabulary`).
    """
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "no parameters"
            raise InputError(f"parameter {name!r} does not exist in {template}; it has {known}")
    values = {}
    for name, parameter in declared.items():
        values[name] = coerce(name, given[name], parameter.kind) if name in given else parameter.default
    vocabulary.check(values)
    return values


def coerce(name: str, value: object, kind: Any) -> Any:
    """Return `value` as the declared `kind`: a plain int, float, str, bool, None or a list of these.

    Raises:
        InputError: it does not fit. No number is rounded to fit, and a float must be finite.
    """
    plain = _plain(value)
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    for alternative in sorted(kinds, key=lambda one: one is str):  # str, which accepts every text, last
        with suppress(TypeError, ValueError, LookupError, ArithmeticError):
            return _fit(plain, alternative)
    wanted = _written(kind).replace("float", "finite float")
    raise InputError(f"parameter {name}: {value!r} (a {type(value).__name__}) is not of type {wanted}")


def _written(kind: Any) -> str:
    return str(kind) if get_args(kind) else kind.__name__


def _plain(value: object) -> object:
    """Turn NumPy numbers, arrays, tuples and paths into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _fit(value: Any, kind: Any) -> Any:
    """Return plain `value` as `kind`, or raise TypeError, ValueError, LookupError or ArithmeticError."""
    if get_origin(kind) is list:
        items = _items(value) if isinstance(value, str) else value
        if not isinstance(items, list):
            raise TypeError
        return [_fit(item, get_args(kind)[0]) for item in items]
    if isinstance(value, str) and kind is not str:
        value = FROM_TEXT[kind](value.strip().lower())
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise TypeError
    return value


def _items(text: str) -> list[Any]:
    """Read `0,1,2`, `[0, 1, 2]`, `["a", "b"]` or, as a shell leaves it, `[a, b]`."""
    text = text.strip()
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text.removeprefix("[").removesuffix("]").split(",") if text else []
    items = value if isinstance(value, list | tuple) else [value]
    return [item.strip() if isinstance(item, str) else item for item in items]


def _declared(line: ast.stmt) -> tuple[str, Any, Any]:
    """The name, type and value of a line, or ValueError, TypeError, LookupError or ArithmeticError."""
    match line:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value):
            return name, _kind(annotation), _literal(value)
    raise ValueError


def _kind(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=simple):
            return SIMPLE[simple]
        case ast.Constant(value=None):
            return NoneType
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _kind(left) | _kind(right)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return list[_kind(inner)]  # type: ignore[misc]
    raise ValueError


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal or a quotient of two (`8 / 255`), nothing that could run code."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return ast.literal_eval(node.left) / ast.literal_eval(node.right)
    return ast.literal_eval(node)
