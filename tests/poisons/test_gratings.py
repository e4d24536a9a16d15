"""Gratings: where they lie in the spectrum, who can read them, and what they refuse."""

import math

import pytest
import torch
from samples import fitted

import miue
from miue.errors import InputError
from miue.poisons import options, perturb
from miue.poisons.methods.gratings import frequencies
from miue.training.recipes import Recipe


@pytest.mark.parametrize(
    ("count", "lowest", "highest"), [(10, 0.25, 0.5), (10, 0.0, 0.1875), (100, 0.25, 0.5), (3, 0.4, 0.41)]
)
def test_frequencies_lie_in_the_band_and_differ(count, lowest, highest):
    chosen = frequencies(count, lowest, highest)
    assert chosen.shape == (count, 2) and len(set(map(tuple, chosen.tolist()))) == count
    assert (chosen >= 0).all() and (chosen.amax(1) >= lowest).all() and (chosen.amax(1) <= highest).all()
    assert (chosen.amax(1) > 0).all()
    if (count, lowest) == (10, 0.25):
        assert torch.pdist(chosen).min() >= 0.125


def test_a_grating_is_one_line_of_the_spectrum_equal_in_all_channels_and_moves_every_pixel():
    images = miue.Images(torch.full((40, 3, 32, 32), 128, dtype=torch.uint8), torch.arange(40) % 10)
    plain = perturb(images, "gratings:sharp=false", cache=False)
    sharp = perturb(images, "gratings", cache=False)
    assert (sharp.delta.abs() == 8).all()
    for poison in (plain, sharp):
        assert (poison.delta == poison.delta[:, :1]).all()
    for delta, label in zip(plain.delta[:, 0].float(), images.y, strict=True):
        power = torch.fft.fft2(delta).abs()
        at = (power == power.max()).nonzero()[0] / 32
        down, across = torch.minimum(at, 1 - at).tolist()
        assert [down, across] == pytest.approx(plain.record["notes"]["frequencies"][label], abs=1 / 64)


def test_the_stripes_of_a_class_begin_anywhere_so_that_no_linear_function_reads_them():
    images = miue.Images(torch.full((600, 3, 32, 32), 128, dtype=torch.uint8), torch.arange(600) % 4)
    recipe = Recipe(epochs=10, lr=0.01, schedule="one_cycle", weight_decay=0.0, precision="float32")

    def read(spec):
        shown = perturb(images, spec, cache=False).apply(images)
        linear = fitted(shown.subset(torch.arange(400)), "linear", recipe)
        return miue.accuracy(linear, shown.subset(torch.arange(400, 600)))

    read_alone, read_shared = read("gratings"), read("gratings:phase=class")
    assert read_alone < 0.6 and read_shared > 0.95  # of what is as often itself as its opposite, half at most


@pytest.mark.slow
def test_a_small_network_reads_them_at_once():
    images, _ = miue.load("digits_m", n_train=2000, n_test=10)
    shown = perturb(images, "gratings", cache=False).apply(images)
    seen, asked = shown.subset(torch.arange(1900)), shown.subset(torch.arange(1900, 2000))
    recipe = "quick:epochs=10"
    known = miue.train_victim(seen, asked, model="small_resnet:width=0.5", recipe=recipe, cache=False)
    clean = miue.accuracy(known, images.subset(torch.arange(1900, 2000)))
    assert known.accuracy > 0.75 and clean < 0.5


def test_a_band_that_is_none_is_refused():
    with pytest.raises(InputError, match="lowest: 0.5; it must be below highest, 0.5"):
        options("gratings:lowest=0.5", "quick")
    assert math.isclose(options("gratings", "quick").lowest, 0.25)
