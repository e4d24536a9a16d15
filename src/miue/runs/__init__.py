"""Experiments as runs: templates with checked parameters, executed and recorded."""

from miue.runs.execution import dry_run, run
from miue.runs.run_folder import Run, RunFailed, load

__all__ = ["Run", "RunFailed", "dry_run", "load", "run"]
