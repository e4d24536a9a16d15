"""Progress of a kernel, shown by the process that waits for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miue import progress


@contextmanager
def passed_on(log: Path) -> Iterator[Path]:
    """Show the lines that other processes append to `log` (their `$MIUE_PROGRESS`) while the block runs."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    stop = threading.Event()

    def follow() -> None:
        with open(log, encoding="utf-8", errors="replace") as lines:
            lines.seek(0, 2)
            while True:
                last = stop.wait(0.5)  # before reading: what comes in while we stop is read once more
                for line in lines:
                    progress.say(f"  {line.rstrip()}")
                if last:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield log
    finally:
        stop.set()
        thread.join()
