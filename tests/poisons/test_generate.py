"""What may be asked of `generate`, and random noise."""

import pytest
import torch
from samples import pictures

from miue import Images, poisons
from miue.errors import InputError
from miue.poisons import generate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: 'magic' does not exist; choose one of mi_ue, em, "),
        ({"epsilon": 0}, "epsilon: 0.0; it must be a number between 1/255"),
        ({"epsilon": "128/255"}, "epsilon: 0.50.*; it must be a number between 1/255"),
        ({"epsilon": float("nan")}, "epsilon: nan; it must be a number between 1/255"),
        ({"model": "resnet99"}, "model: 'resnet99' does not exist"),
        ({"preset": "slow"}, "preset: 'slow' does not exist"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, message, images, monkeypatch):
    monkeypatch.setattr(poisons, "make", None)
    with pytest.raises(InputError, match=message):
        generate(**{"method": "mi_ue", "images": images, **arguments})


def test_one_class_is_refused():
    with pytest.raises(InputError, match="has 1 class; at least two"):
        generate("random", pictures(classes=1))


def test_uniform_noise_is_uniform_and_sign_noise_is_all_or_nothing():
    images = Images(torch.full((200, 3, 8, 8), 128, dtype=torch.uint8), torch.arange(200) % 2)
    uniform = generate("random", images, preset="quick").delta
    share = (uniform.flatten() + 8).bincount(minlength=17) / uniform.numel()
    assert share.min() > 0.9 / 17 and share.max() < 1.1 / 17
    assert generate("random", images, kind="sign").delta.abs().unique().tolist() == [8]


@pytest.mark.parametrize("levels", [1, 2, 4, 8, 12, 16])
def test_every_budget_is_used_to_its_last_level(levels, images):
    for method in ("random:kind=sign", "mi_ue:epochs=1:steps=30:batch=16"):
        assert generate(method, images, preset="quick", epsilon=f"{levels}/255").delta.abs().max() == levels


def test_a_variant_is_one_word_or_two_arguments(images):
    one = generate("random:kind=sign", images)
    assert torch.equal(one.delta, generate("random", images, kind="sign").delta) and one.record["method"] == "random"
    with pytest.raises(InputError, match="kind is given a second time"):
        generate("random:kind=sign", images, kind="uniform")
