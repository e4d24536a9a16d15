"""Sweeps: one template, many parameters; runs side by side on this machine, or on a cluster, through Parsl."""

from miue.sweeps.engine import SHIPPED
from miue.sweeps.execution import Outcome, as_worker, find, plans, run
from miue.sweeps.spec import Planned, Spec, read

__all__ = ["SHIPPED", "Outcome", "Planned", "Spec", "as_worker", "find", "plans", "read", "run"]
