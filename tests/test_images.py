import numpy as np
import pandas as pd
import pytest
import torch
from samples import some_images

from miue import Images
from miue.errors import InputError


def test_batches_are_the_images(images):
    index = torch.tensor([3, 0, 7])
    x, y = images.batch(index)
    assert torch.equal(x, images.x[index])
    assert torch.equal(y, images.y[index])
    assert x.dtype == torch.uint8 and y.dtype == torch.int64


def test_a_view_adds_delta_exactly_and_shares_it(images):
    delta = torch.full(images.x.shape, -8, dtype=torch.int8)
    view = images.plus(delta)
    assert torch.equal(view.x.int(), (images.x.int() - 8).clamp(0, 255))
    delta += 16
    assert torch.equal(view.x.int(), (images.x.int() + 8).clamp(0, 255))


def test_no_second_perturbation_on_top(images):
    delta = torch.zeros(images.x.shape, dtype=torch.int8)
    with pytest.raises(InputError, match="perturbed already"):
        images.plus(delta).plus(delta)


def test_subsets_keep_ids_labels_pixels_and_delta(images):
    delta = torch.randint(-8, 9, images.x.shape, dtype=torch.int8)
    view = images.plus(delta)
    part = view.subset(torch.tensor([9, 2, 30])).subset(torch.tensor([2, 0]))
    assert part.ids.tolist() == [30, 9]
    assert torch.equal(part.x, view.x[[30, 9]])
    assert torch.equal(part.y, view.y[[30, 9]])
    assert torch.equal(part.on("cpu").x, part.x)


def test_rows_of_delta_may_be_in_another_order_and_more_than_the_images(images):
    delta = torch.randint(-8, 9, (60, *images.shape), dtype=torch.int8)
    rows = torch.randperm(60)[:48]
    view = images.plus(delta, rows)
    assert torch.equal(view.x, images.plus(delta[rows]).x)
    part = torch.tensor([9, 2, 30])
    assert torch.equal(view.subset(part).x, view.x[part])
    delta.zero_()
    assert torch.equal(view.x, images.x)  # shared, not copied
    with pytest.raises(InputError, match="delta: shape"):
        images.plus(delta, rows[:5])


def test_fingerprints_follow_the_images_and_not_the_perturbation(images):
    part = torch.tensor([9, 2, 30])
    fresh = Images(images.x[part], images.y[part], images.classes).fingerprints
    assert torch.equal(images.subset(part).fingerprints, fresh)  # taken from the part
    assert torch.equal(images.fingerprints[part], fresh)
    assert torch.equal(images.subset(part).fingerprints, fresh)  # handed down
    moved = images.plus(torch.full(images.x.shape, 8, dtype=torch.int8))
    assert not (moved.fingerprints == images.fingerprints).any()


def test_images_that_changed_since_they_were_fingerprinted_are_counted(images):
    assert images.damaged() == 0  # nothing is known of them
    x = images.x.clone()
    x[5, 0, 0, 0] ^= 1
    x[7, 2, 1, 1] ^= 128
    seen = Images(x, images.y, images.classes, fingerprints=images.fingerprints)
    assert seen.subset(torch.tensor([4, 6])).damaged() == 0
    assert seen.damaged() == 2


def test_names_are_shown_in_one_line():
    x = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images = Images(x, torch.arange(2), ["a\nb", "\x1b[31mred\u202e"], name="set\r\n[error] all is well")
    assert images.classes == ["a\\nb", "\\x1b[31mred\\u202e"] and images.name == "set\\r\\n[error] all is well"
    assert Images(x, torch.arange(2), ["café", "<b>猫</b>"]).classes == ["café", "<b>猫</b>"]


