"""Records of what was measured, and a cache of what was expensive."""

import ast
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

import miue
from miue.checkpoint import Checkpoint
from miue.errors import InputError
from miue.files import atomic, cache_dir, cache_locked, clear_parts
from miue.progress import say
from miue.tensors import Damaged

PACKAGE = Path(__file__).parent
PLUMBING = {f"miue.{name}" for name in ("errors", "files", "progress", "store", "tensors")} | {"miue"}
"""Modules that show and keep results but make none; a change in them leaves the cache valid."""


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


@cache
def _source(module: str) -> tuple[str, frozenset[str]]:
    """The code of one module without comments and docstrings, and the modules of this package that it imports."""
    relative = Path(*module.split(".")[1:])
    package = PACKAGE / relative / "__init__.py"
    file = package if package.exists() else PACKAGE / relative.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "miue":
            imports |= {name for alias in node.names if importlib.util.find_spec(name := f"miue.{alias.name}")}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("miue."):
            imports.add(str(node.module))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""  # a docstring
    return ast.unparse(tree), frozenset(imports)


@cache
def code_hash(module: str = "miue") -> str:
    """Hex digest of a module's sources and of all modules of this package that it imports, directly or not.

    Comments, docstrings and `PLUMBING` do not count. For "miue" it covers all modules of the package.
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


@cache
def _commit() -> str | None:
    """The commit of the checkout that the package runs from, "+" behind it where sources differ; None elsewhere."""

    def git(*words: str) -> str:
        asked = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True)
        return asked.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device | str | None = None) -> str:
    """The name of the processor or GPU that the numbers are made on."""
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {torch.get_num_threads()} threads"


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


def find(kind: type[K], **parts: Any) -> K | None:
    """Return the result that `parts` determine if it lies in the cache, undamaged."""
    try:
        return kind.load(_place(kind, parts))
    except (FileNotFoundError, Damaged):
        return None


def cached(kind: type[K], make: Callable[[Checkpoint], K], what: str, **parts: Any) -> K:
    """Return the result that `parts` determine: from the cache where it lies there, else from `make`.

    One process makes it, others that want the same wait. It goes on from its last checkpoint if it was stopped.

    Args:
        kind: the class of the result.
        make: makes it, given the checkpoint in which it keeps its state.
        what: name of the result, for what is shown.
        parts: everything that determines it: parameters, content hashes, `code_hash`, device type, torch version.

    Raises:
        InputError: the cache folder cannot be written.
    """
    if found := find(kind, **parts):
        return found
    path = _place(kind, parts)
    with cache_locked(path, what):
        clear_parts(path)
        try:
            return kind.load(path)  # by the process that we waited for
        except FileNotFoundError:
            pass
        except Damaged as error:
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            say(f"cache: {error}; it is set aside as {aside.name} and made anew")
        keep = Checkpoint(path.with_suffix(".parts"))
        result = make(keep)
        try:
            result.save(path)
        except OSError as error:
            say(f"{what}: made, but not kept in the cache ({error}); free some space before it is wanted again")
        else:
            keep.forget()
    return result


def _place(kind: type, parts: dict[str, Any]) -> Path:
    return cache_dir() / kind.__name__.lower() / f"{key(**parts)}.safetensors"
