import pytest
import torch
from samples import some_images

from miue import seeds
from miue.pgd import Budget
from miue.poisons import options, perturb
from miue.poisons.base import surrogate_network
from miue.poisons.methods import tap
from miue.training import loop
from miue.training.augment import flip_crop

SETTINGS = {"epochs": 4, "lr": 0.05, "batch": 12, "steps": 8, "step": 6 / 255, "pass_batch": 24, "epsilon": 24 / 255}
MODEL = "small_resnet"


def tinted():
    """Noise in which red, green or blue stands out: a few epochs learn it, and a small perturbation changes it."""
    noise = some_images(classes=3)
    tint = 24 * torch.eye(3, dtype=torch.uint8)[noise.y, :, None, None]
    return noise.with_pixels(noise.x // 4 + 80 + tint)


def make(images, **settings):
    return perturb(images, "tap", preset="quick", device="cpu", surrogate=MODEL, **SETTINGS | settings, cache=False)


def clean_surrogate(images, seed=0, **settings):
    """The network that made the perturbation: trained on clean images alone."""
    recipe = options("tap", "quick", **{k: v for k, v in (SETTINGS | settings).items() if k != "epsilon"}).surrogate
    network = surrogate_network(MODEL, images, seed)
    for _ in loop.epochs(network, images, recipe, seed=seeds.surrogate(seed), device="cpu"):
        pass
    return network


@torch.no_grad()
def losses(images, network, targeted=True):
    logits = network.eval()(images.x.float() / 255)[0]
    return tap.loss_of_each(logits, images.y, targeted)


@pytest.fixture(scope="module")
def images():
    return tinted()


@pytest.fixture(scope="module")
def surrogate(images):
    return clean_surrogate(images)


@pytest.fixture(scope="module")
def poison(images):
    return make(images)


def test_the_clean_surrogate_takes_most_images_for_the_next_class(images, surrogate, poison):
    poisoned = poison.apply(images)
    answers = surrogate.eval()(poisoned.x.float() / 255)[0].argmax(1)
    clean_answers = surrogate(images.x.float() / 255)[0].argmax(1)
    following = (images.y + 1) % 3
    assert (clean_answers == following).float().mean() < 0.4
    assert (answers == following).float().mean() > 0.9


def test_the_notes_tell_the_loss_of_what_was_made(images, surrogate, poison):
    told = poison.record["notes"]["restarts"][-1]["lowest_loss"]
    assert told == pytest.approx(float(losses(poison.apply(images), surrogate).mean()), rel=1e-4)
    assert told < 0.5 * float(losses(images, surrogate).mean())


def test_every_restart_keeps_or_lowers_the_loss_of_each_image(images, surrogate, poison):
    three = make(images, restarts=3)
    one, best = losses(poison.apply(images), surrogate), losses(three.apply(images), surrogate)
    assert (best <= one + 1e-4).all() and (best < one - 1e-4).any()
    rows = three.record["notes"]["restarts"]
    assert rows[0] == poison.record["notes"]["restarts"][0]
    assert all(row["lowest_loss"] <= row["loss"] for row in rows)
    lowest = [row["lowest_loss"] for row in rows]
    assert lowest == sorted(lowest, reverse=True)


def test_the_last_class_is_followed_by_the_first():
    logits = torch.zeros(2, 3)
    logits[0, 0] = logits[1, 2] = 20.0
    assert tap.loss_of_each(logits, torch.tensor([2, 1]), targeted=True).max() < 1e-6
    assert tap.loss_of_each(logits, torch.tensor([2, 1]), targeted=False).max() < -10


def test_untargeted_raises_the_loss_of_the_right_class(images, surrogate):
    poisoned = make(images, targeted=False).apply(images)
    assert loop.accuracy(surrogate, images) > 0.9
    assert loop.accuracy(surrogate, poisoned) < 0.1


def test_augmentation_sees_the_sum_and_delta_stays_in_the_frame_of_its_image(images, monkeypatch):
    seen = []

    def record(x, **settings):
        if x.is_floating_point():
            seen.append(x.detach())
        return flip_crop(x, **settings)

    monkeypatch.setattr(tap, "flip_crop", record)
    make(images, epochs=1, steps=2, restarts=1, epsilon=4 / 255)
    assert len(seen) == 2 * 2
    moved = torch.cdist(torch.cat(seen).flatten(1), images.x.flatten(1).float() / 255, p=torch.inf)
    assert moved.min(1).values.max() <= 4 / 255 + 1e-6


def test_augmentation_changes_the_steps(images):
    plain = make(images, flip=False, crop=0)
    assert not torch.equal(plain.delta, make(images, flip=False, crop=2).delta)


def test_a_perturbation_is_made_for_a_image_and_not_for_a_class(poison, images):
    first = poison.delta[images.y == 0]
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_passes_count_training_steps_and_looks():
    paper = options("tap", "paper")
    assert paper.passes == 40 + 8 * 251
    assert options("tap", "quick").passes < 30 and options("tap", "laptop").passes < 120


def test_a_tiny_budget_is_kept(images):
    assert make(images, epochs=1, epsilon=1 / 255).delta.abs().max() <= Budget(1 / 255).levels
