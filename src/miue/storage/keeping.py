"""What the cache holds, by kind, and how it is emptied: nothing is deleted that another process is at."""

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from miue.storage.files import cache_dir, if_free

KINDS = {
    "perturbations": "what `perturb` made",
    "victims": "networks that `train_victim` trained",
    "images": "folders of images, decoded",
    "unpacked": "archives of images, unpacked",
    "bench": "speeds of networks",
    "checkpoints": "of computations that were stopped; the same command goes on with them",
    "damaged": "results that were not as they were written, set aside",
    "remains": "unfinished files of processes that were killed",
}
"""What the cache may hold. All but checkpoints can be made again; damaged and remains are of no use."""

FOLDERS = {
    "poison": "perturbations",
    "victim": "victims",
    "images": "images",
    "unpacked": "unpacked",
    "bench": "bench",
}
ENDINGS = {".parts": "checkpoints", ".damaged": "damaged", ".part": "remains"}
OURS = re.compile(r"\.?([0-9a-f]{32}(?:-\d+)?)(?:\..+)?")
"""Names that this package gives, with the key of what they hold: a folder may hold files of the user's own, too."""
HOUR = 3600.0


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Args:
        kind: one of `KINDS`.
        path: a file, or a folder with all that is in it.
        files: how many files it is.
        size: of them together, in bytes.
        changed: when the youngest of them was written, in seconds since 1970.
        lock: the file that a process holds while it makes this, where there is one.
    """

    kind: str
    path: Path
    files: int
    size: int
    changed: float
    lock: Path | None = None


def entries() -> list[Entry]:
    """List what lies in the cache, folder by folder; locks, which are empty and stay, are left out."""
    found = []
    for folder, kind in FOLDERS.items():
        try:
            paths = sorted((cache_dir() / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        keys = {path: ours[1] for path in paths if (ours := OURS.fullmatch(path.name))}
        locks = {key: path for path, key in keys.items() if path.suffix == ".lock"}
        for path, key in keys.items():
            if path.suffix != ".lock" and (measured := _measured(path)):
                found.append(Entry(ENDINGS.get(path.suffix, kind), path, *measured, lock=locks.get(key)))
    return found


@dataclass(frozen=True)
class Total:
    """What there is of one kind: number of files, bytes, and when the oldest and the newest entry were written."""

    kind: str
    files: int
    size: int
    oldest: float
    newest: float


def totals(found: Sequence[Entry]) -> list[Total]:
    """Sum entries up by kind, in the order of `KINDS`; a kind of which there is none is left out."""
    summed = []
    for kind in KINDS:
        if of := [entry for entry in found if entry.kind == kind]:
            times = [entry.changed for entry in of]
            files, size = sum(entry.files for entry in of), sum(entry.size for entry in of)
            summed.append(Total(kind, files, size, min(times), max(times)))
    return summed


def busy(entry: Entry) -> bool:
    """Whether a process is making `entry` now. An unfinished file without a lock is taken for alive for an hour."""
    with _alone(entry) as free:
        return not free


def clear(chosen: Sequence[Entry]) -> list[Entry]:
    """Delete entries for good, each at once, save those that are `busy`; return those that were deleted.

    A process that reads one of them goes on reading it, except for an unpacked archive.

    Raises:
        OSError: one cannot be deleted.
    """
    deleted = []
    for entry in chosen:
        with _alone(entry) as free:
            if free and os.path.lexists(entry.path):
                _delete(entry.path)
                deleted.append(entry)
    return deleted


@contextmanager
def _alone(entry: Entry) -> Iterator[bool]:
    """Hold `entry` against other processes and yield True, or yield False where one of them has it."""
    if entry.lock is not None and entry.lock.exists():
        with if_free(entry.lock) as free:
            yield free
    else:
        yield entry.kind != "remains" or time.time() - entry.changed >= HOUR


def _delete(path: Path) -> None:
    """Delete a file, or a folder, which is hidden first, so that nobody finds a part of it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name.lstrip('.')}.", suffix=".part", dir=path.parent))
    path.rename(aside / "deleted")
    shutil.rmtree(aside)


def _measured(path: Path) -> tuple[int, int, float] | None:
    """Number, bytes and latest time of the files at `path`; of a folder's time too, for archives bring old ones along.

    None where it is gone by now.
    """
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(about.st_mode):
        return 1, about.st_size, about.st_mtime
    files, size, changed = 0, 0, about.st_mtime
    for where, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                about = os.lstat(os.path.join(where, name))
                files, size, changed = files + 1, size + about.st_size, max(changed, about.st_mtime)
    return files, size, changed
