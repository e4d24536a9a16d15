"""What a sweep says while it goes on: a line for each run that starts or ends, and now and then where each run is."""

import time
from collections.abc import Sequence
from pathlib import Path

from miue import progress
from miue.sweeps.order import Order, Report, tail
from miue.sweeps.spec import Planned

SECONDS_BETWEEN_LOOKS = 15.0
"""Least time between two reports of where the runs are."""


class Lines:
    """The lines of one sweep.

    Args:
        runs: all of the sweep.
        orders: those that are to be made.
        logs: the folder of their logs.
    """

    def __init__(self, runs: Sequence[Planned], orders: Sequence[Order], logs: Path) -> None:
        self.labels = {run.number: run.label for run in runs}
        self.total, self.done, self.failed = len(runs), len(runs) - len(orders), 0
        self.logs = logs
        self.waiting = {order.number: Path(order.log) for order in orders}
        self.began: dict[int, float] = {}
        self.most = 1
        self._took: list[float] = []
        self._shown: dict[int, str] = {}
        self._looked = time.monotonic()

    def look(self) -> list[int]:
        """Say which runs have started since the last look, and now and then what they are at; return the former."""
        present = {log.name for log in self.logs.glob("*.log")}
        new = [n for n, log in self.waiting.items() if n not in self.began and log.name in present]
        for number in new:
            self.began[number] = time.monotonic()
            progress.say(f"run {number} of {self.total} started: {self.labels[number]}")
        self.most = max(self.most, len(self.began))
        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            for number in self.began:
                self._show(number)
        return new

    def end(self, report: Report) -> float:
        """Say how a run ended and how far the sweep is; return the seconds that the run took."""
        seconds = time.monotonic() - self.began.pop(report.number, time.monotonic())
        del self.waiting[report.number]
        self.failed += report.error is not None
        self.done += report.error is None
        self._took.append(seconds)
        ending = f"failed: {report.error}" if report.error else f"done in {progress.duration(seconds)}"
        counts = f"{self.done} of {self.total} done" + (f", {self.failed} failed" if self.failed else "")
        rest = f", about {progress.duration(self._left())} left" if self.waiting else ""
        progress.say(f"run {report.number} of {self.total} {ending} ({counts}{rest})")
        return seconds

    def _show(self, number: int) -> None:
        line = "".join(tail(self.waiting[number], 1))
        if line and line != self._shown.get(number):
            self._shown[number] = line
            progress.say(f"  run {number}: {line}")

    def _left(self) -> float:
        """Seconds left if runs go on to take as long as those that ended, as many side by side as there were."""
        mean, now = sum(self._took) / len(self._took), time.monotonic()
        return sum(max(0.0, mean - (now - self.began.get(number, now))) for number in self.waiting) / self.most
