"""One contract for every method, and what is particular to each."""

import json

import pytest
import torch
from safetensors.torch import save_file
from samples import pictures

from miue import Images, poisons
from miue.errors import InputError
from miue.models import build, forward
from miue.poisons import METHODS, Poison, generate
from miue.poisons.base import balanced_batches

SMALL = {
    "mi_ue": {"epochs": 2, "steps": 2, "sweep_batch": 24, "batch": 16},
    "em": {"epochs": 2, "steps": 2, "sweep_batch": 24, "batch": 16, "batches_per_epoch": 2},
    "random": {},
}


def small(method, images, **settings):
    return generate(method, images, preset="quick", device="cpu", **{**SMALL[method], **settings})


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.mark.parametrize(
    "kind", [{}, {"channels": 1}, {"classes": 3}, {"n": 100, "classes": 50}], ids=["rgb", "grey", "3", "50 classes"]
)
def test_budget_and_range_hold_exactly_and_something_moves(method, kind):
    images = pictures(**kind)
    poison = small(method, images, epsilon=4 / 255)
    assert poison.delta.dtype == torch.int8 and poison.delta.shape == images.x.shape
    assert 1 <= poison.delta.abs().max() <= 4
    moved = images.x.int() + poison.delta
    assert moved.min() >= 0 and moved.max() <= 255
    assert torch.equal(poison.apply(images).x.int(), moved)
    assert (poison.delta < 0).any() and (poison.delta > 0).any()


