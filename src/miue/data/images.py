"""`Images`: labelled images that everything else sees only as batches on a device."""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from miue.data.arrays import Array
from miue.data.labelled import as_pixels, as_rows, as_whole
from miue.errors import InputError, printable
from miue.progress import track
from miue.storage import memory

DELTAS = (torch.int8, torch.int16, torch.float16, torch.float32)  # what may be added to images, in grey levels
MOST_CLASSES = 10**5  # that are named by their numbers; a label beyond is more likely to be no class number
CHUNK_BYTES = 2**24  # of pixels that are in memory at once, where a set is gone through whole


def pieces(index: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Split `index` into pieces of about `CHUNK_BYTES` of images of `shape`, one byte a value."""
    return index.split(max(1, CHUNK_BYTES // max(1, math.prod(shape))))


def fingerprint(pixels: np.ndarray, label: int | np.integer) -> bytes:
    """Eight bytes that tell images apart: a BLAKE2 digest of pixels (C, H, W) uint8 and label."""
    return hashlib.blake2b(pixels.tobytes() + f"{label}".encode(), digest_size=8).digest()


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows of a tensor, looked up as they are read, so that a tensor in a file is never copied whole."""

    tensor: Tensor
    rows: Tensor | None = None  # (M,) int64 on the CPU; None: all, in order

    def read(self, index: Tensor, device: torch.device) -> Tensor:
        rows = index if self.rows is None else self.rows[index.cpu()]
        return self.tensor[rows.to(self.tensor.device)].to(device, non_blocking=True)

    def subset(self, index: Tensor) -> "_Rows":
        return _Rows(self.tensor, index.cpu() if self.rows is None else self.rows[index.cpu()])

    def on(self, device: torch.device) -> "_Rows":
        """On `device` whole where they fit; what lies there already stays as it is, shared."""
        count = len(self.tensor) if self.rows is None else len(self.rows)
        size = count * math.prod(self.tensor.shape[1:]) * self.tensor.element_size()
        if self.tensor.device.type == device.type or not memory.fits(size, device):
            return self
        return _Rows((self.tensor if self.rows is None else self.tensor[self.rows]).to(device))


class Images:
    """Labelled images, and optionally a perturbation that is added as they are read.

    The pixels may lie in memory, on a device or in a memory-mapped file; `batch` is how everybody reads them.

    Args:
        x: (N, C, H, W) uint8, N >= 1; also what `miue.data.labelled.as_pixels` reads as such.
        y: (N,) labels, whole numbers in 0..len(classes)-1; without `classes`, below 100,000.
        classes: class names; by default "0", "1", ... up to the largest label.
        ids: (N,) int64 on the CPU, unique: which image each row is, however the set is cut or ordered; by default
            the position.
        name: of the data set, as records show it.
        fingerprints: (N,) int64, those that the images must have, where they are known; see `damaged`.

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
        fingerprints: Tensor | None = None,
    ) -> None:
        x = as_pixels(x)
        y = as_whole("y", y, len(x)).to(y.device if isinstance(y, Tensor) else "cpu")
        names = None if classes is None else [printable(str(c)) for c in classes]
        most = MOST_CLASSES if names is None else len(names)
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= most:
            wrong = low if low < 0 else high
            raise InputError(f"y: label {wrong} is out of range; number the classes from 0 on, below {most:,}")
        self._pixels, self._delta = _Rows(x), None
        self._fingerprints = fingerprints
        self.y = y
        self.classes = [str(c) for c in range(high + 1)] if names is None else names
        self.ids = torch.arange(len(x)) if ids is None else as_whole("ids", ids, len(x))
        if len(self.ids.unique()) != len(x):
            raise InputError(f"ids: {len(self.ids.unique())} different ones; each of the {len(x)} images needs its own")
        self.name = printable(name)
        self.device = x.device

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
        return self._copy(_delta=_Rows(delta, None if rows is None else rows.cpu()), _fingerprints=None)

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
        )

    def with_pixels(self, x: Tensor) -> "Images":
        """The same images (labels, ids, classes) with other pixels: `x` is (N, C, H, W) uint8."""
        return Images(x, self.y, self.classes, ids=self.ids, name=self.name)

    def joined(self, other: "Images") -> "Images":
        """These images and then those of `other`, copied into memory, with new ids (the positions).

        Raises:
            InputError: shape or class names differ.
        """
        if (self.shape, self.classes) != (other.shape, other.classes):
            raise InputError(f"other: {other} has another shape or other classes than {self}; they must be the same")
        x = torch.cat([self.x, other.x.to(self.device)])
        return Images(x, torch.cat([self.y, other.y.to(self.device)]), self.classes, name=self.name)

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
        found: list[bytes] = []
        with ThreadPoolExecutor() as pool:
            over = pool.map if math.prod(self.shape) > 2**15 else map  # threads do not pay for smaller images
            for index in track(self.chunks(), f"hashing {self.name}"):
                x, y = (part.cpu().numpy() for part in self.batch(index))
                found += over(fingerprint, x, y)
        return torch.from_numpy(np.frombuffer(b"".join(found), dtype="<i8").copy())

    @cached_property
    def content_hash(self) -> str:
        """Hex digest of shape, class names, pixels and labels, in order; equal for equal content on every machine."""
        head = f"{self.shape} {self.classes}".encode()
        return hashlib.blake2b(head + self.fingerprints.numpy().tobytes(), digest_size=16).hexdigest()

    def record(self) -> dict:
        """What a record says of the data: name, size, classes, content hash."""
        return {
            "data": self.name,
            "n": len(self),
            "shape": list(self.shape),
            "n_classes": len(self.classes),
            "content_hash": self.content_hash,
        }
