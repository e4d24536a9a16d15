"""GUE: the generator, the leader's loss and the bi-level step by known answers; the game on noise."""

import math

import pytest
import torch
import torch.nn.functional as F
from samples import some_images

from miue.errors import InputError
from miue.pgd import Budget
from miue.poisons import options, perturb
from miue.poisons.base import Task
from miue.poisons.methods import gue
from miue.poisons.methods.gue import UNet, multiplier, wrong_class_loss

SMALL = {"preset": "quick", "device": "cpu", "width": 2, "inner_steps": 2, "batch": 16}


@pytest.mark.parametrize(("channels", "size"), [(3, 8), (1, 8), (1, 28), (3, 11), (3, 32)])
def test_the_generator_takes_any_size_and_stays_within_one(channels, size):
    torch.manual_seed(0)
    network = UNet(channels, 2)
    made = network(torch.rand(4, channels, size, size))
    assert made.shape == (4, channels, size, size)
    assert made.abs().max() <= 1 and made.abs().max() > 0.5
    made = network.eval()(torch.rand(2, channels, size, size + 3))
    assert made.shape == (2, channels, size, size + 3)


def test_width_is_the_number_of_channels_at_full_size():
    count = [sum(p.numel() for p in UNet(3, width).parameters()) for width in (8, 16, 64)]
    assert 3.5 < count[1] / count[0] < 4 and count[2] > 7e6


def test_the_leader_wants_the_wrong_classes_level_and_the_right_one_gone():
    labels = torch.tensor([0, 2])
    level = torch.zeros(2, 4).scatter(1, labels[:, None], -50.0)
    assert float(wrong_class_loss(level, labels)) == pytest.approx(math.log(3), rel=1e-4)
    assert float(wrong_class_loss(torch.zeros(2, 4), labels)) == pytest.approx(math.log(4), rel=1e-4)
    right = torch.zeros(2, 4).scatter(1, labels[:, None], 5.0)
    assert wrong_class_loss(right, labels) > 5
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    each = torch.stack([F.cross_entropy(logits, (labels + shift) % 4, reduction="none") for shift in (1, 2, 3)])
    assert torch.allclose(wrong_class_loss(logits, labels), each.amax(0).mean())


def test_the_step_always_closes_the_gap_at_the_wanted_rate():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        clean, gap = torch.randn(2, 30, generator=generator)
        weight = multiplier(clean, gap, 1.5)
        assert weight >= 0 and (clean + weight * gap) @ gap >= 1.5 * gap.square().sum() - 1e-3
    assert multiplier(2 * gap, gap, 1.5) == 0  # the clean loss closes the gap by itself
    assert multiplier(torch.zeros(30), gap, 1.5) == pytest.approx(1.5)
    assert multiplier(clean, torch.zeros(30), 1.5) == 0


def game(images, **settings):
    return gue._Game(Task(images, "small_resnet", Budget(8 / 255), options("gue", "quick", **settings)))


def test_the_follower_fits_better_and_the_classifier_is_left_as_it_was():
    images = some_images(n=32)
    classifier = game(images, width=2).classifier
    before = [p.clone() for p in classifier.parameters()]
    x = images.x.float() / 255
    follower = gue._follow(classifier, x, images.y, options("gue", "quick", inner_steps=5, inner_lr=1e-3))
    assert all(torch.equal(a, b) for a, b in zip(before, classifier.parameters(), strict=True))
    losses = [float(F.cross_entropy(network(x)[0], images.y).detach()) for network in (classifier, follower)]
    assert losses[1] < losses[0]


def test_both_players_move_by_the_gradients_of_the_published_step():
    """Leader: multiplier times the gap's gradient, the copy held fixed. Follower: that, and the clean loss's."""
    images = some_images(n=16)
    one, again = (game(images, width=2, classifier_lr=0.01, inner_lr=1e-4) for _ in range(2))
    told = one.play(images.x, images.y)
    assert told["gap"] > 0 and told["multiplier"] > 0
    pixels = images.x.float() / 255
    shown = (pixels + 8 / 255 * again.generator(pixels)).clamp(0, 1)
    follower = gue._follow(again.classifier, shown.detach(), images.y, again.options)
    gap = F.cross_entropy(again.classifier(shown)[0], images.y) - F.cross_entropy(follower(shown)[0], images.y)
    clean = wrong_class_loss(again.classifier(pixels)[0], images.y)
    total = clean + told["multiplier"] * gap
    expected = torch.autograd.grad(total, again.parameters)
    rates = [0.01] * len(list(one.classifier.parameters())) + [0.1] * len(list(one.generator.parameters()))
    for new, old, gradient, rate in zip(one.parameters, again.parameters, expected, rates, strict=True):
        assert torch.allclose(new, old - rate * gradient, atol=1e-5)


def test_the_game_makes_perturbed_images_easy():
    images = some_images(n=32)
    poison = perturb(images, "gue", **SMALL | {"epochs": 10, "width": 4}, cache=False)
    trace = poison.record["notes"]["epochs"]
    assert [row["epoch"] for row in trace] == list(range(1, 11))
    assert trace[-1]["perturbed_loss"] < trace[0]["perturbed_loss"]
    assert all(math.isfinite(value) for row in trace for value in row.values())


@pytest.mark.parametrize("epsilon", [1 / 255, 4 / 255, 127 / 255])
def test_delta_is_whole_levels_within_the_budget(epsilon):
    delta = perturb(
        some_images(n=16, size=11, channels=1), "gue", epsilon=epsilon, epochs=1, **SMALL, cache=False
    ).delta
    assert delta.dtype == torch.int8 and 0 < delta.abs().max() <= Budget(epsilon).levels


def test_the_paper_preset_is_the_published_one():
    paper = options("gue", "paper")
    assert (paper.epochs, paper.inner_steps, paper.width, paper.batch, paper.passes) == (50, 10, 64, 256, 700)
    assert (paper.inner_lr, paper.eta, paper.lr, paper.classifier_lr) == (1e-4, 1.5, 0.1, 0.01)
    assert options("gue", "quick").passes < 30 and options("gue", "laptop").passes < 120


def test_one_image_is_refused():
    with pytest.raises(InputError, match="images: 1 image; GUE needs at least 2"):
        perturb(some_images(n=4).subset(torch.tensor([1])), "gue", **SMALL, cache=False)


def test_a_game_that_diverges_says_so():
    with pytest.raises(FloatingPointError, match="GUE diverged in epoch 1 at learning rates generator 0.1, classifier"):
        perturb(some_images(n=32), "gue", **SMALL | {"classifier_lr": 1e9}, cache=False)