def test_the_seed_decides_bit_for_bit(method, images):
    one, same, other = (small(method, images, seed=s).delta for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_order_does_not_matter(method, images):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    shuffled = images.subset(order)
    one, other = small(method, images), small(method, shuffled)
    assert torch.equal(one.apply(images).x, other.apply(images).x)
    assert torch.equal(one.apply(shuffled).x, one.apply(images).x[order])


def test_what_is_saved_is_what_is_loaded(method, images, tmp_path):
    poison = small(method, images)
    poison.save(tmp_path / "a.safetensors")
    again = Poison.load(tmp_path / "a.safetensors")
    assert torch.equal(again.delta, poison.delta)
    assert again.record == json.loads(json.dumps(poison.record))
    assert torch.equal(again.apply(images).x, poison.apply(images).x)


def test_the_record_says_how_it_was_made(method, images):
    record = small(method, images, seed=3).record
    assert (record["method"], record["seed"], record["levels"]) == (method, 3, 8)
    assert record["data"]["content_hash"] == images.content_hash
    assert {"torch", "device", "commit", "code", "seconds", "options"} <= record.keys()


def test_every_preset_exists_and_refuses_unknown_options(method):
    for preset in ("quick", "laptop", "paper"):
        poisons.options(method, preset)
    with pytest.raises(InputError, match=f"{method} option: 'speed' does not exist"):
        poisons.options(method, "quick", speed=1)
    with pytest.raises(InputError, match="preset: 'slow' does not exist; choose one of quick, laptop, paper"):
        poisons.options(method, "slow")


def test_options_of_the_source_recipe_can_be_changed():
    changed = poisons.options("mi_ue", "paper", epochs=7, steps=3)
    assert (changed.source.epochs, changed.steps, changed.source.batch) == (7, 3, 128)
    with pytest.raises(InputError, match=r"mi_ue option steps: 1\.5 is no int"):
        poisons.options("mi_ue", "quick", steps=1.5)
    with pytest.raises(InputError, match="temperature: 0; it must be above 0"):
        poisons.options("mi_ue", "quick", temperature=0)


def test_the_paper_preset_is_the_papers():
    paper = poisons.options("mi_ue", "paper")
    assert (paper.source.epochs, paper.steps, paper.sweep_batch) == (100, 10, 512)
    assert (paper.temperature, paper.zeta) == (0.1, 0.1)
    assert (paper.step * 255, paper.last_step * 255) == pytest.approx((0.2, 0.4))
    assert (paper.source.lr, paper.source.momentum, paper.source.weight_decay) == (0.1, 0.9, 1e-4)
    assert (paper.source.batch, paper.source.schedule) == (128, "cosine")


def test_mi_ue_lowers_its_loss_and_points_classes_apart():
    images = pictures(n=64)
    poison = small("mi_ue", images, epochs=6, steps=5, sweep_batch=64)
    trace = poison.record["notes"]["epochs"]
    assert [row["epoch"] for row in trace] == [1, 2, 3, 4, 5, 6]
    assert trace[-1]["similarity"] < 0.7 * trace[0]["similarity"]


def test_em_makes_pictures_easy_and_says_why_it_stopped():
    images = pictures(n=64)
    notes = small("em", images, epochs=15, steps=10, batches_per_epoch=4).record["notes"]
    assert notes["stopped_by"] == "accuracy" and notes["rounds"][-1]["accuracy_on_perturbed"] > 0.99
    assert small("em", images, epochs=1, steps=1).record["notes"]["stopped_by"] == "number of rounds"


def test_uniform_noise_is_uniform_and_sign_noise_is_all_or_nothing():
    images = Images(torch.full((200, 3, 8, 8), 128, dtype=torch.uint8), torch.arange(200) % 2)
    uniform = generate("random", images, preset="quick").delta
    share = (uniform.flatten() + 8).bincount(minlength=17) / uniform.numel()
    assert share.min() > 0.9 / 17 and share.max() < 1.1 / 17
    assert generate("random", images, kind="sign").delta.abs().unique().tolist() == [8]


def test_batches_hold_every_picture_once_and_every_class_in_proportion():
    labels = torch.cat([torch.zeros(60), torch.ones(30), torch.full((10,), 2)]).long()
    batches = balanced_batches(labels, 20, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    for batch in batches:
        counts = labels[batch].bincount(minlength=3)
        assert abs(int(counts[0]) - 12) <= 1 and abs(int(counts[1]) - 6) <= 1 and abs(int(counts[2]) - 2) <= 1


def test_the_folded_copy_has_the_networks_gradients():
    from torch.fx.experimental.optimization import fuse

    torch.manual_seed(0)
    for name in ("small_resnet", "resnet18"):
        network = build(name, 4, size=16)
        network.train()
        forward(network, torch.rand(8, 3, 16, 16))  # statistics that are not the initial ones
        x = torch.rand(4, 3, 16, 16, requires_grad=True)
        network.eval()
        gradients = [torch.autograd.grad(forward(m, x)[1].square().sum(), x)[0] for m in (network, fuse(network))]
        # A unit that rounding moves across zero changes single entries, hence the norm.
        assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[0].norm()


def test_pictures_other_than_those_it_was_made_for_are_refused(images, tmp_path):
    poison = small("random", images)
    x = images.x.clone()
    x[3, 0, 0, 0] ^= 1
    relabelled = Images(images.x, (images.y + 1) % 4, images.classes)
    for other in (Images(x, images.y, images.classes), relabelled):
        with pytest.raises(InputError, match=r"was made for other images \(content hash .* differ in pixels or label"):
            poison.apply(other)
    with pytest.raises(InputError, match="12 of the 60 pictures of noise have no row"):
        poison.apply(pictures(n=60))
    poison.save(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors was made for other images"):
        Poison.load(tmp_path / "a.safetensors").apply(pictures(seed=5))


def test_files_that_are_no_perturbation_are_refused(images, tmp_path):
    file = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match=r"a\.safetensors does not exist"):
        Poison.load(file)
    small("random", images).save(file)
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-1000], b"", b"not a tensor file at all"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.safetensors is damaged or no perturbation file"):
            Poison.load(file)
    save_file({"delta": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="is damaged or no perturbation"):
        Poison.load(file)
    tensors = {"delta": torch.zeros(2, 3, 8, 8), "ids": torch.arange(2), "fingerprints": torch.arange(2)}
    save_file(tensors, file, {"miue": "{}"})
    with pytest.raises(InputError, match=r"must be \(N, C, H, W\) int8"):
        Poison.load(file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: 'magic' does not exist; choose one of mi_ue, em, random"),
        ({"epsilon": 0}, "epsilon: 0 is out of range"),
        ({"epsilon": "128/255"}, "epsilon: .* out of range"),
        ({"epsilon": float("nan")}, "epsilon: nan is out of range"),
        ({"model": "resnet99"}, "model: 'resnet99' does not exist"),
        ({"preset": "slow"}, "preset: 'slow' does not exist"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, message, images, monkeypatch):
    monkeypatch.setattr(poisons, "make", None)
    with pytest.raises(InputError, match=message):
        generate(**{"method": "mi_ue", "images": images, **arguments})


def test_one_class_is_refused():
    with pytest.raises(InputError, match="has 1 class; at least two"):
        generate("random", pictures(classes=1))


@pytest.mark.slow
def test_quick_mi_ue_makes_digits_unlearnable():
    """The promise of the quick preset: from about 90 % to under 25 %; random noise does nothing."""
    import miue
    from miue.train import accuracy, fit

    train, test = miue.load("digits_m")
    clean = accuracy(fit(train, "small_resnet", "quick"), test)
    noise = accuracy(fit(generate("random", train).apply(train), "small_resnet", "quick"), test)
    mi_ue = accuracy(fit(generate("mi_ue", train, preset="quick").apply(train), "small_resnet", "quick"), test)
    assert clean > 0.85 and noise > clean - 0.05 and mi_ue < 0.25
