"""`Images`: labelled images that everything else sees only as batches on a device."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from miue.data.arrays import Array
from miue.data.digests import digest, fingerprints
from miue.data.labelled import as_pixels, as_rows, as_whole, largest, numbered
from miue.data.rows import Rows
from miue.errors import InputError, printable
from miue.progress import track

if TYPE_CHECKING:
    from miue.data.exchange import ImageDataset

DELTAS = (torch.int8, torch.int16, torch.float16, torch.float32)  # what may be added to images, in grey levels
CHUNK_BYTES = 2**24  # of pixels that are in memory at once, where a set is gone through whole


def pieces(index: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Split `index` into pieces of about `CHUNK_BYTES` of images of `shape`, one byte a value."""
    return index.split(max(1, CHUNK_BYTES // max(1, math.prod(shape))))


class Images:
    """Labelled images, and optionally a perturbation that is added as they are read.

    The pixels may lie in memory, on a device or in a memory-mapped file; `batch` is how everybody reads them. Other
    people's images come in by `from_arrays` and `from_dataset`, and leave by `to_dataset` and `to_folder`.

    Args:
        x: (N, C, H, W) uint8, N >= 1; also what `miue.data.labelled.as_pixels` reads as such.
        y: (N,) labels, whole numbers in 0..len(classes)-1; without `classes`, below 100,000.
        classes: class names; by default "0", "1", ... up to the largest label.
        ids: (N,) int64 on the CPU, unique: which image each row is, however the set is cut or ordered; by default
            the position.
        name: of the data set, as records show it.
        names: (N,) what each image is called within its class, where it is called something.
        fingerprints: (N,) int64, those that the images must have, where they are known; see `damaged`.
        layout: of `x`, "nchw", "nhwc", or "auto", which finds out, or refuses what could be both.

    Raises:
        InputError: a shape, type or label is not as above.

    Example:
        >>> import miue, torch
        >>> images = miue.Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 0, 1], ["cat", "dog"], name="pets")
        >>> images
        Images('pets', 4 of 3x8x8, 2 classes)
        >>> pixels, labels = images.batch(torch.tensor([0, 3]))
        >>> pixels.shape, labels
        (torch.Size([2, 3, 8, 8]), tensor([0, 1]))
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        classes: Sequence[str] | None = None,
        *,
        ids: Array | None = None,
        name: str = "custom",
        names: Sequence[str] | None = None,
        fingerprints: Tensor | None = None,
        layout: str = "auto",
    ) -> None:
        x = as_pixels(x, layout)
        y = as_whole("y", y, len(x)).to(y.device if isinstance(y, Tensor) else "cpu")
        called = None if classes is None else [printable(str(c)) for c in classes]
        high = largest("y", y, called)
        self._pixels, self._delta = Rows(x), None
        self._fingerprints = fingerprints
        self.y = y
        self.classes = [str(c) for c in range(high + 1)] if called is None else called
        self.ids = torch.arange(len(x)) if ids is None else as_whole("ids", ids, len(x))
        if len(self.ids.unique()) != len(x):
            raise InputError(f"ids: {len(self.ids.unique())} different ones; each of the {len(x)} images needs its own")
        if names is not None and len(names) != len(x):
            raise InputError(f"names: {len(names)} of them; there must be one for each of the {len(x)} images")
        self.names = None if names is None else np.array(names, dtype=object)
        self.name = printable(name)
        self.device = x.device

    @classmethod
    def from_arrays(
        cls,
        x: Array,
        y: Array,
        *,
        classes: Sequence[str] | None = None,
        ids: Array | None = None,
        name: str = "custom",
        layout: str = "auto",
    ) -> "Images":
        """Make images of NumPy arrays, torch tensors, or what can be read as such; uint8 is shared, not copied.

        Args:
            x: (N, C, H, W) or (N, H, W, C): grey levels from 0 to 255, or fractions from 0 to 1 in floating point.
            y: (N,) labels: numbers of classes, or their names.
            classes: class names in the order of their numbers; by default the names in `y`, sorted, or "0", "1", ...
            ids: (N,) whole numbers, unique; by default the positions.
            name: of the data set, as records show it.
            layout: "nchw" or "nhwc", where "auto" cannot tell.

        Raises:
            InputError: pixels out of range, or a shape that could be either layout; a label that is no class; without
                `classes`, numbers that leave one out; ids that are not unique.

        >>> Images.from_arrays(np.zeros((3, 8, 8, 1)), ["cat", "dog", "cat"])
        Images('custom', 3 of 1x8x8, 2 classes)
        """
        labels, named = numbered("y", y, classes)
        return cls(x, labels, named, ids=ids, name=name, layout=layout)

    @classmethod
    def from_dataset(
        cls, dataset: Any, *, size: int | None = None, classes: Sequence[str] | None = None, name: str = "custom"
    ) -> "Images":
        """Read the images of a data set once, in its order, into memory; `ids` are the positions.

        They come out as from folders: RGB (grey is repeated), upright, and on white where they are transparent.

        Args:
            dataset: a torch `Dataset` or `DataLoader`, a Hugging Face `Dataset`, or a list. Items are pairs (image,
                label), or dicts with `image` or `img` and with `label`, `labels` or `fine_label`. Images are PIL's, or
                arrays with 1, 3 or 4 channels, uint8 or fractions from 0 to 1; labels are class numbers or names.
            size: height and width in pixels, 8 to 4,096, to which images are resized (short side) and centre-cropped;
                by default they must be of one size.
            classes: as in `from_arrays`; by default `dataset.classes` or the names of a Hugging Face `ClassLabel`.
            name: of the data set, as records show it.

        Raises:
            InputError: no items, or one that is no image with a label; pixels that a transform has normalised; several
                sizes; a loader that shuffles; labels as in `from_arrays`.

        >>> Images.from_dataset([(np.zeros((8, 8)), "cat"), (np.ones((9, 12, 3)), "dog")], size=8, name="pets")
        Images('pets', 2 of 3x8x8, 2 classes)
        """
        from miue.data.exchange import read_dataset  # which knows this module

        return read_dataset(dataset, size, classes, name)

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"Images({self.name!r}, {len(self)} of {size}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self._pixels.tensor.shape[1:]
        return channels, height, width

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Read the images at `index` ((B,) int64): (B, C, H, W) uint8 and (B,) int64, on `self.device`.

        Where a delta of floating point is added, as a method carries it, they are float32 grey levels in [0, 255].
        """
        x = self._pixels.read(index, self.device)
        if self._delta is not None:
            delta = self._delta.read(index, self.device)
            if delta.is_floating_point():
                x = (x + delta.float()).clamp(0, 255)
            else:
                x = (x.to(torch.int16) + delta).clamp(0, 255).to(torch.uint8)
        return x, self.y[index.to(self.y.device)].to(self.device, non_blocking=True)

    def located(self, batches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The same batches of indices, (B,) int64 each, moved together to where the pixels lie, so that none waits."""
        whole = torch.cat(tuple(batches)).to(self._pixels.tensor.device)
        return whole.split([len(batch) for batch in batches])

    def chunks(self) -> tuple[Tensor, ...]:
        """All indices in order, (B,) int64 each, in pieces that memory always has room for."""
        return pieces(torch.arange(len(self)), self.shape)

    @property
    def x(self) -> Tensor:
        """All pixels, (N, C, H, W) uint8, perturbation included; use `batch` where N may be large."""
        whole = self._pixels.rows is None and self._delta is None
        return self._pixels.tensor if whole else self.batch(torch.arange(len(self)))[0]

    def on(self, device: torch.device | str) -> "Images":
        """The same images with batches on `device`; what fits there (`miue.storage.memory.fits`) moves there whole."""
        device = torch.device(device)
        delta = None if self._delta is None else self._delta.on(device)
        return self._copy(_pixels=self._pixels.on(device), _delta=delta, y=self.y.to(device), device=device)

    def plus(self, delta: Tensor, rows: Tensor | None = None) -> "Images":
        """A view in which `delta` is added to every batch, clipped to 0..255.

        Args:
            delta: (R, C, H, W) grey levels: int8 or int16, or float16 or float32 while a method works on them. It is
                shared, not copied: a method that is still changing it trains its surrogate on this view.
            rows: (N,) int64, the row of `delta` for each image; by default R = N, in order.
        """
        count = len(delta) if rows is None else len(rows)
        wanted = (len(self), *self.shape)
        if (count, *delta.shape[1:]) != wanted or delta.dtype not in DELTAS:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in DELTAS)
            raise InputError(f"delta: shape {tuple(delta.shape)}, {delta.dtype}; it must be {wanted}, one of {kinds}")
        if self._delta is not None:
            raise InputError(f"delta: {self.name} is perturbed already; add to the clean images")
        return self._copy(_delta=Rows(delta, None if rows is None else rows.cpu()), _fingerprints=None)

    def subset(self, index: Array) -> "Images":
        """The images at `index` ((M,) int64, or a mask (N,)), in that order, with their ids; no pixel is copied."""
        index = as_rows(index, len(self))
        at = index.cpu()
        return self._copy(
            _pixels=self._pixels.subset(at),
            _delta=None if self._delta is None else self._delta.subset(at),
            _fingerprints=None if self._fingerprints is None else self._fingerprints[at],
            y=self.y[index.to(self.y.device)],
            ids=self.ids[at],
            names=None if self.names is None else self.names[at.numpy()],
        )

    def of_classes(self, count: int) -> "Images":
        """The images of the first `count` classes, 2 or more; the name tells it.

        Raises:
            InputError: there are no more classes than that.
        """
        if not 2 <= count < len(self.classes):
            raise InputError(f"classes: {count} of {self.name}; it must be from 2 to {len(self.classes) - 1}")
        first, comma, rest = self.name.partition(",")
        name = f"{first}, {count} of {len(self.classes)} classes{comma}{rest}"
        return self.subset(self.y < count)._copy(classes=self.classes[:count], name=name)

    def with_pixels(self, x: Tensor) -> "Images":
        """The same images (labels, ids, classes, names) with other pixels: `x` is (N, C, H, W) uint8."""
        names = None if self.names is None else self.names.tolist()
        images = Images(x, self.y, self.classes, ids=self.ids, name=self.name, names=names, layout="nchw")
        return images.on(self.device)

    def joined(self, other: "Images") -> "Images":
        """These images and then those of `other`, copied into memory, with new ids (the positions) and no names.

        Raises:
            InputError: shape or class names differ.
        """
        if (self.shape, self.classes) != (other.shape, other.classes):
            raise InputError(f"other: {other} has another shape or other classes than {self}; they must be the same")
        x = torch.cat([self.x, other.x.to(self.device)])
        y = torch.cat([self.y, other.y.to(self.device)])
        return Images(x, y, self.classes, name=self.name, layout="nchw")

    def to_dataset(self) -> "ImageDataset":
        """A torch `Dataset` of (image, label): (C, H, W) float32 in [0, 1] on the CPU, perturbation included, and int.

        Workers of a `DataLoader` can read it; `.classes` are the class names.

        >>> images = Images.from_arrays(np.full((2, 3, 8, 8), 51, np.uint8), ["cat", "dog"])
        >>> image, label = images.to_dataset()[1]
        >>> round(float(image.max()), 3), label
        (0.2, 1)
        """
        from miue.data.exchange import ImageDataset

        return ImageDataset(self.on("cpu"))

    def to_folder(
        self, path: str | Path, *, names: Sequence[str] | None = None, perturbation: Mapping[str, Any] | None = None
    ) -> None:
        """Write lossless PNG files into class folders, and `manifest.json` beside them: all of it, or nothing.

        `load("folder:PATH")` reads square images of 8 to 4,096 px back with the same pixels; it numbers classes in the
        order of their names, and grey becomes RGB. The manifest holds `record()`, the classes, the perturbation, and
        of each image its file, name, class, id and the SHA-256 of the file.

        Args:
            path: a new or an empty folder.
            names: (N,) of the files in their class folders, by default `self.names`, or the ids where there are none.
                Files end in .png instead; where two names differ by the ending alone, it stays before that.
            perturbation: what the manifest says of it: `poison.record`.

        Raises:
            InputError: a folder that holds something; images that are neither grey nor RGB; class or image names that
                cannot be those of files, or are not unique.
            OSError: it cannot be written.

        >>> import pathlib, tempfile
        >>> images = Images.from_arrays(np.zeros((2, 3, 8, 8)), ["cat", "dog"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     images.to_folder(folder, names=["tom.jpg", "rex.jpg"])
        ...     sorted(file.relative_to(folder).as_posix() for file in pathlib.Path(folder).rglob("*.*"))
        ['cat/tom.png', 'dog/rex.png', 'manifest.json']
        """
        from miue.data.exchange import write_folder

        write_folder(self, Path(path), names, perturbation)

    def renamed(self, name: str) -> "Images":
        """The same images under another name."""
        return self._copy(name=printable(name))

    def _copy(self, **changes: object) -> "Images":
        other = object.__new__(Images)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k != "content_hash"} | changes)
        return other

    @property
    def fingerprints(self) -> Tensor:
        """A 64-bit digest of each image's pixels and label, (N,) int64."""
        if self._fingerprints is None:
            self._fingerprints = self._digests()
        return self._fingerprints

    def damaged(self) -> int:
        """Read all images and count those that are not what the known fingerprints say; 0 where none are known."""
        if self._fingerprints is None:
            return 0
        known, self._fingerprints = self._fingerprints, self._digests()
        return int((known != self._fingerprints).sum())

    def _digests(self) -> Tensor:
        return fingerprints(map(self.batch, track(self.chunks(), f"hashing {self.name}")))

    @cached_property
    def content_hash(self) -> str:
        """Hex digest of shape, class names, pixels and labels, in order; equal for equal content on every machine."""
        head = f"{self.shape} {self.classes}".encode()
        return digest(head + self.fingerprints.numpy().tobytes()).hex()

    def record(self) -> dict[str, Any]:
        """What a record says of the data: name, size, classes, content hash."""
        return {
            "data": self.name,
            "n": len(self),
            "shape": list(self.shape),
            "n_classes": len(self.classes),
            "content_hash": self.content_hash,
        }
