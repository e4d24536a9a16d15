import pandas as pd

from miue.experiments import labels
from miue.experiments.text import aligned


def test_columns_are_aligned_to_the_left_and_what_is_missing_is_empty():
    table = pd.DataFrame({"name": ["a", "long name"], "n": [1, None], "last": ["x", ""]}, dtype=object)
    assert aligned(table).splitlines() == ["name       n  last", "a          1  x", "long name"]


def test_what_stands_in_a_file_of_ones_own_is_called_as_it_is_there():
    assert labels.title("benchmarks/published_loop.py:authors:steps=3") == "authors, steps 3 (published_loop.py)"
    assert labels.title("mi_ue:rounding=each_pass") == "MI-UE, rounded each pass"
