"""Experiments as runs: templates with checked parameters, executed, recorded and published into the book."""

from miue.publishing.publication import publish, publish_all
from miue.runs.execution import dry_run, run
from miue.runs.run_folder import Run, RunFailed, load

__all__ = ["Run", "RunFailed", "dry_run", "load", "publish", "publish_all", "run"]
