"""What is particular to notch filters."""

import math

import pytest
import torch
from samples import some_images

import miue
from miue import Images
from miue.defenses import build
from miue.defenses.notch import mean_log_spectra
from miue.errors import InputError


def textured(n=400, size=16, classes=4):
    """Noise of all frequencies, in classes; from the second on with a little more of what changes from row to row."""
    noise = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) % classes
    smooth = (noise + noise.roll(1, 2)) / 2
    x = 128 + 20 * torch.where((y > 0)[:, None, None, None], 0.9 * noise + 0.1 * smooth, noise)
    return Images(x.round().clamp(0, 255).to(torch.uint8), y)


def striped(images, label, frequency, levels=8):
    """Stripes across the images of one class, in the last channel; those that rise together with those that fall."""
    wave = torch.cos(2 * math.pi * frequency * torch.arange(images.shape[-1]))
    x = images.x.float()
    x[images.y == label, -1] += levels * wave
    return images.with_pixels(x.round().clamp(0, 255).to(torch.uint8))


def test_stripes_are_damped_where_they_are_and_nothing_else_is():
    clean = textured()
    kept = build("notch").kept(striped(clean, label=2, frequency=0.25))
    damped = (kept < 1).nonzero().tolist()
    assert damped == [[2, 2, 0, 4], [2, 2, 0, 12]]
    assert (build("notch").kept(clean) == 1).all()


def test_what_is_left_stands_out_no_more():
    clean = textured()
    shown = striped(clean, label=2, frequency=0.25)
    before, after, known = (
        mean_log_spectra(images)[0][2, 2, 0, 4] for images in (shown, build("notch").prepare(shown, 0), clean)
    )
    assert before - known > 1.2
    assert abs(after - known) < 0.15


def test_other_classes_and_channels_and_the_mean_stay():
    clean = textured()
    bright = clean.with_pixels((clean.x + 40 * (clean.y == 1)[:, None, None, None]).to(torch.uint8))
    shown = striped(bright, label=2, frequency=0.25)
    filtered = build("notch").prepare(shown, 0)
    assert torch.equal(filtered.x[shown.y != 2], shown.x[shown.y != 2])
    assert torch.equal(filtered.x[:, :2], shown.x[:, :2])


def test_a_class_without_images_is_no_measure_of_the_others():
    clean = textured(classes=2)
    named = Images(clean.x, clean.y, ["one", "two", "none"])
    kept = build("notch").kept(striped(named, label=0, frequency=0.25))
    assert (kept < 1).nonzero().tolist() == [[0, 2, 0, 4], [0, 2, 0, 12]]


def test_one_class_is_refused():
    one = some_images(n=4, classes=1, size=8)
    with pytest.raises(InputError, match="notch: images of 1 class"):
        build("notch").prepare(one, 0)


@pytest.mark.parametrize(("method", "lines"), [("gratings", "frequencies"), ("weave", "coarse"), ("weave", "fine")])
def test_lines_of_our_own_methods_are_taken_down_to_what_is_there_without_them(method, lines):
    images, _ = miue.load("digits_m", n_train=1000)
    poison = miue.perturb(images, method, cache=False)
    shown = poison.apply(images)
    at = (32 * torch.tensor(poison.record["notes"][lines])).round().long()

    def standing(of):
        spectra, labels = mean_log_spectra(of)[0][:, 2], torch.arange(10)
        return torch.stack([spectra[label, down, across] for label, (down, across) in zip(labels, at, strict=True)])

    clean, before, after = (standing(of) for of in (images, shown, build("notch").prepare(shown, 0)))
    assert (before - clean).mean() > 0.8
    assert (after - clean).abs().mean() < 0.25 * (before - clean).mean()
