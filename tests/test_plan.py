import json
from dataclasses import asdict, replace

import pytest

from miue import poisons
from miue.data import loading
from miue.errors import InputError
from miue.experiments import bench, comparison, plan
from miue.experiments.comparison import Records, Setting, Trial

MODEL = "small_resnet:width=0.1"


@pytest.fixture
def speed(monkeypatch):
    """A machine that trains on 100 images in a second, moves 200 and tests 400; the benchmark is not run."""
    asked = []

    def measure(model, **what):
        asked.append((model, what))
        return bench.Speed(100.0, 200.0, 400.0, 1.0, 1.0, 128, "now", "here")

    monkeypatch.setattr(bench, "measure", measure)
    return asked


@pytest.fixture
def setting(image_folder):
    return Setting(f"folder:{image_folder}", size=16, preset="quick", recipe="quick:epochs=2:batch=4", n_slices=4)


def test_steps_that_trials_share_are_planned_once(setting, speed, monkeypatch):
    monkeypatch.setattr(plan, "SPREAD", 1.0)
    wanted = [
        Trial("clean", MODEL),
        Trial("em", MODEL, surrogate=MODEL),
        Trial("em", "mlp2", surrogate=MODEL),
        Trial("em", MODEL, surrogate=MODEL, ratio=0.5),
        Trial("em", MODEL, surrogate=MODEL, epsilon="4/255"),
        Trial("clean", MODEL, epsilon="4/255"),  # the budget of what is not perturbed means nothing,
        Trial("em", MODEL, ratio=0.0),  # and this perturbs nothing
        Trial("em", MODEL, surrogate=MODEL),
    ]
    made = plan.make(wanted, setting)
    assert [step.kind for step in made.steps] == ["perturbation"] * 2 + ["victim"] * 5
    assert made.trials == 7 and not any(step.cached for step in made.steps)
    passes = poisons.options("em", "quick", passes=60).passes  # as many as MI-UE takes
    assert (made.steps[0].low, made.steps[0].high) == (passes * 12 / 200, passes * 12 / 100)
    assert made.steps[-1].low == made.steps[-1].high == pytest.approx(2 * (12 / 100 + 6 / 400))
    assert made.seconds[1] == pytest.approx(2 * passes * 12 / 100 + 5 * 2 * (12 / 100 + 6 / 400))


def test_what_is_cached_or_recorded_is_not_made(setting, speed, tmp_path):
    wanted = [Trial("random", MODEL), Trial("random", "linear"), Trial("withheld", "linear", ratio=0.5)]
    assert not any(step.cached for step in plan.make(wanted, setting).steps)

    train, test = loading.load(setting.data, size=16)
    for trial in wanted[1:]:
        comparison.made(trial, setting, train, test)
    found = plan.make(wanted, setting)
    assert {step.name: step.cached for step in found.steps} == {
        "random, surrogate small_resnet, epsilon 8/255 (8 levels), seed 0": True,
        f"{MODEL} on random, surrogate small_resnet, epsilon 8/255 (8 levels), seed 0": False,
        "linear on random, surrogate small_resnet, epsilon 8/255 (8 levels), seed 0": True,
        "linear on withheld, ratio 0.5, seed 0": True,
    }
    assert found.seconds[1] == found.steps[1].high > 0

    file = tmp_path / "records.jsonl"
    assert plan.make(wanted, setting, file).recorded == 0 and not file.exists()
    train, _ = loading.load(setting.data, size=setting.size)
    Records(file, setting).add(asdict(wanted[0]) | {"test_accuracy": 0.5, "content_hash": train.content_hash})
    found = plan.make(wanted, setting, file)
    assert (found.trials, found.recorded, found.seconds) == (3, 1, (0.0, 0.0))
    assert any("1 of 3 are in the records file" in line for line in found.lines())
    with pytest.raises(InputError, match="was made with .*give these values or another file"):
        plan.make(wanted, Setting(setting.data, size=16), file)
    Records(file, setting).add(asdict(wanted[1]) | {"test_accuracy": 0.5, "content_hash": "other"})
    with pytest.raises(InputError, match="was made on other images"):
        plan.make(wanted, setting, file)


def test_steps_of_plans_are_the_same_only_where_what_is_made_is(setting, speed):
    def keys(passes, *methods):
        wanted = [Trial(method, "linear", surrogate=MODEL) for method in methods]
        return {step.key for step in plan.make(wanted, replace(setting, passes=passes)).steps}

    assert not keys("own", "em") & keys("equal", "em")
    for method in ("clean", "ar", "mi_ue"):  # MI-UE takes its own passes either way
        assert keys("own", method) == keys("equal", method)


