import pandas as pd

from miue.experiments.text import aligned


def test_columns_are_aligned_to_the_left_and_what_is_missing_is_empty():
    table = pd.DataFrame({"name": ["a", "long name"], "n": [1, None], "last": ["x", ""]}, dtype=object)
    assert aligned(table).splitlines() == ["name       n  last", "a          1  x", "long name"]
