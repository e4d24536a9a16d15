"""Sharpness: known values where the loss is simple, and a network that is left as it was."""

import math
from types import SimpleNamespace

import pytest
import torch
from samples import some_images
from torch import nn

from miue import Images
from miue.errors import InputError
from miue.models import build
from miue.models.plain import Linear
from miue.training.sharpness import sharpness, unlearnable_distance


def softplus(value):
    return math.log1p(math.exp(value))


def one_image(label):
    """The same image four times, so that its loss is the mean."""
    x = torch.randint(256, (1, 1, 8, 8), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    return Images(x.expand(4, -1, -1, -1).contiguous(), torch.full((4,), label), ["first", "second"])


@pytest.mark.parametrize("radius", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("label", [0, 1])
def test_of_two_classes_and_a_linear_network_it_is_known(radius, label):
    images, network = one_image(label), Linear(64, 2)
    pixels, weights = images.x[0].flatten() / 255, network.head.weight.detach()
    margin = float((weights[label] - weights[1 - label]) @ pixels)
    # Of all moves of that norm, the one that takes x from the one row and adds it to the other changes the margin most.
    change = radius * float(weights.norm()) * 2**0.5 * float(pixels.norm())
    rise = softplus(change - margin) - softplus(-margin)
    assert sharpness(network, images, radius=radius) == {"head": pytest.approx(rise, rel=1e-4)}
    assert rise > softplus(-margin) - softplus(-margin - change)  # the loss is convex: it can rise by more than fall


class Square(nn.Module):
    """Of an image of ones, the logits w^2 and 0."""

    def __init__(self, weight):
        super().__init__()
        self.head = nn.Linear(64, 1, bias=False)
        nn.init.constant_(self.head.weight, weight / 64)

    def forward(self, x):
        squared = self.head(x.flatten(1)).square()
        return torch.cat([squared, torch.zeros_like(squared)], 1), squared


def test_a_fall_counts_where_it_is_larger_than_the_rise():
    ones = Images(torch.full((4, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), ["a", "b"])
    margin = 0.1**2
    fall = softplus(-margin) - softplus(-margin * 1.05**2)
    assert fall > softplus(-margin * 0.95**2) - softplus(-margin)
    assert sharpness(Square(0.1), ones)["head"] == pytest.approx(fall, rel=1e-3)


def test_where_the_loss_is_flat_it_is_zero():
    network = Linear(192, 4)
    black = some_images().with_pixels(torch.zeros_like(some_images().x))
    assert sharpness(network, black) == {"head": 0.0}
    nn.init.zeros_(network.head.weight)
    assert sharpness(network, some_images()) == {"head": 0.0}


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was_and_all_its_layers_are_named(training):
    images = some_images()
    network = build("small_resnet:width=0.25", 4, size=8).train(training)
    network.head.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = sharpness(network, images, steps=2)
    assert list(found) == [name.removesuffix(".weight") for name, w in network.named_parameters() if w.ndim > 1]
    assert all(value > 0 for value in found.values())
    assert sharpness(SimpleNamespace(model=network), images, steps=2) == found
    assert network.training == training and not network.head.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_it_grows_with_the_radius_and_more_steps_do_not_find_less():
    images, network = some_images(), build("mlp2:width=0.1", 4, size=8)
    near, far = (sharpness(network, images, radius=radius)["head"] for radius in (0.02, 0.1))
    few, many = (sharpness(network, images, steps=steps)["head"] for steps in (1, 20))
    assert near < far
    assert many > 0.99 * few


def test_numbers_that_do_not_fit_are_refused():
    network = Linear(192, 4)
    with pytest.raises(InputError, match="radius: 0; it must be a number above 0"):
        sharpness(network, some_images(), radius=0)
    with pytest.raises(InputError, match="steps: 0; it must be at least 1"):
        sharpness(network, some_images(), steps=0)


CLEAN = [{"a": 0.0, "b": 0.2, "c": 2.0, "d": 2.2}, {"a": 0.1, "b": 0.1, "c": 3.1, "d": 3.1}]  # thresholds 1.1 and 1.6


@pytest.mark.parametrize(
    ("suspect", "distance"),
    [
        (CLEAN, 1.0),
        ([{"a": 0.0, "b": 0.1, "c": 0.2, "d": 0.3}], 0.0),
        ([{"a": 0.0, "b": 0.1, "c": 1.3, "d": 1.4}], 0.5),
        ([{"a": 0.0, "b": 0.1, "c": 1.3, "d": 1.4}, {"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0}], 1.25),
    ],
)
def test_the_distance_is_the_share_of_layers_above_the_threshold_of_clean_training(suspect, distance):
    assert unlearnable_distance(suspect, CLEAN) == distance


def test_trainings_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="suspect: it must have an epoch, and the same layers"):
        unlearnable_distance([{"a": 1.0}], CLEAN)
    with pytest.raises(InputError, match="clean: it must have an epoch"):
        unlearnable_distance(CLEAN, [])
    with pytest.raises(InputError, match="all layers are equally sharp"):
        unlearnable_distance(CLEAN, [dict.fromkeys("abcd", 1.0)])