def test_content_hash_tells_pixels_labels_and_classes_apart(images):
    same = Images(images.x.clone(), images.y, images.classes)
    assert same.content_hash == images.content_hash
    x = images.x.clone()
    x[5, 0, 0, 0] ^= 1
    y = images.y.clone()
    y[5] = (y[5] + 1) % 4
    others = [
        Images(x, images.y, images.classes),
        Images(images.x, y, images.classes),
        Images(images.x, images.y, ["a", "b", "c", "d"]),
        images.subset(torch.arange(len(images)).flip(0)),
    ]
    hashes = {images.content_hash, *(other.content_hash for other in others)}
    assert len(hashes) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.full((4, 3, 8, 8), -1.0)}, "torch.float32 from -1 to -1; images must be whole grey levels"),
        ({"x": torch.full((4, 3, 8, 8), 1.5)}, "images must be whole grey levels"),
        ({"x": torch.full((4, 3, 8, 8), float("nan"))}, "images must be whole grey levels"),
        ({"x": torch.full((4, 3, 8, 8), 256)}, "torch.int64 from 256 to 256"),
        ({"x": torch.full((4, 3, 8, 8), True)}, "x: truth values"),
        ({"x": np.zeros((4, 3, 8, 8), complex)}, "x: ndarray of complex128"),
        ({"x": "four images"}, "x: str of"),
        ({"x": np.ma.masked_equal(np.zeros((4, 3, 8, 8), np.uint8), 0)}, "x: 768 values are masked"),
        ({"x": torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "y": []}, "at least one"),
        ({"x": torch.zeros(4, 8, 8, dtype=torch.uint8)}, r"shape \(4, 8, 8\); .* pass x\[:, None\]"),
        ({"x": torch.zeros(4, 16, 16, 16, dtype=torch.uint8)}, r"shape \(4, 16, 16, 16\), .*layout=\"nhwc\""),
        ({"y": torch.tensor([0, 1, 2, 4])}, "label 4 is no class"),
        ({"y": torch.tensor([0, 1, -1, 2])}, "label -1 is no class"),
        ({"y": torch.tensor([0, 1])}, "y: shape .2,., int64; it must be 4 whole numbers"),
        ({"y": torch.tensor([0.5, 1, 2, 3])}, "y: shape .4,., float64; it must be 4 whole numbers"),
        ({"y": [0, 1, 2, 1e30]}, "y: shape .4,., float64; it must be 4 whole numbers"),
        ({"y": np.array([0, 1, 2, 2**63], np.uint64)}, "y: shape .4,., uint64; it must be 4 whole numbers"),
        ({"y": list("abcd")}, "y: shape .4,., <U1; it must be 4 whole numbers"),
        ({"y": torch.eye(4)}, "y: shape .4, 4."),
        ({"y": pd.Series([0, 1, 2, None], dtype="Int64")}, "y: 1 values are missing"),
        ({"ids": torch.tensor([1, 1, 2, 3])}, "ids: 3 different"),
        ({"ids": torch.tensor([0.5, 1, 2, 3])}, "ids: shape .4,., float64"),
    ],
)
def test_what_is_no_labelled_image_is_refused(changes, message):
    good = {"x": torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "y": torch.arange(4), "classes": list("abcd")}
    with pytest.raises(InputError, match=message):
        Images(**(good | changes))


LEVELS = some_images(n=8, size=10).x[:, :, :8].numpy()
PIXELS = {
    "channels last": LEVELS.transpose(0, 2, 3, 1),
    "channels last, a copy": torch.tensor(LEVELS).permute(0, 2, 3, 1).contiguous(),
    "rows turned round twice": LEVELS[:, :, ::-1].copy()[:, :, ::-1],
    "most significant byte first": LEVELS.astype(">i4"),
    "uint16": LEVELS.astype(np.uint16),
    "uint64": LEVELS.astype(np.uint64),
    "whole floats": LEVELS.astype(np.float64),
    "fractions": LEVELS / 255,
    "float16 fractions": (LEVELS / 255).astype(np.float16),
    "long fractions": LEVELS.astype(np.longdouble) / 255,
    "read only": np.frombuffer(LEVELS.tobytes(), np.uint8).reshape(LEVELS.shape),
    "lists": LEVELS.tolist(),
    "a list of arrays": list(LEVELS),
    "a list of tensors": [torch.tensor(image) for image in LEVELS],
    "a tensor that wants gradients": torch.tensor(LEVELS / 255, requires_grad=True),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", PIXELS.values(), ids=PIXELS)
def test_pixels_are_read_as_what_they_are(x):
    read, plain = (Images(values, np.arange(8) % 4) for values in (x, torch.tensor(LEVELS)))
    assert read.shape == (3, 8, 10) and read.x.dtype == torch.uint8
    assert torch.equal(read.x, plain.x) and read.content_hash == plain.content_hash


def test_uint8_is_shared_and_not_copied():
    x = np.zeros((4, 8, 10, 3), np.uint8)
    images = Images(x, torch.arange(4))
    x[2, 5, 7, 1] = 9
    assert images.x[2, 1, 5, 7] == 9


def test_images_of_many_channels_stay_channels_first():
    assert Images(torch.zeros(2, 12, 32, 32, dtype=torch.uint8), [0, 1]).shape == (12, 32, 32)
    assert Images(torch.zeros(2, 28, 28, 1, dtype=torch.uint8), [0, 1]).shape == (1, 28, 28)


LABELS = {
    "a list": [1, 0, 2, 1],
    "floats": [1.0, 0.0, 2.0, 1.0],
    "small and big-endian": np.array([1, 0, 2, 1], ">i2"),
    "turned round": np.array([1, 2, 0, 1])[::-1],
    "a series": pd.Series([1, 0, 2, 1], index=[7, 7, 7, 7]),
    "a slice of a series": pd.Series([9, 1, 0, 2, 1])[1:],
    "a nullable series": pd.Series([1, 0, 2, 1], dtype="Int64"),
    "bytes": torch.tensor([1, 0, 2, 1], dtype=torch.uint8),
}


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels_are_read_as_what_they_are(y):
    images = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), y)
    assert images.y.tolist() == [1, 0, 2, 1] and images.y.dtype == torch.int64


