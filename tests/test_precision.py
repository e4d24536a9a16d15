"""Precisions: what a name says is what convolutions do, for forward and backward, and only as long as it was asked."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from defenses.test_defenses_contract import SMALL as DEFENSE
from poisons.test_methods_contract import SMALL as METHOD
from samples import fitted, some_images

from miue import defenses
from miue.data.images import Images
from miue.defenses.adversarial import AdversarialTraining
from miue.defenses.base import Defense
from miue.errors import InputError
from miue.models import build, forward, stages
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons import perturb
from miue.poisons.passes import PGDPass, on_outputs
from miue.precision import PRECISIONS, arithmetic, precision
from miue.training import loop
from miue.training.recipes import Recipe

CPU = torch.device("cpu")
IEEE, TF32 = (False, "highest"), (True, "high")
SHORT = Recipe(epochs=2, lr=0.05, schedule="one_cycle", batch=16, precision="float32")


def switches():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture(autouse=True)
def as_pytorch_has_them():
    """PyTorch's own choice: convolutions as TF32, products of matrices not."""
    with arithmetic("float32"):  # to put back what was
        torch.backends.cudnn.allow_tf32 = True
        yield


@pytest.fixture
def seen(monkeypatch):
    """The switches at every forward and every backward pass of a network."""
    found = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(x):
            found.append(switches())
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, gradient):
            found.append(switches())
            return gradient

    once = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *others: Watch.apply(once(x, *others)))
    return found


def test_a_name_is_resolved_or_refused():
    assert precision("float32", CPU) == "float32" and precision("tf32", torch.device("cuda")) == "tf32"
    assert precision("auto", CPU) in ("float32", "bfloat16")
    with pytest.raises(InputError, match="precision: 'half'.*float32, tf32, float16, bfloat16"):
        precision("half", CPU)
    with pytest.raises(InputError, match="precision: 'tf32' on a CPU"):
        precision("tf32", CPU)


@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_the_switches_hold_inside_and_are_as_they_were_afterwards(name):
    before = switches()
    with arithmetic(name):
        assert switches() == (TF32 if name == "tf32" else IEEE)
        with arithmetic("float32"):
            assert switches() == IEEE
        assert switches() == (TF32 if name == "tf32" else IEEE)
    assert switches() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9 has the older switches only")
def test_whoever_set_the_newer_switches_finds_them_again_and_is_overruled_inside():
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    conv.fp32_precision, matmul.fp32_precision = "ieee", "tf32"
    with arithmetic("float32"):
        assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")
    assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "tf32")


def test_victims_features_defenses_and_surrogates_compute_in_ieee_float32_all_through(seen, images):
    for name in ("adversarial_training", "sda_an", "d_vae"):
        network = fitted(images, "lenet5", SHORT, defense=defenses.build(name, **DEFENSE[name]))
    loop.accuracy(network, images)
    loop.features(network, images)
    stages.activations(network, images.x.float() / 255)
    for method in ("mi_ue", "em", "gue", "uc"):
        perturb(images, method, preset="quick", surrogate="lenet5", device="cpu", **METHOD[method], cache=False)
    assert set(seen) == {IEEE} and switches() == (True, "highest")


def test_between_two_epochs_the_caller_has_his_own_switches_back(images):
    before = switches()
    for _ in loop.epochs(build("lenet5", 4, size=8), images, SHORT):
        assert switches() == before


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_training_in_halves_comes_near_to_that_in_float32(name):
    images, found = some_images(n=32), {}
    for number in ("float32", name):
        network = build("mlp2:width=0.1", 4, size=8)
        recipe = Recipe(epochs=12, lr=0.05, schedule="constant", batch=16, clip_norm=5.0, precision=number)
        found[number] = [epoch.loss for epoch in loop.epochs(network, images, recipe)]
        assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert found[name] != found["float32"]
    assert found[name][-1] == pytest.approx(found["float32"][-1], abs=0.1)


def test_small_gradients_outlast_float16_by_the_loss_scale(images):
    network = build("lenet5", 4, size=8)
    x, y = images.batch(torch.arange(len(images)))
    x = (x.float() / 255).requires_grad_()

    def small(logits, features, labels):
        return 1e-4 * F.cross_entropy(logits, labels)

    exact, halved = (
        torch.autograd.grad(on_outputs(Frozen(network, number), small)(x, y), x)[0].sign()
        for number in ("float32", "float16")
    )
    unscaled = torch.autograd.grad(small(*forward(network, x, "float16"), y), x)[0].sign()
    assert (exact == halved).float().mean() > 0.97 > (exact == unscaled).float().mean()


def test_a_pgd_pass_whose_gradients_overflow_is_no_result(images):
    network = build("lenet5", 4, size=8)
    loss = on_outputs(Frozen(network, "float16"), lambda logits, features, labels: 1e9 * logits.sum())
    with pytest.raises(FloatingPointError, match="pgd pass: a gradient is not finite"):
        pgd_pass = PGDPass(images, loss, batch=24, budget=Budget(8 / 255), steps=2, order=torch.Generator())
        pgd_pass(torch.zeros(images.x.shape, dtype=torch.float16), 1 / 255)


def test_an_attack_on_a_network_that_is_sure_goes_the_same_way_in_float16(images):
    attack = AdversarialTraining(8 / 255, 1, 1 / 255)
    sure = Images(images.x, torch.zeros_like(images.y), images.classes)
    found = []

    class Watching(Defense):
        def batch(self, x, y, moment):
            found.append(attack.batch(x, y, moment)[0])
            return x.float() / 255, y

    for number in ("float32", "float16"):
        network = build("lenet5", 4, size=8)
        network.head.bias.data[0] = 14.0
        recipe = replace(SHORT, epochs=1, batch=len(images), lr=1e-9, precision=number)
        list(loop.epochs(network, sure, recipe, defense=Watching(), device="cpu"))
    exact, halved = found
    assert ((exact - halved).abs() < 1e-4).float().mean() > 0.95


@pytest.mark.parametrize(("method", "options"), [("pue", {}), ("uc", {"pretext": "labels"})])
def test_training_and_steps_through_a_surrogate_are_of_the_precision_that_the_record_tells(
    method, options, images, monkeypatch
):
    dtypes, once = set(), F.linear

    def linear(*args):
        made = once(*args)
        if made.requires_grad:
            dtypes.add(made.dtype)
        return made

    monkeypatch.setattr(F, "linear", linear)
    how = METHOD[method] | options | {"precision": "bfloat16"}
    poison = perturb(images, method, preset="quick", surrogate="lenet5", device="cpu", **how, cache=False)
    assert poison.record["precision"] == "bfloat16" and dtypes == {torch.bfloat16}


def test_the_losses_of_uc_are_told_without_the_scale_of_float16(images):
    exact, halved = (
        perturb(
            images,
            "uc",
            preset="quick",
            surrogate="lenet5",
            device="cpu",
            precision=number,
            **METHOD["uc"],
            cache=False,
        )
        for number in ("float32", "float16")
    )
    first, second = (made.record["notes"]["clusters"][0]["losses"][0] for made in (exact, halved))
    assert first == pytest.approx(second, rel=0.2)


@pytest.mark.parametrize(("method", "number"), [("mi_ue", "bfloat16"), ("em", "float16"), ("lsp", "float32")])
def test_the_record_of_a_perturbation_tells_its_precision(images, method, number):
    changes = {} if method == "lsp" else {"precision": number, "epochs": 1, "steps": 1}
    poison = perturb(images, method, preset="quick", surrogate="lenet5", device="cpu", **changes, cache=False)
    assert poison.record["precision"] == number
