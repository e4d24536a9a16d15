"""The two loops on a GPU: what is replayed is what runs eagerly, nothing waits, and what is restored lies as it lay."""

import math
from dataclasses import replace

import pytest
import torch
from gpu.device import DEVICE
from samples import fitted, some_images

from miue.experiments.comparison import measure
from miue.experiments.trials import Setting, Trial
from miue.losses import mi_ue_loss
from miue.mi import with_controls
from miue.models import build, forward
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons import base
from miue.poisons.passes import PGDPass, on_outputs
from miue.precision import arithmetic
from miue.storage.checkpoint import Checkpoint
from miue.training import loop
from miue.training.recipes import Recipe
from miue.victim import train_victim

NETWORKS = ["small_resnet:width=0.25", "resnet18:width=0.25"]
RECIPE = Recipe(epochs=3, lr=0.05, schedule="one_cycle", batch=16, flip=True, crop=1, precision="float32")
NUMBERS = ["float32", pytest.param("float16", marks=pytest.mark.cuda), pytest.param("tf32", marks=pytest.mark.cuda)]


def network_of(name):
    return build(name, 4, size=8).to(DEVICE)


def passed(network, fixed, number="float32", batch=16, passes=2):
    """The delta of pgd passes over a few images."""
    images = some_images().on(DEVICE)
    frozen = Frozen(network, number)
    loss = on_outputs(frozen, lambda logits, features, labels: mi_ue_loss(features, labels))
    order = torch.Generator().manual_seed(0)
    one = PGDPass(images, loss, batch=batch, budget=Budget(8 / 255), steps=3, order=order, fixed=fixed)
    delta = torch.zeros(images.x.shape, dtype=torch.float16, device=DEVICE)
    with arithmetic(number):
        for number_of_pass in range(passes):
            frozen.refresh()
            one(delta, (1 + number_of_pass) / 255)
    return delta


@pytest.mark.parametrize("name", NETWORKS)
def test_the_frozen_network_is_the_network(name):
    network, x = network_of(name), torch.rand(16, 3, 8, 8, device=DEVICE, requires_grad=True)
    with arithmetic("float32"):
        forward(network.train(), x.detach())  # statistics that are not the initial ones
        frozen = Frozen(network)
        for _ in range(2):
            for mine, its in zip(frozen(x), forward(network.eval(), x), strict=True):
                torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)
            one, other = (torch.autograd.grad(of[1].square().sum(), x)[0] for of in (frozen(x), forward(network, x)))
            assert (one - other).norm() < 1e-2 * other.norm()
            forward(network.train(), 2 * x.detach())
            frozen.refresh()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_replayed_pgd_pass_is_the_eager_one(name, number, same):
    network = network_of(name)
    same(passed(network, True, number), passed(network, False, number), "levels of delta, replayed and eager", 0.001)


@pytest.mark.parametrize("batch", [16, 20])
def test_batches_of_other_shapes_than_the_first_are_not_replayed_but_right(batch, same):
    network = network_of(NETWORKS[0])
    same(passed(network, True, batch=batch), passed(network, False, batch=batch), most=0.001)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("changes", [{}, {"clip_norm": 1.0}, {"batch": 20}, {"schedule": "cosine"}])
