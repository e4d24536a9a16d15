"""Where things are kept, and how a file comes to be: complete, or not at all."""

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from miue.errors import InputError
from miue.progress import say


def cache_dir() -> Path:
    """Folder of decoded images, perturbations and victims: `$MIUE_CACHE`, else `~/.cache/miue`."""
    if chosen := os.environ.get("MIUE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "miue"


class Unwritable(OSError):
    """A file cannot be written: the message names the file that was wanted, and says what would help."""


FULL = (errno.ENOSPC, errno.EDQUOT)
WRITING = (*FULL, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
"""What the system says of a file that is open already, where it names none."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Let errors of the system about `path`, and about what lies hidden in its folder for it, speak of `path`.

    Raises:
        Unwritable: in place of them; its `errno` is theirs.
    """
    try:
        yield
    except OSError as error:
        about = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        ours = about in (path, *path.parents) or (about is not None and about.name.startswith(f".{path.name}."))
        if isinstance(error, Unwritable) or not (ours or (about is None and error.errno in WRITING)):
            raise
        told = Unwritable(f"{path} cannot be written: {_reason(error, path)}")
        told.errno = error.errno
        raise told from None


def _reason(error: OSError, path: Path) -> str:
    in_the_way = next((folder for folder in path.parents if os.path.isfile(folder)), None)
    if in_the_way:
        return f"{in_the_way} is a file and no folder"
    if error.errno == errno.EISDIR:
        return "it is a folder; give the name of a file"
    if error.errno in FULL:
        return f"the disk of {path.parent} is full; free some space, or give a file on another"
    if error.errno == errno.ENAMETOOLONG:
        return "its name is too long"
    return f"{(error.strerror or str(error)).lower()} in {path.parent}; give a file in a folder that can be written"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any exception it vanishes.

    Readers therefore see the old file or the whole new one, never a part, also after Ctrl-C.

    Raises:
        Unwritable: the folder, which is made if need be, or the file cannot be written.
    """
    path = Path(path)
    with writing(path):
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
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path`; on success it becomes `path`, on any exception it vanishes.

    Args:
        path: does not exist, or is an empty folder.

    Raises:
        Unwritable: the folder, or that in which it lies and which is made if need be, cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            yield part
            part.chmod(0o755)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def file_digest(path: Path) -> str:
    """Hex digest of the content of a file, which may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


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


def check_writable(path: str | Path) -> None:
    """Refuse a file that could not be written once the work for it is done; nothing is left on the disk.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    missing = [folder for folder in path.parents if not os.path.exists(folder)]
    try:
        with writing(path):
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".part", dir=path.parent):
                pass
    except Unwritable as error:
        raise InputError(f"out: {error}") from None
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


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
def if_free(lock: str | Path) -> Iterator[bool]:
    """Hold the file `lock` against other processes, without waiting; yield whether none of them has it."""
    held = FileLock(lock)
    with suppress(Timeout):
        held.acquire(blocking=False)
    try:
        yield held.is_locked
    finally:
        held.release()


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
        raise InputError(f"{refused} ({(error.strerror or str(error)).lower()})") from None
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
