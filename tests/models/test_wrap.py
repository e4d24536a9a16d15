"""Networks of timm, torchvision, transformers and one's own as victims and surrogates."""

import copy
from functools import cache

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from samples import some_images
from torch import fx, nn

from miue import perturb, poisons, train_victim
from miue.errors import InputError
from miue.models import build, forward, stages, wrap
from miue.models.frozen import Frozen
from miue.poisons.passes import on_outputs
from miue.training import features
from miue.victim import Victim, find_victim

HALF = {"mean": 0.5, "std": 0.25}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SHORT = {"recipe": "quick", "epochs": 1, "batch": 8, "device": "cpu"}
ROUND = {"preset": "quick", "epochs": 1, "steps": 1, "batches_per_epoch": 2, "batch": 8, "device": "cpu"}


def vit_of_transformers(**changes):
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=4, **small | changes)
    return transformers.ViTForImageClassification(config)


@cache
def module(library):
    """The module, and what `wrap` has to be told about it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "torchvision":
            return torchvision.models.resnet50(weights=None, num_classes=4).eval(), IMAGENET
        if library == "timm":
            vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=4, img_size=32, depth=2)
            nn.init.normal_(vit.head.weight, std=0.1)  # instead of zeros
            return vit.eval(), {}
        return vit_of_transformers().eval(), HALF


LIBRARIES = [pytest.param("torchvision", marks=pytest.mark.slow), "timm", "transformers"]


class Small(nn.Module):
    """A convolution, a mean over space and `last`, which makes of (B, 8) features what is returned."""

    def __init__(self, last, stride=1):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, stride), last

    def forward(self, x):
        return self.last(self.conv(x).relu().mean((2, 3)))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.coarse, self.fine = nn.Linear(8, 2), nn.Linear(8, 4)

    def forward(self, x):
        return self.coarse(x), self.fine(x)


class Own(nn.Module):
    """Somebody's own network, which keeps to the contract without `wrap`; fx cannot follow it."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, classes)

    def forward(self, x):
        features = self.norm(self.conv(x)).relu().mean((2, 3))
        if features.sum() < -1:
            raise ValueError("never")
        return self.head(features), features


