"""What is evidence and what is not: by clean training of the same victim, and by the null of the information."""

import pandas as pd
import pytest

from miue.experiments import judging

COMMON = {"victim": "linear", "defense": "none", "seed": 0, "victim_seed": 0, "n_classes": 10}


def judged(*rows, **options):
    return judging.judged(pd.DataFrame([COMMON | {"null": 0.0} | row for row in rows]), **options)


def trial(method, accuracy, **fields):
    return {"method": method, "test_accuracy": accuracy} | fields


@pytest.mark.parametrize(("clean", "learned"), [(0.05, False), (0.149, False), (0.151, True), (0.9, True)])
def test_clean_training_must_end_more_than_five_points_above_guessing(clean, learned):
    found = judged(trial("clean", clean), trial("em", 0.3))
    assert found["learned"].tolist() == found["informed"].tolist() == 2 * [learned]


@pytest.mark.parametrize("other", [{"victim": "mlp2"}, {"defense": "cutmix"}, {"seed": 1}, {"victim_seed": 1}])
def test_only_clean_training_of_the_same_victim_speaks_against_a_trial(other):
    assert judged(trial("clean", 0.1), trial("em", 0.3, **other))["learned"].tolist() == [False, True]
    shared = judged(trial("clean", 0.1, twin="none"), trial("em", 0.3, twin="weights", surrogate="linear"))
    assert not shared["learned"].any()


def test_tables_that_were_put_together_are_judged_apart():
    rows = trial("clean", 0.1, page="a"), trial("em", 0.3, page="a"), trial("em", 0.3, page="b")
    assert judged(*rows, within=["page"])["learned"].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("null", "error", "informed"),
    [
        (0.5, 0.1, False),
        (-0.5, 0.1, False),
        (0.5, 0.2, True),
        (0.009, 0.001, True),
        (0.011, 0.001, False),
        (float("nan"), 0.1, True),
    ],
)
def test_a_null_must_lie_within_three_standard_errors_or_a_hundredth_of_a_nat(null, error, informed):
    (found,) = judged(trial("em", 0.3, null=null, null_stderr=error, stderr=9.0))["informed"]
    assert found == informed


def test_means_of_information_are_of_evidence_where_there_is_any():
    rows = judged(trial("em", 0.3, mi=1.0, null=0.5), trial("em", 0.3, mi=0.2, seed=1), trial("ar", 0.3, mi=2, null=1))
    means = judging.believed(rows, ["method"], ["mi"]).groupby("method")["mi"].mean()
    assert means.to_dict() == {"em": 0.2, "ar": 2}
