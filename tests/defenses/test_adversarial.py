"""What is particular to adversarial training."""

import pytest
import torch
from moments import moment
from samples import fitted, some_images

from miue import specs
from miue.defenses import build
from miue.errors import InputError
from miue.training import recipes


@pytest.mark.parametrize("levels", [2, 4, 6, 8])
def test_images_stay_within_epsilon_of_the_poisoned_ones_and_cost_more(levels):
    images = some_images()
    poisoned = images.plus(torch.full(images.x.shape, 5, dtype=torch.int8)).x
    now = moment(images)
    seen, targets = build("adversarial_training", epsilon=levels / 255).batch(poisoned, images.y, now)
    moved = (seen - poisoned / 255).abs()
    assert moved.max() <= levels / 255 + 1e-6
    assert torch.equal(targets, images.y) and not seen.requires_grad
    assert (now.losses(seen, images.y) > now.losses(poisoned / 255, images.y)).all()


def test_steps_and_not_only_the_random_start_raise_the_loss():
    images = some_images()
    now = moment(images)
    few, many = (
        build("adversarial_training", steps=steps).batch(images.x, images.y, moment(images))[0] for steps in (1, 10)
    )
    assert (now.losses(many, images.y) > now.losses(few, images.y)).all()
    # Ten steps of 2/255 reach the edge of the ball from anywhere in it.
    assert ((many - images.x / 255).abs().amax((1, 2, 3)) > 7.99 / 255).all()


def test_the_start_is_drawn_from_the_generator():
    images = some_images()
    defense = build("adversarial_training", steps=1, step=0.01 / 255)
    one, other = (defense.batch(images.x, images.y, moment(images, seed))[0] for seed in (0, 1))
    start = (one - images.x / 255) * 255
    assert not torch.equal(one, other)
    inside = (images.x > 8) & (images.x < 247)
    assert start[inside].min() < -7.9 and start[inside].max() > 7.9 and abs(start[inside].std() - 16 / 12**0.5) < 0.2


def test_defaults_and_recipe_are_the_published_ones():
    defense = build("adversarial_training")
    assert (defense.epsilon * 255, defense.steps, defense.step * 255) == (pytest.approx(8), 10, pytest.approx(2))
    name, options = specs.parse("adversarial_training:epsilon=4/255:steps=3")
    assert build(name, **options).epsilon == 4 / 255
    recipe = recipes.recipe("adversarial")
    assert (recipe.epochs, recipe.lr, recipe.weight_decay) == (100, 0.1, 5e-4)


def test_the_network_is_trained_on_moved_images_and_its_batch_statistics_are_those_of_training(images):
    network = fitted(
        images,
        "small_resnet",
        recipes.recipe("quick", epochs=2, batch=24),
        defense=build("adversarial_training", steps=2),
    )
    counted = {int(b) for name, b in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counted == {4}, "steps of the attack updated the batch statistics"


def test_grey_levels_are_not_taken_for_fractions():
    for option in ("epsilon", "step"):
        with pytest.raises(InputError, match=f"{option}: 8; it must be a number above 0 and at most 1"):
            build("adversarial_training", **{option: 8})