def test_what_is_withheld_is_planned_as_long_as_it_is_trained(setting, speed, monkeypatch):
    monkeypatch.setattr(plan, "SPREAD", 1.0)
    for recipe in ("quick:epochs=2:batch=4", "quick:epochs=2:batch=4:batches_per_epoch=7"):
        whole, part, none = (
            plan.make([trial], replace(setting, recipe=recipe))
            for trial in (Trial("clean", "linear"), *(Trial("withheld", "linear", ratio=r) for r in (0.5, 0)))
        )
        assert part.seconds == whole.seconds
        assert [step.key for step in none.steps] == [step.key for step in whole.steps]


def test_where_nothing_is_withheld_the_victim_is_that_of_clean_training(setting):
    clean, none = Trial("clean", "linear"), Trial("withheld", "linear", ratio=0.0)
    assert none.training(setting, 12) == clean.training(setting, 12)


def test_a_defense_that_attacks_costs_its_steps(setting, speed, monkeypatch):
    monkeypatch.setattr(plan, "SPREAD", 1.0)
    plain, defended, erased = (
        plan.make([Trial("clean", "linear", defense=defense)], setting).seconds[0]
        for defense in ("none", "adversarial_training:steps=7", "ueraser:draws=5")
    )
    assert defended - plain == pytest.approx(2 * 12 * 7 / 200)
    assert erased - plain == pytest.approx(2 * 12 * 5 * 0.5 / 400)


def test_speeds_are_asked_for_as_the_steps_compute(setting, speed):
    plan.make([Trial("pil", "linear"), Trial("tap", "mlp2", surrogate=MODEL)], setting)
    kinds = {model: what for model, what in speed}
    assert set(kinds) == {"linear", "mlp2", MODEL}  # PIL has a linear network of its own
    assert kinds[MODEL] == {"size": 16, "channels": 3, "n_classes": 2, "precision": "float32", "batch": 256}
    assert kinds["mlp2"] == {"size": 16, "channels": 3, "n_classes": 2, "precision": "auto", "batch": 4}


def test_a_plan_cell_is_executed_with_the_parameters_as_data(setting, speed):
    cell = """
from miue.experiments.comparison import Trial
from miue.experiments.comparison import Setting

setting = Setting(data, None, None, 16, preset, "quick", "ksg", 4)
wanted = [Trial(method, "linear") for method in methods]
"""
    values = {"data": setting.data, "preset": "quick", "methods": ["clean", "random"], "records": None}
    made = plan.of_template(cell, values, "small")
    assert [step.kind for step in made.steps] == ["perturbation", "victim", "victim"]
    lines = "\n".join(made.lines())
    assert "3 steps for 2 trials, 3 to make" in lines and "estimate: " in lines
    with pytest.raises(InputError, match="method: 'magic' does not exist"):
        plan.of_template(cell, values | {"methods": ["magic"]}, "small")
    with pytest.raises(InputError, match="preset: "):
        plan.of_template(cell, values | {"preset": '"; import os; os._exit(3) #'}, "small")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("wanted = 1 / 0", "its plan cell failed \\(ZeroDivisionError: division by zero\\)"),
        ("wanted = [", "its plan cell failed \\(SyntaxError"),
        ("wanted = []", "must set `setting`, a Setting"),
        ("from miue.experiments.comparison import Setting; setting, wanted = Setting(), 'clean'", "a list of Trial"),
    ],
)
def test_a_plan_cell_that_tells_nothing_is_refused_in_one_line(cell, message):
    with pytest.raises(InputError, match=message) as refusal:
        plan.of_template(cell, {}, "small")
    assert "\n" not in str(refusal.value)


def test_planning_writes_nothing_but_speeds(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.001)
    loading.load(setting.data, size=16)  # decodes the images, which a plan has to look at
    before = {path for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    plan.make([Trial("em", "linear", surrogate="linear")], setting)
    written = {path for path in (tmp_path / "cache").rglob("*") if path.is_file()} - before
    assert {path.parent.name for path in written} == {"bench"}
    assert all(json.loads(path.read_text())["training"] > 0 for path in written)


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0, 0.4, "seconds"), (50, 50.2, "50 s"), (60, 400, "60 s to 7 min")]
)
def test_ranges_are_written_as_one_says_them(low, high, words):
    assert plan.between(low, high) == words
