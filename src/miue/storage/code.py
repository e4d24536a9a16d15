"""What of the code takes part in a result: a digest of the modules that made it, and what no digest can hold."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
PLUMBING = re.compile(r"miue(\.(errors|progress|storage(\..+)?|data\.(?!images|rows|digits_m).+))?$")
"""Modules that read what comes in, whose content stands in the keys, and that show and keep results, but make none; a
change in them leaves the cache valid."""


def _file(module: str) -> Path | None:
    """The source file of a module of this package; None for a module from elsewhere."""
    top, *names = module.split(".")
    place = PACKAGE.joinpath(*names)
    files = (place / "__init__.py", place.with_suffix(".py"))
    return next((file for file in files if top == "miue" and file.is_file()), None)


@cache
def _source(module: str) -> tuple[str, frozenset[str]]:
    """The code of one module without comments and docstrings, and the modules of this package that it imports."""
    file = _file(module)
    if file is None:
        raise ValueError(f"{module} is no module of this package, so its code has no hash")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""  # a docstring
    return ast.unparse(tree), frozenset(name for name in imports if _file(name))


@cache
def code_hash(module: str = "miue") -> str:
    """Hex digest of a module's sources and of all modules of this package that it imports, directly or not.

    Comments, docstrings and `PLUMBING` do not count. For "miue" it covers all modules of the package.

    Raises:
        ValueError: the module is from elsewhere; see `foreign_code`.
    """
    if module == "miue":
        files = sorted(PACKAGE.rglob("*.py"))
        names = [".".join(["miue", *f.relative_to(PACKAGE).with_suffix("").parts]) for f in files]
        waiting = {name.removesuffix(".__init__") for name in names}
    else:
        waiting = {module}
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        found[name], imports = _source(name)
        waiting |= {one for one in imports - found.keys() if not PLUMBING.match(one)}
    return hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=16).hexdigest()


def foreign_code(*things: Any) -> list[str]:
    """Name what of `things` no key can hold, because nothing tells when its code or contents change.

    That is all code from outside this package (a notebook's, another package's), and options with a value that is
    neither a number, a text nor made of such: a function, a network, a tensor. What they make is not cached.

    Args:
        things: functions and classes, and dataclasses of options.
    """
    found: list[str] = []
    for thing in things:
        if _file(thing.__module__) is None:
            found.append(f"{thing.__module__}.{getattr(thing, '__qualname__', type(thing).__qualname__)}")
        elif is_dataclass(thing) and not isinstance(thing, type):
            found += [name for value in vars(thing).values() for name in _foreign_values(value)]
    return found


def _foreign_values(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _foreign_values(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from foreign_code(value)
    elif value is not None and not isinstance(value, bool | int | float | str):
        kind = value if hasattr(value, "__qualname__") else type(value)
        yield f"{kind.__module__}.{kind.__qualname__}"
