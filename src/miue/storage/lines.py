"""Files of JSON lines that grow: each line reaches the disk before the next; one that a stop cut off does not count."""

import json
import os
from pathlib import Path
from typing import Any

from miue.errors import InputError
from miue.storage.files import writing


def line(value: dict[str, Any]) -> bytes:
    """`value` as one line."""
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def append(path: Path, value: dict[str, Any]) -> int:
    """Write one line behind those of a file; return its bytes once they have reached the disk.

    Raises:
        Unwritable: the file cannot be written.
    """
    written = line(value)
    with writing(path), path.open("ab") as file:
        file.write(written)
        file.flush()
        os.fsync(file.fileno())
    return len(written)


def whole(path: Path, start: int = 0) -> tuple[list[Any], int]:
    """Read the lines of a file that have an end, from byte `start` on, and how many bytes they are; none of no file.

    Raises:
        InputError: a line is no JSON.
    """
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]
    try:
        return [json.loads(one) for one in text.splitlines()], len(text)
    except ValueError as error:
        raise InputError(f"file: {path} has a line that is no JSON ({error})") from None
