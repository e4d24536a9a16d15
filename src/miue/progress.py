"""Progress that can be read wherever it lands: a bar on a terminal, plain lines elsewhere.

Where `$MIUE_PROGRESS` names a file, lines are appended to it instead: a notebook kernel writes there and the process
that started it shows them, so that no progress ends up in a rendered page.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


def say(line: str) -> None:
    """Print one line of progress to `$MIUE_PROGRESS`, else to standard error."""
    if target := os.environ.get("MIUE_PROGRESS"):
        with open(target, "a", encoding="utf-8") as out:
            out.write(line + "\n")
    else:
        print(line, file=sys.stderr, flush=True)


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rest = f", {(now - start) / done * (total - done):.0f} s left" if total else ""
            say(f"{label}: {done}{f'/{total}' if total else ''} ({now - start:.0f} s{rest})")


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show how far it is; what takes under two seconds shows nothing."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if os.environ.get("MIUE_PROGRESS") or not sys.stderr.isatty():
        return _lines(items, label, total)
    return iter(tqdm(items, desc=label, total=total, delay=2.0, leave=False))
