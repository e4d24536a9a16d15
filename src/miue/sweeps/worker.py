"""`python -m miue.sweeps.worker`: the process that makes one run of a sweep. See `order.start`."""

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO

from miue import runs
from miue.errors import InputError
from miue.storage import files
from miue.sweeps.order import LAST_LINES, Order, Report


def main() -> None:
    """Make the run that is ordered on standard input, and leave a report; stop when standard input is closed."""
    # A shell's background job, and what it starts, would ignore the signal by which this process stops itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lifeline = os.fdopen(0, "rb", buffering=0)  # without a buffer, whose lock a waiting thread would hold at exit
    order = Order(**json.loads(lifeline.readline()))
    threading.Thread(target=_stop_with, args=[lifeline], daemon=True).start()
    try:
        files.write_json(order.report, asdict(_make(order)))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _make(order: Order) -> Report:
    template = Path(order.template)
    try:
        done = runs.run(template, order.parameters, out=order.out, timeout=order.timeout, limit=order.limit)
        return Report(order.number, str(done.folder), done.metrics)
    except (InputError, OSError, RuntimeError) as error:
        print(f"miue: {error}", file=sys.stderr)
        reason, *last = str(error).splitlines() or [type(error).__name__]
        folder = str(error.folder) if isinstance(error, runs.RunFailed) else None
        return Report(order.number, folder, error=reason, last=last[-LAST_LINES:])


def _stop_with(lifeline: IO[bytes]) -> None:
    while lifeline.read(1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