def same_weights(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
def test_logits_are_the_modules_own_and_features_feed_its_head(library):
    theirs, told = module(library)
    network, x = wrap(theirs, **told), torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(network.spec[name]).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        own = theirs((x - mean) / std)
        logits, found = network(x)
    assert torch.equal(logits, getattr(own, "logits", own)) and logits.std() > 0
    assert torch.equal(network.head(found), logits) and found.shape == (3, network.head.in_features)


def test_the_normalisation_is_the_one_that_timm_carries_or_that_was_said():
    assert wrap(module("timm")[0]).spec["mean"] == [0.5] * 3
    assert wrap(module("timm")[0], mean=0.25, std=1).spec["mean"] == [0.25] * 3
    network = wrap(timm.create_model("mobilenetv3_small_050", num_classes=4), name="tiny")
    assert network.spec["std"] == [0.229, 0.224, 0.225] and "std=[0.229, 0.224, 0.225]" in repr(network)
    assert network.spec["name"] == "wrap(tiny)"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_module_learns_as_a_victim_and_stays_as_it_is(library):
    theirs, told = module(library)
    before, images = copy.deepcopy(theirs), some_images(n=16, size=32)
    network = wrap(theirs, **told)
    one, two = (train_victim(images, images, model=network, **SHORT) for _ in range(2))
    assert same_weights(one.model, two.model) and not same_weights(one.model, network)
    assert same_weights(theirs, before) and theirs.state_dict().keys() == before.state_dict().keys()
    assert features(one.model, images).shape == (16, network.head.in_features)
    assert one.record["model"] == f"{network.spec['name']} (handed over)"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method", ["em", "mi_ue"])
def test_a_module_shapes_a_perturbation(library, method):
    theirs, told = module(library)
    network, images = wrap(theirs, **told), some_images(n=16, size=32)
    one, two = (perturb(images, method, surrogate=network, **ROUND) for _ in range(2))
    assert torch.equal(one.delta, two.delta) and one.record["surrogate"] == f"{network.spec['name']} (handed over)"
    named = perturb(images, method, surrogate="small_resnet:width=0.1", **ROUND)
    assert not torch.equal(one.delta, named.delta)


@pytest.mark.parametrize(
    "method",
    ["pue:draws=1", "tap:restarts=1", "rem", "tue:rounds=1", "gue:epochs=1", "uc:clusters=2:pretext=untrained"],
)
def test_every_method_takes_a_module(method):
    short = {"epochs": 1, "steps": 1} if method == "rem" else {"epochs": 1} if method[:3] in ("pue", "tap") else {}
    network = wrap(vit_of_transformers(), **HALF)
    poison = perturb(some_images(n=16, size=32), method, surrogate=network, preset="quick", device="cpu", **short)
    assert poison.delta.abs().max() > 0


def test_images_of_another_size_are_resized_and_gradients_reach_them():
    network, x = wrap(module("transformers")[0], **HALF), torch.rand(2, 3, 20, 24, requires_grad=True)
    logits, _ = network(x)
    larger = F.interpolate(x.detach(), (32, 32), mode="bilinear", antialias=True)
    assert torch.equal(logits, network(larger)[0])
    logits.square().sum().backward()
    assert (x.grad != 0).all()


def test_a_network_that_takes_any_size_is_left_alone_unless_told():
    seen = []
    theirs = Small(nn.Linear(8, 4))
    theirs.conv.register_forward_pre_hook(lambda layer, inputs: seen.append(tuple(inputs[0].shape[2:])))
    for size in (None, 16, (16, 20)):
        wrap(theirs, size=size, **HALF)(torch.rand(1, 3, 12, 12))
        assert seen[-1] == {None: (12, 12), 16: (16, 16)}.get(size, size)
    assert wrap(vit_of_transformers(), **HALF).spec["size"] == [32, 32]
    with pytest.raises(InputError, match=r"size: the ViTForImageClassification fails on images of 3 x 64 x 64; say"):
        wrap(vit_of_transformers(), size="any", **HALF)


def test_a_head_is_found_wherever_it_is_and_can_be_named():
    assert wrap(Small(nn.Sequential(nn.Dropout(), nn.Linear(8, 4))), **HALF).spec["head"] == "last.1"
    named = wrap(Small(Both()), head="last.fine", **HALF)
    logits, found = named(torch.rand(2, 3, 16, 16))
    assert logits.shape == (2, 4) and torch.equal(named.head(found), logits)


low = nn.Linear(8, 4)
nn.init.constant_(low.bias, -10.0)  # so that what is below zero, and cut off, is not left to chance


@pytest.mark.parametrize(
    ("theirs", "told", "message"),
    [
        (
            Small(nn.Identity()),
            HALF,
            "module: no nn.Linear of the Small gives what it returns, so it has no linear head",
        ),
        (Small(nn.Sequential(nn.Linear(8, 4), nn.Softmax(1))), HALF, "module: no nn.Linear of the Small gives what"),
        (Small(nn.Sequential(low, nn.ReLU(inplace=True))), HALF, "head: 'last.0'; the logits of the Small"),
        (Small(Both()), HALF, "head: the Small has 2 that give what it returns, last.coarse and last.fine; name one"),
        (Small(Both()), {"head": "last", **HALF}, "head: 'last'; what the Small returns is given by last.coarse and"),
        (
            Small(nn.Linear(8, 4)),
            {},
            "mean: missing, and the Small carries none; weights of ImageNet usually want mean",
        ),
        (Small(nn.Linear(8, 4)), {"mean": 0.5}, "std: missing, and the Small carries none"),
        (Small(nn.Linear(8, 4)), {"mean": 0.5, "std": 0}, r"std: 0; the images lie in \[0, 1\]"),
        (Small(nn.Linear(8, 4)), {"mean": 123.7, "std": 1}, r"mean: 123.7; the images lie in \[0, 1\]"),
        (Small(nn.Linear(8, 4)), {"mean": (0.1, 0.2, 0.3), "std": (1, 1)}, "it must have as many numbers as the mean"),
        (Small(nn.Linear(8, 4)), {"mean": "half", "std": 1}, "mean: 'half'; it must be one number"),
        (Small(nn.Linear(8, 4)), {"size": "small", **HALF}, "size: 'small'; it must be pixels"),
        (nn.Linear, HALF, "module: a type; it must be a torch.nn.Module"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_in_one_line(theirs, told, message):
    with pytest.raises(InputError, match=message) as error:
        wrap(theirs, **told)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (wrap(Small(nn.Linear(8, 10)), **HALF), r"model: wrap\(Small\) .* has 10 logits; it must have 4"),
        (lambda classes, channels, size: Own(9), "model: .*<lambda> .* has 9 logits; it must have 4"),
        (Small(nn.Linear(8, 4)), "model: Small .* does not return .*; hand over miue.models.wrap"),
        (nn.Sequential(), "does not return .*; hand over miue.models.wrap"),
        (timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=8, patch_size=4, depth=1), "hand over miue"),
        (lambda classes, channels, size: "resnet18", "<lambda> .* made a str; it must make a network"),
        (
            wrap(Small(nn.Linear(8, 4)), size="any", mean=[0.5] * 3, std=1),
            "fails on images of 1 x 8 x 8 .*the network takes 3",
        ),
        (3, "model: a int; it must be a name, a network, or a function"),
    ],
)
def test_objects_that_do_not_fit_are_refused_in_one_line(model, message):
    images = some_images(channels=1 if "1 x 8" in message else 3)
    for use in (lambda: train_victim(images, model=model, **SHORT), lambda: perturb(images, "em", surrogate=model)):
        with pytest.raises(InputError, match=message) as error:
            use()
        assert "\n" not in str(error.value)


def test_a_function_makes_a_network_whose_weights_the_seed_decides(images):
    def made(classes, channels, size):
        return wrap(nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes)), size=size, **HALF)

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build(made, 4, size=(8, 12), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert same_weights(one, same) and not same_weights(one, other) and one.head.in_features == 3 * 8 * 12
    assert train_victim(images, model=made, **SHORT).record["model"].endswith("made (handed over)")


def test_a_surrogate_is_cached_only_where_it_says_what_determines_it(images, monkeypatch):
    made, make = [], poisons.make
    monkeypatch.setattr(poisons, "make", lambda *given: made.append(0) or make(*given))
    network = wrap(Small(nn.Linear(8, 4)), **HALF)
    for determined_by, count in ((None, 2), ("a", 3), ("a", 3), ({"b": [1]}, 4), ({"b": [1]}, 4), ("b", 5)):
        network.determined_by = determined_by
        for _ in range(2):
            perturb(images, "em", surrogate=network, **ROUND)
        assert len(made) == count
    network.determined_by = torch.rand(2)
    with pytest.raises(InputError, match="determined_by: a Tensor; it must be text or JSON"):
        perturb(images, "em", surrogate=network, **ROUND)


def test_a_victim_of_an_object_is_kept_nowhere_and_a_file_cannot_hold_it(images, tmp_path):
    network = wrap(Small(nn.Linear(8, 4)), **HALF)
    network.determined_by = "nothing that helps"
    victim = train_victim(images, images, model=network, **SHORT)
    stranger = {"seed": 0, "twin": "none", "surrogate_seed": None, "defense": None}
    assert find_victim(images, images, model=network, **stranger, **SHORT) is None
    with pytest.raises(InputError, match=r"victim: a file cannot tell how to build its wrap\(Small\) again"):
        victim.save(tmp_path / "v.safetensors")
    with pytest.raises(InputError, match=r"start: beside wrap\(Small\) .*; load its weights into that network"):
        train_victim(images, model=network, start=victim, **SHORT)
    with pytest.raises(InputError, match="stages of a Wrapped are unknown"):
        stages.layers(network)


def test_a_trained_network_of_this_package_can_be_handed_over_and_saved(images, tmp_path):
    first = train_victim(images, images, **SHORT)
    victim = train_victim(images, images, model=first.model, lr=1e-12, weight_decay=0.0, **SHORT)
    assert torch.allclose(victim.model.head.weight, first.model.head.weight, atol=1e-6)
    assert victim.record["model"] == "small_resnet (handed over)"
    victim.save(tmp_path / "v.safetensors")
    assert same_weights(Victim.load(tmp_path / "v.safetensors").model, victim.model)


@pytest.mark.parametrize("traceable", [True, False])
def test_a_loss_is_that_of_the_network_as_it_stood(traceable):
    theirs = wrap(torchvision.models.resnet18(num_classes=4), **HALF) if traceable else Own()
    network, x = build(theirs, 4).train(), torch.rand(4, 3, 32, 32, requires_grad=True)
    frozen = Frozen(network)
    loss = on_outputs(frozen, lambda logits, features, labels: logits.square().sum() + features.square().sum())
    logits, features = forward(network.eval(), x)
    expected = float((logits.square().sum() + features.square().sum()).detach())
    with torch.no_grad():
        network.train().head.weight.mul_(2)
    found = loss(x, None)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.backward()
    assert all(weight.grad is None for weight in network.parameters())
    assert traceable == isinstance(frozen.folded, fx.GraphModule)
