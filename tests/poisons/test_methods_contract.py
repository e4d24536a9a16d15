"""One contract for every method and the variants of the paper; what is particular to each stands in its own file."""

import json

import pytest
import torch
from samples import some_images

from miue import poisons
from miue.errors import InputError
from miue.poisons import METHODS, Poison, perturb
from miue.specs import parse
from miue.storage.checkpoint import Checkpoint

SMALL = {
    "mi_ue": {"epochs": 2, "steps": 2, "pass_batch": 24, "batch": 16},
    "em": {"epochs": 2, "steps": 2, "pass_batch": 24, "batch": 16, "batches_per_epoch": 2},
    "rem": {"epochs": 2, "pass_batch": 24, "batch": 16},
    "sem": {"epochs": 2, "pass_batch": 24, "batch": 16},
    "tap": {"epochs": 2, "steps": 2, "pass_batch": 24, "batch": 16, "restarts": 2},
    "aue": {"epochs": 2, "steps": 2, "pass_batch": 24, "batch": 16},
    "aap": {"epochs": 2, "steps": 4, "pass_batch": 24, "batch": 16, "step": 1 / 255},
    "entf": {"epochs": 2, "steps": 2, "pass_batch": 24, "batch": 16},
    "llock": {"epochs": 2, "steps": 4, "pass_batch": 24, "batch": 16, "step": 4 / 255},
    "tue": {"rounds": 2, "batch": 24},
    "gue": {"epochs": 1, "width": 2, "inner_steps": 2, "batch": 48},
    "pue": {"epochs": 2, "draws": 2, "pass_batch": 24, "batch": 16, "batches_per_epoch": 2},
    "uc": {"epochs": 1, "clusters": 3, "epochs_of_generator": 2, "width": 8, "batch": 24},
    "ar": {},
    "lsp": {},
    "gratings": {},
    "weave": {},
    "pil": {"epochs": 2, "steps": 10, "batch": 16, "pass_batch": 24},
    "ops": {},
    "cuda": {},
    "dune": {"epochs": 2, "steps": 2, "members": 2, "pass_batch": 24, "batch": 16, "particles": 2, "moves": 2},
    "random": {},
}
"""What makes a method quick on the images of the tests: one row each."""

VARIANTS: list[str] = [
    "weave:woven=all:aligned=false",
    "mi_ue:interleaved=true",
    "mi_ue:content_flips=true",
    "mi_ue:agreement=1",
    "mi_ue:objective=information",
    "mi_ue:balance=loss",
    "mi_ue:balance=batches",
    "em:mine=-0.1",
    "em:scope=class",
    "em:mine=0.1",
    "tap:mine=0.1",
    "tap:targeted=false",
    "aap:targeted=false",
    "entf:kind=pull",
    "pue:scope=sample:steps=2",
    "uc:pretext=untrained",
    "uc:pretext=labels",
    "mi_ue:zeta=0",
    "mi_ue:similarity=false",
    "mi_ue:eot=2",
    "mi_ue:surrogate_epsilon=4/255:surrogate_steps=1",
]
"""Variants under the same contract, as `miue.specs` writes them; the row of their method applies too."""

QUICK = {"ar", "lsp", "gratings", "weave", "pil", "ops", "cuda", "random"}
"""Methods that take seconds at any scale and keep no checkpoint."""

SEEDLESS = {"ops"}
"""Methods that draw nothing: OPS chooses by looking at each class."""

FAMILIES = ["em", "aue", "entf", "llock", "tue", "gue", "pue", "uc", "ar", "lsp", "cuda", "dune"]
"""One of each kind, for images of 224 px: steps along a network's gradient, views, centres, maps, pairs, generators,
noise, filters, swarms."""

KINDS = {
    "rgb": {},
    "grey": {"channels": 1},
    "3 classes": {"classes": 3},
    "100 classes": {"n": 200, "classes": 100},
    "12 px": {"size": 12, "n": 24},
}


@pytest.fixture
def stops(monkeypatch):
    """Make every computation stop as soon as it has kept its state."""

    class Stop(Exception):
        pass

    save = Checkpoint.save

    def stop(self, done, last=False):
        save(self, done, last=True)
        if self._folder is not None:
            raise Stop

    monkeypatch.setattr(Checkpoint, "save", stop)
    return Stop


