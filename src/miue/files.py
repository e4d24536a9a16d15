"""Where things are kept, and how a file comes to be: complete, or not at all."""

import glob
import os
import shutil
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


def clear_parts(path: Path) -> None:
    """Delete what processes that were killed left of `path` and of files beside it that begin with its stem.

    Only for who holds the lock of `path`: nobody else is writing it then.
    """
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.part"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def locked(lock: str | Path, busy: str, refused: str) -> Iterator[None]:
    """Hold the file `lock` against other processes; wait while one of them has it. It falls with its process.

    Args:
        lock: the file, which stays.
        busy: what is said before waiting.
        refused: what the error says where the lock's folder, which is made if need be, cannot be written.

    Raises:
        InputError: it cannot be written.
    """
    held = FileLock(lock)
    try:
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(blocking=False)
        except Timeout:
            say(busy)
            held.acquire()
    except OSError as error:
        raise InputError(f"{refused} ({error})") from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def cache_locked(path: Path, what: str) -> Iterator[None]:
    """Hold the place `path` in the cache while `what` is made for it; see `locked`."""
    busy = f"{what}: another process is at it; waiting for its result"
    refused = f"cache: {path.parent} cannot be written; set MIUE_CACHE to a folder that can"
    with locked(f"{path}.lock", busy, refused):
        yield
