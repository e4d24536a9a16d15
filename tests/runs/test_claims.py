"""Claims are judged by the weightiest trials, never confirmed at a lesser scale, and untested without evidence."""

from functools import partial

import pytest
from test_leaderboard import record, trial

from miue.mi import statistics
from miue.publishing import claims, evidence, leaderboard

NAMES_OF = {claim.reported: claim.judge for claim in claims.CLAIMS}
NAMES = {claim.judge: claim for claim in reversed(claims.CLAIMS)}
PAPER = {"data": "CIFAR-10", "n": 50_000, "n_test": 10_000, "preset": "paper", "recipe": "paper"}


EXPECTED = {True: "holds at our scale", False: "not confirmed at our scale", None: claims.UNTESTED}


def verdict(judge, *records):
    found = leaderboard.trials({f"page-{number}": one for number, one in enumerate(records)})
    return claims.judge(NAMES[judge], found)


def of_resnet(*rows, **setting):
    placed = [{"victim": "resnet18", "surrogate": "resnet18"} | row for row in rows]
    return record(*placed, **{"data": "CIFAR-10", "n": 4000} | setting)


def test_without_records_every_claim_of_an_experiment_is_untested():
    found = claims.verdicts(leaderboard.trials({}))
    assert {one.verdict for one in found[: len(claims.CLAIMS)]} == {claims.UNTESTED}
    assert not any(one.pages or one.numbers for one in found[: len(claims.CLAIMS)])


@pytest.mark.parametrize(
    ("mi_ue", "setting", "word"),
    [
        (0.10, {}, "holds at our scale"),
        (0.30, {}, "not confirmed at our scale"),
        (0.10, PAPER, "confirmed"),
        (0.30, PAPER, "not confirmed"),
        (0.10, PAPER | {"data": "CIFAR-10 (JPEG-75 copy)"}, "holds at our scale"),
        (0.10, PAPER | {"recipe": "paper:epochs=20"}, "holds at our scale"),
        (0.10, PAPER | {"n_test": 20}, "holds at our scale"),
        (0.10, {"data": "Digits-M"}, claims.UNTESTED),
    ],
)
def test_a_claim_is_confirmed_in_the_papers_setting_only(mi_ue, setting, word):
    found = verdict(evidence.lowest, of_resnet(trial("mi_ue", mi_ue), trial("em", 0.2), **setting))
    assert found.verdict == word
    assert found.pages == (() if word == claims.UNTESTED else ("results/page-0",))


def test_the_larger_scale_weighs_more_then_the_number_of_images():
    holds = [trial("mi_ue", 0.1), trial("em", 0.2)]
    fails = [trial("mi_ue", 0.3), trial("em", 0.2)]
    assert "holds" in verdict(evidence.lowest, of_resnet(*fails, n=3000), of_resnet(*holds, n=4000)).verdict
    quick = of_resnet(*holds, n=9000, preset="quick")
    assert "not confirmed" in verdict(evidence.lowest, of_resnet(*fails, n=3000), quick).verdict


def test_an_order_holds_only_in_every_seed_and_variants_do_not_count():
    rows = [trial("mi_ue", 0.1), trial("em", 0.2), trial("mi_ue", 0.3, seed=1), trial("em", 0.2, seed=1)]
    found = verdict(evidence.lowest, of_resnet(*rows))
    assert found.verdict == "not confirmed at our scale" and "1 of 2 seeds" in found.numbers
    assert "20.0 % (10.0 to 30.0)" in found.numbers
    rows = [trial("mi_ue", 0.2), trial("em", 0.3), trial("em:scope=class", 0.1)]
    assert verdict(evidence.lowest, of_resnet(*rows)).verdict == "holds at our scale"


def test_information_must_fall_in_the_papers_order():
    values = {"clean": 0.7, "random": 0.6, "em": 0.5, "mi_ue": 0.4}
    rows = [trial(method, 0.5, mi=value) for method, value in values.items()]
    assert verdict(evidence.information_order, of_resnet(*rows)).verdict == "holds at our scale"
    rows[2]["mi"] = 0.65
    assert verdict(evidence.information_order, of_resnet(*rows)).verdict == "not confirmed at our scale"
    assert verdict(evidence.information_order, of_resnet(*rows[:3])).verdict == claims.UNTESTED


