"""The command line: perturb, train, measure, run experiments, build the book.

Exit codes: 0 done, 1 failed while running, 2 refused: what was given does not fit, 130 interrupted.
"""

import sys

import typer

from miue.cli.commands import Commands
from miue.errors import InputError

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)

INTERRUPTED = 130  # what typer makes of Ctrl-C


@app.callback()
def overview() -> None:
    """Why unlearnable examples work: perturb images, train victims, measure mutual information.

    `miue --install-completion` lets your shell complete commands and options from its next start on.
    """


def main() -> None:
    """Run the command line and turn errors into one line and an exit code."""
    try:
        app(prog_name="miue")
    except InputError as error:
        print(f"miue: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print("miue: interrupted; finished steps are kept in the cache", file=sys.stderr)
        raise
    except (OSError, FloatingPointError, RuntimeError, MemoryError) as error:
        print(f"miue: {_told(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error) or type(error).__name__
