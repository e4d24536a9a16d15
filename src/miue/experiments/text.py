"""Tables as lines of text."""

import pandas as pd


def aligned(table: pd.DataFrame) -> str:
    """Write a table with its columns aligned to the left, without its index; an empty cell for a missing value."""
    cells = [list(table.columns), *table.astype(object).where(table.notna(), "").values.tolist()]
    rows = [[str(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