def test_gaps_that_rise_together_are_correlated_and_gaps_that_do_not_are_not(monkeypatch):
    monkeypatch.setattr(statistics, "rank_correlation", partial(statistics.rank_correlation, draws=100))
    methods = ["random", "ar", "em", "tap", "sem", "mi_ue", "gue", "tue"]
    rising = [trial("clean", 0.9, mi=0.9)] + [trial(m, 0.8 - i / 10, mi=0.8 - i / 10) for i, m in enumerate(methods)]
    assert verdict(evidence.correlation, of_resnet(*rising)).verdict == "holds at our scale"
    mixed = [0.4, 0.7, 0.3, 0.8, 0.2, 0.6, 0.5, 0.1]
    for row, value in zip(rising[1:], mixed, strict=True):
        row["mi"] = value
    assert verdict(evidence.correlation, of_resnet(*rising)).verdict == "not confirmed at our scale"
    assert verdict(evidence.correlation, of_resnet(*rising[:8])).verdict == claims.UNTESTED


def _victims(accuracies, clean=0.9):
    """Trials of clean and MI-UE training for each victim, information falling with accuracy."""
    for victim, accuracy in accuracies.items():
        yield trial("clean", clean, victim=victim, mi=clean)
        yield trial("mi_ue", accuracy, victim=victim, mi=accuracy)


@pytest.mark.parametrize(
    ("judge", "accuracies", "holds"),
    [
        (evidence.linear_unharmed, {"linear": 0.8, "resnet18": 0.1}, True),
        (evidence.linear_unharmed, {"linear": 0.3, "resnet18": 0.1}, False),
        (evidence.linear_unharmed, {"linear": 0.3, "resnet18": 0.8}, None),
        (evidence.depth, {"linear": 0.8, "mlp2": 0.7, "mlp3": 0.5, "lenet5": 0.4, "resnet18": 0.1}, True),
        (evidence.depth, {"linear": 0.8, "mlp2": 0.1, "mlp3": 0.5, "lenet5": 0.4, "resnet18": 0.1}, False),
        (evidence.depth, {"linear": 0.8, "resnet18": 0.1}, None),
        (evidence.transfer, {"resnet18": 0.1, "lenet5": 0.2, "linear": 0.9}, True),
        (evidence.transfer, {"resnet18": 0.1, "lenet5": 0.2, "mlp2": 0.8}, False),
        (evidence.transfer, {"resnet18": 0.1}, None),
    ],
)
def test_claims_about_victims(judge, accuracies, holds):
    assert verdict(judge, of_resnet(*_victims(accuracies))).verdict == EXPECTED[holds]


def behind(defense, accuracy):
    return trial("clean", 0.8, defense=defense), trial("mi_ue", accuracy, defense=defense)


@pytest.mark.parametrize(
    ("text", "rows", "holds"),
    [
        ("MI-UE resists adversarial training", behind("adversarial_training:epsilon=4/255", 0.2), True),
        ("MI-UE resists adversarial training", behind("adversarial_training:epsilon=4/255", 0.7), False),
        ("MI-UE resists adversarial training", behind("adversarial_training", 0.2), None),
        ("Adversarial training at 8/255", behind("adversarial_training", 0.7), True),
        ("Purification", behind("iss:kind=jpeg", 0.7), True),
        ("Purification", behind("iss:kind=jpeg", 0.2), False),
        ("Purification", behind("cutmix", 0.7), None),
        ("Without its similarity term", [trial("mi_ue:similarity=false", 0.8)], True),
        ("Without its similarity term", [trial("mi_ue:similarity=false", 0.2)], False),
        ("The weight of its distance term", [trial("mi_ue:zeta=0.01", 0.13)], True),
        ("The weight of its distance term", [trial("mi_ue:zeta=0.01", 0.2)], False),
        ("The weight of its distance term", [trial("mi_ue:zeta=10", 0.2)], None),
        ("A weight of 10", [trial("mi_ue:zeta=10", 0.8)], True),
        ("A weight of 10", [trial("mi_ue:zeta=10:steps=5", 0.8)], None),
    ],
)
def test_claims_about_defenses_and_the_terms_of_the_loss(text, rows, holds):
    claim = next(claim for claim in claims.CLAIMS if claim.text.startswith(text))
    found = leaderboard.trials({"a": of_resnet(trial("clean", 0.9), trial("mi_ue", 0.1), *rows)})
    assert claims.judge(claim, found).verdict == EXPECTED[holds]


def test_a_claim_names_no_more_pages_than_show_its_trials():
    mi_ue, em = trial("mi_ue", 0.1), trial("em", 0.2)
    found = verdict(evidence.lowest, of_resnet(mi_ue), of_resnet(mi_ue, em), of_resnet(em))
    assert found.pages == ("results/page-1",)
    found = verdict(evidence.lowest, of_resnet(mi_ue), of_resnet(em))
    assert found.pages == ("results/page-0", "results/page-1")


