"""The folder of a run: what it holds, read back, and one process at a time at work in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miue.errors import InputError
from miue.runs import notebook
from miue.storage import files

STATUS, METRICS, PROGRESS, LOCK = "status.json", "metrics.json", "progress.log", ".lock"


class RunFailed(RuntimeError):
    """A run ended badly: the message holds the reason and the last lines, `folder` what is left of it."""

    def __init__(self, message: str, folder: Path):
        super().__init__(message)
        self.folder = folder


@dataclass(frozen=True)
class Run:
    """One run: `state` is running, done, failed or interrupted; `metrics` is empty if none were written."""

    folder: Path
    state: str
    parameters: dict[str, Any]
    metrics: dict[str, Any] = field(repr=False)
    status: dict[str, Any] = field(repr=False)

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.folder / self.status["notebook"]


def load(folder: str | Path) -> Run:
    """Return the run in `folder`, whatever its state.

    Raises:
        InputError: the folder holds no `status.json` of a run.
    """
    folder = Path(folder).resolve()
    status = read_object(folder / STATUS)
    if not {"state", "parameters", "notebook", "notebook_sha256"} <= status.keys():
        raise InputError(f"run: {folder} holds no readable {STATUS}; is it the folder of a run?")
    return Run(folder, status["state"], status["parameters"], read_object(folder / METRICS), status)


def finished(folder: str | Path) -> Run | None:
    """Return the run in `folder` if it is a good result."""
    try:
        run = load(folder)
    except InputError:
        return None
    return None if problems(run) else run


def problems(run: Run) -> list[str]:
    """Return why a run is no good result, one line each; an empty list for a good one.

    Looks at the files themselves, so that what was edited or cut off after the run is found too.
    """
    if run.state != "done":
        return [f"its state is {run.state!r} ({run.status.get('error') or 'it was not brought to its end'})"]
    if not run.metrics:
        return [f"{METRICS} is missing, empty or no JSON"]
    return notebook_problems(run.notebook, run.status["notebook_sha256"])


def notebook_problems(path: Path, expected: str) -> list[str]:
    """Return why an executed notebook is no good result, given the SHA-256 that its record names."""
    if not path.is_file() or notebook.sha256(path) != expected:
        return [f"{path.name} is missing or is not the one that was executed"]
    return notebook.flaws(notebook.load(path))


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty dict where there is none."""
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


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
    try:
        with files.if_free(folder / LOCK) as free:
            return not free
    except OSError:
        return True


def clear(folder: Path) -> None:
    """Delete all that is in `folder`, except its lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
