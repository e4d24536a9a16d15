"""AR, LSP, OPS, CUDA and PIL: what each perturbation is made of, beyond the contract of all methods."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from samples import some_images

from miue import Images, seeds
from miue.errors import InputError
from miue.models.plain import Linear
from miue.pgd import Budget
from miue.poisons import perturb
from miue.poisons.base import Task
from miue.poisons.methods import ar, cuda, lsp, ops, pil
from miue.training import loop

WIDE = Budget(127 / 255)


def grey(n=48, classes=4, channels=3, size=16):
    """Images in the middle of the range, so that no perturbation is cut off at its ends."""
    return Images(torch.full((n, channels, size, size), 128, dtype=torch.uint8), torch.arange(n) % classes)


def made(module, images, budget=WIDE, **changes):
    name = module.__name__.rpartition(".")[2]
    options = type(module.PRESETS["paper"])(**changes) if changes else module.PRESETS["paper"]
    return getattr(module, name)(Task(images, "", budget, options))


# AR


def test_ar_recursion_holds_inside_every_perturbation():
    images = grey()
    delta = made(ar, images).delta.double()
    taps, _ = ar.stable_taps(4 * 3, (20, 20), ar.AR(), seeds.stream(0, "perturbation"))
    filters = taps.view(4, 3, 3, 3).double()
    rounding = 0.5 * (1 + filters.abs().sum((2, 3)))[images.y]
    filters[:, :, 2, 2] = -1
    for image, label, allowed in zip(delta, images.y, rounding, strict=True):
        left = F.conv2d(image[None], filters[label][:, None], groups=3)[0]
        assert (left.abs().amax((1, 2)) <= allowed + 1e-3).all()
        other = F.conv2d(image[None], filters[(label + 1) % 4][:, None], groups=3)[0]
        assert other.abs().max() > 2 * allowed.max()


def test_ar_classes_differ_and_so_do_the_images_of_a_class():
    images = grey()
    taps, _ = ar.stable_taps(12, (20, 20), ar.AR(), torch.Generator().manual_seed(0))
    assert torch.cdist(taps.flatten(1), taps.flatten(1)).add(torch.eye(12)).min() > 0.05
    delta = made(ar, images).delta.float().flatten(1)
    assert len(delta.unique(dim=0)) == len(images)


def test_ar_runs_pixel_by_pixel():
    noise = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(1))
    taps = ar.draw_taps(2, torch.Generator().manual_seed(2))
    expected = noise.clone()
    for i in range(2, 6):
        for j in range(2, 9):
            expected[:, i, j] = 0
            expected[:, i, j] = (taps * expected[:, i - 2 : i + 1, j - 2 : j + 1]).sum((1, 2))
    torch.testing.assert_close(ar.recur(noise, taps), expected)
    torch.testing.assert_close(taps.sum((1, 2)), torch.ones(2))


EXPLODES = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, -2.0, 0.0]])


@pytest.mark.parametrize("bad", [EXPLODES, torch.full((3, 3), math.nan), torch.full((3, 3), math.inf)])
def test_ar_draws_unstable_weights_again(monkeypatch, bad):
    drawn, draw = [], ar.draw_taps

    def first_bad(count, generator):
        taps = draw(count, generator)
        if not drawn:
            taps[0] = bad
        drawn.append(count)
        return taps

    monkeypatch.setattr(ar, "draw_taps", first_bad)
    taps, rejected = ar.stable_taps(3, (36, 36), ar.AR(), torch.Generator().manual_seed(0))
    assert rejected >= 1 and len(drawn) > 1 and not torch.equal(taps[0], bad)
    field = ar.recur(torch.randn(3, 36, 36, generator=torch.Generator().manual_seed(7)), taps)
    assert field.isfinite().all() and field.abs().max() < 50


def test_ar_gives_up_after_the_attempts_it_may_make(monkeypatch):
    monkeypatch.setattr(ar, "draw_taps", lambda count, generator: EXPLODES.expand(count, 3, 3).clone())
    with pytest.raises(InputError, match=r"bound: 5.0; 6 of 6 recursions stayed unstable after 3 attempts"):
        ar.stable_taps(6, (20, 20), ar.AR(attempts=3), torch.Generator())


@pytest.mark.parametrize("seed", range(3))
def test_ar_never_gives_nan_or_an_empty_perturbation(seed):
    delta = ar.ar(Task(grey(n=20, classes=10, size=32), "", WIDE, ar.AR(), seed)).delta
    length = delta.float().flatten(1).norm(dim=1) / 255
    assert ((length > 0.97) & (length < 1.03)).all()  # float NaN would have become some integer, of another norm


@pytest.mark.parametrize(("module", "norm"), [(ar, 1.0), (lsp, 1.304)])
def test_the_norm_is_that_of_32_px_in_colour_and_scales_with_the_pixels(module, norm):
    for channels, size in ((3, 32), (1, 32), (3, 64)):
        images = grey(n=8, channels=channels, size=size)
        length = made(module, images).delta.float().flatten(1).norm(dim=1) / 255
        wanted = norm * math.sqrt(channels * size**2 / 3072)
        torch.testing.assert_close(length, torch.full((8,), wanted), rtol=0.03, atol=0)


@pytest.mark.parametrize("module", [ar, lsp])
def test_what_leaves_the_budget_is_clipped_and_counted(module):
    images = grey()
    wide, narrow = made(module, images), made(module, images, Budget(4 / 255))
    assert wide.notes["clipped"] == 0 and torch.equal(narrow.delta, wide.delta.clamp(-4, 4))
    assert narrow.notes["clipped"] == pytest.approx((wide.delta.abs() > 4).float().mean().item())


# LSP


def squares(delta, side):
    return F.unfold(delta.float(), side, stride=side).view(len(delta), delta.shape[1], side**2, -1)


def test_lsp_is_constant_on_squares_of_eight_pixels():
    result = made(lsp, grey(size=32))
    assert result.notes["patch"] == 8
    inside = squares(result.delta, 8)
    assert (inside == inside[:, :, :1]).all()
    first = inside[:, :, 0]
    assert (first.flatten(1).std(dim=1) > 2).all()  # and the squares differ


def test_lsp_cuts_the_last_squares_where_eight_does_not_divide_the_size():
    delta = made(lsp, grey(size=28)).delta
    inside = squares(delta[..., :24, :24], 8)
    assert (inside == inside[:, :, :1]).all() and (delta[..., 24:, 24:] == delta[..., 24:25, 24:25]).all()


@pytest.mark.parametrize(
    ("classes", "channels", "size"), [(10, 3, 32), (100, 3, 32), (4, 3, 8), (10, 1, 28), (10, 1, 8)]
)
def test_lsp_is_linearly_separable_after_clipping_on_images_not_fitted_to(classes, channels, size):
    images = grey(n=20 * classes, classes=classes, channels=channels, size=size)
    x = made(lsp, images, Budget(8 / 255)).delta.float().flatten(1)
    target = F.one_hot(images.y, classes).float()
    train, test = torch.arange(len(x)) < 10 * classes, torch.arange(len(x)) >= 10 * classes
    gram = x[train] @ x[train].T
    weights = x[train].T @ torch.linalg.solve(
        gram + 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)), target[train]
    )
    assert ((x[test] @ weights).argmax(1) == images.y[test]).float().mean() >= 0.99


# OPS


def test_ops_changes_exactly_one_pixel_of_each_image_by_class():
    images = some_images(n=60, classes=5, size=12)
    result = made(ops, images)
    changed = (result.delta != 0).any(1).flatten(1)
    assert (changed.sum(1) == 1).all()
    x = images.x.int() + result.delta
    pixels = result.notes["pixels"]
    for one in pixels:
        members = x[images.y == one["class"]]
        assert (members[:, :, one["row"], one["column"]] == torch.tensor(one["colour"])).all()
    assert len({(p["row"], p["column"], *p["colour"]) for p in pixels}) == 5


def test_ops_takes_the_pixel_that_changes_most_and_most_evenly():
    x = torch.randint(100, 156, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[::2, :, 2, 5] = 30  # class 0 is dark here, always the same: only white is far away and even
    images = Images(x, torch.arange(20) % 2)
    first = made(ops, images).notes["pixels"][0]
    assert first == {"class": 0, "row": 2, "column": 5, "colour": [255, 255, 255]}


def test_ops_takes_a_colour_that_is_as_far_from_every_channel():
    """Summed over its channels the first pixel changes more, by 637 levels instead of 600, but less evenly."""
    x = torch.tensor([[0, 55], [255, 55], [128, 55]], dtype=torch.uint8).reshape(1, 3, 1, 2)
    score = ops.evenness(
        Images(x, torch.tensor([0])), torch.tensor([0]), torch.tensor([[255, 0, 255], [255, 255, 255]])
    )
    assert score.argmax() == 3 and score[1, 1] == 200
    assert score[0, 0] == pytest.approx(np.mean([255, 255, 127]) / np.std([255, 255, 127]))


def test_ops_gives_classes_that_look_alike_different_shortcuts():
    pixels = made(ops, grey(classes=4, size=8)).notes["pixels"]
    assert len({(p["row"], p["column"], *p["colour"]) for p in pixels}) == 4


@pytest.mark.parametrize(("classes", "channels"), [(100, 1), (4, 4)])
def test_ops_does_not_fail_where_pairs_run_out_or_classes_are_empty(classes, channels):
    x = torch.randint(0, 256, (120, channels, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = made(ops, Images(x, torch.arange(120) % classes, [str(c) for c in range(classes + 2)]))
    assert len(result.notes["pixels"]) == classes and ((result.delta != 0).any(1).flatten(1).sum(1) <= 1).all()


# CUDA


def impulses(classes, channels):
    """For each class, one black image for each channel with a lone white pixel in it."""
    x = torch.zeros(classes * channels, channels, 9, 9, dtype=torch.uint8)
    labels = torch.arange(classes).repeat_interleave(channels)
    x[torch.arange(len(x)), torch.arange(len(x)) % channels, 4, 4] = 255
    return Images(x, labels)


def test_cuda_filter_is_the_same_within_a_class_and_for_all_channels():
    images = impulses(classes=5, channels=3)
    answer = (images.x.int() + made(cuda, images).delta)[:, :, 3:6, 3:6].view(5, 3, 3, 3, 3)
    own = answer[:, torch.arange(3), torch.arange(3)]
    assert (own == own[:, :1]).all() and answer.sum() == own.sum()  # nothing leaks into other channels
    filters = own[:, 0].flatten(1)
    assert ((filters == 255).sum(1) == 1).all()
    rest = filters[filters < 255].float() / 255
    assert rest.max() <= 0.3 + 0.5 / 255 and rest.std() > 0.05
    assert len(filters.unique(dim=0)) == 5


def test_cuda_is_a_convolution_divided_by_the_largest_value():
    images = some_images(size=12)
    filters = cuda.draw_filters(4, cuda.CUDA(), seeds.stream(0, "perturbation"))
    answer = images.x.int() + made(cuda, images).delta
    for x, y, ours in zip(images.x.double(), images.y, answer, strict=True):
        blurred = F.conv2d(x[:, None], filters[y][None, None].double(), padding=1)[:, 0]
        assert (ours - 255 * blurred / blurred.max()).abs().max() <= 0.5 + 1e-3
    assert (answer.amax((1, 2, 3)) == 255).all()


def test_cuda_leaves_black_images_black_and_refuses_even_filters():
    black = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4) % 2)
    assert not made(cuda, black).delta.any()
    with pytest.raises(InputError, match="side: 4; it must be odd"):
        cuda.CUDA(side=4)


# PIL


def blobs(n=80, classes=4, channels=3, size=8):
    """Images that a linear classifier can tell apart in part: a faint class pattern under noise."""
    generator = torch.Generator().manual_seed(3)
    pattern = torch.randint(-12, 13, (classes, channels, size, size), generator=generator)
    noise = torch.randint(-60, 61, (n, channels, size, size), generator=generator)
    labels = torch.arange(n) % classes
    return Images((128 + pattern[labels] + noise).to(torch.uint8), labels)


def test_pil_loss_falls_and_its_shortcut_is_the_negative_of_what_is_published():
    images = blobs()
    budget = Budget(8 / 255)
    result = made(pil, images, budget)
    assert result.notes["loss_after"] < 0.7 * result.notes["loss_before"]
    assert result.notes["surrogate_accuracy"] > 0.5
    linear = fitted(images)
    p = -result.delta.float() / 255
    assert (linear(p)[0].argmax(1) == images.y).float().mean() == 1.0
    flatter, clean = (F.log_softmax(linear(images.x.float() / 255 - part)[0], 1).mean() for part in (p, 0))
    assert -flatter < -clean  # nearer to uniform than the clean images


def fitted(images):
    with seeds.globally(0):
        linear = Linear(192, len(images.classes), scale=4.0)  # 8 px of 32
    for _ in loop.epochs(linear, images, pil.PRESETS["paper"].surrogate, seed=0, device="cpu"):
        pass
    return linear


def test_pil_loss_is_the_published_one():
    linear = Linear(4, 3, scale=28.0)
    x, p = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2) / 10
    y = torch.tensor([0, 1, 2, 0, 1])
    logits = x.flatten(1) @ linear.head.weight.T * linear.scale
    own = p.flatten(1) @ linear.head.weight.T * linear.scale
    uniform = torch.full((5, 3), 1 / 3)
    divergence = F.kl_div((logits - own).log_softmax(1), uniform, reduction="batchmean")
    wanted = 0.9 * F.cross_entropy(own, y) + 0.1 * divergence
    torch.testing.assert_close(pil.pil_loss(linear, x, y, p, 0.1), wanted)


def test_pil_does_not_depend_on_how_many_images_are_perturbed_at_once():
    one, other = (
        perturb(blobs(), "pil", device="cpu", epochs=2, pass_batch=size, cache=False).delta for size in (7, 80)
    )
    assert (one != other).float().mean() < 0.001  # sums in another order may tip a sign
