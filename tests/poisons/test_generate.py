"""What may be asked of `generate`, and random noise."""

import pytest
import torch
from samples import some_images

from miue import Images, poisons
from miue.errors import InputError
from miue.poisons import perturb


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: 'magic' does not exist; choose one of mi_ue, em, "),
        ({"epsilon": 0}, "epsilon: 0.0; it must be a number between 1/255"),
        ({"epsilon": "128/255"}, "epsilon: 0.50.*; it must be a number between 1/255"),
        ({"epsilon": float("nan")}, "epsilon: nan; it must be a number between 1/255"),
        ({"surrogate": "resnet99"}, "model: 'resnet99' does not exist"),
        ({"preset": "slow"}, "preset: 'slow' does not exist"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, message, images, monkeypatch):
    monkeypatch.setattr(poisons, "make", None)
    with pytest.raises(InputError, match=message):
        perturb(**{"method": "mi_ue", "images": images, **arguments}, cache=False)


def test_one_class_is_refused():
    with pytest.raises(InputError, match="has 1 class; at least two"):
        perturb(some_images(classes=1), "random", cache=False)


def test_uniform_noise_is_uniform_and_sign_noise_is_all_or_nothing():
    images = Images(torch.full((200, 3, 8, 8), 128, dtype=torch.uint8), torch.arange(200) % 2)
    uniform = perturb(images, "random", preset="quick", cache=False).delta
    share = (uniform.flatten() + 8).bincount(minlength=17) / uniform.numel()
    assert share.min() > 0.9 / 17 and share.max() < 1.1 / 17
    assert perturb(images, "random", kind="sign", cache=False).delta.abs().unique().tolist() == [8]


@pytest.mark.parametrize("levels", [1, 2, 4, 8, 12, 16])
def test_every_budget_is_used_to_its_last_level(levels, images):
    for method in ("random:kind=sign", "mi_ue:epochs=1:steps=30:batch=16"):
        assert perturb(images, method, preset="quick", epsilon=f"{levels}/255", cache=False).delta.abs().max() == levels


def test_a_variant_is_one_word_or_two_arguments(images):
    one = perturb(images, "random:kind=sign", cache=False)
    assert (
        torch.equal(one.delta, perturb(images, "random", kind="sign", cache=False).delta)
        and one.record["method"] == "random"
    )
    with pytest.raises(InputError, match="kind is given a second time"):
        perturb(images, "random:kind=sign", kind="uniform", cache=False)
