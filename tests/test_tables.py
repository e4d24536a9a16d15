"""Tables of trials: what is compared with what, and that metrics are plain JSON."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

from miue.errors import InputError
from miue.experiments import tables
from miue.experiments.trials import Setting, Trial
from miue.mi.statistics import rank_correlation

FACTS = {"levels": 8, "bounded": True, "passes": 3, "perturbation_seconds": 7200.0, "victim_seconds": 1800.0}
DATA = {"data": "Digits-M", "content_hash": "0a", "n_train": 300, "n_test": 100, "n_classes": 10, "size": 32}
CONTROLS = {"null": 0.0, "within_class": 0.1, "stderr": 0.01, "disagreement": 0.2, "commit": None, "device": "own"}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(tables, "rank_correlation", partial(tables.rank_correlation, draws=100))


def row(method, accuracy, *, mi=0.5, ceiling=1.0, **trial):
    measured = {"test_accuracy": accuracy, "best_epoch": accuracy, "train_accuracy": 0.9, "mi": mi, "ceiling": ceiling}
    return vars(Trial(method, **{"victim": "linear", **trial})) | measured | CONTROLS | FACTS | DATA


def table(*rows):
    return pd.DataFrame(rows)


def test_each_trial_is_held_against_clean_training_of_its_own_victim_defense_and_seed():
    measured = table(
        row("clean", 0.9, mi=1.0),
        row("clean", 0.5, mi=1.0, victim="mlp2"),
        row("clean", 0.1, mi=1.0, seed=1),
        row("em", 0.3, mi=0.25, epsilon="4/255"),
        row("em", 0.5, victim="mlp2"),
        row("em", 0.1, seed=1),
        row("em", 0.1, seed=2),
    )
    found = tables.against_clean(measured)
    assert found["method"].tolist() == 3 * ["em"]  # seed 2 has no partner
    gaps = [0.6, 0.0, np.nan]  # clean training at guessing has nothing to lose
    assert found["accuracy_gap"].tolist() == pytest.approx(gaps, nan_ok=True)
    assert found["fall"].tolist() == pytest.approx([0.75, 0.0, np.nan], nan_ok=True)
    assert found.loc[0, ["mi_gap", "share_gap"]].tolist() == pytest.approx([0.75, 0.75])


def test_a_victim_is_held_against_clean_training_with_its_own_seed_not_the_perturbations():
    measured = table(
        row("clean", 0.9, victim_seed=5),
        row("clean", 0.7, victim_seed=6),
        row("em", 0.3, victim_seed=6),
        row("em", 0.2, victim_seed=6, twin="weights"),
    )
    assert tables.against_clean(measured)["accuracy_gap"].tolist() == pytest.approx([0.4, 0.5])


def test_what_cannot_be_judged_has_no_gap_and_is_in_no_correlation_and_not_contrary():
    rows = [row("clean", 0.9, mi=0.9), row("em", 0.3), row("ar", 0.9, mi=0.4), row("lsp", 0.5, mi=0.3)]
    rows += [row("tap", 0.4, mi=0.1), row("sem", 0.2, mi=0.2)]
    whole = tables.against_clean(table(*rows))
    assert {found.n for found in tables.correlations(whole).values()} == {5}
    rows[2] |= {"null": 0.5, "null_stderr": 0.1}
    found = tables.against_clean(table(*rows))
    assert found["mi_gap"].isna().tolist() == [False, True, False, False, False] and found["accuracy_gap"].notna().all()
    assert tables.correlations(found)["information: clean minus perturbed"].n == 4
    assert tables.contrary(table(*rows))[0]["method"].tolist() == ["ar"]
    rows[0] |= {"test_accuracy": 0.15}
    assert tables.against_clean(table(*rows))["accuracy_gap"].isna().all() and len(found) == 5
    assert tables.correlations(tables.against_clean(table(*rows))) == {}
    assert [len(contrary) for contrary in tables.contrary(table(*rows))] == [0, 0]


def test_twins_are_held_against_the_stranger_that_met_the_same_perturbation():
    rows = [row("clean", 0.9, seed=seed) for seed in range(3)] + [row("em", 0.5, seed=7, twin="weights")]
    for seed, (twin, stranger) in enumerate([(0.2, 0.3), (0.4, 0.3), (0.1, 0.4)]):
        rows += [row("em", twin, seed=seed, twin="weights"), row("em", stranger, seed=seed)]
    pairs = tables.twins(table(*rows))
    assert pairs["difference"].tolist() == pytest.approx([-0.1, 0.1, -0.3]) and pairs["seed"].tolist() == [0, 1, 2]
    (found,) = tables.mean_differences(pairs).to_dict("records")
    # Student's t with two degrees of freedom is 4.303 at 97.5 %.
    assert (found["pairs"], found["mean"], found["deviation"]) == (3, pytest.approx(-0.1), pytest.approx(0.2))
    assert found["high"] - found["mean"] == pytest.approx(4.303 * 0.2 / 3**0.5, rel=1e-3)
    (alone,) = tables.mean_differences(pairs[:1]).to_dict("records")
    assert alone["mean"] == pytest.approx(-0.1) and np.isnan(alone["low"])
    rows[0] |= {"test_accuracy": 0.15}
    assert tables.twins(table(*rows))["seed"].tolist() == [1, 2]


def test_correlations_are_left_out_where_there_is_nothing_to_rank():
    rows = pd.DataFrame({"accuracy_gap": [0.1, 0.2, 0.3, 0.4], "mi_gap": [1, 2, 3, 4], "share_gap": 0.5})
    rows["disagreement"] = [4, 3, 2, 1]
    rho = {name: found.rho for name, found in tables.correlations(rows).items()}
    assert rho == pytest.approx({"information: clean minus perturbed": 1, "disagreement": -1})
    rows["disagreement"] = [1, 2, 4, 3]
    beyond = tables.correlations(rows)["information: clean minus perturbed, given the disagreement"]
    assert beyond == rank_correlation(rows["mi_gap"], rows["accuracy_gap"], rows["disagreement"])
    assert tables.correlations(rows[:3]) == {} == tables.correlations(rows.assign(accuracy_gap=0.1))


def test_what_goes_against_the_published_is_found_beyond_two_standard_errors():
    bare = [row(method, accuracy) for method, accuracy in (("clean", 0.9), ("random", 0.9), ("em", 0.3), ("ar", 0.86))]
    behind = [row("em", 0.8, defense="cutmix"), row("ar", 0.6, defense="cutmix"), row("clean", 0.2, defense="cutmix")]
    learned, worse = tables.contrary(table(*bare, *behind))
    assert learned["method"].tolist() == ["ar"] and worse["method"].tolist() == ["ar"]
    assert worse[["accuracy", "undefended"]].to_numpy().tolist() == [[0.6, 0.86]]
    error = (0.9 * 0.1 / 100 + 0.86 * 0.14 / 100) ** 0.5
    assert learned["standard error"].tolist() == pytest.approx([error])
    assert [len(found) for found in tables.contrary(table(row("clean", 0.9)))] == [0, 0]


def test_a_perturbation_that_several_victims_share_is_counted_once():
    shared = [row("em", 0.3), row("em", 0.4, victim="mlp2"), row("em", 0.4, surrogate="mlp2")]
    about = tables.about(table(*shared), Setting())["this run"]
    assert about["hours of computing"] == f"{3 * 0.5 + 2 * 2:.1f}"
    assert about["surrogates and their preset"] == "small_resnet, mlp2; laptop"


def test_a_clean_victim_of_several_perturbation_seeds_is_counted_once():
    own = table(*(row(method, 0.9, seed=seed, victim_seed=0) for method in ("clean", "em") for seed in (0, 1)))
    about = tables.about(own[own["method"] == "clean"], Setting())["this run"]
    assert about["hours of computing"] == f"{0.5 + 2 * 2:.1f}"
    assert tables.summary(own).data["victims"].to_dict() == {"clean": 1, "EM": 2}


def test_budgets_are_told_with_their_levels():
    about = tables.about(table(row("em", 0.3, epsilon="0.031"), row("em", 0.4, epsilon="8/255")), Setting())["this run"]
    assert about["budgets"] == "0.031 (7 levels), 8/255 (8 levels)"


def test_metrics_are_json_without_what_is_missing():
    rows = [row("em", 0.3) | {"stderr_samples": 0.1}, row("lsp", 0.4)]
    found = json.loads(json.dumps(tables.metrics(table(*rows), Setting(), extra=1), allow_nan=False))
    assert found["chance"] == 0.1 and found["extra"] == 1 and found["setting"]["preset"] == "laptop"
    assert (found["data"]["data"], found["data"]["n"], found["data"]["size"]) == ("Digits-M", 300, 32)
    assert "stderr_samples" in found["trials"][0] and "stderr_samples" not in found["trials"][1]
    assert "commit" not in found["trials"][0] and found["trials"][0]["bounded"] is True


def test_a_summary_shows_what_the_methods_cost_beside_their_accuracy():
    rows = [row("em", 0.2), row("em", 0.4, victim_seed=3), row("em", 0.3, seed=1) | {"passes": 60}]
    numbers = tables.summary(table(*rows)).data.loc["EM"]
    assert numbers[["seeds", "victims", "passes", "perturbation seconds"]].tolist() == [2, 3, 22, 7200]


def test_a_summary_shows_how_visible_a_perturbation_is_where_that_was_measured():
    rows = [row("clean", 0.9), row("em", 0.2) | {"psnr": 31.26, "ssim": 0.9123}]
    assert "psnr" not in tables.summary(table(row("em", 0.2))).data
    told = tables.summary(table(*rows)).to_html()
    assert ">31.3<" in told and ">0.912<" in told and ">–<" in told


def test_a_summary_marks_what_cannot_be_judged_and_keeps_it():
    rows = [row("clean", 0.12), row("em", 0.1), row("clean", 0.9, seed=1), row("em", 0.3, seed=1)]
    rows += [row("em", 0.5, seed=2, mi=9.0) | {"null": 0.5, "null_stderr": 0.1}]
    shown = tables.summary(table(*rows)).data.loc["EM"].set_index("mark")
    assert shown["test accuracy"].to_dict() == {
        "cannot be judged": 0.1,
        "information of 1 in 2 cannot be judged": pytest.approx(0.4),
    }
    assert shown["mi"].tolist() == [0.5, 0.5]  # of those that can be, where there are any
    assert "cannot be judged" in tables.summary(table(*rows)).to_html()


def test_a_summary_has_means_and_range_over_seeds():
    shown = tables.summary(table(row("mi_ue", 0.2), row("mi_ue", 0.4, seed=1), row("em", 0.3)))
    numbers = shown.data.loc["MI-UE"]
    assert numbers[["seeds", "test accuracy", "lowest", "highest"]].tolist() == pytest.approx([2, 0.3, 0.2, 0.4])
    assert shown.data.index.tolist() == ["MI-UE", "EM"] and "30.0%" in shown.to_html()
    both = tables.summary(table(row("em", 0.2), row("em", 0.4, epsilon="4/255")), ["method", "epsilon"])
    assert len(both.data) == 2 and "4/255" in both.to_html()


def test_pairs_are_compared_seed_by_seed_before_the_same_victim():
    rows = [row("clean", 0.9, seed=s, victim=v) for s in (0, 1) for v in ("mlp2", "linear")]
    rows += [row("em", 0.2, seed=0), row("em", 0.5, seed=1), row("tap", 0.3, seed=0), row("tap", 0.5, seed=1)]
    rows += [row("clean", 0.9, seed=s) for s in (0, 1)] + [row("em", 0.1, victim="mlp2")]
    found = tables.differences(table(*rows), [("em", "tap"), ("tap", "em")])
    assert found["pair"].tolist() == 2 * ["EM − TAP"] + 2 * ["TAP − EM"]
    assert found["difference"].tolist() == pytest.approx([-0.1, 0, 0.1, 0])
    means = tables.mean_differences(found, ["pair"])
    assert means["mean"].tolist() == pytest.approx([-0.05, 0.05]) and means["pairs"].tolist() == [2, 2]


@pytest.mark.parametrize("pair", ["em", "em ~", "~ em", "em ~ em", "em ~ tap ~ sem"])
def test_what_is_no_pair_of_methods_is_refused(pair):
    with pytest.raises(InputError, match="pairs: .*; it must be METHOD ~ METHOD, two different ones"):
        tables.pairs_of([pair])


def test_a_pair_is_split_where_the_wave_stands():
    assert tables.pairs_of(["mi_ue:steps=1 ~ em:scope=class"]) == [("mi_ue:steps=1", "em:scope=class")]


def test_a_spread_is_mean_and_range_in_percent():
    assert tables.spread(pd.Series([0.102, 0.156])) == "12.9 (10 to 16)"
