"""What is particular to stronger augmentation with adversarial noise."""

import pytest
import torch
from moments import moment
from samples import some_images

from miue import Images, seeds
from miue.defenses import build
from miue.errors import InputError
from miue.training import loop


def patterns():
    """Signs of a pattern for each of four classes, (4, 3, 8, 8)."""
    return torch.randint(2, (4, 3, 8, 8), generator=torch.Generator().manual_seed(9)) * 2 - 1


def patterned(levels=8):
    """Pale noise with a pattern for each class, which is all that its classes differ in."""
    noise = some_images(n=200)
    return noise.with_pixels(96 + noise.x // 4).plus((levels * patterns())[noise.y].to(torch.int8))


def test_the_noise_stays_within_epsilon_and_misleads_the_small_network():
    images, defense = patterned(), build("sda_an", width=0.25)
    moved = defense.prepare(images, 0)
    away = moved.x.int() - images.x.int()
    assert away.abs().max() == 8 and (away != 0).float().mean() > 0.9
    network = defense.train(images, seeds.derived(0, "first purifier"))
    assert loop.accuracy(network, images) > 0.7
    assert loop.accuracy(network, moved) < 0.1


def test_the_noise_takes_from_each_image_what_its_class_has():
    images = patterned()
    noise = build("sda_an", width=0.25).prepare(images, 0).x.int() - images.x.int()
    along = (noise * patterns()[images.y]).float().mean()
    assert along < -1


def test_the_small_network_is_trained_on_moved_images_and_starts_from_the_seed():
    images = some_images()
    plain, hard = (build("sda_an", epochs=2, width=0.1, train_step=step) for step in (1e-6, 2 / 255))
    first, same, other, harder = (
        defense.train(images, seed).head.weight for defense, seed in ((plain, 1), (plain, 1), (plain, 2), (hard, 1))
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other) and not torch.equal(first, harder)


def test_strength_is_that_of_the_augmentation_and_nothing_without_it():
    images = some_images(n=24, size=16)
    none, little, much = (
        build("sda_an", strength=strength).batch(images.x, images.y, moment(images))[0] for strength in (0, 0.05, 1)
    )
    assert torch.equal(none, images.x / 255)
    assert (little - none).abs().mean() < (much - none).abs().mean()


def test_each_image_is_cropped_coloured_and_greyed_for_itself():
    images = some_images(n=1, size=16)
    same = images.x.expand(256, -1, -1, -1)
    seen, _ = build("sda_an").batch(same, torch.zeros(256, dtype=torch.long), moment(images))
    assert len({tuple(image.flatten().tolist()) for image in seen}) > 240
    grey = torch.isclose(seen, seen[:, :1], atol=1e-4).flatten(1).all(1).float().mean()
    assert abs(grey - 0.2) < 0.08


def test_crops_cover_a_tenth_to_all_of_the_area():
    along = (8 * torch.arange(32, dtype=torch.uint8)).expand(32, 32)
    images = Images(along.expand(400, 1, -1, -1).contiguous(), torch.arange(400) % 2)
    seen, _ = build("sda_an", strength=1.0).batch(images.x, images.y, moment(images))
    reach = seen.amax((1, 2, 3)) - seen.amin((1, 2, 3))
    assert reach.min() < 0.45 and reach.max() > 0.85


def test_one_channel_is_as_good_as_three_and_four_are_refused():
    images = some_images(channels=1)
    seen, _ = build("sda_an").batch(images.x, images.y, moment(images))
    assert seen.shape == images.x.shape
    with pytest.raises(InputError, match="sda_an: images of 4 channels; it needs 1 or 3"):
        build("sda_an").prepare(some_images(channels=4), 0)


def test_defaults_are_the_published_ones_but_for_what_the_module_says():
    defense = build("sda_an")
    published = (defense.strength, defense.epsilon, defense.steps, defense.train_step, defense.noise_step, defense.lr)
    assert published == (1.0, 8 / 255, 10, 2 / 255, 1 / 255, 0.01)
