"""The command that looks at this machine and says what to do."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from miue.cli import holdings, machine
from miue.cli.machine import NOTE, PROBLEM, Finding

PARTS: tuple[Callable[[], Iterator[Finding]], ...] = (
    machine.versions,
    machine.device,
    machine.threads,
    machine.memory,
    holdings.data,
    holdings.cache,
    holdings.disk,
    machine.checkout,
)


def doctor(json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at versions, GPU, threads, memory, data, cache, disk and checkout, and say what to do about each.

    Nothing is downloaded, unpacked or changed. The exit code is 1 where there is a problem.
    """
    found = look()
    problems, notes = (sum(one.mark == mark for one in found) for mark in (PROBLEM, NOTE))
    if json_:
        listed = [asdict(one) for one in found]
        typer.echo(json.dumps({"problems": problems, "notes": notes, "findings": listed}, indent=2, ensure_ascii=False))
    else:
        width = max(len(one.about) for one in found)
        for one in found:
            typer.echo(f"{one.mark:8} {one.about:{width}}  {one.found}" + (f"; {one.advice}" if one.advice else ""))
        typer.echo(f"problems: {problems}, notes: {notes}")
    if problems:
        raise typer.Exit(1)


def look() -> list[Finding]:
    """Look at everything. What cannot be looked at, for one because PyTorch does not load, is a problem of its own."""
    found: list[Finding] = []
    for part in PARTS:
        try:
            found += part()
        except (ImportError, OSError, RuntimeError) as error:
            broken = isinstance(error, ImportError)
            advice = "pip install -e . in the checkout of miue" if broken else "mend what it names"
            found.append(Finding(part.__name__, f"cannot be looked at ({error})", advice, mark=PROBLEM))
    return found
