"""Experiments as runs: templates with checked parameters, executed, recorded and published into the book."""

from miue.runs.execution import run
from miue.runs.publication import publish
from miue.runs.records import Run, RunFailed, load

__all__ = ["Run", "RunFailed", "load", "publish", "run"]
