"""AVATAR with a denoiser that is known in closed form: pixels drawn independently from a Gaussian."""

import pytest
import torch
from samples import fitted, some_images
from torch import nn

from miue.defenses import build
from miue.defenses.avatar import Avatar, signal_left
from miue.errors import InputError
from miue.training import loop, recipes

MEAN, DEVIATION = 0.1, 0.2  # of clean pixels on the scale of [-1, 1]: five deviations stay inside it
LEFT = float(signal_left()[100])


def optimal(x, step):
    """The expected noise in x, given x."""
    left = signal_left()[step + 1].to(x).view(-1, 1, 1, 1)
    variance = left * DEVIATION**2 + 1 - left
    return (1 - left) ** 0.5 * (x - left**0.5 * MEAN) / variance


def noisy(n=4):
    generator = torch.Generator().manual_seed(1)
    clean = MEAN + DEVIATION * torch.randn(n, 1, 64, 64, generator=generator)
    return LEFT**0.5 * clean + (1 - LEFT) ** 0.5 * torch.randn(clean.shape, generator=generator)


def posterior(x):
    """Mean and variance of the clean pixel, given the noisy one."""
    gain = LEFT**0.5 * DEVIATION**2 / (LEFT * DEVIATION**2 + 1 - LEFT)
    return MEAN + gain * (x - LEFT**0.5 * MEAN), DEVIATION**2 * (1 - gain * LEFT**0.5)


def test_schedule_is_that_of_ddpm():
    left = signal_left()
    assert len(left) == 1001 and left[0] == 1
    assert left[1] == pytest.approx(0.9999)
    assert left[2] == pytest.approx(0.9999 * (1 - 1e-4 - (0.02 - 1e-4) / 999))
    assert left[1000] == pytest.approx(4.04e-5, rel=0.01)  # about e^-10, as the paper of DDPM has it


def test_one_deterministic_step_gives_the_posterior_mean():
    x = noisy()
    recovered = Avatar(denoise=optimal, steps=1, eta=0.0).bring_back(x, torch.Generator())
    torch.testing.assert_close(recovered, posterior(x)[0], atol=1e-5, rtol=0)


def test_ancestral_steps_draw_from_the_posterior():
    x = noisy()
    recovered = Avatar(denoise=optimal).bring_back(x, torch.Generator().manual_seed(2))
    mean, variance = posterior(x)
    rest = recovered - mean
    assert abs(float(rest.mean())) < 0.005
    # DDPM's shorter choice of variance: with 100 steps the spread falls 6 % short of the posterior's.
    assert float(rest.var()) == pytest.approx(variance, rel=0.1)
    assert abs(float((rest * x).mean() - rest.mean() * x.mean())) < 0.002  # nothing of x is left in the rest


def test_deterministic_steps_give_clean_images_of_the_right_spread():
    x = noisy()
    recovered = Avatar(denoise=optimal, eta=0.0).bring_back(x, torch.Generator())
    spread = (LEFT * DEVIATION**2 + 1 - LEFT) ** 0.5
    expected = MEAN + DEVIATION / spread * (x - LEFT**0.5 * MEAN)
    torch.testing.assert_close(recovered, expected, atol=0.01, rtol=0)


def test_a_module_with_sample_or_with_variance_channels_is_understood():
    class Output:
        def __init__(self, sample):
            self.sample = sample

    class Wrapped(nn.Module):
        def forward(self, x, step):
            return Output(optimal(x, step))

    def with_variance(x, step):
        return torch.cat([optimal(x, step), x], 1)

    plain, module, wide = (
        Avatar(denoise=denoise, depth=20, steps=2, eta=0.0).prepare(some_images(n=8), 0).x
        for denoise in (optimal, Wrapped(), with_variance)
    )
    assert torch.equal(plain, module) and torch.equal(plain, wide)


def test_images_come_back_as_uint8_with_their_labels_and_by_seed():
    images = some_images(n=12)
    defense = Avatar(denoise=optimal, depth=20, steps=3, model_batch=5)
    once, again, other = (defense.prepare(images, seed) for seed in (0, 0, 1))
    assert once.x.dtype == torch.uint8 and once.shape == images.shape
    assert torch.equal(once.y, images.y) and torch.equal(once.ids, images.ids)
    assert torch.equal(once.x, again.x) and not torch.equal(once.x, other.x)


def test_without_a_model_it_says_what_to_pass():
    with pytest.raises(InputError, match=r"denoise: none given; pass a diffusion model.*Avatar\(denoise=model\)"):
        Avatar().prepare(some_images(), 0)


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(InputError, match="predicted noise must have the images' shape"):
        Avatar(denoise=lambda x, step: x[..., :4]).prepare(some_images(n=4), 0)


@pytest.mark.parametrize("options", [{"depth": 1001}, {"depth": 10}, {"eta": 1.5}, {"steps": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options)).replace("depth", "depth|steps")):
        Avatar(**options)


def test_records_tell_models_apart_by_their_weights():
    torch.manual_seed(0)
    one, other = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), nn.Conv2d(3, 3, 1)
    assert Avatar(denoise=one).record() == Avatar(denoise=one).record() != Avatar(denoise=other).record()
    assert Avatar(denoise=optimal).record()["denoise"].endswith("optimal")


def test_a_victim_trains_on_the_purified_images():
    defense = build("avatar", denoise=optimal, depth=20, steps=2)
    network = fitted(some_images(), "small_resnet", recipes.recipe("quick", epochs=1), defense=defense)
    assert 0 <= loop.accuracy(network, some_images()) <= 1
