"""Progress that can be read wherever it lands: a bar on a terminal, plain lines elsewhere.

Where `$MIUE_PROGRESS` names a file, lines are appended to it instead: a notebook kernel writes there and the process
that started it shows them, so that no progress ends up in a rendered page.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0
"""Least time between two lines about loops; `$MIUE_PROGRESS_SECONDS` asks for another."""


@dataclass(eq=False)
class _Loop:
    """A loop that is under way: how far it is, and what was told inside it."""

    label: str
    total: int | None
    bar: tqdm | None
    began: float
    done: int = 0
    skipped: int = 0
    loss: float | None = None
    images: int = 0

    def place(self) -> str:
        return f"{self.label} {self.done}" + (f"/{self.total}" if self.total else "")

    def facts(self, now: float) -> list[str]:
        """Time left, last loss and speed, as far as they are known."""
        found = []
        if self.total and self.done > self.skipped:
            each = (now - self.began) / (self.done - self.skipped)
            found.append(f"{duration(each * max(self.total - self.done, 0))} left")
        return found + self.told(now)

    def told(self, now: float) -> list[str]:
        found = [] if self.loss is None else [f"loss {self.loss:.3g}"]
        if self.images and now > self.began:
            found.append(f"{self.images / (now - self.began):,.0f} images/s")
        return found


@dataclass
class _Shown:
    """What this process is at: the loops that are under way, the innermost last, and when a line about them came."""

    loops: list[_Loop] = field(default_factory=list)
    last: float = 0.0


_shown = _Shown()


def on_terminal() -> bool:
    """Whether progress is shown to someone who sits at a terminal."""
    return not os.environ.get("MIUE_PROGRESS") and sys.stderr.isatty()


def say(line: str) -> None:
    """Print one line of progress to `$MIUE_PROGRESS`, else to standard error; where neither takes it, it is lost."""
    with suppress(OSError):  # a full disk must not cost the work that the line is about
        if target := os.environ.get("MIUE_PROGRESS"):
            with open(target, "a", encoding="utf-8") as out:
                out.write(line + "\n")
        else:
            print(line, file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show how far it is; what is quick shows nothing.

    Loops may stand inside one another; a line then names all of them, and the time that the innermost has left.

    Args:
        items: anything that can be gone through.
        label: what is done, with what is counted at its end: "victim, epochs".
        total: number of items, where `len(items)` does not tell it; less may come.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    bar = tqdm(items, desc=label, total=total, delay=2.0, leave=False) if on_terminal() else None
    loop = _Loop(label, total, bar, time.monotonic())
    _shown.loops.append(loop)
    try:
        for item in items if bar is None else bar:
            yield item
            loop.done += 1
            _show(loop)
    finally:
        _shown.loops.remove(loop)


def tell(loss: float | None = None, images: int = 0) -> None:
    """Say how the innermost `track` is doing; outside of one this does nothing.

    Args:
        loss: as it is now.
        images: that have been worked on since the last call; their number for each second is shown.
    """
    if not _shown.loops:
        return
    loop = _shown.loops[-1]
    loop.loss = loop.loss if loss is None else loss
    loop.images += images
    _show(loop)


def skip(count: int) -> None:
    """Say that the first `count` items of the innermost `track` were done before and will not come."""
    if _shown.loops and count:
        loop = _shown.loops[-1]
        loop.done += count
        loop.skipped += count
        if loop.bar is not None and loop.bar.total:
            loop.bar.total -= count  # a bar counts what it is given, so it shows the rest


def duration(seconds: float) -> str:
    """Write a time as a reader says it: "45 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show(loop: _Loop) -> None:
    now = time.monotonic()
    if loop.bar is not None:
        loop.bar.set_postfix_str(", ".join(loop.told(now)), refresh=False)
        return
    pause = float(os.environ.get("MIUE_PROGRESS_SECONDS") or SECONDS_BETWEEN_LINES)
    if now - max(_shown.last, loop.began) >= pause:
        _shown.last = now
        say(" · ".join([*(outer.place() for outer in _shown.loops), *loop.facts(now)]))
