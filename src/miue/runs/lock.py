"""One process at a time in a run's folder, and a way to tell whether there is one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from miue.errors import InputError
from miue.progress import say

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, against other processes; wait, and say so, while one of them has it.

    The lock falls with its process, however that ends.

    Raises:
        InputError: the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"{folder.name}: another process makes this very run; waiting for it")
            lock.acquire()
    except OSError as error:
        raise InputError(f"out: {folder.parent} cannot be written ({error}); give another folder") from None
    try:
        yield
    finally:
        lock.release()


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
