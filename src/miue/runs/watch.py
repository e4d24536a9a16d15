"""What a kernel is at, shown by the process that waits for it: one line that is rewritten in place, or plain lines."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from miue import progress

SECONDS = 1.0
"""How often a kernel tells how far it is, where that is shown in place."""


@contextmanager
def passed_on(log: Path) -> Iterator[Path]:
    """Show the lines that other processes append to `log` (their `$MIUE_PROGRESS`) while the block runs."""
    stop = threading.Event()

    def follow() -> None:
        while True:
            last = stop.wait(0.5)  # before reading: what comes in while we stop is read once more
            for line in lines:
                progress.say(f"  {line.rstrip()}")
            if last:
                return

    with _opened(log) as lines:
        lines.seek(0, 2)
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield log
        finally:
            stop.set()
            thread.join()


@contextmanager
def shown(log: Path, title: str) -> Iterator[Callable[[str], None]]:
    """Show what goes on while the block runs: the place that it tells, and the lines that come into `log`.

    On a terminal that is one line, rewritten in place; elsewhere each place and each line of `log` is a line. `log`
    keeps all of them in any case.

    Args:
        log: the `$MIUE_PROGRESS` of the process at work.
        title: of what is done.

    Yields:
        The function that is told the place, such as "cell 4/12 Perturb and train".
    """
    if progress.on_terminal():
        console = Console(stderr=True)
        with _opened(log) as lines:
            line = _Line(title, lines, console)
            with Live(get_renderable=line.text, console=console, refresh_per_second=2, transient=True):
                yield line.move
    else:
        with passed_on(log):
            yield lambda place: progress.say(f"{title}: {place}")


class _Line:
    """The one line: title, place, and what was said there last, or how long it has been there."""

    def __init__(self, title: str, lines: TextIO, console: Console) -> None:
        self.title, self.lines, self.console = title, lines, console
        self.place, self.last, self.since = "starting", "", time.monotonic()
        self.turn = threading.Lock()  # the line is drawn by a thread of its own

    def move(self, place: str) -> None:
        with self.turn:
            self._read()
            self.place, self.last, self.since = place, "", time.monotonic()

    def text(self) -> Text:
        with self.turn:
            self._read()
            said = self.last or progress.duration(time.monotonic() - self.since)
            whole = f"{self.title} · {self.place} · {said}"
        return Text(whole if len(whole) <= self.console.width else said, no_wrap=True, overflow="ellipsis")

    def _read(self) -> None:
        for line in self.lines:
            self.last = line.strip()


def _opened(log: Path) -> TextIO:
    """The log, made if need be, to be read from its beginning."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    return open(log, encoding="utf-8", errors="replace")
