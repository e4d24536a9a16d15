"""The leaderboard: what is collected from records of every shape, what is ranked, what stands beside the paper."""

import math

import pytest

from miue.experiments.trials import NONE
from miue.publishing import leaderboard, reference
from miue.publishing.extension import interactive

PAPER = {
    "data": "CIFAR-10",
    "n_train": 50_000,
    "n_test": 10_000,
    "n_classes": 10,
    "victim": "resnet18",
    "defense": NONE,
    "method": "mi_ue",
    "surrogate": "resnet18",
    "budget": "8/255",
    "ratio": 1.0,
    "preset": "paper",
    "recipe": "paper",
    "allowed": "own",
}


def record(*trials, data="Digits-M", n=300, n_test=100, ended="2026-01-01", **parameters):
    """A record as templates write it, with one trial for each dict."""
    common = {
        "victim": "linear",
        "defense": NONE,
        "seed": 0,
        "surrogate": "linear",
        "epsilon": "8/255",
        "ratio": 1.0,
        "twin": NONE,
    }
    common |= {"n_train": n, "n_classes": 10, "mi": 0.1, "null": 0.0, "bounded": True}
    about = {"data": data, "n": n, "n_test": n_test, "content_hash": "a"}
    metrics = {"data": about, "trials": [common | {"victim_seed": trial.get("seed", 0)} | trial for trial in trials]}
    given = {"preset": "laptop", "recipe": "laptop", "estimator": "ksg"} | parameters
    return {"ended": ended, "parameters": given, "metrics": metrics}


def trial(method, accuracy, **fields):
    return {"method": method, "test_accuracy": accuracy} | fields


def board(**records):
    return leaderboard.rows(leaderboard.trials(records))


@pytest.mark.parametrize(
    ("preset", "recipe", "scale"),
    [
        ("paper", "paper", "paper"),
        ("paper", "laptop", "laptop"),
        ("quick", "standard", "quick"),
        ("laptop", "laptop:epochs=10", "laptop"),
        ("paper", "adversarial", "paper"),
        ("paper", None, "unknown"),
        ("huge", "paper", "unknown"),
    ],
)
def test_the_scale_is_the_lower_of_preset_and_recipe(preset, recipe, scale):
    assert leaderboard.scale(preset, recipe) == scale


def test_seeds_are_summed_up_and_methods_ranked_from_the_lowest():
    found = board(
        a=record(
            trial("em", 0.2, seed=0),
            trial("em", 0.4, seed=1),
            trial("mi_ue", 0.25),
            trial("clean", 0.9),
            trial("random", 0.05),
        )
    ).set_index("method")
    assert found.loc["em", ["seeds", "mean", "low", "high"]].tolist() == [2, pytest.approx(0.3), 0.2, 0.4]
    assert found["rank"].dropna().to_dict() == {"mi_ue": 1, "em": 2}
    assert found.loc["em", "of"] == 2


@pytest.mark.parametrize(
    "other",
    [
        {"preset": "quick"},
        {"recipe": "laptop:epochs=3"},
        {"data": "CIFAR-10"},
        {"n": 301},
        {"victim": "mlp2"},
        {"defense": "cutmix"},
        {"epsilon": "4/255"},
        {"ratio": 0.5},
        {"bounded": False},
        {"twin": "weights"},
        {"passes": 60},
    ],
)
def test_nothing_is_ranked_across_groups(other):
    outside = {name: other[name] for name in other if name in ("preset", "recipe", "data", "n", "passes")}
    inside = {name: value for name, value in other.items() if name not in outside}
    found = board(a=record(trial("em", 0.2)), b=record(trial("tap", 0.1, **inside), **outside))
    assert found["rank"].isna().all()
    assert board(a=record(trial("em", 0.2)), b=record(trial("tap", 0.1)))["rank"].notna().all()


