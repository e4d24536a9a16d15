"""AUE and AAP: what they make is found in views of the images, and training and steps see nothing else."""

from statistics import mean

import pytest
import torch
from samples import some_images

from miue import seeds
from miue.poisons import options, perturb
from miue.poisons.base import surrogate_network
from miue.poisons.methods import aue_aap
from miue.training import loop
from miue.training.views import Viewed, draw_views

MODEL = "small_resnet"
AAP = {"epochs": 12, "lr": 0.05, "batch": 12, "steps": 20, "step": 4 / 255, "pass_batch": 24, "strength": 0.5}
AUE = {"epochs": 6, "lr": 0.05, "batch": 12, "step": 4 / 255, "pass_batch": 24, "strength": 0.5}


def tinted():
    """Noise in which red, green or blue stands out: a few epochs learn it, and a small perturbation changes it."""
    noise = some_images(classes=3, size=12)
    tint = 24 * torch.eye(3, dtype=torch.uint8)[noise.y, :, None, None]
    return noise.with_pixels(noise.x // 4 + 80 + tint)


def make(images, method, **settings):
    common = {"preset": "quick", "device": "cpu", "surrogate": MODEL, "epsilon": 24 / 255, "cache": False}
    return perturb(images, method, **common | {"aap": AAP, "aue": AUE}[method] | settings)


@pytest.fixture(scope="module")
def images():
    return tinted()


@pytest.fixture(scope="module")
def surrogate(images):
    """The network that made the adversarial poisons: trained on views of the clean images."""
    recipe = options("aap", "quick", **AAP).surrogate
    network = surrogate_network(MODEL, images, 0)
    for _ in loop.epochs(network, images, recipe, seed=seeds.surrogate(0), device="cpu", defense=Viewed(0.5)):
        pass
    return network.eval()


@torch.no_grad()
def answers(network, images, draws=8):
    """What a network takes views of the images for, (draws, N)."""
    generator = torch.Generator().manual_seed(5)
    seen = [draw_views(images.x.float() / 255, strength=0.5, generator=generator) for _ in range(draws)]
    return torch.stack([network(views)[0].argmax(1) for views in seen])


def test_views_of_a_poison_are_taken_for_the_next_class(images, surrogate):
    following = (images.y + 1) % 3
    before, after = (answers(surrogate, x) for x in (images, make(images, "aap").apply(images)))
    assert (before == following).float().mean() < 0.4
    assert (after == following).float().mean() > 0.7


def test_untargeted_views_are_no_longer_taken_for_their_class(images, surrogate):
    before, after = (answers(surrogate, x) for x in (images, make(images, "aap", targeted=False).apply(images)))
    assert (before == images.y).float().mean() > 0.6
    assert (after == images.y).float().mean() < 0.2


def test_noise_of_aue_makes_views_of_what_cannot_be_learned_easy():
    noise = some_images(n=48, classes=3, size=12)
    weak, strong = (make(noise, "aue", epsilon=levels / 255).record["notes"]["epochs"] for levels in (1, 24))
    found = [mean(row["surrogate_accuracy"] for row in rows[-3:]) for rows in (weak, strong)]
    assert found[1] > found[0] + 0.15
    assert strong[-1]["surrogate_loss"] < 0.8 * weak[-1]["surrogate_loss"]
    assert [row["epoch"] for row in strong] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", ["aue", "aap"])
def test_every_batch_of_training_and_every_step_sees_fresh_views_of_its_strength(images, method, monkeypatch):
    seen = []

    def note(x, *, strength, generator):
        seen.append((x.requires_grad, strength, generator.get_state().numpy().tobytes()))
        return draw_views(x, strength=strength, generator=generator)

    monkeypatch.setattr(aue_aap, "draw_views", note)
    monkeypatch.setattr("miue.training.views.draw_views", note)
    make(images, method, epochs=2, steps=3, strength=0.3)
    trained = [one for one in seen if not one[0]]
    stepped = [one for one in seen if one[0]]
    assert len(trained) == 2 * 4 and len(stepped) == 3 * 2 * (2 if method == "aue" else 1)
    assert {strength for _, strength, _ in seen} == {0.3}
    assert len({state for *_, state in stepped}) == len(stepped)


def test_the_strength_takes_part(images):
    for method in ("aue", "aap"):
        assert not torch.equal(make(images, method, epochs=1).delta, make(images, method, epochs=1, strength=0.0).delta)


def test_aue_follows_its_surrogate_and_aap_begins_from_none(images):
    """A pgd pass moves no farther than its steps; those of AUE add up over the epochs."""
    one, two = (make(images, "aue", epochs=n, steps=1, step=1 / 255).delta.abs().max() for n in (1, 2))
    assert (one, two) == (1, 2)
    assert make(images, "aap", epochs=1, steps=3, step=1 / 255).delta.abs().max() == 3


def test_the_paper_presets_are_the_published_ones():
    aue, aap = options("aue", "paper"), options("aap", "paper")
    assert (aue.passes, aue.steps, aue.strength, aue.pass_batch) == (60 * 6, 5, 0.6, 128)
    assert (aap.passes, aap.steps, aap.strength, aap.targeted) == (40 + 250, 250, 0.4, True)
    assert (255 * aue.step, 255 * aap.step * aap.steps) == pytest.approx((0.8, 2.5 * 8))
    for method in ("aue", "aap"):
        quick, laptop = (options(method, preset) for preset in ("quick", "laptop"))
        assert quick.passes == 60 and laptop.passes <= 165
        assert (
            min(one.steps * one.step * (one.surrogate.epochs if method == "aue" else 1) for one in (quick, laptop))
            > 8 / 255
        )
