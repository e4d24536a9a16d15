"""Everything that works on a GPU, on one that is not there: nothing meets a tensor of the other device."""

import math
from dataclasses import replace

import pretend
import pytest
import torch
from defenses.test_defenses_contract import SMALL as DEFENSE
from poisons.test_methods_contract import QUICK as BRIEF
from poisons.test_methods_contract import SMALL as METHOD
from poisons.test_methods_contract import VARIANTS, stops
from samples import fitted, some_images

from miue import defenses
from miue.defenses import DEFENSES
from miue.experiments.comparison import measure
from miue.experiments.trials import Setting, Trial
from miue.losses import mi_ue_loss
from miue.mi import statistics, with_controls
from miue.models import build, stages
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons import perturb
from miue.poisons.passes import PGDPass, on_outputs
from miue.specs import parse
from miue.training import loop
from miue.training.recipes import Recipe
from miue.victim import train_victim

__all__ = ["stops"]  # a fixture

RECIPE = Recipe(epochs=2, lr=0.05, schedule="one_cycle", batch=16, flip=True, crop=1, precision="float32")


def make(spec, cache=False, **settings):
    method, options = parse(spec)
    common = {"preset": "quick", "surrogate": "lenet5:width=0.5", "device": pretend.DEVICE}
    return perturb(some_images(), method, **common, **METHOD[method] | options | settings, cache=cache)


def slowly(specs, *quick):
    return [spec if spec in quick else pytest.param(spec, marks=pytest.mark.slow) for spec in specs]


@pytest.mark.parametrize("spec", [*METHOD, *slowly(VARIANTS, "tap:mine=0.1")])
def test_a_method_runs_and_its_delta_is_at_home_on_the_cpu(gpu, spec):
    poison = make(spec)
    assert type(poison.delta) is torch.Tensor and poison.delta.abs().max() > 0
    assert gpu.counts["kernels"] > 0


@pytest.mark.parametrize("spec", slowly(sorted({*METHOD, *VARIANTS} - BRIEF), "em:mine=0.1", "gue", "pue"))
def test_a_method_that_was_stopped_goes_on_there_and_ends_the_same(gpu, spec, stops):
    whole = make(spec)
    for _ in range(40):
        try:
            again = make(spec, cache=True)
            break
        except stops:
            pass
    assert torch.equal(again.delta, whole.delta)


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_runs_where_the_victim_is_trained(gpu, name):
    defense = defenses.build(name, **DEFENSE.get(name, {}))
    victim = fitted(some_images(), "lenet5:width=0.5", replace(RECIPE, epochs=1, batch=24), defense=defense)
    assert next(victim.parameters()).device == pretend.DEVICE


def test_a_victim_is_measured_where_it_was_trained(gpu):
    images = some_images()
    settings = {"model": "lenet5:width=0.5", "epochs": 2, "batch": 16, "precision": "float32"}
    for _ in ("trained", "loaded"):
        victim = train_victim(images, images, **settings)
        assert next(victim.model.parameters()).device == pretend.DEVICE
        gpu.counts.clear()
        features = loop.features(victim.model, images)
        assert features.device == pretend.DEVICE and gpu.counts["to cpu"] == gpu.counts["wait for a number"] == 0
        assert loop.accuracy(victim.model, images) == victim.accuracy and gpu.counts["wait for a number"] == 1


def test_an_estimate_of_information_takes_features_of_the_device(gpu):
    images = some_images()
    network = fitted(images, "lenet5:width=0.5", RECIPE)
    features = loop.features(network, images)
    there = with_controls(features, features, images.y, n_slices=4)
    here = with_controls(features.cpu(), features.cpu(), images.y, n_slices=4)
    assert there.mi.value == pytest.approx(here.mi.value)


def test_noise_as_large_as_its_images_or_weights_is_drawn_where_they_lie(gpu):
    for spec in ("pue", "rem"):
        make(spec)
    for name in ("gaussian_noise", "adversarial_training"):
        fitted(some_images(), "lenet5:width=0.5", RECIPE, defense=defenses.build(name, **DEFENSE.get(name, {})))
    carried = {place.partition(":")[0] for kind, place in gpu.places if kind == "to device"}
    assert "training/loop.py" in carried or "data/rows.py" in carried
    assert carried.isdisjoint({"poisons/methods/pue.py", "pgd.py", "defenses/augmentations.py"})


def crossings(gpu, run):
    """What crosses between the devices, or makes the CPU wait, while something runs."""
    gpu.counts.clear()
    run()
    return {kind: count for kind, count in gpu.counts.items() if kind not in ("kernels", "on the cpu")}


def test_a_pgd_pass_crosses_as_often_whatever_the_number_of_its_batches(gpu):
    images = some_images().on(pretend.DEVICE)
    network = build("small_resnet:width=0.25", 4, size=8).to(pretend.DEVICE)
    loss = on_outputs(Frozen(network), lambda logits, features, labels: mi_ue_loss(features, labels))
    delta = torch.zeros(images.x.shape, dtype=torch.float16, device=pretend.DEVICE)
    found = []
    for batch in (24, 8):
        pgd_pass = PGDPass(
            images, loss, batch=batch, budget=Budget(8 / 255), steps=2, order=torch.Generator(), fixed=True
        )
        found.append(crossings(gpu, lambda run=pgd_pass: run(delta, 1 / 255)))
    assert found[0] == found[1] and found[0]["wait for a number"] == 1


@pytest.mark.parametrize("defense", [None, "adversarial_training"])
def test_an_epoch_of_training_crosses_as_often_whatever_the_number_of_its_batches(gpu, defense):
    images = some_images()
    found = []
    for batch in (24, 8):
        network = build("small_resnet:width=0.25", 4, size=8)
        given = None if defense is None else defenses.build(defense, **DEFENSE.get(defense, {}))
        recipe = replace(RECIPE, batch=batch, epochs=2, schedule="cosine")
        trained = loop.epochs(network, images, recipe, device=pretend.DEVICE, defense=given)
        next(trained)
        found.append(crossings(gpu, lambda run=trained: next(run)))
    assert found[0] == found[1]


def test_a_comparison_measures_a_victim_of_the_device(gpu):
    images = some_images()
    setting = Setting("digits_m", preset="quick", recipe="quick:epochs=1:batch=16:precision=float32", n_slices=4)
    row = measure(Trial("random", "lenet5:width=0.5"), setting, images, images)
    assert 0 <= row["disagreement"] <= 1 and math.isfinite(row["mi"])


def test_a_victim_starts_from_another_and_is_probed_there(gpu):
    images = some_images()
    settings = {"model": "lenet5:width=0.5", "epochs": 1, "batch": 16, "precision": "float32"}
    first = train_victim(images, images, **settings)
    second = train_victim(images, images, start=first, seed=1, **settings)
    assert next(second.model.parameters()).device == pretend.DEVICE
    z = loop.features(second.model, images)
    spectrum = statistics.within_class_spectrum(z, images.y)
    assert spectrum == pytest.approx(statistics.within_class_spectrum(z.cpu(), images.y))
    assert stages.activations(second.model, images.on(pretend.DEVICE).x / 255)["features"].device == pretend.DEVICE
