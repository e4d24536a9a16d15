"""The file of what was measured: a line for each trial, behind a line for the setting that all of them share."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from miue.data.images import Images
from miue.errors import InputError
from miue.experiments.trials import Setting, Trial
from miue.specs import portable
from miue.storage import lines
from miue.storage.files import locked

VERSION = 4
"""Of the words that a file is written in; no other is read."""


class Records:
    """A file of measured trials, one JSON object in a line behind a line that holds the setting.

    Lines are appended and reach the disk one by one, so a stop at any moment loses at most the trial at work.
    Several processes may measure into one file; a hidden lock beside it keeps their lines apart.

    Args:
        path: the file; it is made where there is none.
        setting: what the trials have in common.

    Raises:
        InputError: the file holds trials of another setting or an earlier version, is none of trials (see `read`), or
            cannot be written.
    """

    def __init__(self, path: str | Path, setting: Setting) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        self._read = 0  # bytes of the file that `rows` covers
        head = {"version": VERSION, "setting": asdict(setting)}
        with self._alone():
            whole = self.path.read_bytes() if self.path.exists() else b""
            if b"\n" not in whole and lines.line(head).startswith(whole):  # a new file, or its writer was stopped
                self.path.unlink(missing_ok=True)
                self._append(head)
                return
            self.rows = matching(self.path, setting)
            self._read = whole.rfind(b"\n") + 1
            self._cut()

    def find(self, trial: Trial) -> dict[str, Any] | None:
        """The row of `trial`, if it has been measured, be it by another process meanwhile."""
        self._refresh()
        row = measured(self.rows, trial)
        return None if row is None else row | asdict(trial)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, unless another process has kept one of the same trial meanwhile: that stays the only one."""
        row = portable_row(row)
        with self._alone():
            self._refresh()
            own = {field.name: row.get(field.name) for field in fields(Trial)}
            if first(self.rows, own) is not None:
                return
            self._cut()
            self._append(row)
            self.rows.append(row)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file against other processes that write to it."""
        busy = f"records: another process writes to {self.path}; waiting for it"
        refused = f"records: {self.path} cannot be written; give a file in a folder that can"
        if self.path.is_dir():
            raise InputError(f"records: {self.path} is a folder; give a file")
        with locked(self.path.with_name(f".{self.path.name}.lock"), busy, refused):
            yield

    def _refresh(self) -> None:
        """Read the whole lines that have come since the last look."""
        rows, size = lines.whole(self.path, self._read)
        self.rows += rows
        self._read += size

    def _cut(self) -> None:
        """Take away a last line within which its writer was stopped; who holds the lock knows that nobody writes it."""
        if self.path.stat().st_size > self._read:
            os.truncate(self.path, self._read)

    def _append(self, value: dict[str, Any]) -> None:
        self._read += lines.append(self.path, value)


def read(path: str | Path) -> tuple[Setting, pd.DataFrame]:
    """Read a file of trials: what they have in common, and one row for each, as `comparison.compare` returns them.

    Raises:
        InputError: there is no such file, it is of another version, or a line in it is no JSON.
    """
    if not Path(path).is_file():
        raise InputError(f"records: {path} does not exist")
    setting, rows = _parsed(Path(path))
    return setting, pd.DataFrame(rows)


def matching(path: Path, setting: Setting) -> list[dict[str, Any]]:
    """Return the rows of a file that trials of this setting may stand in.

    Raises:
        InputError: it is of another setting or version, or no file of trials.
    """
    before, rows = _parsed(path)
    if before != setting:
        pairs = asdict(before).items()
        other = [f"{name}={value!r}" for name, value in pairs if getattr(setting, name) != value]
        raise InputError(f"records: {path} was made with {', '.join(other)}; give these values or another file")
    return rows


def refuse_other(rows: Sequence[dict[str, Any]], path: Path, train: Images) -> None:
    """Check that the rows of the file at `path` were measured on these images.

    Raises:
        InputError: they were not.
    """
    if other := {row["content_hash"] for row in rows} - {train.content_hash}:
        raise InputError(
            f"records: {path} was made on other images (content hash {other.pop()}) than those of "
            f"{train.name} here ({train.content_hash}); give another file"
        )


def measured(rows: Sequence[dict[str, Any]], trial: Trial) -> dict[str, Any] | None:
    """The row of `trial` among those of a file; None where it has not been measured."""
    return first(rows, portable_row(asdict(trial)))


def first(rows: Sequence[dict[str, Any]], values: dict[str, Any]) -> dict[str, Any] | None:
    """The first row that holds all these values."""
    return next((row for row in rows if values.items() <= row.items()), None)


def portable_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row in which files of somebody's own are named so that it means the same on another machine."""
    return {name: portable(value) if isinstance(value, str) else value for name, value in row.items()}


def _parsed(path: Path) -> tuple[Setting, list[dict[str, Any]]]:
    """Setting and rows of a file; a last line without an end is left out, for its writer was stopped within it."""
    try:
        head, *rows = lines.whole(path)[0]
        version, setting = head.get("version", 1), head["setting"]
        if version == VERSION:
            return Setting(**setting), rows
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"records: {path} is damaged or no file of trials ({error})") from None
    raise InputError(f"records: {path} is of version {version}; it must be {VERSION}, so measure into another file")
