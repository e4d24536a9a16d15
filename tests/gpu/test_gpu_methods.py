"""Every method and every defense on a GPU, fresh and after a stop; and what is the same on CPU and GPU."""

import pytest
import torch
from defenses.test_defenses_contract import SMALL as DEFENSE
from gpu.device import DEVICE
from poisons.test_methods_contract import QUICK, SMALL, VARIANTS, stops
from samples import fitted, some_images

from miue import defenses
from miue.defenses import DEFENSES
from miue.poisons import METHODS, perturb
from miue.specs import parse
from miue.training import loop
from miue.training.recipes import Recipe

__all__ = ["stops"]  # a fixture

RECIPE = Recipe(epochs=2, lr=0.05, schedule="one_cycle", batch=16, flip=True, crop=1, precision="float32")
TRAINED = {"pil"}  # of the quick ones, those that train a network
HALVES = ["mi_ue:precision=float16", "mi_ue:precision=tf32", "em:precision=float16", "em:precision=bfloat16"]


def make(spec, device=DEVICE, cache=False):
    method, options = parse(spec)
    settings = {"preset": "quick", "surrogate": "small_resnet:width=0.25", "device": device}
    return perturb(some_images(), method, **settings, **SMALL[method] | options, cache=cache)


@pytest.mark.parametrize("spec", [*METHODS, *VARIANTS])
def test_a_stopped_method_goes_on_and_ends_as_if_never_stopped(spec, stops, same):
    whole, stopped = make(spec), 0
    assert whole.delta.device.type == "cpu" and whole.delta.abs().max() > 0
    assert whole.record["device"] and (DEVICE.type == "cpu" or "threads" not in whole.record["device"])
    for _ in range(60):
        try:
            again = make(spec, cache=True)
            break
        except stops:
            stopped += 1
    assert stopped or parse(spec)[0] in QUICK
    same(again.delta, whole.delta, "levels of delta, resumed and whole")


@pytest.mark.parametrize("spec", [*METHODS, *VARIANTS])
def test_the_seed_decides_a_perturbation(spec, same):
    same(make(spec).delta, make(spec).delta, "levels of delta, made twice", most=0.02)


@pytest.mark.cuda
@pytest.mark.parametrize("spec", HALVES)
def test_methods_run_in_the_precisions_of_a_gpu(spec):
    poison = make(spec)
    assert poison.record["precision"] == parse(spec)[1]["precision"] and 1 <= poison.delta.abs().max() <= 8


@pytest.mark.cuda
@pytest.mark.parametrize("spec", sorted(QUICK - TRAINED))
def test_procedural_methods_are_the_same_on_cpu_and_gpu(spec, same):
    same(make(spec).delta, make(spec, "cpu").delta, "levels of delta, GPU and CPU")


@pytest.mark.cuda
@pytest.mark.parametrize("spec", ["mi_ue", "em", "pil"])
def test_steps_go_the_same_way_on_cpu_and_gpu_at_first(spec, record_property):
    there, here = make(spec), make(spec, "cpu")
    share = float((there.delta.sign() == here.delta.sign()).float().mean())
    record_property("signs of delta that GPU and CPU share", f"{share:.3f}")
    assert share > 0.6


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_runs_where_the_victim_is_trained(name):
    if name == "ueraser":
        pytest.importorskip("kornia")
    defense = defenses.build(name, **DEFENSE.get(name, {}))
    images = some_images()
    network = fitted(images, "small_resnet:width=0.25", RECIPE, defense=defense, device=DEVICE)
    assert next(network.parameters()).device.type == DEVICE.type
    assert loop.features(network, images).isfinite().all()


@pytest.mark.cuda
@pytest.mark.parametrize("number", ["float32", "tf32", "float16", "bfloat16"])
def test_a_victim_is_trained_in_every_precision(number):
    images = some_images()
    network = fitted(
        images, "resnet18:width=0.25", Recipe(3, 0.05, "cosine", batch=16, precision=number), device=DEVICE
    )
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in network.parameters())
