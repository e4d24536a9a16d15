"""EM: images become easy, rounds end, and a class can share one delta."""

from functools import partial

import pytest
import torch
from samples import some_images

from miue import Images
from miue.errors import InputError
from miue.poisons import options, perturb

small = partial(
    perturb, method="em", cache=False, preset="quick", device="cpu", epochs=15, steps=10, batch=12, pass_batch=24
)


@pytest.fixture(scope="module")
def grey():
    """Images that no delta of 8 levels takes out of range."""
    kept = some_images()
    return Images(kept.x // 2 + 60, kept.y, kept.classes)


@pytest.fixture(scope="module")
def by_class(grey):
    return small(grey, scope="class")


@pytest.mark.parametrize("scope", ["sample", "class"])
def test_images_become_easy_and_the_rounds_end(grey, scope):
    notes = small(grey, scope=scope).record["notes"]
    assert notes["stopped_by"] == "accuracy" and len(notes["rounds"]) < 15
    assert notes["rounds"][-1]["accuracy_on_perturbed"] > 0.99
    assert all(row["accuracy_on_perturbed"] <= 0.99 for row in notes["rounds"][:-1])


def test_rounds_end_by_their_number_where_the_accuracy_is_never_met(grey):
    notes = small(grey, epochs=2, steps=1, stop_accuracy=1.0).record["notes"]
    assert notes["stopped_by"] == "number of rounds" and len(notes["rounds"]) == 2


def test_the_images_of_a_class_share_one_delta(grey, by_class):
    delta = by_class.delta
    firsts = torch.stack([delta[grey.y == c][0] for c in range(4)])
    assert torch.equal(delta, firsts[grey.y])
    assert len({tuple(first.flatten().tolist()) for first in firsts}) == 4
    of_samples = small(grey, epochs=1).delta
    assert not torch.equal(of_samples, torch.stack([of_samples[grey.y == c][0] for c in range(4)])[grey.y])


def test_a_shared_delta_differs_only_where_a_image_ends():
    images = some_images()
    delta = small(images, scope="class", epochs=2).delta
    for c in range(4):
        of_class, x = delta[images.y == c].int(), images.x[images.y == c].int()
        widest = of_class.gather(0, of_class.abs().argmax(0, keepdim=True))
        assert torch.equal(of_class, (x + widest).clamp(0, 255) - x)


def test_a_class_is_matched_by_label_and_not_by_place(grey, by_class):
    order = torch.randperm(len(grey), generator=torch.Generator().manual_seed(1))
    shuffled = grey.subset(order)
    assert torch.equal(small(shuffled, scope="class").apply(grey).x, by_class.apply(grey).x)


def test_a_class_without_images_is_no_obstacle(grey):
    gap = Images(grey.x, torch.where(grey.y == 1, 2, grey.y), grey.classes)
    assert small(gap, scope="class", epochs=1).delta.abs().max() > 0


def test_passes_count_rounds_and_their_steps():
    assert options("em", "paper").passes == 100 * 21
    assert options("em", "paper", scope="class").passes == 100 * 2


def test_an_unknown_scope_is_refused():
    with pytest.raises(InputError, match="scope: 'image' does not exist; choose one of sample, class"):
        options("em", "quick", scope="image")
