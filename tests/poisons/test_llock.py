"""LLock: the law of the lock, its box, its key, and that a surrogate fits what is locked."""

import pytest
import torch
from samples import some_images

from miue.poisons import options, perturb
from miue.poisons.methods.llock import locked

SMALL = {"epochs": 3, "batch": 16, "steps": 2, "step": 8 / 255, "pass_batch": 24, "stop_accuracy": 1.0}
LEVELS = 64


def make(images, **settings):
    common = {"preset": "quick", "device": "cpu", "surrogate": "small_resnet", "epsilon": LEVELS / 255, "cache": False}
    return perturb(images, "llock", **common | SMALL | settings)


@pytest.fixture(scope="module")
def images():
    """Far from both ends of the range, so that nothing is cut."""
    noise = some_images(n=96, classes=3)
    return noise.with_pixels(noise.x // 3 + 84)


@pytest.fixture(scope="module")
def poison(images):
    return make(images)


def lines(images, delta):
    """Least squares of delta by pixel value, for each class and place: (slope, offset in levels, residual)."""
    for label in images.y.unique():
        x, d = (all_[images.y == label].flatten(1).double() for all_ in (images.x, delta))
        centred = x - x.mean(0)
        slope = (centred * d).sum(0) / centred.square().sum(0)
        offset = d.mean(0) - slope * x.mean(0)
        yield slope, offset, (d - slope * x - offset).abs().max()


def test_delta_is_one_linear_function_of_the_pixel_for_each_class_and_place(images, poison):
    found = list(lines(images, poison.delta))
    assert max(residual for *_, residual in found) <= 1.0, "rounding apart, a line"
    assert all(slope.abs().max() <= LEVELS / 255 / 2 + 0.02 for slope, *_ in found)
    assert all(offset.abs().max() <= LEVELS / 2 + 2 for _, offset, _ in found)
    assert all((slope.abs() > LEVELS / 255 / 4).float().mean() > 0.5 for slope, *_ in found), "no mere addition"
    one, other = found[0][1], found[1][1]
    assert (one.sign() != other.sign()).float().mean() > 0.2, "each class has a lock of its own"


def test_whoever_has_the_key_undoes_it():
    pixels, y = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 1, 0, 1])
    key = 8 / 255 * (torch.rand(2, 2, 3, 4, 4) - 0.5)
    shut = locked(pixels, key, y)
    assert (shut - pixels).abs().max() <= 8 / 255
    assert torch.allclose((shut - key[1][y]) / (1 + key[0][y]), pixels, atol=1e-6)
    assert torch.equal(locked(pixels, 0 * key, y), pixels)


def test_the_ends_of_the_box_reach_the_budget_and_no_farther():
    y, half = torch.tensor([0]), LEVELS / 255 / 2
    key = torch.full((2, 1, 1, 1, 1), half)
    reached = [float(locked(torch.full((1, 1, 1, 1), pixel), key, y)) - pixel for pixel in (0.0, 0.5, 1.0)]
    assert reached == pytest.approx([half, 1.5 * half, 2 * half])


def test_the_surrogate_fits_what_is_locked_and_the_rounds_end(images, poison):
    rounds = poison.record["notes"]["rounds"]
    assert poison.record["notes"]["stopped_by"] == "number of rounds" and len(rounds) == 3
    assert rounds[-1]["accuracy_on_perturbed"] > 0.9
    early = make(images, stop_accuracy=0.01)
    assert early.record["notes"]["stopped_by"] == "accuracy" and len(early.record["notes"]["rounds"]) == 1
    assert early.record["passes"] == 3 < early.record["passes_allowed"] == 9


def test_the_paper_preset_is_the_default_of_the_published_code():
    paper = options("llock", "paper")
    assert (paper.surrogate.batches_per_epoch, paper.steps, paper.stop_accuracy) == (30, 2, 0.9)
    assert (paper.surrogate.lr, paper.surrogate.clip_norm, paper.passes) == (0.01, 5.0, 150)
    assert options("llock", "quick").passes == 60
