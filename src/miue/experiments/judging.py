"""Which trials are evidence: a victim that never learned is none, nor is information whose null reads some."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from miue.experiments.trials import CLEAN

CANNOT = "cannot be judged"
ROOM = 0.05
"""Clean training that ends within that of guessing has learned nothing that could be lost."""
ERRORS, NATS = 3, 0.01
"""A null beyond both, in standard errors and in nats, is no null."""

VICTIM = ["victim", "defense", "seed", "victim_seed"]
"""Fields by which a trial finds clean training of the same victim: a partner, whatever perturbation it meets."""


def judged(table: pd.DataFrame, within: Sequence[str] = ()) -> pd.DataFrame:
    """Say of each trial whether its accuracy, and whether its information can be judged.

    Args:
        table: trials, with `VICTIM`, `method`, `test_accuracy`, `n_classes`, `null` in nats and `null_stderr`, its
            standard error; where it is not known it counts as 0.
        within: fields that tell apart what was put together from several tables.

    Returns:
        The trials with two more columns. `learned` is False where clean training of the same victim, behind the same
        defense and with the same seeds, ends within five points of guessing; a trial without such a partner has
        nothing that speaks against it. `informed` is False there too, and where the null lies more than three standard
        errors and more than 0.01 nats from zero.
    """
    partner = [table[name] for name in (*within, *VICTIM)]
    clean = table["test_accuracy"].where(table["method"] == CLEAN).astype(float)
    reached = clean.groupby(partner, dropna=False).transform("mean")
    learned = ~(reached <= 1 / table["n_classes"].astype(float) + ROOM)
    known = table.reindex(columns=["null", "null_stderr"]).astype(float)
    null, error = known["null"].abs(), known["null_stderr"].fillna(0)
    return table.assign(learned=learned, informed=learned & ~((null > ERRORS * error) & (null > NATS)))


def believed(table: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Blank the `values` of trials whose information cannot be judged, where others in their group can be.

    So a mean over the group (rows of `judged` that share `by`) is one of evidence, and a group that has none keeps its
    numbers, to be shown with its mark.
    """
    other = table.groupby(list(by), dropna=False)["informed"].transform("any")
    kept = table["informed"] | ~other
    return table.assign(**{name: table[name].where(kept) for name in values})


def mark(group: pd.DataFrame) -> str:
    """Write what cannot be judged of rows of `judged` that share `learned`; "" where all can."""
    if not group["learned"].iloc[0]:
        return CANNOT
    left = int((~group["informed"]).sum())
    part = "" if left == len(group) else f" of {left} in {len(group)}"
    return f"information{part} {CANNOT}" if left else ""


def marks(groups: Iterable[tuple[Any, pd.DataFrame]]) -> pd.Series:
    """`mark` of each group, as a pandas GroupBy hands them over, in their order."""
    return pd.Series([mark(group) for _, group in groups], dtype=object)
