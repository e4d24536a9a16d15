"""What a kernel is at, shown by the process that waits for it: one line that is rewritten in place, or plain lines."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from miue import progress

SECONDS = 1.0
"""How often a kernel tells how far it is, where that is shown in place."""


@contextmanager
def passed_on(log: Path) -> Iterator[Path]:
    """Show the lines that other processes append to `log` (their `$MIUE_PROGRESS`) while the block runs."""

    def show(lines: list[str]) -> None:
        for line in lines:
            progress.say(f"  {line}")

    with _followed(log, show):
        yield log


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
    if not progress.on_terminal():
        with passed_on(log):
            yield lambda place: progress.say(f"{title}: {place}")
        return
    place, last, since = "starting", "", time.monotonic()

    def show(lines: list[str]) -> None:
        nonlocal last
        last = lines[-1].strip() if lines else last
        said = last or progress.duration(time.monotonic() - since)
        bar.set_description_str(_fitting(f"{title} · {place} · ", said, shutil.get_terminal_size().columns - 1))

    def move(to: str) -> None:
        nonlocal place, last, since
        look()  # what came until now is of the place before
        place, last, since = to, "", time.monotonic()

    with tqdm(bar_format="{desc}", leave=False) as bar, _followed(log, show) as look:
        yield move


def _fitting(where: str, said: str, width: int) -> str:
    """The one line, in at most `width` characters: without its title and place where there is no room for them."""
    return (where + said if len(where + said) <= width else said)[:width]


@contextmanager
def _followed(log: Path, show: Callable[[list[str]], None]) -> Iterator[Callable[[], None]]:
    """Hand what comes into `log`, made if need be, to `show`: twice a second, and as what is yielded is called."""
    log.parent.mkdir(parents=True, exist_ok=True)
    stop, turn = threading.Event(), threading.Lock()
    with open(log, "a+", encoding="utf-8", errors="replace") as file:  # begins at the end

        def look() -> None:
            with turn:
                show(file.read().splitlines())

        def follow() -> None:
            while not stop.wait(0.5):
                look()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield look
        finally:
            stop.set()
            thread.join()
            look()
