"""The chapters of the book, executed several at a time into the cache from which myst-nb takes their outputs."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from miue import progress
from miue.runs import kernel, notebook
from miue.storage import cache, code
from miue.storage.provenance import cores

TIMEOUT = 1800
"""Seconds for one cell, as in `_config.yml`."""

FOLDERS = ("book", "book/appendix")
"""Where chapters lie."""

READ = ("book/made", "book/results/records", "src/miue/publishing/reference")
"""The folders of files that chapters read."""


def cache_of(root: Path) -> Path:
    """The folder that holds the outputs of chapters by this version of the package's code and of what chapters read."""
    files = sorted(file for folder in READ for file in (root / folder).rglob("*") if file.is_file())
    read = {file.relative_to(root).as_posix(): notebook.sha256(file) for file in files}
    return root / "_build" / ".jupyter_cache" / f"code-{cache.key(code=code.code_hash('miue'), read=read)}"


def at_once() -> tuple[int, int]:
    """How many chapters are executed at once, and with how many threads each.

    For networks as small as the book's, processes of one thread do more than one process of several; who has set
    `OMP_NUM_THREADS` has decided that already.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() and int(given) else 1
    return max(1, min(4, cores() // threads)), threads


def execute(root: Path, environment: Mapping[str, str]) -> list[str]:
    """Execute every chapter whose outputs are not in the cache.

    Args:
        root: the repository.
        environment: of the kernels, beside that of this process.

    Returns:
        What failed, with its traceback.
    """
    from jupyter_cache import get_cache

    workers, threads = at_once()
    environment = {**environment, "OMP_NUM_THREADS": str(threads)}
    outputs, turn = get_cache(cache_of(root)), threading.Lock()

    def run(path: Path, chapter: Any) -> None:
        seconds = _run(path, chapter, environment)
        with turn:
            outputs.cache_notebook_bundle(_bundle(path, chapter, seconds), check_validity=False, overwrite=True)

    failed = []
    with ThreadPoolExecutor(workers) as pool:
        running = {
            pool.submit(run, path, chapter): path.relative_to(root / "book").with_suffix("").as_posix()
            for path, chapter in _chapters(root)
            if not _known(outputs, chapter)
        }
        for done in as_completed(running):
            if error := done.exception():
                failed.append(f"{running[done]}: {error}")
            left = [name for future, name in running.items() if not future.done()]
            word = "failed" if error else "done"
            progress.say(f"{running[done]}: {word}" + (f"; left: {', '.join(left)}" if left else ""))
    return failed


def _chapters(root: Path) -> Iterator[tuple[Path, Any]]:
    """Path and notebook of each chapter, as myst-nb reads them; those with the most cells first."""
    from myst_nb.core.config import NbParserConfig
    from myst_nb.core.read import create_nb_reader
    from myst_parser.config.main import MdParserConfig

    found = []
    for path in sorted(path for folder in FOLDERS for path in (root / folder).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if reader := create_nb_reader(str(path), MdParserConfig(), NbParserConfig(), text):
            found.append((path, reader.read(text)))
    yield from sorted(found, key=lambda one: -len(one[1].cells))


def _known(outputs: Any, chapter: Any) -> bool:
    try:
        outputs.match_cache_notebook(chapter)
    except KeyError:
        return False
    return True


def _run(path: Path, chapter: Any, environment: Mapping[str, str]) -> float:
    """Execute a notebook in place, in the folder of its file; returns the seconds that it took."""
    from nbclient import NotebookClient

    began = time.monotonic()
    with kernel.private_sockets() as sockets:
        NotebookClient(
            chapter,
            timeout=TIMEOUT,
            startup_timeout=kernel.START_SECONDS,
            record_timing=False,  # the times would be a part of what the outputs are known by
            kernel_name="python3",
            kernel_manager_class=kernel.manager(environment, sockets),
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    return time.monotonic() - began


def _bundle(path: Path, chapter: Any, seconds: float) -> Any:
    from jupyter_cache.base import CacheBundleIn

    return CacheBundleIn(chapter, str(path), data={"execution_seconds": seconds})
