"""The command line: perturb, train, measure, run experiments, build the book.

Exit codes: 0 done, 1 failed while running, 2 refused: what was given does not fit, 130 interrupted.
"""

import sys

import typer

from miue.cli import experiments, information, perturb, publish
from miue.cli.sweep import sweep
from miue.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why unlearnable examples work: perturb images, train victims, measure mutual information.",
)
for command in (perturb.poison, perturb.adopt, perturb.train, experiments.run, experiments.diff, publish.publish):
    app.command()(command)
app.command("runs")(experiments.list_runs)
app.command()(experiments.bench)
app.command()(experiments.book)
app.command()(sweep)
app.add_typer(information.app, name="mi")

INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> None:
    """Run the command line and turn errors into one line and an exit code."""
    try:
        app()
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
