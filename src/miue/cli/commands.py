"""The commands by name, each imported when it is used: `miue --help` reads its line in the source and runs nothing."""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "poison": "perturb:poison",
    "adopt": "perturb:adopt",
    "train": "perturb:train",
    "mi": "information",
    "run": "experiments:run",
    "sweep": "sweep:sweep",
    "runs": "experiments:list_runs",
    "diff": "experiments:diff",
    "publish": "experiments:publish",
    "book": "experiments:book",
    "bench": "experiments:bench",
    "doctor": "doctor:doctor",
    "cache": "cache",
    "protect": "own:protect",
    "audit": "own:audit",
}
"""Where each command is, in this package: MODULE:FUNCTION, or a MODULE whose `app` holds commands of its own. The
docstring of the function or module is the help."""


class Commands(TyperGroup):
    """A group that knows the names and first lines of its commands, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name in COMMANDS:
            self.add_command(TyperCommand(name, help=first_line(name)))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Put the command itself in the place of its name; shell completion comes here too."""
        name, named, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else named, rest


def first_line(name: str) -> str:
    """The first line of a command's docstring, read in its source."""
    module, _, function = COMMANDS[name].partition(":")
    tree: Any = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    home = next(node for node in tree.body if getattr(node, "name", None) == function) if function else tree
    return (ast.get_docstring(home) or "").partition("\n")[0]


def load(name: str) -> Any:
    """Import a command; return what typer makes of it."""
    module, _, function = COMMANDS[name].partition(":")
    home = import_module(f"miue.cli.{module}")
    if not function:
        return typer.main.get_command(home.app)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(getattr(home, function))
    return typer.main.get_command(alone)
