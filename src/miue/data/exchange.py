"""What `Images` are read from and written to: data sets of torch and Hugging Face, and folders of PNG files."""

import hashlib
import io
import math
import numbers
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from miue.data.decoding import check_size
from miue.data.folders import ENDINGS, hidden
from miue.data.images import Images
from miue.data.labelled import as_levels, as_tensor, numbered
from miue.data.seeing import as_seen
from miue.errors import InputError, printable
from miue.progress import say, track
from miue.storage.files import atomic_folder, write_json

IMAGE_KEYS = ("image", "img")
LABEL_KEYS = ("label", "labels", "fine_label")
CHANNELS = (1, 3, 4)  # of an array that is an image: grey, RGB, RGB with transparency
MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images as torch reads them: (C, H, W) float32 in [0, 1] and the label, an int."""

    images: Images

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self.images.classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[Tensor, int]]:
        x, y = self.images.batch(torch.as_tensor(positions))  # a loader asks for a batch at once
        return list(zip(x.float() / 255, y.tolist(), strict=True))


def read_dataset(dataset: Any, size: int | None, classes: Sequence[str] | None, name: str) -> Images:
    """Read a data set into memory; see `Images.from_dataset`."""
    if size is not None:
        check_size(size)
    content, labels, shape = bytearray(), [], None
    told: Counter[str] = Counter()
    for position, (image, label) in enumerate(track(_pairs(dataset), f"reading {name}", _count(dataset))):
        where = f"dataset: item {position}"
        pixels, notes = _pixels(where, image, size)
        shape = pixels.shape if shape is None else shape
        if pixels.shape != shape:
            sizes = " and ".join(f"{height} x {width}" for _, height, width in (shape, pixels.shape))
            raise InputError(
                f"size: None; items 0 and {position} are {sizes} px; give the size that all are resized to"
            )
        content += pixels.tobytes()
        labels.append(_label(where, label))
        told.update(notes)
    if shape is None:
        raise InputError("dataset: it holds no items; at least one image is needed")
    for note, count in told.items():
        say(f"{name}: {count} of the images {note}")
    y, names = numbered("dataset", labels, class_names(dataset) if classes is None else classes)
    x = torch.frombuffer(content, dtype=torch.uint8).view(-1, *shape)
    return Images(x, y, names, name=name, layout="nchw")


def class_names(dataset: Any) -> list[str] | None:
    """The class names that a data set, or the one that it loads or is a part of, tells; None where none does."""
    while dataset is not None:
        features = getattr(dataset, "features", None)
        known = features if isinstance(features, Mapping) else {}
        label = next((known[key] for key in LABEL_KEYS if key in known), None)
        for names in (getattr(dataset, "classes", None), getattr(label, "names", None)):
            if isinstance(names, list | tuple) and names:
                return list(names)
        dataset = getattr(dataset, "dataset", None)
    return None


def _pairs(dataset: Any) -> Iterator[tuple[Any, Any]]:
    """Yield images and labels, one at a time and in order."""
    if isinstance(dataset, Mapping):
        parts = ", ".join(map(str, dataset))
        raise InputError(f"dataset: {type(dataset).__name__} of {parts}; pass one of them")
    if isinstance(dataset, DataLoader):
        streamed = isinstance(dataset.dataset, IterableDataset)
        if not streamed and not isinstance(dataset.sampler, SequentialSampler):
            sampler = type(dataset.sampler).__name__
            raise InputError(f"dataset: a DataLoader with a {sampler}; pass its data set, or one with shuffle=False")
    for place, item in enumerate(_items(dataset)):
        if _batched(dataset):
            yield from zip(*_pair(f"batch {place}", item), strict=True)
        else:
            yield _pair(f"item {place}", item)


def _items(dataset: Any) -> Iterable[Any]:
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        return (dataset[position] for position in range(len(dataset)))
    try:
        return iter(dataset)
    except TypeError:
        kind = type(dataset).__name__
        raise InputError(f"dataset: {kind}; pass a torch Dataset or DataLoader, or a Hugging Face Dataset") from None


def _batched(dataset: Any) -> bool:
    return isinstance(dataset, DataLoader) and dataset.batch_sampler is not None


def _count(dataset: Any) -> int | None:
    counted = dataset.dataset if _batched(dataset) else dataset
    return len(counted) if isinstance(counted, Sized) else None


def _pair(what: str, item: Any) -> tuple[Any, Any]:
    wanted = f"(image, label), or a dict with {' or '.join(IMAGE_KEYS)} and with {', '.join(LABEL_KEYS)}"
    if isinstance(item, Mapping):
        image, label = (next((key for key in keys if key in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
        if image is not None and label is not None:
            return item[image], item[label]
        raise InputError(f"dataset: {what} has the keys {', '.join(map(str, item))}; it must be {wanted}")
    if isinstance(item, list | tuple) and len(item) == 2:
        return item[0], item[1]
    count = f" of {len(item)}" if isinstance(item, list | tuple) else ""
    raise InputError(f"dataset: {what} is {type(item).__name__}{count}; it must be {wanted}")


def _label(where: str, label: Any) -> Any:
    """One label as a plain number or text."""
    single = label.item() if hasattr(label, "item") and math.prod(label.shape) == 1 else label
    if not isinstance(single, numbers.Real | str):
        shown = " ".join(reprlib.repr(single).split())
        raise InputError(f"{where} has the label {shown}; it must be a whole number or a name")
    if isinstance(single, numbers.Real) and single < 0:
        raise InputError(f"{where} has the label {single}, which is no class; leave out images without a label")
    return single


def _pixels(where: str, image: Any, size: int | None) -> tuple[np.ndarray, list[str]]:
    """One image, (3, H, W) uint8, and what has to be told of it."""
    picture = image if isinstance(image, Image.Image) else _picture(where, image)
    try:
        return as_seen(picture, size)
    except Exception as error:  # damaged files raise all sorts of errors
        reason = str(error) or type(error).__name__
        raise InputError(printable(f"{where} cannot be read as an image ({reason})")) from None


def _picture(where: str, image: Any) -> Image.Image:
    """An array as a picture: channels first in a tensor and last in others, unless only the other end can be them."""
    given = as_tensor(where, image)
    given = given[None] if given.ndim == 2 else given
    ends = (0, 2) if isinstance(image, Tensor) else (2, 0)
    channels = next((end for end in ends if given.ndim == 3 and given.shape[end] in CHANNELS), None)
    if channels is None or given.numel() == 0:
        raise InputError(
            f"{where} has shape {tuple(given.shape)}; it must be (C, H, W), (H, W, C) or (H, W), C being 1, 3 or 4"
        )
    low, high = given.min(), given.max()
    if given.is_floating_point() and not (low >= 0 and high <= 1):
        raise InputError(
            f"{where} is {given.dtype} from {low:.3g} to {high:.3g}; fractions must be from 0 to 1: "
            "remove Normalize, or whatever else scales them, from the transform"
        )
    levels = as_levels(where, given, given.dtype).movedim(channels, 2).cpu().numpy()
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def write_folder(
    images: Images, path: Path, names: Sequence[str] | None, perturbation: Mapping[str, Any] | None
) -> None:
    """Write PNG files in class folders and a manifest; see `Images.to_folder`."""
    if len(images) == 0:
        raise InputError("images: there are none; a folder needs at least one")
    if images.shape[0] not in (1, 3):
        raise InputError(f"images: {images.shape[0]} channels; a folder holds grey images (1) or RGB (3)")
    if perturbation is not None and not isinstance(perturbation, Mapping):
        raise InputError(f"perturbation: {type(perturbation).__name__}; pass its record, poison.record")
    if path.exists() and not (path.is_dir() and next(path.iterdir(), None) is None):
        raise InputError(printable(f"path: {path} exists and is no empty folder; give a new one"))
    called = _called(images, names)
    files = _files(images, called)
    sums: list[str] = []
    with atomic_folder(path) as part, ThreadPoolExecutor() as pool:
        for folder in {(part / file).parent for file in files}:
            folder.mkdir(parents=True, exist_ok=True)
        for index in track(images.chunks(), f"writing {images.name}"):
            x = images.batch(index)[0].cpu().numpy()
            sums += pool.map(_write, [part / files[row] for row in index.tolist()], x)
        rows = zip(files, called, images.y.tolist(), images.ids.tolist(), sums, strict=True)
        entries = [
            {"file": file, "name": one, "class": images.classes[label], "id": number, "sha256": digest}
            for file, one, label, number, digest in rows
        ]
        about = {"data": images.record(), "classes": images.classes, "perturbation": perturbation}
        write_json(part / MANIFEST, about | {"images": entries})


def _write(file: Path, pixels: np.ndarray) -> str:
    """Write pixels (C, H, W) uint8 as a PNG file that is not there yet; return its SHA-256."""
    out = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(out, "PNG")
    with file.open("xb") as new:
        new.write(out.getvalue())
    return hashlib.sha256(out.getvalue()).hexdigest()


def _called(images: Images, names: Sequence[str] | None) -> list[str]:
    """What each image is called: as is asked for, as in the folder that it came from, or by its id."""
    given = images.names if names is None else names
    if given is None:
        width = len(str(int(images.ids.max())))
        return [f"{number:0{width}d}" for number in images.ids.tolist()]
    called = list(map(str, given))
    if len(called) != len(images):
        raise InputError(f"names: {len(called)} of them; there must be one for each of the {len(images)} images")
    return called


def _files(images: Images, called: list[str]) -> list[str]:
    """The file of each image, by its path in the folder."""
    labels = images.y.tolist()
    folders = {label: images.classes[label] for label in sorted(set(labels))}
    for folder in folders.values():
        if not _is_part(folder):
            raise InputError(f"classes: {folder!r} cannot be the name of a folder; give the class another name")
    if len(set(folders.values())) < len(folders):
        twice = Counter(folders.values()).most_common(1)[0][0]
        raise InputError(f"classes: {twice!r} is the name of several classes; each needs its own folder")
    for one in called:
        if not one or not all(map(_is_part, PurePosixPath(one).parts)):
            raise InputError(f"names: {one!r} cannot be the name of a file within its class folder; give others")
    plain = [f"{folders[label]}/{_stem(one)}.png" for label, one in zip(labels, called, strict=True)]
    often = Counter(plain)
    files = [
        file if often[file] == 1 else f"{folders[label]}/{one}.png"
        for file, label, one in zip(plain, labels, called, strict=True)
    ]
    twice, count = Counter(files).most_common(1)[0]
    if count > 1:
        raise InputError(printable(f"names: {twice} would be the file of {count} images; each needs its own name"))
    return files


def _is_part(name: str) -> bool:
    """Whether a folder or a file may be called so, and would be seen by who reads the folder."""
    return bool(name) and os.path.basename(name) == name and not hidden(name) and "\0" not in name


def _stem(name: str) -> str:
    return os.path.splitext(name)[0] if name.lower().endswith(ENDINGS) else name
