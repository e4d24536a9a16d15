"""The engine of sweeps: Parsl, whose threads here, or whose workers elsewhere, start a process for each run."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from miue.errors import InputError
from miue.storage.provenance import cores
from miue.sweeps import clusters
from miue.sweeps.order import Killed, Order, Report, report, start, unreported

SHIPPED = ("local", "gpu_box", "slurm")
"""Configurations in `miue/sweeps/clusters/`, which a sweep can name."""
CORES_EACH = 4
"""Cores of a slot where there is no GPU and the number of slots is not given."""
SECONDS_TO_STOP = 20.0
"""A run that is told to stop has that long to shut its kernel down and to write its record."""

Slot = dict[str, str]
"""Environment variables of the runs of one slot."""


@dataclass(frozen=True)
class Engine:
    """A configuration of Parsl, which serves once; its name; the slots of this machine, where runs stay here."""

    name: str
    config: Any
    slots: list[Slot] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.slots:
            return f"through Parsl, with the configuration {self.name}"
        device = "a GPU each" if "CUDA_VISIBLE_DEVICES" in self.slots[0] else "on the CPU"
        return f"{len(self.slots)} side by side, {device}, OMP_NUM_THREADS={self.slots[0]['OMP_NUM_THREADS']}"


def load(name: str, number: int | None = None) -> Engine:
    """Return the engine with the `parsl.config.Config` that a file defines as `config`, or with a shipped one.

    The file is the user's own Python and is executed. With threads, as `local` has them, runs are processes of this
    machine, and each thread is one of its slots; workers of all other kinds Parsl starts itself.

    Args:
        name: one of `SHIPPED`, or the path of a file.
        number: of slots, if another is wanted than `local` has.

    Raises:
        InputError: Parsl is not installed; there is no such file; it fails, or defines no configuration; or a number of
            slots is given that is below 1, or for another configuration than `local`.
    """
    try:
        from parsl.config import Config
        from parsl.executors import ThreadPoolExecutor
    except ImportError:
        raise InputError("parsl: not installed; sweeps need the packages of miue[book]") from None
    if number is not None and name != "local":
        raise InputError(f"slots: {number} is for the configuration local; {name} says itself how many")
    path = Path(clusters.__path__[0]) / f"{name}.py" if name in SHIPPED else Path(name)
    if not path.is_file():
        raise InputError(f"config: {name!r} is no file, nor one of {', '.join(SHIPPED)}")
    try:
        found = runpy.run_path(str(path)).get("config")
    except InputError as error:
        raise InputError(f"config: {path.name}: {error}") from None
    except Exception as error:
        raise InputError(f"config: {path} fails with {type(error).__name__}: {error}".splitlines()[0]) from None
    if not isinstance(found, Config):
        raise InputError(f"config: {path} defines no `config` that is a parsl.config.Config")
    executor, *others = found.executors
    if others or not isinstance(executor, ThreadPoolExecutor):
        return Engine(name, found)
    places = slots(executor.max_threads if number is None else number)
    executor.max_threads = len(places)
    return Engine(name, found, places)


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


def threads(workers: int) -> dict[str, str]:
    """Return the number of threads of one of `workers` that share this machine's cores, as a variable for torch.

    A number that the user has set stays.
    """
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // workers))}


def check_folder(engine: Engine, folder: Path) -> None:
    """Check that the shell scripts by which Parsl starts workers can hold the path of a sweep's folder.

    Raises:
        InputError: they cannot.
    """
    if not engine.slots and not all(c.isalnum() or c in "/._-+" for c in str(folder)):
        raise InputError(f"out: {folder}; for workers of Parsl it must be made of letters, digits and / . _ - + only")


def work(
    orders: Sequence[Order], engine: Engine, folder: Path, retries: int = 0
) -> Generator[Report | None, None, None]:
    """Carry out `orders`, the first ones first, and yield the report of each as it ends.

    None is yielded while there is nothing new. Closing the iterator, as Ctrl-C does, stops what is running.

    Args:
        orders: the runs.
        engine: what `load` returned.
        folder: where Parsl keeps its own files.
        retries: how often at least a run is started again whose process or worker was killed.
    """
    import parsl

    # Parsl's own programs lie beside this Python, which need not be the one of an activated environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    engine.config.run_dir = str(folder)
    engine.config.retries = max(engine.config.retries, retries)
    try:
        with _interrupts_ignored():
            kernel = parsl.load(engine.config)
    except Exception as error:  # of Parsl's own, or of whatever starts the workers
        raise RuntimeError(f"Parsl cannot start: {type(error).__name__}: {error}".splitlines()[0]) from error
    here = _Here(engine.slots) if engine.slots else None
    with kernel:
        try:
            make = parsl.python_app(perform, data_flow_kernel=kernel)
            waiting = [(order, make(order, here)) for order in orders]
            while waiting:
                time.sleep(0.2)
                yield None
                for order, future in [pair for pair in waiting if pair[1].done()]:
                    waiting.remove((order, future))
                    lost = future.exception()
                    yield unreported(order, _reason(lost)) if lost else future.result()
        finally:
            if here:
                here.stopping.set()


def _reason(lost: BaseException) -> str:
    return (str(lost) if isinstance(lost, Killed) else f"{type(lost).__name__}: {lost}").splitlines()[0]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C, which is for the sweep.

    A terminal sends it to Parsl's interchange too; if that dies first, nobody is left to stop the workers.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Here:
    """What the threads of this machine share: the slots that are free, and the word to stop."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.stopping = threading.Event()
        self.free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            self.free.put(slot)


def perform(order: Order, here: _Here | None = None) -> Report:
    """Make one run in a process of its own and return its report; this is what a thread or worker of Parsl executes.

    The process is stopped where the sweep stops; a worker, whose manager alone knows of that, stops it as that dies.

    Raises:
        Killed: the process was killed; Parsl then tries again.
    """
    manager = os.getppid()
    stopped = here.stopping.is_set if here else lambda: os.getppid() != manager
    slot = here.free.get() if here else threads(int(os.environ.get("PARSL_WORKER_COUNT", "1")))
    try:
        if stopped():
            return unreported(order, "the sweep was stopped")
        process = start(order, slot)
        while process.poll() is None and not stopped():
            time.sleep(0.2)
        code = _stop(process)
        return unreported(order, "the sweep was stopped") if stopped() else report(order, code)
    finally:
        if here:
            here.free.put(slot)


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Let go of a process, wait for its record, and kill it if it does not end; return its code."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        return process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