def small(spec, images, cache=False, **settings):
    method, options = parse(spec)
    return perturb(images, method, preset="quick", device="cpu", cache=cache, **SMALL[method] | options | settings)


@pytest.fixture(scope="module", params=[*METHODS, *VARIANTS])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def poison(method):
    """What most of the contract is held against: made once, with the seed 0 and the usual budget."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made = small(method, some_images())
    assert torch.equal(torch.rand(1), expected), "the global random state is not left alone"
    return made


@pytest.mark.parametrize(
    ("method", "kind"),
    [(spec, "rgb") for spec in [*METHODS, *VARIANTS]]
    + [pytest.param(spec, kind, marks=pytest.mark.slow) for spec in METHODS for kind in KINDS if kind != "rgb"],
)
def test_budget_and_range_hold_exactly_and_something_moves(method, kind):
    images = some_images(**KINDS[kind])
    poison = small(method, images, epsilon=4 / 255)
    bounded = METHODS[parse(method)[0]].bounded
    assert poison.delta.dtype == (torch.int8 if bounded else torch.int16) and poison.delta.shape == images.x.shape
    assert 1 <= poison.delta.abs().max() <= (4 if bounded else 255)
    moved = images.x.int() + poison.delta
    assert moved.min() >= 0 and moved.max() <= 255
    assert torch.equal(poison.apply(images).x.int(), moved)
    assert (poison.delta < 0).any() and (poison.delta > 0).any()


@pytest.mark.slow
def test_epsilon_is_used_and_not_only_respected(method, images):
    if METHODS[parse(method)[0]].bounded:
        assert small(method, images, epsilon=1 / 255).delta.abs().max() == 1
        assert small(method, images, epsilon=16 / 255).delta.abs().max() > 1


def test_the_seed_alone_decides_bit_for_bit_and_the_order_does_not_matter(method, images, poison):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    shuffled = images.subset(order)
    same, other = small(method, shuffled), small(method, images, seed=1)
    assert torch.equal(poison.delta, same.delta) and torch.equal(poison.delta, other.delta) == (method in SEEDLESS)
    assert torch.equal(poison.apply(shuffled).x, poison.apply(images).x[order])


def test_what_is_saved_is_what_is_loaded(images, poison, tmp_path):
    poison.save(tmp_path / "a.safetensors")
    again = Poison.load(tmp_path / "a.safetensors")
    assert torch.equal(again.delta, poison.delta)
    assert again.record == json.loads(json.dumps(poison.record))
    assert torch.equal(again.apply(images).x, poison.apply(images).x)


def test_the_record_says_how_it_was_made(method, images, poison):
    record = poison.record
    assert (record["method"], record["seed"]) == (parse(method)[0], 0)
    assert record["levels"] == 8 if record["bounded"] else record["epsilon"] is None and record["levels"] > 8
    assert record["data"]["content_hash"] == images.content_hash
    assert {"torch", "device", "commit", "code", "seconds", "options", "passes"} <= record.keys()


def test_every_preset_exists_says_its_cost_and_refuses_unknown_options(method):
    name, changes = parse(method)
    costs = [poisons.options(name, preset, **changes).passes for preset in ("quick", "laptop", "paper")]
    assert 0 <= costs[0] <= costs[1] <= costs[2]
    with pytest.raises(InputError, match=f"{name} option: 'speed' does not exist"):
        poisons.options(name, "quick", speed=1)
    with pytest.raises(InputError, match="preset: 'slow' does not exist; choose one of quick, laptop, paper"):
        poisons.options(name, "slow")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [*((name, 64) for name in METHODS), *((name, 224) for name in FAMILIES)])
def test_larger_images_are_perturbed_too(name, size):
    images = some_images(n=8, classes=2, size=size)
    assert small(name, images).apply(images).shape == (3, size, size)


@pytest.mark.slow
def test_stopped_at_every_checkpoint_it_ends_as_if_never_stopped(method, poison, stops):
    images, stopped = some_images(), 0
    while True:
        try:
            resumed = small(method, images, cache=True)
            break
        except stops:
            stopped += 1
    assert torch.equal(resumed.delta, poison.delta)
    assert resumed.record["notes"] == poison.record["notes"]
    assert stopped >= 1 or parse(method)[0] in QUICK
