"""One notebook executed in a kernel of this very interpreter, under two time limits.

Papermill does the work. What is ours: which Python the kernel is, what its environment holds, and when it is
stopped. Needs the packages of the book; imported by `execution` when a run starts.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

START_SECONDS = 120.0
"""A kernel may take this long to answer: a loaded machine needs more than papermill's 60 s."""


LONGEST = 100
"""Bytes of a socket's path: the systems allow 104 (macOS) or 108 (Linux), the end of it included."""

SOCKETS = "kernel"
"""How the sockets' files begin; a number of one digit follows a hyphen."""


class CellError(RuntimeError):
    """The notebook did not run to its end; the message has one line first, then details."""


def execute(
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    *,
    env: Mapping[str, str],
    timeout: float,
    limit: float,
    on_cell: Callable[[int], object],
) -> None:
    """Execute the notebook `source` into `target`, whose folder is the kernel's working directory.

    Args:
        source: an `.ipynb` file. (A notebook passed as an object would be embedded whole in the metadata.)
        target: where the executed notebook is kept up to date, cell by cell.
        parameters: plain values; papermill writes them as literals into a cell of their own.
        env: environment variables of the kernel, beside those of this process.
        timeout: seconds that one cell may take.
        limit: seconds that the whole run may take.
        on_cell: called with the number of a code cell (from 1, over all cells) before it is executed.

    Raises:
        CellError: a cell raised, took too long, or the kernel died. `target` holds what was done.
    """
    deadline = time.monotonic() + limit
    current = 0

    def start(cell: Any, cell_index: int) -> None:
        nonlocal current
        current = cell_index + 1
        on_cell(current)

    # The one error is reported by us; nbclient and papermill would print it twice more.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        with private_sockets() as sockets:
            papermill.execute_notebook(
                _verbatim(source),
                _verbatim(target),
                parameters=parameters,
                cwd=str(target.parent),
                kernel_name="python3",
                language="python",
                kernel_manager_class=manager(env, sockets),
                progress_bar=False,
                start_timeout=START_SECONDS,
                iopub_timeout=60,
                timeout_func=lambda cell: max(0.01, min(timeout, deadline - time.monotonic())),
                on_cell_execute=start,
            )
    except PapermillExecutionError as error:
        details = "\n".join(error.traceback)
        raise CellError(f"cell {current}: {error.ename}: {error.evalue}\n{details}") from None
    except DeadKernelError:
        raise CellError(f"cell {current}: the kernel died (out of memory, a signal, or it left)") from None
    except CellTimeoutError:
        if time.monotonic() >= deadline:
            raise CellError(f"cell {current}: the run passed its limit of {limit:g} s") from None
        raise CellError(f"cell {current}: it took longer than {timeout:g} s") from None


def _verbatim(path: Path) -> str:
    """Papermill fills `{...}` in paths; a folder may be named so."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def private_sockets() -> Iterator[Path | None]:
    """A private, short-lived folder whose path is short enough for sockets; None where no place has room for one."""
    places = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp"]
    for place in filter(None, places):
        try:
            folder = tempfile.TemporaryDirectory(prefix="miue-", dir=place)  # for this user alone
        except OSError:
            continue
        with folder as name:
            if len(os.fsencode(f"{name}/{SOCKETS}-0")) <= LONGEST:
                yield Path(name)
                return
    yield None


def manager(env: Mapping[str, str], sockets: Path | None) -> type[AsyncKernelManager]:
    """A manager of kernels of the running interpreter, reached through sockets in a private folder.

    The kernel specification named python3 that is found on a machine may belong to another environment
    (`$JUPYTER_PATH`, the user's own folder), one without this package or with another version of it. And
    TCP ports, the default, collide between runs that start at the same time; they serve where there is no folder.
    """
    spec = KernelSpec(**get_kernel_dict())
    spec.env = {name: value.replace("$", "$$") for name, value in env.items()}  # no $NAME is filled in

    class Manager(AsyncKernelManager):
        kernel_spec = property(lambda self: spec)
        if sockets is not None:
            transport = "ipc"
            ip = str(sockets / SOCKETS)

    return Manager
