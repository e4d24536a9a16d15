"""Detection: class-wise noise is found, clean images are not suspected, and the splits are fair."""

import pytest
import torch
from samples import some_images

from miue.data.images import Images
from miue.defenses import detection
from miue.defenses.detection import Probe, detect, learnability, linear_probe, shifted_probe, split
from miue.errors import InputError
from miue.training import recipes


def with_pattern(images, levels=40):
    generator = torch.Generator().manual_seed(9)
    signs = 2 * torch.randint(2, (len(images.classes), *images.shape), generator=generator) - 1
    return images.plus((levels * signs)[images.y].to(torch.int8))


def test_linear_probe_finds_class_wise_noise_and_chance_without():
    found, clean = linear_probe(with_pattern(some_images(n=400))), linear_probe(some_images(n=400))
    assert found.held_out > 0.95
    assert clean.held_out < 0.45
    assert clean.train > 0.6  # 192 pixels of 320 images: accuracy on what was fitted says little
    assert found.n == clean.n == 320 and found.chance == 0.25


def test_learnability_finds_class_wise_noise_and_chance_without():
    recipe = recipes.recipe("quick", epochs=2, batch=16, flip=False, crop=0)
    found, clean = (learnability(x, recipe=recipe) for x in (with_pattern(some_images(n=400)), some_images(n=400)))
    assert found.held_out > 0.6
    assert clean.held_out < 0.45


def test_shifted_probe_finds_what_was_added_and_not_what_images_show():
    recipe = recipes.recipe("quick", epochs=5, batch=16, flip=False, crop=0)
    noise = some_images(n=400)
    pale = noise.with_pixels(112 + noise.x // 8)
    light = (60 * noise.y - 90)[:, None, None, None]
    lit = pale.with_pixels((pale.x + light).to(torch.uint8))
    for shift in (-0.5, 0.5):
        added = shifted_probe(with_pattern(pale, 12), shift=shift, model="linear", recipe=recipe)
        shown = shifted_probe(lit, shift=shift, model="linear", recipe=recipe)
        assert added.held_out > 0.9
        assert shown.train > 0.6 and shown.held_out < 0.3
    assert learnability(lit, model="linear", recipe=recipe).held_out > 0.6


def test_without_a_shift_it_is_learnability():
    images = some_images(n=80)
    recipe = recipes.recipe("quick", epochs=2, batch=16, flip=False, crop=0)
    how = {"model": "small_resnet:width=0.25", "recipe": recipe, "seed": 3}
    assert shifted_probe(images, shift=0.0, **how) == learnability(images, **how)


def test_detect_flags_class_wise_noise_and_not_clean_images():
    clean, others = some_images(n=320, seed=0), some_images(n=400, seed=1)
    suspect = detect(with_pattern(others), clean)
    assert suspect["perturbed"] is True
    assert suspect["n"] == 320
    assert detect(others, clean)["perturbed"] is False


def test_images_of_the_perturbation_alone_can_be_asked_about():
    images = some_images(n=200)
    delta = with_pattern(Images(torch.full_like(images.x, 128), images.y), levels=4)
    assert linear_probe(delta).held_out == 1.0


def test_split_takes_its_share_of_every_class_and_loses_none():
    images = some_images(n=50, classes=5)
    seen, held_out = split(images, 0.2, 0)
    assert held_out.y.bincount().tolist() == [2] * 5 and seen.y.bincount().tolist() == [8] * 5
    assert sorted([*seen.ids.tolist(), *held_out.ids.tolist()]) == list(range(50))


def test_sets_of_different_size_are_cut_alike(monkeypatch):
    asked = []

    def note(images, **options):
        asked.append(images.y.bincount().tolist())
        return Probe(0.5, 0.5, 1, 0.25)

    monkeypatch.setattr(detection, "linear_probe", note)
    monkeypatch.setattr(detection, "learnability", note)
    detect(some_images(n=43), some_images(n=22))
    assert asked == [[6, 6, 5, 5]] * 4


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01])
def test_a_share_that_leaves_a_side_empty_is_refused(share):
    with pytest.raises(InputError, match="share"):
        linear_probe(some_images(n=16), share=share)


def test_other_shape_or_classes_are_refused():
    with pytest.raises(InputError, match="shape and classes must be the same"):
        detect(some_images(), some_images(size=9))
    with pytest.raises(InputError, match="images of 3 classes, the others of 4"):
        detect(some_images(), Images(some_images().x[:3], torch.arange(3), some_images().classes))
