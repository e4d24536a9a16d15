"""The Parsl engine: the same orders, handed to workers wherever a Parsl configuration starts them."""

import os
import runpy
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miue.errors import InputError
from miue.sweeps import clusters
from miue.sweeps.order import Order, Report, report, start, threads, unreported

SHIPPED = ("local", "gpu_box", "slurm")
"""Configurations in `miue/clusters/`, which a sweep can name."""


def load(config: str) -> Any:
    """Return the `parsl.config.Config` that a file defines as `config`, or that of a shipped file, by its name.

    The file is the user's own Python and is executed.

    Raises:
        InputError: Parsl is not installed; there is no such file; it fails, or defines no configuration.
    """
    try:
        from parsl.config import Config
    except ImportError:
        raise InputError("parsl: not installed; a sweep on a cluster needs the packages of miue[cluster]") from None
    path = Path(clusters.__path__[0]) / f"{config}.py" if config in SHIPPED else Path(config)
    if not path.is_file():
        raise InputError(f"config: {config!r} is no file, nor one of {', '.join(SHIPPED)}")
    try:
        found = runpy.run_path(str(path)).get("config")
    except InputError as error:
        raise InputError(f"config: {path.name}: {error}") from None
    except Exception as error:
        raise InputError(f"config: {path} fails with {type(error).__name__}: {error}".splitlines()[0]) from None
    if not isinstance(found, Config):
        raise InputError(f"config: {path} defines no `config` that is a parsl.config.Config")
    return found


def check_folder(folder: Path) -> None:
    """Check that Parsl's shell scripts can hold the path of a sweep's folder.

    Raises:
        InputError: they cannot.
    """
    if not all(c.isalnum() or c in "/._-+" for c in str(folder)):
        raise InputError(f"out: {folder}; with Parsl its path must be made of letters, digits and / . _ - + only")


def work(orders: Sequence[Order], config: Any, folder: Path, retries: int = 0) -> Generator[Report | None, None, None]:
    """Carry out `orders` through Parsl and yield the report of each as it ends.

    None is yielded while there is nothing new. Closing the iterator, as Ctrl-C does, gives the workers back, and what
    is running stops.

    Args:
        orders: the runs.
        config: what `load` returned; it serves once.
        folder: where Parsl keeps its own files.
        retries: how often at least a run is handed out again whose process or worker was killed.
    """
    import parsl

    # Parsl's own programs lie beside this Python, which need not be the one of an activated environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    config.run_dir = str(folder)
    config.retries = max(config.retries, retries)
    try:
        with _interrupts_ignored():
            kernel = parsl.load(config)
    except Exception as error:  # of Parsl's own, or of whatever starts the workers
        raise RuntimeError(f"Parsl cannot start: {type(error).__name__}: {error}".splitlines()[0]) from error
    with kernel:
        make = parsl.python_app(perform, data_flow_kernel=kernel)
        waiting = [(order, make(order)) for order in orders]
        while waiting:
            time.sleep(0.5)
            yield None
            for order, future in [pair for pair in waiting if pair[1].done()]:
                waiting.remove((order, future))
                lost = future.exception()
                reason = f"{type(lost).__name__}: {lost}".splitlines()[0]
                yield unreported(order, reason, killed=True) if lost else future.result()


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


def perform(order: Order) -> Report:
    """Make one run in a process of its own and return its report; this is what a Parsl worker executes.

    If the manager of this worker dies, the process is stopped too: the run is then handed out again.

    Raises:
        RuntimeError: the process was killed; Parsl then tries again.
    """
    manager = os.getppid()
    process = start(order, threads(int(os.environ.get("PARSL_WORKER_COUNT", "1"))))
    while process.poll() is None and os.getppid() == manager:
        time.sleep(0.2)
    assert process.stdin is not None
    process.stdin.close()  # where the process is still at work, this stops it
    found = report(order, process.wait())
    if found.killed:
        raise RuntimeError(found.error)
    return found