def test_a_trial_on_two_pages_counts_once_as_it_was_run_last():
    old, new = record(trial("em", 0.2), ended="2026-01-01"), record(trial("em", 0.3), ended="2026-02-01")
    (row,) = board(new=new, old=old).to_dict("records")
    assert (row["seeds"], row["mean"], row["pages"]) == (1, 0.3, ["new"])
    (row,) = board(a=old, b=old, c=record(trial("em", 0.4, seed=1))).to_dict("records")
    assert (row["seeds"], row["pages"]) == (2, ["a", "b", "c"])


def test_a_twin_of_the_surrogate_and_another_victim_have_trials_of_their_own():
    found = board(
        a=record(
            trial("em", 0.5, victim_seed=0, twin="none"),
            trial("em", 0.3, victim_seed=7, twin="none"),
            trial("em", 0.1, victim_seed=0, twin="weights+order"),
            trial("clean", 0.9, victim_seed=0, twin="none"),
        )
    )
    rows = found[found["method"] == "em"].set_index("twin")
    assert rows.loc["none", ["seeds", "victims", "mean"]].tolist() == [1, 2, pytest.approx(0.4)]
    assert rows.loc["weights+order", ["seeds", "victims", "mean"]].tolist() == [1, 1, 0.1]


def test_a_clean_victim_that_stands_beside_several_perturbations_is_counted_once():
    met = {"victim_seed": 0, "twin": "none"}
    rows = [trial(method, 0.5, seed=seed, **met) for method in ("clean", "em") for seed in (0, 1)]
    found = board(a=record(*rows)).set_index("method")
    assert found["victims"].to_dict() == {"clean": 1, "em": 2}


def test_what_cannot_be_judged_is_kept_and_marked_and_has_no_rank():
    rows = [trial("clean", 0.15), trial("em", 0.05), trial("clean", 0.9, seed=1), trial("em", 0.2, seed=1)]
    rows += [trial("mi_ue", 0.3, seed=1, mi=0.8, null=0.5, stderr=0.1), trial("mi_ue", 0.3, seed=2, mi=0.2)]
    found = board(a=record(*rows))
    em = found[found["method"] == "em"].set_index("mark")
    assert em["mean"].to_dict() == {"cannot be judged": 0.05, "": 0.2}
    assert math.isnan(em.loc["cannot be judged", "rank"]) and em.loc["", ["rank", "of"]].tolist() == [1, 2]
    (ours,) = found[found["method"] == "mi_ue"].to_dict("records")
    assert (ours["rank"], ours["mark"], ours["mi"]) == (2, "information of 1 in 2 cannot be judged", 0.2)


def test_every_row_shows_what_its_perturbations_cost():
    rows = [trial("em", 0.2, passes=40, perturbation_seconds=10.0)]
    rows += [trial("em", 0.3, seed=1, passes=60, perturbation_seconds=20.0)]
    (row,) = board(a=record(*rows)).to_dict("records")
    assert (row["passes"], row["seconds"]) == (50, 15)


def test_records_without_trials_add_nothing():
    for nothing in ({}, {"metrics": {}}, {"metrics": {"data": {"data": "Digits-M", "n": 3}}}):
        assert len(leaderboard.rows(leaderboard.trials({"a": nothing}))) == 0
    assert len(leaderboard.rows(leaderboard.trials({}))) == 0


