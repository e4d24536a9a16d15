"""Files of other programs: what each format and scale means, and what is refused instead of being applied wrongly."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from samples import some_images

from miue import Images
from miue.errors import DataWarning, InputError
from miue.poisons import Poison
from miue.poisons.foreign import read


@pytest.fixture
def levels(images):
    """A perturbation of 8 levels for each image, int8."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(-8, 9, images.x.shape, generator=generator, dtype=torch.int8)


@pytest.fixture
def expected(images, levels):
    """The images that `levels` makes."""
    return (images.x.int() + levels).clamp(0, 255).to(torch.uint8)


def write(array, file):
    if file.suffix == ".npy":
        np.save(file, array.numpy())
    elif file.suffix == ".safetensors":
        save_file({"noise": array.contiguous()}, file)
    else:
        torch.save(array, file)
    return file


@pytest.mark.parametrize("ending", [".npy", ".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["int8 levels", "int64 levels", "fractions", "float16 fractions", "channels last"])
def test_every_format_scale_and_layout_gives_the_same_images(images, levels, expected, tmp_path, ending, kind):
    array = {
        "int8 levels": levels,
        "int64 levels": levels.long(),
        "fractions": levels.float() / 255,
        "float16 fractions": (levels.float() / 255).half(),
        "channels last": levels.permute(0, 2, 3, 1).contiguous(),
    }[kind]
    poison = read(write(array, tmp_path / f"noise{ending}"), images, labels=images.y)
    assert poison.delta.dtype == torch.int8 and poison.delta.min() < 0
    assert torch.equal(poison.apply(images).x, expected)


def test_a_result_can_be_saved_and_applied_to_a_part_in_any_order(images, levels, expected, tmp_path):
    file = write(levels, tmp_path / "noise.pt")
    read(file, images, labels=images.y).save(tmp_path / "ours.safetensors")
    poison = Poison.load(tmp_path / "ours.safetensors")
    part = torch.tensor([7, 3, 40])
    assert torch.equal(poison.apply(images.subset(part)).x, expected[part])
    assert poison.record["notes"]["file"] == "noise.pt" and poison.record["notes"]["order_known_from"] == "labels"
    assert poison.record["data"]["content_hash"] == images.content_hash


def test_one_row_for_each_class_goes_to_the_images_of_that_class(images, levels, tmp_path):
    file = write(levels[:4], tmp_path / "noise.npy")
    poison = read(file, images)
    wanted = (images.x.int() + levels[:4][images.y]).clamp(0, 255).to(torch.uint8)
    assert torch.equal(poison.apply(images).x, wanted)
    assert poison.record["notes"]["by_class"]


def test_as_many_classes_as_images_must_be_told_apart(tmp_path):
    images = some_images(n=4, classes=4).subset(torch.tensor([3, 2, 1, 0]))
    noise = torch.arange(-2, 2, dtype=torch.int8)[:, None, None, None].expand(4, *images.shape).contiguous() * 2
    file = write(noise, tmp_path / "noise.pt")
    with pytest.raises(
        InputError, match="4 rows may be classes or images, there are as many; say which: rows classes or"
    ):
        read(file, images)
    by_class = read(file, images, rows="classes").delta
    by_image = read(file, images, rows="images", trust_order=True).delta
    assert not torch.equal(by_class, by_image)
    assert torch.equal(read(write(noise.flip(0), file), images, rows="images", trust_order=True).delta, by_class)


def test_rows_that_are_neither_classes_nor_images_are_refused(images, levels, tmp_path):
    for count in (3, 5, 47):
        with pytest.raises(InputError, match=f"{count} rows; noise has 48 images of 4 classes, and perturbation must"):
            read(write(levels[:count], tmp_path / "noise.pt"), images, trust_order=True)


def test_noise_of_another_size_is_refused_with_both_shapes(images, tmp_path):
    file = write(torch.ones(48, 3, 9, 9, dtype=torch.int8), tmp_path / "noise.pt")
    with pytest.raises(InputError, match=r"shape \(48, 3, 9, 9\) does not fit the images of noise, .* \(3, 8, 8\)"):
        read(file, images, trust_order=True)


def test_a_shape_that_fits_in_the_other_layout_is_told_so(images, levels, tmp_path):
    file = write(levels.permute(0, 2, 3, 1).contiguous(), tmp_path / "noise.pt")
    with pytest.raises(InputError, match=r"\(48, 8, 8, 3\) as nchw does not fit .* are \(3, 8, 8\); it fits as nhwc"):
        read(file, images, trust_order=True, layout="nchw")


def test_a_shape_that_fits_both_layouts_is_refused(tmp_path):
    x = torch.randint(0, 256, (6, 3, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(x, torch.arange(6) % 2)
    noise = torch.randint(-8, 9, x.shape, dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    file = write(noise, tmp_path / "noise.pt")
    with pytest.raises(InputError, match=r"shape \(6, 3, 3, 3\) may be nchw or nhwc; say which: layout nchw or nhwc"):
        read(file, images, trust_order=True)
    first, last = (read(file, images, trust_order=True, layout=layout).apply(images).x for layout in ("nchw", "nhwc"))
    assert torch.equal(first, (x.int() + noise).clamp(0, 255).to(torch.uint8))
    assert torch.equal(last, (x.int() + noise.permute(0, 3, 1, 2)).clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("shape", [(48, 8, 8), (48, 1, 8, 8), (48, 8, 8, 1)])
def test_grey_images_may_come_without_a_channel(shape, tmp_path):
    images = some_images(channels=1)
    noise = torch.full((48, 8, 8), -3, dtype=torch.int8)
    poison = read(write(noise.view(shape), tmp_path / "noise.npy"), images, trust_order=True)
    assert torch.equal(poison.apply(images).x, (images.x.int() - 3).clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (torch.tensor([-8.0, 8.0]), "float32 from -8 to 8 may be fractions of the pixel range or grey levels"),
        (torch.tensor([-1.0, 1.0]), "float32 from -1 to 1 may be fractions"),
        (torch.tensor([-1, 1], dtype=torch.int8), "int8 from -1 to 1 may be fractions"),
        (torch.tensor([8, 248], dtype=torch.uint8), r"negative levels seem to have wrapped around \(-8 is kept as 248"),
        (torch.tensor([-0.5, float("nan")]), "4608 values are NaN or infinite"),
        (torch.tensor([True, False]), "torch.bool; it must be a dense array of floats or integers"),
        (torch.tensor([-300, 300]), "values from -300 to 300; perturbation as levels must lie in -255..255"),
        (torch.tensor([0.0, 0.0]), "would change no image of noise"),
    ],
)
def test_values_that_may_mean_several_things_are_refused(images, tmp_path, array, message):
    noise = array.repeat(images.x.numel() // 2).view(images.x.shape)
    with pytest.raises(InputError, match=message):
        read(write(noise, tmp_path / "noise.pt"), images, trust_order=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_the_caller_can_say_what_values_mean(images, tmp_path, dtype):
    noise = torch.tensor([-1, 1], dtype=dtype).repeat(images.x.numel() // 2).view(images.x.shape)
    file = write(noise, tmp_path / "noise.pt")
    assert read(file, images, trust_order=True, scale="levels").delta.abs().max() == 1
    whole = read(file, images, trust_order=True, scale="fraction")
    assert whole.delta.dtype == torch.int16 and whole.apply(images).x.unique().tolist() == [0, 255]


def test_noise_without_negative_values_is_warned_of(images, levels, tmp_path):
    file = write(levels.clamp(min=0), tmp_path / "noise.pt")
    with pytest.warns(DataWarning, match=r"noise\.pt: no value is negative; half of the noise may have been lost"):
        read(file, images, labels=images.y)


def test_the_order_must_be_proved_or_vouched_for(images, levels, tmp_path):
    file = write(levels, tmp_path / "noise.npy")
    with pytest.raises(InputError, match="nothing proves that row i belongs to image i"):
        read(file, images)
    assert read(file, images, trust_order=True).record["notes"]["order_known_from"] == "trust"


def test_labels_may_lie_in_the_file_or_in_another_and_must_agree(images, levels, tmp_path):
    wrong = images.y.clone()
    wrong[[2, 9]] = (wrong[[2, 9]] + 1) % 4
    for name in ("labels", "y_train", "targets"):
        torch.save({"noise": levels, name: images.y}, tmp_path / "noise.pt")
        assert read(tmp_path / "noise.pt", images).record["notes"]["order_known_from"] == "labels"
        torch.save({"noise": levels, name: wrong}, tmp_path / "noise.pt")
        with pytest.raises(InputError, match="labels: 2 of 48 with .* are not those of noise; its order or data set"):
            read(tmp_path / "noise.pt", images, trust_order=True)
    file = write(levels, tmp_path / "noise.npy")
    one_hot = torch.nn.functional.one_hot(images.y, 4)
    for right in (images.y, images.y.numpy(), images.y[:, None], one_hot, one_hot.float()):
        read(file, images, labels=right)
    read(file, images, labels=write(images.y, tmp_path / "labels.npy"))
    with pytest.raises(InputError, match="labels: 2 of 48"):
        read(file, images, labels=write(wrong, tmp_path / "labels.npy"))
    with pytest.raises(InputError, match=r"labels: shape \(47,\) with .*; the 48 images of noise need as many"):
        read(file, images, labels=images.y[:47])


def test_one_array_of_several_is_chosen_by_name(images, levels, tmp_path):
    torch.save({"noise": levels, "other": -levels, "epoch": 3}, tmp_path / "noise.pt")
    with pytest.raises(InputError, match="holds noise, other; exactly one besides labels is read, or the one that key"):
        read(tmp_path / "noise.pt", images, trust_order=True)
    with pytest.raises(InputError, match="key: 'third' does not exist; choose one of noise, other"):
        read(tmp_path / "noise.pt", images, trust_order=True, key="third")
    one, other = (read(tmp_path / "noise.pt", images, trust_order=True, key=key) for key in ("noise", "other"))
    assert not torch.equal(one.apply(images).x, other.apply(images).x)


@pytest.mark.parametrize("form", ["uint8", "float", "channels last"])
def test_perturbed_images_are_compared_with_the_clean_ones(images, expected, tmp_path, form):
    array = {"uint8": expected, "float": expected.float() / 255, "channels last": expected.permute(0, 2, 3, 1)}[form]
    file = write(array.contiguous(), tmp_path / "images.npy")
    poison = read(file, images, kind="images", epsilon="8/255")
    assert torch.equal(poison.apply(images).x, expected) and poison.delta.min() < 0
    assert poison.record["levels"] == 8 and poison.record["bounded"]


def test_images_in_another_order_or_beyond_the_budget_are_refused(images, expected, tmp_path):
    swapped = expected[torch.tensor([1, 0, *range(2, 48)])]
    file = write(swapped, tmp_path / "images.npy")
    with pytest.raises(InputError, match="2 of 48 images differ by more than 8 levels .*; the order, the data set or"):
        read(file, images, kind="images", epsilon=8 / 255)
    with pytest.raises(InputError, match="48 of 48 images differ by more than 2 levels"):
        read(write(expected, file), images, kind="images", epsilon=2 / 255)
    with pytest.raises(InputError, match="epsilon: missing"):
        read(file, images, kind="images")
    with pytest.raises(InputError, match="images as fraction must lie in 0..1"):
        read(write((expected.float() / 255 - 0.5), file), images, kind="images", epsilon=8 / 255)
    with pytest.raises(InputError, match="would change no image"):
        read(write(images.x, file), images, kind="images", epsilon=8 / 255)


def test_a_perturbation_beyond_its_stated_budget_is_refused(images, levels, tmp_path):
    file = write(levels, tmp_path / "noise.pt")
    with pytest.raises(
        InputError, match=r"epsilon: 0.0156863 \(4 levels\); .* goes further, up to 8 levels, in 48 of 48"
    ):
        read(file, images, labels=images.y, epsilon=4 / 255)
    assert read(file, images, labels=images.y, epsilon=8 / 255).record["levels"] == 8


def test_other_files_and_choices_are_refused(images, levels, tmp_path):
    with pytest.raises(InputError, match=r"gone\.npy does not exist"):
        read(tmp_path / "gone.npy", images)
    (tmp_path / "noise.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match=r"\.pkl is not read; it must be one of \.npy, \.pt, \.pth, \.safetensors"):
        read(tmp_path / "noise.pkl", images)
    file = write(levels, tmp_path / "noise.npy")
    (tmp_path / "cut.npy").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.npy is damaged"):
        read(tmp_path / "cut.npy", images, trust_order=True)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt holds no array"):
        read(tmp_path / "list.pt", images)
    for option in ("kind", "scale", "layout", "rows"):
        with pytest.raises(InputError, match=f"{option}: 'odd' does not exist; choose one of"):
            read(file, images, trust_order=True, **{option: "odd"})