def test_training_that_is_replayed_is_the_eager_one(changes, number, monkeypatch, same):
    images, recipe = some_images(), replace(RECIPE, precision=number, **changes)
    found = []
    for eager in (False, True):
        if eager:
            monkeypatch.setattr(loop, "Replay", lambda function, changes=None: function)
        network = build(NETWORKS[1], 4, size=8)
        losses = [epoch.loss for epoch in loop.epochs(network, images, recipe, device=DEVICE)]
        found.append((losses, torch.cat([weight.detach().flatten() for weight in network.state_dict().values()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3)
    same(found[0][1], found[1][1], "weights, replayed and eager", most=1.0)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-3)


def refusing_to_wait(monkeypatch, module, batches):
    """From the second batch to the last, an operation that makes the CPU wait is an error."""
    seen = []

    def tell(loss=None, images=0):
        if images:
            seen.append(images)
            torch.cuda.set_sync_debug_mode("error" if len(seen) < batches else "default")

    monkeypatch.setattr(module, "tell", tell)
    return seen


@pytest.fixture
def waiting_again():
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.parametrize("fixed", [True, False])
def test_no_batch_of_a_pgd_pass_waits_for_the_gpu(fixed, monkeypatch, waiting_again):
    network = network_of(NETWORKS[0])
    passed(network, fixed, passes=1)  # libraries have chosen their algorithms
    seen = refusing_to_wait(monkeypatch, base, 3)
    passed(network, fixed, passes=1)
    assert len(seen) == 3


@pytest.mark.cuda
@pytest.mark.parametrize("changes", [{}, {"schedule": "cosine", "clip_norm": 1.0}, {"precision": "float16"}])
def test_no_batch_of_an_epoch_waits_for_the_gpu(changes, monkeypatch, waiting_again):
    seen = refusing_to_wait(monkeypatch, loop, 3)
    recipe = replace(RECIPE, epochs=1, **changes)
    list(loop.epochs(build(NETWORKS[1], 4, size=8), some_images(), recipe, device=DEVICE))
    assert len(seen) == 3


def strides(tensor):
    """Those of the dimensions that have more than one place."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def test_what_an_optimizer_keeps_lies_as_its_weights_after_a_restore(tmp_path, monkeypatch):
    images, trainers, once = some_images(), [], loop.Trainer

    def watched(*given):
        trainers.append(once(*given))
        return trainers[-1]

    monkeypatch.setattr(loop, "Trainer", watched)
    kept = []
    for count in (1, 2):
        network = build(NETWORKS[0], 4, size=8)
        trained = loop.epochs(network, images, RECIPE, device=DEVICE, keep=Checkpoint(tmp_path))
        kept += [next(trained).epoch, next(trained).epoch][:count]
        trained.close()
    assert kept == [1, 2, 3]
    for trainer in trainers:
        for weight, state in trainer.optimizer.state.items():
            momentum = state["momentum_buffer"]
            assert strides(momentum) == strides(weight) and momentum.device == weight.device


def test_training_that_was_stopped_ends_as_if_never_stopped(tmp_path, same):
    images, found = some_images(), []
    for folder in (None, tmp_path):
        for stop in (False,) if folder is None else (True, False):
            network = build(NETWORKS[1], 4, size=8)
            trained = loop.epochs(network, images, RECIPE, device=DEVICE, keep=Checkpoint(folder))
            for epoch in trained:
                if stop and epoch.epoch == 2:
                    break
            trained.close()
        found.append(torch.cat([value.detach().flatten().float() for value in network.state_dict().values()]))
    same(*found, "weights, resumed and whole")


def test_features_stay_on_the_device_and_information_takes_them():
    images = some_images()
    network = fitted(images, NETWORKS[0], RECIPE, device=DEVICE)
    features = loop.features(network, images)
    assert features.device.type == DEVICE.type
    there = with_controls(features, features, images.y, n_slices=4)
    here = with_controls(features.cpu(), features.cpu(), images.y, n_slices=4)
    for name, estimate in vars(there).items():
        assert estimate.value == pytest.approx(vars(here)[name].value, abs=1e-3)


def test_features_of_gpu_and_cpu_are_near(record_property):
    images = some_images()
    network = fitted(images, NETWORKS[1], RECIPE, device=DEVICE)
    there = loop.features(network, images).cpu()
    here = loop.features(network.cpu(), images)
    record_property("largest relative difference of features", f"{float((there - here).norm() / here.norm()):.1e}")
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_a_comparison_measures_where_the_gpu_is():
    images = some_images()
    setting = Setting("digits_m", preset="quick", recipe="quick:epochs=1:batch=16", n_slices=4)
    row = measure(Trial("random", NETWORKS[0]), setting, images, images)
    assert 0 <= row["disagreement"] <= 1 and math.isfinite(row["mi"])


def test_a_victim_is_loaded_to_where_it_was_trained():
    images = some_images()
    settings = {"model": NETWORKS[0], "epochs": 2, "batch": 16, "precision": "float32", "device": DEVICE}
    trained = train_victim(images, images, **settings)
    loaded = train_victim(images, images, **settings)
    assert loaded.history == trained.history
    assert next(loaded.model.parameters()).device.type == loop.default_device().type
