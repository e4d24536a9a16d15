"""Records of what was measured, and a cache of what was expensive."""

import ast
import hashlib
import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

import miue
from miue.checkpoint import Checkpoint
from miue.errors import InputError, choose
from miue.files import atomic, cache_dir, cache_locked, clear_parts
from miue.progress import say
from miue.tensors import Damaged

PACKAGE = Path(__file__).parent
PLUMBING = {"miue"} | {
    f"miue.{name}" for name in ("arrays", "errors", "files", "labelled", "progress", "store", "tensors")
}
"""Modules that read what comes in, whose content stands in the keys, and that show and keep results, but make none; a
change in them leaves the cache valid."""


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` atomically; NaN is refused, for it is no JSON."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        InputError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"file: {path} does not exist") from None
    except ValueError as error:
        raise InputError(f"file: {path} is no JSON ({error})") from None


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
        waiting |= imports - found.keys() - PLUMBING
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


@cache
def _commit() -> str | None:
    """The commit of this project's checkout, "+" behind it where sources differ; None where the package is installed.

    A package that is installed into a folder of another repository is no checkout of this one.
    """

    def git(*words: str) -> str:
        asked = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True)
        return asked.stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        if project.get("name") != "miue" or (top / "src" / "miue").resolve() != PACKAGE.resolve():
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def machine(device: torch.device | str | None = None) -> tuple[str, int | None]:
    """The name of the GPU or processor that the numbers are made on; of the latter, the number of threads too."""
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda":
        return torch.cuda.get_device_name(device), None
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine(), torch.get_num_threads()


def device_name(device: torch.device | str | None = None) -> str:
    """What `machine` tells, in words."""
    name, threads = machine(device)
    return name if threads is None else f"{name}, {threads} threads"


def any_threads() -> bool:
    """Whether a result of this processor may be taken that another number of threads made: `$MIUE_ANY_THREADS` is 1.

    Sums are rounded in another order then, so that it is not the same bit for bit.

    Raises:
        InputError: the variable is neither 0 nor 1.
    """
    return choose("MIUE_ANY_THREADS", os.environ.get("MIUE_ANY_THREADS") or "0", ("0", "1")) == "1"


def provenance(device: torch.device | str | None = None) -> dict:
    """What made a number: versions of package, code, torch and Python, and the device."""
    return {
        "miue": miue.__version__,
        "commit": _commit(),
        "code": code_hash(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
    }


class Kept(Protocol):
    """What `cached` can keep: it saves itself to a file and loads itself from one."""

    def save(self, path: str | Path) -> None:
        """Write to `path`, atomically."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from `path`; raise FileNotFoundError, or `tensors.Damaged`."""


K = TypeVar("K", bound=Kept)


def key(**parts: Any) -> str:
    """Hex digest of what determines a result; every part must be JSON."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def find(kind: type[K], *, foreign: Sequence[str] = (), threads: int | None = None, **parts: Any) -> K | None:
    """Return the result that the arguments determine, as in `cached`, if it lies in the cache, undamaged."""
    found = None if foreign else _find(kind, threads, parts)
    return None if found is None else found[0]


def cached(
    kind: type[K],
    make: Callable[[Checkpoint], K],
    what: str,
    *,
    foreign: Sequence[str] = (),
    threads: int | None = None,
    **parts: Any,
) -> K:
    """Return the result that `parts` determine: from the cache where it lies there, else from `make`.

    One process makes it, others that want the same wait. It goes on from its last checkpoint if it was stopped.

    Args:
        kind: the class of the result.
        make: makes it, given the checkpoint in which it keeps its state.
        what: name of the result, for what is shown.
        foreign: what takes part in it and stands in no key, as `foreign_code` names it; the result is then made each
            time, and not kept.
        threads: of the processor that makes it. What another number of them made counts where `any_threads` says so.
        parts: everything else that determines it: parameters, content hashes, `code_hash`, processor or GPU, torch
            version.

    Raises:
        InputError: the cache folder cannot be written.
    """
    if foreign:
        say(f"{what}: made anew and not kept, for no key can tell when {', '.join(foreign)} changes")
        return make(Checkpoint())
    path = _place(kind, threads, parts)
    if found := _find(kind, threads, parts):
        result, place = found
        if place != path:
            say(f"{what}: from the cache, where {place.stem.rpartition('-')[2]} threads made it")
        return result
    with ExitStack() as locks:
        if threads is not None and any_threads():  # whatever the number of threads, only one makes it
            locks.enter_context(cache_locked(_place(kind, None, parts), what))
        locks.enter_context(cache_locked(path, what))
        clear_parts(path)
        try:
            return kind.load(path)  # by the process that we waited for
        except FileNotFoundError:
            pass
        except Damaged as error:
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            say(f"cache: {error}; it is set aside as {aside.name} and made anew")
        if found := _find(kind, threads, parts):  # by one with another number of threads
            return found[0]
        keep = Checkpoint(path.with_suffix(".parts"))
        result = make(keep)
        try:
            result.save(path)
        except OSError as error:
            say(f"{what}: made, but not kept in the cache ({error}); free some space before it is wanted again")
        else:
            keep.forget()
    return result


def _find(kind: type[K], threads: int | None, parts: dict[str, Any]) -> tuple[K, Path] | None:
    """The result and where it lies: at its own place or, if so asked, at that of another number of threads."""
    places = [_place(kind, threads, parts)]
    if threads is not None and any_threads():
        pattern = _place(kind, None, parts).stem + "-*.safetensors"
        places += sorted(set(places[0].parent.glob(pattern)) - set(places))
    for place in places:
        try:
            return kind.load(place), place
        except (FileNotFoundError, Damaged):
            continue
    return None


def _place(kind: type, threads: int | None, parts: dict[str, Any]) -> Path:
    name = key(**parts) if threads is None else f"{key(**parts)}-{threads}"
    return cache_dir() / kind.__name__.lower() / f"{name}.safetensors"