def test_the_papers_numbers_are_fractions_of_its_comparisons():
    table = reference.accuracies()
    assert len(table) == 107 and all(0 < accuracy < 1 for accuracy in table.values())
    assert reference.reported(PAPER) == pytest.approx(0.0995)


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"method": "clean", "budget": NONE}, 0.9445),
        ({"victim": "mlp2", "surrogate": "small_resnet", "n_train": 3000, "preset": "quick"}, 0.1782),
        ({"data": "CIFAR-10 (JPEG-75 copy)"}, 0.0995),
        ({"defense": "adversarial_training:epsilon=4/255"}, 0.3179),
        ({"method": "mi_ue:zeta=0"}, 0.1009),
        ({"method": "mi_ue:similarity=false"}, 0.5165),
        ({"method": "em:mine=0.1"}, 0.1562),
        ({"data": "folder imagenet100, 224 px", "n_classes": 100}, 0.0103),
        ({"data": "folder imagenette224, 224 px"}, None),
        ({"data": "Digits-M"}, None),
        ({"victim": "small_resnet"}, None),
        ({"victim": "resnet18:width=0.5"}, None),
        ({"method": "em:scope=class"}, None),
        ({"method": "lsp"}, None),
        ({"budget": "4/255"}, None),
        ({"ratio": 0.5}, None),
        ({"defense": "cutmix"}, None),
        ({"defense": "adversarial_training:epsilon=4/255:steps=2"}, None),
    ],
)
def test_the_papers_number_stands_beside_its_own_method_victim_and_classes_only(change, reported):
    found = reference.reported(PAPER | change)
    assert found is None if reported is None else found == pytest.approx(reported)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"method": "clean", "surrogate": NONE, "budget": NONE}, True),
        ({"defense": "adversarial_training:epsilon=4/255", "recipe": "adversarial"}, True),
        ({"data": "CIFAR-10 (JPEG-75 copy)"}, False),
        ({"n_train": 10_000}, False),
        ({"n_test": 2000}, False),
        ({"preset": "laptop"}, False),
        ({"recipe": "paper:epochs=20"}, False),
        ({"recipe": "standard"}, False),
        ({"surrogate": "small_resnet"}, False),
        ({"allowed": "equal"}, True),
        ({"allowed": "equal", "method": "em"}, False),
        ({"allowed": "equal", "method": "ar", "surrogate": NONE}, True),
        ({"data": "folder imagenette224, 224 px", "n_train": 9469}, False),
        ({"data": "folder imagenet100, 224 px", "n_classes": 100, "n_train": 127_000}, True),
        ({"data": "folder imagenet100, 64 px", "n_classes": 100, "n_train": 127_000}, False),
    ],
)
def test_the_setting_is_the_papers_only_with_its_data_number_and_presets(change, same):
    assert reference.same_setting(PAPER | change) is same


def test_a_difference_is_taken_in_the_papers_setting_only():
    ours = trial("mi_ue", 0.12, victim="resnet18", surrogate="resnet18")
    settings = {"preset": "paper", "recipe": "paper"}
    (same,) = board(a=record(ours, data="CIFAR-10", n=50_000, n_test=10_000, **settings)).to_dict("records")
    assert same["difference"] == pytest.approx(0.12 - 0.0995)
    (part,) = board(a=record(ours, data="CIFAR-10", n=4000, **settings)).to_dict("records")
    assert part["reported"] == pytest.approx(0.0995) and math.isnan(part["difference"])


def test_the_plot_has_a_setting_for_each_victim_that_three_perturbations_met():
    methods = {"clean": 0.9, "random": 0.8, "em": 0.2, "mi_ue": 0.3, "tap": 0.5}
    trials = [trial(method, value, victim=victim) for victim in ("linear", "mlp2") for method, value in methods.items()]
    trials += [trial(method, value, victim="mlp3") for method, value in list(methods.items())[:4]]
    trials += [trial("em", 0.85, defense="cutout"), trial("sem", 0.4, epsilon="4/255"), trial("sem", 0.4, ratio=0.5)]
    trials += [trial("em", 0.25, surrogate="mlp2"), trial("tap", 0.6, surrogate="mlp2")]
    trials = [{"twin": "none"} | one for one in trials] + [trial("tap", 0.1, twin="weights")]
    found = interactive.compared(board(a=record(*trials), b=record(*trials[:5], n=600)))
    assert found.groupby("setting")["method"].agg(sorted).map(tuple).to_dict() == {
        name: tuple(sorted(methods))
        for name in (
            "Digits-M, 300 images, linear",
            "Digits-M, 300 images, 2-layer MLP",
            "Digits-M, 600 images, linear",
        )
    }
    assert found.set_index("method").loc["em", "mean"].tolist() == [0.2, 0.2, 0.2]
    assert len(interactive.compared(board())) == 0