def test_ten_classes_of_imagenet_say_nothing_about_the_hundred():
    claim = next(claim for claim in claims.CLAIMS if claim.family == "imagenet_subset")
    rows = [trial("mi_ue", 0.1, n_classes=100), trial("em", 0.2, n_classes=100)]
    for classes, verdict in ((100, "holds at our scale"), (10, claims.UNTESTED)):
        rows = [row | {"n_classes": classes} for row in rows]
        found = leaderboard.trials({"a": of_resnet(*rows, data="folder imagenette224, 64 px")})
        assert claims.judge(claim, found).verdict == verdict


def test_information_of_two_estimators_is_not_compared():
    rows = [trial(m, 0.5, mi=mi) for m, mi in (("clean", 0.7), ("random", 0.6), ("em", 0.2), ("mi_ue", 0.1))]
    assert verdict(evidence.information_order, of_resnet(*rows)).verdict == "holds at our scale"
    apart = of_resnet(*rows[:2]), of_resnet(*rows[2:], estimator="histogram")
    assert verdict(evidence.information_order, *apart).verdict == claims.UNTESTED


@pytest.mark.parametrize("clean", [0.05, 0.1, 0.149])
def test_a_victim_that_learns_nothing_from_clean_images_tells_no_harm(clean):
    rows = [trial("clean", clean), trial("mi_ue", 0.05), trial("mi_ue:similarity=false", 0.2)]
    found = verdict(NAMES_OF["51.65 % instead of 9.95 %"], of_resnet(*rows))
    assert found.verdict == "cannot be judged at our scale" and "20.0" not in found.numbers
    assert found.pages == ("results/page-0",)


def test_an_order_of_accuracies_is_not_judged_by_victims_that_never_learned():
    rows = [trial("mi_ue", 0.1), trial("em", 0.12)]
    assert verdict(evidence.lowest, of_resnet(*rows, trial("clean", 0.14))).verdict == "cannot be judged at our scale"
    assert verdict(evidence.lowest, of_resnet(*rows, trial("clean", 0.16))).verdict == "holds at our scale"
    seeds = [trial("mi_ue", 0.3, seed=1), trial("em", 0.2, seed=1), trial("clean", 0.9, seed=1)]
    found = verdict(evidence.lowest, of_resnet(*rows, trial("clean", 0.14), *seeds))
    assert found.verdict == "not confirmed at our scale" and "0 of 1 seed" in found.numbers


def test_information_whose_null_reads_some_is_no_evidence():
    values = {"clean": 0.7, "random": 0.6, "em": 0.5, "mi_ue": 0.4}
    rows = [trial(method, 0.5, mi=value, null=0.2, null_stderr=0.01) for method, value in values.items()]
    assert verdict(evidence.information_order, of_resnet(*rows)).verdict == "cannot be judged at our scale"
    rows = [row | {"null_stderr": 0.1} for row in rows]
    assert verdict(evidence.information_order, of_resnet(*rows)).verdict == "holds at our scale"


def test_an_order_is_judged_in_the_mean_over_the_victims_of_each_seed():
    mi_ue = [trial("mi_ue", accuracy, victim_seed=victim, twin="none") for victim, accuracy in enumerate((0.4, 0.1))]
    em = [trial("em", 0.3, victim_seed=victim, twin="none") for victim in range(2)]
    found = verdict(evidence.lowest, of_resnet(*mi_ue, *em))
    assert found.verdict == "holds at our scale" and "1 of 1 seed" in found.numbers
    alone = [trial("em", 0.1, victim_seed=9, twin="none")]  # a victim that MI-UE did not meet
    assert verdict(evidence.lowest, of_resnet(*mi_ue, *em, *alone)).numbers == found.numbers


def test_a_twin_is_not_held_against_a_stranger_and_weighs_less():
    twins = [trial(m, value, twin="weights", victim_seed=0) for m, value in (("mi_ue", 0.1), ("em", 0.2))]
    strangers = [trial(m, value, twin="none", victim_seed=0) for m, value in (("mi_ue", 0.3), ("em", 0.2))]
    found = verdict(evidence.lowest, of_resnet(*twins, *strangers))
    assert found.verdict == "not confirmed at our scale" and "10.0 %" in found.against
    assert found.against.endswith("victims begin as the surrogate did)")
    assert verdict(evidence.lowest, of_resnet(twins[0], strangers[1])).verdict == claims.UNTESTED


def test_perturbations_of_networks_that_are_no_residual_ones_do_not_speak_for_the_papers():
    rows = [trial("mi_ue", 0.1, surrogate="mlp2"), trial("em", 0.2, surrogate="mlp2")]
    assert verdict(evidence.lowest, of_resnet(*rows)).verdict == claims.UNTESTED
    ours = [trial("mi_ue", 0.3), trial("em", 0.2)]
    assert verdict(evidence.lowest, of_resnet(*rows, *ours)).verdict == "not confirmed at our scale"


