"""One process at a time in a run's folder, and a way to tell whether there is one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from miue.storage import files

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, against other processes; see `files.locked`.

    Raises:
        InputError: the folder cannot be written.
    """
    busy = f"{folder.name}: another process makes this very run; waiting for it"
    refused = f"out: {folder.parent} cannot be written; give another folder"
    with files.locked(folder / LOCK, busy, refused):
        yield


def held(folder: Path) -> bool:
    """Whether a process is at work in `folder`."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def clear(folder: Path) -> None:
    """Delete all that is in `folder`, except its lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