def test_truth_values_are_two_classes():
    assert Images(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), [True, False, True]).y.tolist() == [1, 0, 1]


def test_a_subset_may_be_a_mask_or_a_list_of_places(images):
    mask = np.arange(48) % 3 == 1
    assert images.subset(mask).subset([True] + [False] * 15).ids.tolist() == [1]
    assert images.subset(torch.tensor(mask)).ids.tolist() == list(range(1, 48, 3))
    assert images.subset([5, -1]).ids.tolist() == [5, 47] and len(images.subset([])) == 0
    for wrong in ([48], [-49], [True, False], [0.5], [[1]]):
        with pytest.raises(InputError, match="index: "):
            images.subset(wrong)


def test_delta_of_another_shape_or_type_is_refused(images):
    for delta in (torch.zeros(images.x.shape, dtype=torch.float64), torch.zeros(2, 3, 8, 8, dtype=torch.int8)):
        with pytest.raises(InputError, match="delta: shape"):
            images.plus(delta)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_the_gpu_are_the_same():
    images = some_images()
    view = images.plus(torch.full(images.x.shape, 3, dtype=torch.int8)).on("cuda")
    assert torch.equal(view.batch(torch.arange(9))[0].cpu(), view.x[:9].cpu())
    assert view.content_hash == images.plus(torch.full(images.x.shape, 3, dtype=torch.int8)).content_hash


def test_joined_images_are_one_set_and_other_pixels_keep_their_labels():
    one, other = some_images(n=8), some_images(n=4, seed=1)
    both = one.joined(other)
    assert torch.equal(both.x, torch.cat([one.x, other.x])) and torch.equal(both.y, torch.cat([one.y, other.y]))
    assert both.ids.tolist() == list(range(12)) and both.classes == one.classes
    with pytest.raises(InputError, match="has another shape or other classes"):
        one.joined(some_images(n=4, classes=3))
    grey = one.subset(torch.tensor([5, 2])).with_pixels(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert grey.ids.tolist() == [5, 2] and grey.y.tolist() == [1, 2] and int(grey.x.sum()) == 0


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 10**7], "y: label 10000000 is no class; labels must be from 0 to 99,999"),
        ([0, 10**12], "y: label 1000000000000 is no class"),
        ([-1, -1], "y: label -1 is no class; .*; leave out images without a label"),
    ],
)
def test_labels_that_number_no_classes_are_refused(y, message):
    with pytest.raises(InputError, match=message):
        Images(np.zeros((2, 3, 8, 8), np.uint8), y)


def test_values_that_are_no_levels_are_told_with_the_type_that_was_given():
    with pytest.raises(InputError, match="x: uint16 from 0 to 300"):
        Images(np.array([0, 300], np.uint16).repeat(64).reshape(2, 1, 8, 8), [0, 1])


@pytest.mark.parametrize("shape", [(4, 4, 3), (3, 4, 4)])
def test_images_of_which_either_end_may_be_the_channels_are_refused(shape):
    with pytest.raises(InputError, match="in which any may be the channels"):
        Images(np.zeros((2, *shape), np.uint8), [0, 1])
