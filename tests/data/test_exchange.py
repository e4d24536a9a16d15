"""Images come in from arrays and from other people's data sets, and leave as a data set or a folder, as they are."""

import doctest
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from samples import some_images
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import miue
from miue import Images
from miue.data import archives
from miue.errors import InputError

PIXELS = some_images(n=6, classes=3, size=8).x
PHOTOS = [Image.fromarray(one) for one in PIXELS.permute(0, 2, 3, 1).numpy()]
LABELS = [0, 1, 2, 0, 1, 2]
NAMES = ["ant", "bee", "cow"]


class Stream(IterableDataset):
    """Pairs one after the other, and no telling how many."""

    def __iter__(self):
        return iter(zip(PHOTOS, LABELS, strict=True))


class Folderlike(Dataset):
    """Pairs by position, with class names, as torchvision has it."""

    classes = NAMES

    def __len__(self):
        return len(PHOTOS)

    def __getitem__(self, position):
        return PHOTOS[position], LABELS[position]


def hugging_face(label=None, image="image", key="label"):
    """A real data set of Hugging Face in memory, with its own image feature."""
    import datasets

    features = datasets.Features({image: datasets.Image(), key: label or datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({image: PHOTOS, key: LABELS}, features=features)


def test_the_examples_of_the_doors_hold():
    from miue.data import images

    result = doctest.testmod(images)
    assert result.failed == 0 and result.attempted >= 8


def test_labels_may_be_names_and_classes_are_sorted_or_as_told():
    y = ["dog", "cat", "dog"]
    for given in (y, np.array(y), tuple(y)):
        images = Images.from_arrays(PIXELS[:3], given)
        assert images.classes == ["cat", "dog"] and images.y.tolist() == [1, 0, 1]
    images = Images.from_arrays(PIXELS[:3], y, classes=["dog", "emu", "cat"], ids=[7, 9, 8], name="pets")
    assert images.classes == ["dog", "emu", "cat"] and images.y.tolist() == [0, 2, 0]
    assert images.ids.tolist() == [7, 9, 8] and images.name == "pets"


def test_a_layout_that_is_told_settles_what_could_be_either():
    x = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    first = Images.from_arrays(x, [0, 1], layout="nchw")
    last = Images.from_arrays(x, [0, 1], layout="nhwc")
    assert first.shape == (3, 4, 4) and torch.equal(first.x, torch.tensor(x))
    assert last.shape == (4, 3, 4) and torch.equal(last.x, torch.tensor(x).permute(0, 3, 1, 2))
    assert torch.equal(first.with_pixels(first.x).x, first.x) and len(first.joined(first)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": PIXELS[:, :, :4, :4]}, 'x: shape .6, 3, 4, 4., .*; .* say layout="nchw", or layout="nhwc"'),
        ({"layout": "chw"}, "layout: 'chw' does not exist; choose one of auto, nchw, nhwc"),
        ({"x": PIXELS / 127.5 - 1}, "x: torch.float32 from -1 to 1; images must be .* fractions from 0 to 1"),
        ({"x": PIXELS[0]}, "x: shape .3, 8, 8.; images must be .N, C, H, W."),
        ({"y": LABELS[:4]}, "y: shape .4,., int64; it must be 6 whole numbers, one for each image"),
        ({"y": [0, 2, 5, 0, 2, 5]}, "y: labels go up to 5, but no image has 1, 3, 4; .* or name all 6 in classes"),
        ({"y": [1, 2, 3, 1, 2, 3]}, "y: labels go up to 3, but no image has 0; number the classes from 0 on"),
        ({"y": [0, 1, -1, 0, 1, 0]}, "y: label -1 is no class; .* leave out images without a label"),
        ({"y": [0, 1, 2, 0, 1, 7], "classes": NAMES}, "y: label 7 is no class; labels must be from 0 to 2"),
        ({"y": [0, 10**12, 1, 2, 3, 4]}, "y: label 1000000000000 is no class"),
        ({"y": ["ant", "bug"] * 3, "classes": NAMES}, "y: label 'bug' is no class; the classes are .'ant', 'bee', 'c"),
        ({"y": [0.5] * 6}, "y: shape .6,., float64; it must be 6 whole numbers"),
        ({"ids": [1] * 6}, "ids: 1 different ones; each of the 6 images needs its own"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        Images.from_arrays(**({"x": PIXELS, "y": LABELS} | changes))
    assert "\n" not in str(caught.value)


def test_a_class_that_is_named_may_have_no_image():
    assert Images.from_arrays(PIXELS[:2], [0, 2], classes=NAMES).y.tolist() == [0, 2]


SETS = {
    "a data set by position": Folderlike,
    "a part of one": lambda: Subset(Folderlike(), range(6)),
    "a loader of one": lambda: DataLoader(Folderlike(), batch_size=None),
    "a stream": Stream,
    "several, one after the other": lambda: ConcatDataset(
        [Subset(Folderlike(), range(4)), Subset(Folderlike(), [4, 5])]
    ),
    "tensors": lambda: TensorDataset(PIXELS, torch.tensor(LABELS)),
    "tensors of fractions": lambda: TensorDataset(PIXELS / 255, torch.tensor(LABELS, dtype=torch.float64)),
    "batches": lambda: DataLoader(TensorDataset(PIXELS / 255, torch.tensor(LABELS)), batch_size=4),
    "a list": lambda: list(zip(PHOTOS, LABELS, strict=True)),
    "a generator": lambda: ((photo, label) for photo, label in zip(PHOTOS, LABELS, strict=True)),
    "arrays, channels last": lambda: [(np.asarray(p), np.int64(c)) for p, c in zip(PHOTOS, LABELS, strict=True)],
    "arrays, channels first": lambda: [(p.numpy(), c) for p, c in zip(PIXELS, LABELS, strict=True)],
    "dicts": lambda: [{"img": p, "fine_label": c, "more": 0} for p, c in zip(PHOTOS, LABELS, strict=True)],
    "names": lambda: [(p, NAMES[c]) for p, c in zip(PHOTOS, LABELS, strict=True)],
    "Hugging Face's": hugging_face,
    "Hugging Face's, by other names": lambda: hugging_face(image="img", key="labels"),
    "Hugging Face's, as tensors": lambda: hugging_face().with_format("torch"),
    "Hugging Face's, as arrays": lambda: hugging_face().with_format("numpy"),
    "Hugging Face's, as a stream": lambda: hugging_face().to_iterable_dataset(),
    "Hugging Face's, in batches": lambda: DataLoader(hugging_face().with_format("torch"), batch_size=4),
}


@pytest.mark.parametrize("kind", SETS)
def test_a_data_set_is_read_in_its_order_with_its_class_names(kind):
    images = Images.from_dataset(SETS[kind](), name="zoo")
    named = kind == "names" or kind.startswith(("Hugging", "a data set", "a part", "a loader"))
    assert images.classes == (NAMES if named else ["0", "1", "2"])
    assert torch.equal(images.x, PIXELS) and images.x.dtype == torch.uint8
    assert images.y.tolist() == LABELS and images.ids.tolist() == list(range(6)) and images.name == "zoo"


def test_labels_of_hugging_face_may_be_text_and_told_classes_come_before_all_others():
    import datasets

    images = Images.from_dataset(hugging_face().cast_column("label", datasets.Value("string")))
    assert images.classes == ["0", "1", "2"] and images.y.tolist() == LABELS
    assert Images.from_dataset(Folderlike(), classes=list("xyz")).classes == ["x", "y", "z"]


def test_an_image_folder_of_torchvision_gives_the_pixels_that_a_folder_gives(image_folder):
    from torchvision.datasets import ImageFolder, folder

    turned = Image.open(image_folder / "train/cats/0.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(image_folder / "train/cats/0.png", exif=exif)
    train, _ = miue.load(f"folder:{image_folder}", size=16)
    for loader in (folder.default_loader, Image.open):
        images = Images.from_dataset(ImageFolder(image_folder / "train", loader=loader), size=16)
        assert torch.equal(images.x, train.x) and torch.equal(images.y, train.y) and images.classes == train.classes


def test_fake_data_of_torchvision_comes_with_or_without_to_tensor():
    from torchvision.datasets import FakeData
    from torchvision.transforms import ToTensor

    plain, changed = (FakeData(12, (3, 9, 10), 2, transform=change) for change in (None, ToTensor()))
    images = Images.from_dataset(plain)
    assert images.shape == (3, 9, 10) and torch.equal(images.x, Images.from_dataset(changed).x)
    assert Images.from_dataset(plain, size=8).shape == (3, 8, 8)


def test_grey_becomes_rgb_and_what_is_transparent_white():
    grey, clear = np.full((8, 8), 100, np.uint8), np.zeros((8, 8, 4), np.uint8)
    sets = [grey, grey[None], torch.tensor(grey)[None], Image.fromarray(grey), Image.fromarray(clear), clear]
    images = Images.from_dataset([(image, place % 2) for place, image in enumerate(sets)])
    assert [int(x.unique()) for x in images.x] == [100, 100, 100, 100, 255, 255] and images.shape == (3, 8, 8)


def test_of_small_images_channels_come_first_in_tensors_and_last_in_arrays():
    narrow = PIXELS[0, :, :, :4]
    images = Images.from_dataset([(narrow, 0), (narrow.permute(1, 2, 0).numpy(), 1)])
    assert torch.equal(images.x[0], narrow) and torch.equal(images.x[1], narrow)
    flat = PIXELS[0, :, :4]
    assert torch.equal(Images.from_dataset([(flat.permute(1, 2, 0).numpy(), 0)]).x[0], flat)


def test_what_has_to_be_told_of_files_is_told_for_data_sets(tmp_path, capsys):
    PHOTOS[0].copy().save(tmp_path / "two.tif", save_all=True, append_images=[PHOTOS[1].copy()])
    images = Images.from_dataset([(Image.open(tmp_path / "two.tif"), 0), (PHOTOS[1], 1)])
    assert torch.equal(images.x, PIXELS[:2])
    assert "custom: 1 of the images hold more than one image; the first of each is read" in capsys.readouterr().err


def normalised():
    from torchvision.datasets import FakeData
    from torchvision.transforms import Compose, Normalize, ToTensor

    return FakeData(4, (3, 8, 8), 2, transform=Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]))


def damaged(tmp_path):
    PHOTOS[0].save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-90])
    return [(PHOTOS[1], 0), (Image.open(tmp_path / "a.png"), 1)]


SMALL, LARGE = PHOTOS[0], Image.new("RGB", (20, 30))
NO_SETS = {
    "empty": ([], "dataset: it holds no items; at least one image is needed"),
    "no data set": (7, "dataset: int; pass a torch Dataset or DataLoader, or a Hugging Face Dataset"),
    "images already": (some_images(), "dataset: Images; pass a torch Dataset"),
    "splits": ({"train": [], "test": []}, "dataset: dict of train, test; pass one of them"),
    "no pairs": (
        PHOTOS,
        r"dataset: item 0 is Image; it must be \(image, label\), or a dict with image or img and with",
    ),
    "triples": ([(SMALL, 0, 1)], r"dataset: item 0 is tuple of 3; it must be \(image, label\)"),
    "one tensor": (TensorDataset(PIXELS), r"dataset: item 0 is tuple of 1; it must be"),
    "other keys": ([{"image": SMALL, "caption": "a cow"}], "dataset: item 0 has the keys image, caption; it must be"),
    "a shuffling loader": (DataLoader(Folderlike(), shuffle=True), "dataset: a DataLoader with a RandomSampler; pass"),
    "several sizes": ([(SMALL, 0), (LARGE, 1)], "size: None; items 0 and 1 are 8 x 8 and 30 x 20 px; give the size"),
    "normalised": (normalised, "dataset: item 0 is torch.float32 from -.*; fractions must be from 0 to 1: remove Norm"),
    "levels as floats": ([(PIXELS[0].float(), 0)], "dataset: item 0 is torch.float32 from .* remove Normalize"),
    "NaN": ([(torch.full((3, 8, 8), torch.nan), 0)], "dataset: item 0 is torch.float32 from nan to nan; fractions"),
    "levels of 16 bits": ([(PIXELS[0].int() * 257, 0)], "dataset: item 0: torch.int32 from .*; images must be whole"),
    "truth values": ([(PIXELS[0] > 9, 0)], "dataset: item 0: truth values; images must be grey levels"),
    "many channels": ([(np.zeros((12, 8, 8)), 0)], r"dataset: item 0 has shape \(12, 8, 8\); .*, C being 1, 3 or 4"),
    "a path": ([("cow.png", 0)], "dataset: item 0: str of <U7; pass an array of numbers"),
    "32-bit grey": (
        [(Image.new("I", (8, 8)), 0)],
        "dataset: item 0 cannot be read as an image .signed, 32-bit or floa",
    ),
    "unlabelled": ([(SMALL, 0), (SMALL, -1)], "dataset: item 1 has the label -1, which is no class; leave out images"),
    "none": ([(SMALL, None)], "dataset: item 0 has the label None; it must be a whole number or a name"),
    "one-hot": (
        [(SMALL, torch.eye(3)[0])],
        r"dataset: item 0 has the label tensor\(\[1., 0., 0.\]\); it must be a who",
    ),
    "boxes": ([(SMALL, {"boxes": []})], "dataset: item 0 has the label {'boxes': ..}; it must be a whole number"),
    "gaps": (
        [(SMALL, c) for c in (0, 2, 5)],
        "dataset: labels go up to 5, but no image has 1, 3, 4; number the classes",
    ),
    "of both kinds": ([(SMALL, 0), (SMALL, "cow")], "dataset: labels of the kinds numbers, text; pass"),
    "fractions": ([(SMALL, 0.5)], "dataset: shape .1,., float64; it must be 1 whole numbers"),
}


@pytest.mark.parametrize("kind", NO_SETS)
def test_a_data_set_of_no_labelled_images_is_refused_in_one_line(kind):
    dataset, message = NO_SETS[kind]
    with pytest.raises(InputError, match=message) as caught:
        Images.from_dataset(dataset() if callable(dataset) else dataset)
    assert "\n" not in str(caught.value)


def test_sizes_classes_and_files_that_do_not_fit_a_data_set_are_refused(tmp_path):
    for size, message in ((4, "size: 4; it must be a whole number, 8"), (5000, "size: 5000; images must be at most")):
        with pytest.raises(InputError, match=message):
            Images.from_dataset(Folderlike(), size=size)
    with pytest.raises(InputError, match="dataset: label 2 is no class; labels must be from 0 to 1"):
        Images.from_dataset(Folderlike(), classes=["ant", "bee"])
    with pytest.raises(InputError, match="dataset: item 1 cannot be read as an image"):
        Images.from_dataset(damaged(tmp_path))


def test_an_error_of_the_data_set_itself_comes_through():
    class Broken(Folderlike):
        def __getitem__(self, position):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Images.from_dataset(Broken())


@pytest.fixture
def perturbed():
    images = some_images(n=6, classes=3, size=8)
    return images.plus(torch.full(images.x.shape, 8, dtype=torch.int8)).subset([4, 0, 3])


def test_a_data_set_of_images_gives_their_perturbed_pixels_and_reads_back_the_same(perturbed):
    dataset = perturbed.to_dataset()
    image, label = dataset[1]
    assert image.dtype == torch.float32 and type(label) is int and len(dataset) == 3
    assert torch.equal(image, perturbed.x[1] / 255) and label == 0 and len(list(dataset)) == 3
    back = Images.from_dataset(dataset)
    assert torch.equal(back.x, perturbed.x) and torch.equal(back.y, perturbed.y) and back.classes == perturbed.classes


def test_a_data_set_of_images_on_a_device_is_on_the_cpu(perturbed, gpu):
    import pretend

    image, _ = perturbed.on(pretend.DEVICE).to_dataset()[2]
    assert image.device.type == "cpu" and torch.equal(image, perturbed.x[2] / 255)


def test_workers_of_a_loader_read_a_data_set_of_images(perturbed):
    dataset = pickle.loads(pickle.dumps(perturbed.to_dataset()))
    x, y = zip(*DataLoader(dataset, batch_size=2, num_workers=1), strict=True)
    assert torch.equal(torch.cat(x), perturbed.x / 255) and torch.equal(torch.cat(y), perturbed.y)


def by_name(images):
    return {name: pixels for name, pixels in zip(images.names, images.x.tolist(), strict=True)}


def test_a_folder_that_was_loaded_is_written_under_its_names_and_reads_back_the_same(image_folder, tmp_path):
    (image_folder / "train/cats/0.png").rename(image_folder / "train/cats/tom.jpg")
    (image_folder / "train/dogs/deep").mkdir()
    (image_folder / "train/dogs/1.png").rename(image_folder / "train/dogs/deep/rex.PNG")
    train, test = miue.load(f"folder:{image_folder}", size=16)
    train = train.plus(torch.full(train.x.shape, 8, dtype=torch.int8))
    train.subset(torch.randperm(len(train))).to_folder(tmp_path / "out/train", perturbation={"method": "grey"})
    test.to_folder(tmp_path / "out/test")
    train_back, test_back = miue.load(f"folder:{tmp_path / 'out'}", size=16)
    assert torch.equal(train_back.y, train.y) and train_back.classes == train.classes
    assert "tom.png" in train_back.names and "deep/rex.png" in train_back.names
    assert torch.equal(test_back.x, test.x) and test_back.names.tolist() == test.names.tolist()
    for part, back in ((train.subset(train.y == c), train_back.subset(train.y == c)) for c in (0, 1)):
        wanted = {name.replace(".jpg", ".png").lower(): pixels for name, pixels in by_name(part).items()}
        assert by_name(back) == wanted


def test_the_manifest_tells_what_each_file_is(perturbed, tmp_path):
    perturbed.to_folder(tmp_path / "out", names=["a.jpg", "b", "b.2"], perturbation={"method": "grey"})
    told = json.loads((tmp_path / "out/manifest.json").read_text())
    assert told["data"] == perturbed.record() and told["perturbation"] == {"method": "grey"}
    assert told["classes"] == perturbed.classes
    assert [(one["file"], one["name"], one["class"], one["id"]) for one in told["images"]] == [
        ("class 1/a.png", "a.jpg", "class 1", 4),
        ("class 0/b.png", "b", "class 0", 0),
        ("class 0/b.2.png", "b.2", "class 0", 3),
    ]
    for one, pixels in zip(told["images"], perturbed.x, strict=True):
        content = (tmp_path / "out" / one["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"]
        with Image.open(tmp_path / "out" / one["file"]) as image:
            assert torch.equal(torch.tensor(np.array(image)).permute(2, 0, 1), pixels)


def test_images_without_names_are_called_by_their_ids_and_grey_stays_grey(tmp_path):
    images = Images.from_arrays(np.full((12, 1, 8, 8), 7, np.uint8), [0, 1] * 6).subset([2, 11])
    images.to_folder(tmp_path)
    files = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.png"))
    assert files == ["0/02.png", "1/11.png"]
    with Image.open(tmp_path / files[0]) as image:
        assert image.mode == "L" and image.getpixel((3, 3)) == 7


def test_names_that_differ_by_the_ending_alone_keep_it(perturbed, tmp_path):
    perturbed.subset([1, 2]).to_folder(tmp_path, names=["a.jpg", "a.png"])
    assert sorted(file.name for file in (tmp_path / "class 0").iterdir()) == ["a.jpg.png", "a.png.png"]


@pytest.mark.parametrize(
    ("path", "how", "message"),
    [
        ("out", {"names": ["a"]}, "names: 1 of them; there must be one for each of the 3 images"),
        ("out", {"names": ["a", "b", "b"]}, "names: class 0/b.png would be the file of 2 images; each needs its own"),
        ("out", {"names": ["a", "../b", "c"]}, "names: '../b' cannot be the name of a file within its class folder"),
        ("out", {"names": ["a", "/b", "c"]}, "names: '/b' cannot be"),
        ("out", {"names": ["a", ".b", "c"]}, "names: '.b' cannot be"),
        ("out", {"names": ["a", "", "c"]}, "names: '' cannot be"),
        ("out", {"perturbation": 3}, "perturbation: int; pass its record, poison.record"),
        ("taken", {}, "path: .*taken exists and is no empty folder; give a new one"),
        ("taken/file", {}, "path: .*file exists and is no empty folder; give a new one"),
    ],
)
def test_names_and_places_that_cannot_be_are_refused_and_nothing_is_written(perturbed, tmp_path, path, how, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    with pytest.raises(InputError, match=message):
        perturbed.to_folder(tmp_path / path, **how)
    assert [file.name for file in tmp_path.iterdir()] == ["taken"] and (tmp_path / "taken/file").read_text() == "mine"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a/b", "c"], "classes: 'a/b' cannot be the name of a folder; give the class another name"),
        (["..", "c"], "classes: '..' cannot be"),
        (["c", "c"], "classes: 'c' is the name of several classes; each needs its own folder"),
    ],
)
def test_class_names_that_cannot_be_folders_are_refused(classes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Images.from_arrays(PIXELS[:2], [0, 1], classes=classes).to_folder(tmp_path / "out")


def test_no_images_and_such_as_are_neither_grey_nor_rgb_are_no_folder(perturbed, tmp_path):
    with pytest.raises(InputError, match="images: there are none; a folder needs at least one"):
        perturbed.subset([]).to_folder(tmp_path / "out")
    with pytest.raises(InputError, match="images: 12 channels; a folder holds grey images .1. or RGB"):
        Images.from_arrays(torch.zeros(2, 12, 32, 32), [0, 1]).to_folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt("stop"), "stop"),
        (OSError(28, "No space left on device"), "out cannot be written: the disk of .* is full; free some space"),
    ],
)
def test_a_folder_that_cannot_be_finished_leaves_nothing(error, message, perturbed, tmp_path, monkeypatch):
    from miue.data import exchange

    def stop(*_):
        assert len(list(tmp_path.rglob("*.png"))) == 3
        raise error

    monkeypatch.setattr(exchange, "write_json", stop)
    with pytest.raises(type(error), match=message):
        perturbed.to_folder(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_may_end_in_capitals():
    assert archives.stem("photos/Pets.ZIP") == "Pets"
