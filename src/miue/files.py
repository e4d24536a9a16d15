"""Where things are kept, and how a file comes to be: complete, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from miue.errors import InputError
from miue.progress import say


def cache_dir() -> Path:
    """Folder of decoded pictures, perturbations and victims: `$MIUE_CACHE`, else `~/.cache/miue`."""
    if chosen := os.environ.get("MIUE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "miue"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any exception it vanishes.

    Readers therefore see the old file or the whole new one, never a part, also after Ctrl-C.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, what: str) -> Iterator[None]:
    """Hold the lock of `path` against other processes; wait, and say so, while one of them has it.

    A process that dies lets go of its locks.

    Args:
        path: what is being made; the lock is `path` with `.lock` behind it.
        what: its name, for the line that is shown.

    Raises:
        InputError: the folder cannot be written.
    """
    lock = FileLock(f"{path}.lock")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"{what}: another process is at it; waiting for its result")
            lock.acquire()
    except OSError as error:
        raise InputError(
            f"cache: {Path(path).parent} cannot be written ({error}); set MIUE_CACHE to a folder that can"
        ) from None
    try:
        yield
    finally:
        lock.release()
