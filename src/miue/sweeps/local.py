"""The local engine: a process for each run, as many side by side as there are slots."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Generator, Sequence

from miue.errors import InputError
from miue.sweeps.order import Order, Report, cores, report, start, threads

CORES_EACH = 4
"""Cores of a slot where there is no GPU and the number of slots is not given."""
SECONDS_TO_STOP = 20.0
"""A run that is told to stop has that long to shut its kernel down and to write its record."""

Slot = dict[str, str]
"""Environment variables of the runs of one slot."""


def slots(number: int | None = None) -> list[Slot]:
    """Return the slots of this machine: one for each GPU, else one for every four cores, at least one.

    Args:
        number: of slots, if another is wanted. GPUs are dealt out in turn.

    Raises:
        InputError: `number` is below 1.
    """
    devices = gpus()
    if number is not None and number < 1:
        raise InputError(f"slots: {number}; it must be 1 or above")
    number = number or len(devices) or max(1, cores() // CORES_EACH)
    shared = threads(number)
    return [shared | ({"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {}) for i in range(number)]


def gpus() -> list[str]:
    """The names by which CUDA knows the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name.strip() for name in named.split(",")][:count] if named else [str(i) for i in range(count)]


def work(orders: Sequence[Order], slots: Sequence[Slot], retries: int = 0) -> Generator[Report | None, None, None]:
    """Carry out `orders`, the first ones first, and yield the report of each as it ends.

    None is yielded while there is nothing new. Closing the iterator, as Ctrl-C does, stops what is running.

    Args:
        orders: the runs.
        slots: as many runs go on side by side, each in the environment of its slot.
        retries: how often a run is started again whose process was killed by a signal.
    """
    waiting, free = deque(orders), deque(slots)
    busy: dict[int, tuple[Order, Slot, subprocess.Popen[bytes]]] = {}
    starts: dict[int, int] = {}
    try:
        while waiting or busy:
            while waiting and free:
                order, slot = waiting.popleft(), free.popleft()
                busy[order.number] = order, slot, start(order, slot)
                starts[order.number] = starts.get(order.number, 0) + 1
            time.sleep(0.2)
            yield None
            for order, slot, process in list(busy.values()):
                if process.poll() is None:
                    continue
                del busy[order.number]
                free.append(slot)
                found = report(order, process.returncode)
                if found.killed and starts[order.number] <= retries:
                    waiting.appendleft(order)
                else:
                    yield found
    finally:
        stop([process for _, _, process in busy.values()])


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let go of the lifelines of `processes`, wait for their records, and kill what does not end."""
    for process in processes:
        if process.stdin:
            process.stdin.close()
    deadline = time.monotonic() + SECONDS_TO_STOP
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
