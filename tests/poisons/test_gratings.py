"""Gratings: where they lie in the spectrum, and who can read them."""

import pytest
import torch
from samples import fitted

import miue
from miue.poisons import perturb
from miue.poisons.methods.gratings import LOWEST, frequencies
from miue.training.recipes import Recipe


@pytest.mark.parametrize("count", [2, 10, 100])
def test_frequencies_lie_in_the_band_and_differ(count):
    chosen = frequencies(count)
    assert chosen.shape == (count, 2) and len(set(map(tuple, chosen.tolist()))) == count
    assert (chosen >= 0).all() and (chosen.amax(1) >= LOWEST).all() and (chosen <= 0.5).all()
    if count == 10:
        assert torch.pdist(chosen).min() >= 0.125


def test_a_grating_is_one_line_of_the_spectrum_equal_in_all_channels_and_moves_every_pixel():
    images = miue.Images(torch.full((40, 3, 32, 32), 128, dtype=torch.uint8), torch.arange(40) % 10)
    poison = perturb(images, "gratings", cache=False)
    assert (poison.delta.abs() == 8).all() and (poison.delta == poison.delta[:, :1]).all()
    for delta, label in zip(poison.delta[:, 0].float(), images.y, strict=True):
        power = torch.fft.fft2(delta).abs()
        at = (power == power.max()).nonzero()[0] / 32
        down, across = torch.minimum(at, 1 - at).tolist()
        assert [down, across] == pytest.approx(poison.record["notes"]["frequencies"][label], abs=1 / 64)


def test_the_stripes_of_a_class_begin_anywhere_so_that_no_linear_function_reads_them():
    images = miue.Images(torch.full((600, 3, 32, 32), 128, dtype=torch.uint8), torch.arange(600) % 4)
    drawn = perturb(images, "gratings", cache=False).apply(images)
    of_class = drawn.with_pixels(drawn.x[images.y.long()])  # the first four images have the four classes
    recipe = Recipe(epochs=10, lr=0.01, schedule="one_cycle", weight_decay=0.0, precision="float32")

    def read(shown):
        linear = fitted(shown.subset(torch.arange(400)), "linear", recipe)
        return miue.accuracy(linear, shown.subset(torch.arange(400, 600)))

    read_alone, read_shared = read(drawn), read(of_class)
    assert read_alone < 0.6 and read_shared > 0.95  # of what is as often itself as its opposite, half at most


@pytest.mark.slow
def test_a_small_network_reads_them_at_once():
    images, _ = miue.load("digits_m", n_train=2300, n_test=10)
    shown = perturb(images, "gratings", cache=False).apply(images)
    seen, asked = shown.subset(torch.arange(1900)), shown.subset(torch.arange(1900, 2300))
    recipe = "quick:epochs=15"
    known = miue.train_victim(seen, asked, model="small_resnet:width=0.5", recipe=recipe, cache=False)
    clean = miue.accuracy(known, images.subset(torch.arange(1900, 2300)))
    assert known.accuracy > 0.75 and clean < 0.5
