import pytest
import torch
from samples import pictures

from miue import seeds, train
from miue.augment import flip_crop
from miue.pgd import Budget
from miue.poisons import generate, options, tap
from miue.poisons.base import source_network

SETTINGS = {"epochs": 4, "lr": 0.05, "batch": 12, "steps": 8, "step": 6 / 255, "sweep_batch": 24, "epsilon": 24 / 255}
MODEL = "small_resnet"


def tinted():
    """Noise in which red, green or blue stands out: a few epochs learn it, and a small perturbation changes it."""
    noise = pictures(classes=3)
    tint = 24 * torch.eye(3, dtype=torch.uint8)[noise.y, :, None, None]
    return noise.with_pixels(noise.x // 4 + 80 + tint)


def make(images, **settings):
    return generate("tap", images, preset="quick", device="cpu", model=MODEL, **SETTINGS | settings)


def clean_source(images, seed=0, **settings):
    """The network that made the perturbation: trained on clean pictures alone."""
    recipe = options("tap", "quick", **{k: v for k, v in (SETTINGS | settings).items() if k != "epsilon"}).source
    network = source_network(MODEL, images, seed)
    for _ in train.epochs(network, images, recipe, seed=seeds.surrogate(seed), device="cpu"):
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
def source(images):
    return clean_source(images)


@pytest.fixture(scope="module")
def poison(images):
    return make(images)


def test_the_clean_source_takes_most_pictures_for_the_next_class(images, source, poison):
    poisoned = poison.apply(images)
    answers = source.eval()(poisoned.x.float() / 255)[0].argmax(1)
    clean_answers = source(images.x.float() / 255)[0].argmax(1)
    following = (images.y + 1) % 3
    assert (clean_answers == following).float().mean() < 0.4
    assert (answers == following).float().mean() > 0.9


def test_the_notes_tell_the_loss_of_what_was_made(images, source, poison):
    told = poison.record["notes"]["restarts"][-1]["lowest_loss"]
    assert told == pytest.approx(float(losses(poison.apply(images), source).mean()), rel=1e-4)
    assert told < 0.5 * float(losses(images, source).mean())


def test_every_restart_keeps_or_lowers_the_loss_of_each_picture(images, source, poison):
    three = make(images, restarts=3)
    one, best = losses(poison.apply(images), source), losses(three.apply(images), source)
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


def test_untargeted_raises_the_loss_of_the_right_class(images, source):
    poisoned = make(images, targeted=False).apply(images)
    assert train.accuracy(source, images) > 0.9
    assert train.accuracy(source, poisoned) < 0.1


def test_augmentation_sees_the_sum_and_delta_stays_in_the_frame_of_its_picture(images, monkeypatch):
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


def test_a_perturbation_is_made_for_a_picture_and_not_for_a_class(poison, images):
    first = poison.delta[images.y == 0]
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_passes_count_training_steps_and_looks():
    paper = options("tap", "paper")
    assert paper.passes == 40 + 8 * 251
    assert options("tap", "quick").passes < 30 and options("tap", "laptop").passes < 120


def test_a_tiny_budget_is_kept(images):
    assert make(images, epochs=1, epsilon=1 / 255).delta.abs().max() <= Budget(1 / 255).levels
