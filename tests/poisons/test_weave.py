"""Weave: where its stripes lie, what JPEG keeps of them, and who can read them."""

import pytest
import torch
from samples import fitted

import miue
from miue.defenses import build
from miue.defenses.squeezing import ISS
from miue.errors import InputError
from miue.poisons import options, perturb
from miue.poisons.methods.weave import keepers
from miue.training.recipes import Recipe


def noise(count: int, classes: int = 10) -> miue.Images:
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return miue.Images(pixels // 2 + 64, torch.arange(count) % classes)


@pytest.mark.parametrize(("count", "near"), [(2, 0), (10, 0.085), (100, 0.085)])
def test_coarse_frequencies_differ_and_lie_near_what_is_asked_for(count, near):
    chosen = keepers(count, 0.25)
    assert chosen.shape == (count, 2) and len(set(map(tuple, chosen.tolist()))) == count
    assert (chosen >= 0).all() and ((chosen.sum(1) - 0.25).abs() <= near).all()


def test_every_pixel_moves_and_only_blue_differs():
    delta = perturb(noise(20), "weave", cache=False).delta
    assert (delta.abs() == 8).all()
    assert (delta[:, 0] == delta[:, 1]).all() and (delta[:, 0] != delta[:, 2]).any()


def test_share_goes_from_fine_stripes_to_coarse_ones():
    images = noise(20)

    def blue(share: float) -> tuple[torch.Tensor, dict]:
        poison = perturb(images, f"weave:share={share}", cache=False)
        return poison.delta[:, 2].float(), poison.record["notes"]

    for share, known in ((0, "fine"), (1, "coarse")):
        delta, notes = blue(share)
        for pattern, label in zip(delta, images.y, strict=True):
            power = torch.fft.fft2(pattern).abs()
            down, across = (power == power.max()).nonzero()[0].minimum(32 - (power == power.max()).nonzero()[0]) / 32
            assert [float(down), float(across)] == pytest.approx(notes[known][label], abs=1 / 64)
    delta = perturb(images, "weave:share=1", cache=False).delta
    assert (delta == delta[:, :1]).all()


def test_stripes_strengthen_the_wave_that_the_image_has():
    images, _ = miue.load("digits_m", n_train=200, n_test=10)

    def strengthened(spec: str) -> float:
        poison = perturb(images, spec, cache=False)
        places = (32 * torch.tensor(poison.record["notes"]["coarse"])[images.y]).long()
        rows = torch.arange(len(images))
        before, after = (
            torch.fft.fft2(part.x.float().mean(1)).abs()[rows, places[:, 0], places[:, 1]]
            for part in (images, poison.apply(images))
        )
        return float((after > before).float().mean())

    assert strengthened("weave") > 0.99 and strengthened("weave:aligned=false") < 0.95


def test_jpeg_keeps_the_coarse_stripes_and_takes_fine_ones():
    images, _ = miue.load("digits_m", n_train=200, n_test=10)
    jpeg = ISS().prepare

    def left(spec: str) -> float:
        shown = perturb(images, spec, cache=False).apply(images)
        moved, kept = (
            (part.x.float() - clean.x.float()).mean(1)
            for part, clean in ((shown, images), (jpeg(shown, 0), jpeg(images, 0)))
        )
        return float((moved * kept).sum() / moved.square().sum())

    assert left("weave") > 0.5 and left("gratings") < 0.3


def test_the_seed_draws_which_class_has_which_stripes():
    images = noise(20)
    one, same, other = (perturb(images, "weave", seed=seed, cache=False).record["notes"] for seed in (0, 0, 1))
    assert one == same and sorted(one["coarse"]) == sorted(other["coarse"]) and one["coarse"] != other["coarse"]


def test_a_class_that_comes_later_leaves_the_stripes_of_the_others():
    three, five = (perturb(noise(20, classes), "weave", cache=False).record["notes"] for classes in (3, 5))
    assert three["coarse"] == five["coarse"][:3] and three["fine"] == five["fine"][:3]


def test_no_linear_function_reads_them_well():
    images = noise(600, classes=4)
    recipe = Recipe(epochs=10, lr=0.01, schedule="one_cycle", weight_decay=0.0, precision="float32")
    shown = perturb(images, "weave", cache=False).apply(images)
    linear = fitted(shown.subset(torch.arange(400)), "linear", recipe)
    assert miue.accuracy(linear, shown.subset(torch.arange(400, 600))) < 0.6


def test_with_drift_a_class_has_no_line_that_a_notch_filter_finds():
    images, _ = miue.load("digits_m", n_train=1000)
    notch = build("notch")

    def outlasts(spec: str) -> float:
        """What share of the stripes, along themselves, is there behind the filter."""
        shown = perturb(images, spec, cache=False).apply(images)
        clean, moved, kept = (part.x.float() for part in (images, shown, notch.prepare(shown, 0)))
        return float(((moved - clean) * (kept - clean)).sum() / (moved - clean).square().sum())

    assert outlasts("weave") < 0.5 and outlasts("weave:drift=0.025") > 0.7


def test_what_is_none_is_refused():
    with pytest.raises(InputError, match="share: 1.5"):
        options("weave:share=1.5", "quick")
    with pytest.raises(InputError, match="woven: 'red'"):
        options("weave:woven=red", "quick")


def test_grey_images_have_both_in_their_only_channel():
    images = noise(20)
    grey = miue.Images(images.x[:, :1], images.y, layout="nchw")
    delta = perturb(grey, "weave", cache=False).delta
    assert delta.shape[1] == 1 and (delta.abs() == 8).all()
