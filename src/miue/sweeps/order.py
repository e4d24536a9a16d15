"""One run of a sweep as an order to a process of its own: plain data goes in, a run folder and a report come out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from miue.runs.run_folder import read_object

WORKER = ("-m", "miue.sweeps.worker")
"""What Python is started with for each run."""
LAST_LINES = 12


@dataclass(frozen=True)
class Order:
    """What a process needs to make one run, on whatever machine it is started; all of it is JSON.

    `number` is the run's own in its sweep; `template`, `out` and `log` are absolute paths; `timeout` (of a cell) and
    `limit` (of the run) are seconds; `environment` says where data and cache are.
    """

    number: int
    template: str
    parameters: dict[str, Any]
    out: str
    log: str
    timeout: float
    limit: float
    environment: dict[str, str]

    @property
    def report(self) -> Path:
        """The file in which the process leaves its report."""
        return Path(self.log).with_suffix(".json")


@dataclass(frozen=True)
class Report:
    """How a run ended: its folder and metrics; why it failed, and the last lines of what it said."""

    number: int
    folder: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    last: list[str] = field(default_factory=list)


class Killed(RuntimeError):
    """A process did not end by itself, so that its run is worth another try."""


def start(order: Order, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process that makes the run, and return it.

    The order goes through its standard input, which stays open: the process stops as soon as that is closed, be it on
    purpose or because this process died. What it says is appended to the log.

    Args:
        order: the run.
        environment: variables of the process beside its parent's, such as its number of threads and its GPU.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "MIUE_PROGRESS"}
    with open(order.log, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, *WORKER],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**inherited, **order.environment, **environment},
            start_new_session=True,  # Ctrl-C is for the sweep, which then stops its runs
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    process.stdin.flush()
    return process


def report(order: Order, code: int) -> Report:
    """Return the report of a process that has ended, given its return code; where it left none, one in its place.

    Raises:
        Killed: it was killed by a signal.
    """
    if code < 0:
        raise Killed(f"its process was killed by {signal.Signals(-code).name}")
    if left := read_object(order.report):
        return Report(**left)
    return unreported(order, f"its process ended with code {code} and without a report")


def unreported(order: Order, error: str) -> Report:
    """Return a report in place of one that the process could not leave, with the last lines of its log."""
    return Report(order.number, error=error, last=tail(Path(order.log), LAST_LINES))


def tail(log: Path, count: int) -> list[str]:
    """Return the last lines of `log` that are not blank, at most `count`; none where there is no such file."""
    if not log.exists():
        return []
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        text = file.read().decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
