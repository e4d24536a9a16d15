"""How long an experiment may take where nothing else is said: long enough for the paper's scale on one GPU."""

CELL = 24 * 3600.0
"""Seconds of one cell. A template measures all its trials in one."""
RUN = 48 * 3600.0
"""Seconds of a whole run."""
