"""Rows of measurements in a file of JSON lines: what is there is not measured again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miue.storage import lines
from miue.storage.provenance import collect


class Measured:
    """The rows of a file, and what adds to them.

    Args:
        path: of the file; a last line that was cut off is measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, lines.whole(path)[0]

    def measure(self, made: Callable[[], dict[str, Any]], **row: Any) -> None:
        """Measure the row that these values name, if it is not there yet, and keep it."""
        if any(row.items() <= other.items() for other in self.rows):
            return
        began = time.perf_counter()
        row |= made()
        row |= {"seconds": round(time.perf_counter() - began, 1)}
        print(row, flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines.append(self.path, row | collect("cpu"))
        self.rows.append(row)
