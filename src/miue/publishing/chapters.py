"""The chapters of the book, executed several at a time into the cache from which myst-nb takes their outputs."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from miue import progress
from miue.runs import kernel
from miue.storage import code

TIMEOUT = 1800
"""Seconds for one cell, as in `_config.yml`."""

FIRST = "mi_ue"
"""The chapter to begin with."""


def cache_of(build: Path) -> Path:
    """The folder, in that of the build, that holds the outputs of this version of the package's code."""
    return build / ".jupyter_cache" / f"code-{code.code_hash('miue')}"


def at_once() -> tuple[int, int]:
    """How many chapters are executed at once, and with how many threads each.

    For networks as small as the book's, processes of one thread do more than one process of several; who has set
    `OMP_NUM_THREADS` has decided that already.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() and int(given) else 1
    return max(1, min(4, cores // threads)), threads


def execute(root: Path, beside: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Execute every chapter whose outputs are not in the cache, beside a command of ours that takes as long.

    Args:
        root: the repository.
        beside: the words of the command, which starts before the chapters; none for no command.
        environment: of the command and of the kernels, beside that of this process.

    Returns:
        What failed, with its traceback.
    """
    from jupyter_cache import get_cache

    workers, threads = at_once()
    environment = {**environment, "OMP_NUM_THREADS": str(threads)}
    cache, turn = get_cache(cache_of(root / "_build")), threading.Lock()

    def chapter(path: Path, notebook: Any) -> None:
        seconds = _run(path, notebook, environment)
        with turn:
            cache.cache_notebook_bundle(_bundle(path, notebook, seconds), check_validity=False, overwrite=True)

    def command() -> None:
        words = [sys.executable, "-m", "miue", *beside]
        subprocess.run(words, cwd=root, env={**os.environ, **environment}, check=True)

    failed = []
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(command): f"miue {' '.join(beside)}"} if beside else {}
        for path, notebook in _chapters(root):
            if not _known(cache, notebook):
                running[pool.submit(chapter, path, notebook)] = path.stem
        for done in as_completed(running):
            if error := done.exception():
                failed.append(f"{running[done]}: {error}")
            left = [name for future, name in running.items() if not future.done()]
            word = "failed" if error else "done"
            progress.say(f"{running[done]}: {word}" + (f"; left: {', '.join(left)}" if left else ""))
    return failed


def _chapters(root: Path) -> Iterator[tuple[Path, Any]]:
    """Path and notebook of each chapter, as myst-nb reads them, in the order in which to begin them.

    The first is the one that makes what the default run comes to last, so that neither waits for the other; then those
    with the most cells, which take longest.
    """
    from myst_nb.core.config import NbParserConfig
    from myst_nb.core.read import create_nb_reader
    from myst_parser.config.main import MdParserConfig

    found = []
    for path in sorted((root / "book").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if reader := create_nb_reader(str(path), MdParserConfig(), NbParserConfig(), text):
            found.append((path, reader.read(text)))
    yield from sorted(found, key=lambda one: (one[0].stem != FIRST, -len(one[1].cells)))


def _known(cache: Any, notebook: Any) -> bool:
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    return True


def _run(path: Path, notebook: Any, environment: Mapping[str, str]) -> float:
    """Execute a notebook in place, in the folder of its file; returns the seconds that it took."""
    from nbclient import NotebookClient

    began = time.monotonic()
    with kernel.private_sockets() as sockets:
        NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=kernel.START_SECONDS,
            record_timing=False,  # the times would be a part of what the outputs are known by
            kernel_name="python3",
            kernel_manager_class=kernel.manager(environment, sockets),
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    return time.monotonic() - began


def _bundle(path: Path, notebook: Any, seconds: float) -> Any:
    from jupyter_cache.base import CacheBundleIn

    return CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