def test_variants_of_a_method_are_no_methods_over_which_gaps_are_correlated():
    gaps = {"clean": 0.0, "random": 0.05, "ar": 0.1, "gue": 0.2, "tue": 0.3, "sem": 0.5, "em": 0.6, "tap": 0.7}
    gaps["mi_ue"] = 0.8
    rows = [trial(method, 0.9 - gap, mi=0.3 - gap / 4) for method, gap in gaps.items()]
    variants = [trial(f"mi_ue:zeta={number}", 0.1 + number / 20, mi=0.1 + number / 30) for number in range(5)]
    alone, beside = (verdict(evidence.correlation, of_resnet(*own)) for own in (rows, [*rows, *variants]))
    assert alone.numbers == beside.numbers and "over 8 methods" in alone.numbers
    few = verdict(evidence.correlation, of_resnet(*rows[:2], *variants))
    assert few.verdict == claims.UNTESTED


def test_what_the_paper_says_of_all_methods_is_not_judged_by_ours():
    ours = trial("weave", 0.1), trial("weave", 0.2, defense="iss:kind=jpeg")
    found = verdict(evidence.purification, of_resnet(*behind("none", 0.1), *behind("iss:kind=jpeg", 0.7), *ours))
    assert found.verdict == "holds at our scale" and "weave" not in found.numbers
    flat = (
        trial("clean", 0.8, victim="linear"),
        trial("mi_ue", 0.8, victim="linear"),
        trial("weave", 0.1, victim="linear"),
    )
    assert verdict(evidence.linear_unharmed, of_resnet(*behind("none", 0.1), ours[0], *flat)).verdict == EXPECTED[True]


def test_a_residual_victim_is_no_stranger_to_a_residual_surrogate():
    kin = {"small_resnet": 0.1, "resnet18:width=0.5": 0.1}
    assert verdict(evidence.transfer, of_resnet(*_victims(kin))).verdict == claims.UNTESTED
    found = verdict(evidence.transfer, of_resnet(*_victims({**kin, "lenet5": 0.8})))
    assert found.verdict == "not confirmed at our scale" and "ResNet" not in found.numbers


def test_a_claim_that_ranks_names_what_contradicts_it_most():
    def setting(mi_ue, em, **about):
        return of_resnet(trial("mi_ue", mi_ue), trial("em", em), **about)

    weighty, small, large = setting(0.1, 0.2), setting(0.3, 0.2, n=2000), setting(0.9, 0.2, n=1000)
    found = verdict(evidence.lowest, weighty, small, large)
    assert found.verdict == "holds at our scale" and "90.0 %" in found.against and "1,000 images" in found.against
    assert found.pages == ("results/page-0", "results/page-2")
    found = verdict(evidence.lowest, setting(0.3, 0.2), setting(0.1, 0.2, n=2000), large)
    assert found.verdict == "not confirmed at our scale" and "2,000 images" in found.against
    assert verdict(evidence.lowest, weighty, setting(0.1, 0.3, n=2000)).against == ""


def test_budgets_the_mine_term_and_the_time_of_generation():
    rows = [trial("mi_ue", 0.1 + n / 1000, epsilon=f"{n}/255") for n in (2, 4, 8, 16)]
    assert verdict(evidence.budgets, of_resnet(*rows)).verdict == "holds at our scale"
    rows[3]["test_accuracy"] = 0.2
    assert verdict(evidence.budgets, of_resnet(*rows)).verdict == "not confirmed at our scale"
    rows = [trial("em", 0.24), trial("tap", 0.11), trial("em:mine=0.1", 0.15), trial("tap:mine=0.1", 0.12)]
    assert verdict(evidence.mine_helps, of_resnet(*rows)).verdict == "not confirmed at our scale"
    assert verdict(evidence.mine_helps, of_resnet(*rows[:3])).verdict == claims.UNTESTED
    alone = verdict(evidence.mine_helps, of_resnet(trial("em:epochs=5", 0.1), trial("em:epochs=5:mine=0.1", 0.3)))
    assert alone.verdict == "not confirmed at our scale" and "TAP" not in alone.numbers
    slow = trial("mi_ue", 0.1, perturbation_seconds=7200.0, device="a GPU")
    found = verdict(evidence.generation_time, of_resnet(slow, **PAPER))
    assert (found.verdict, found.numbers[:18]) == ("confirmed", "2.0 hours on a GPU")
    slower = trial("mi_ue", 0.1, seed=1, perturbation_seconds=7e4, device="another")
    assert verdict(evidence.generation_time, of_resnet(slower, slow, **PAPER)).numbers[:18] == found.numbers[:18]
    assert verdict(evidence.generation_time, of_resnet(slow)).verdict == claims.UNTESTED
