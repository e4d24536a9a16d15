"""`Images`: labelled pictures that everything else sees only as batches on a device."""

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from miue.errors import InputError

RESIDENT_BYTES = 8 * 2**30  # a set up to this size is moved to the device whole
CHUNK = 2048


class Images:
    """Labelled pictures, and optionally a perturbation that is added as they are read.

    The pixels may lie in memory, on a device or in a memory-mapped file; `batch` is how everybody reads them.

    Args:
        x: (N, C, H, W) uint8, N >= 1.
        y: (N,) integer labels in 0..len(classes)-1.
        classes: class names; by default "0", "1", ... up to the largest label.
        ids: (N,) int64 on the CPU, unique: which picture each row is, however the set is cut or ordered; by default
            the position.
        name: of the data set, as records show it.

    Raises:
        InputError: a shape, type or label is not as above.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        classes: Sequence[str] | None = None,
        *,
        ids: Tensor | None = None,
        name: str = "custom",
    ) -> None:
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        if x.ndim != 4 or x.dtype != torch.uint8:
            raise InputError(
                f"x: shape {tuple(x.shape)}, {x.dtype}; pictures must be (N, C, H, W) torch.uint8, 0 to 255"
            )
        if y.shape != x.shape[:1] or y.is_floating_point() or len(y) == 0:
            raise InputError(f"y: shape {tuple(y.shape)}, {y.dtype}; labels must be {len(x)} integers, at least one")
        names = [str(c) for c in range(int(y.max()) + 1)] if classes is None else [str(c) for c in classes]
        if int(y.min()) < 0 or int(y.max()) >= len(names):
            wrong = int(y.min()) if int(y.min()) < 0 else int(y.max())
            raise InputError(
                f"y: label {wrong} is out of range; with {len(names)} classes it must be 0..{len(names) - 1}"
            )
        self._x, self._rows, self._delta = x, None, None
        self.y = y.to(torch.int64)
        self.classes = names
        self.ids = torch.arange(len(x)) if ids is None else torch.as_tensor(ids).to(torch.int64)
        if len(self.ids) != len(x) or len(self.ids.unique()) != len(x):
            raise InputError(
                f"ids: {len(self.ids.unique())} different ones; each of the {len(x)} pictures needs its own"
            )
        self.name = name
        self.device = x.device

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"Images({self.name!r}, {len(self)} of {size}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        channels, height, width = self._x.shape[1:]
        return channels, height, width

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Read the pictures at `index` ((B,) int64): (B, C, H, W) uint8 and (B,) int64, on `self.device`."""
        rows = index.to(self._x.device) if self._rows is None else self._rows[index.cpu()].to(self._x.device)
        x = self._x[rows].to(self.device, non_blocking=True)
        if self._delta is not None:
            delta = self._delta[index.to(self._delta.device)].to(self.device, non_blocking=True)
            x = (x.to(torch.int16) + delta).clamp(0, 255).to(torch.uint8)
        return x, self.y[index.to(self.y.device)].to(self.device, non_blocking=True)

    @property
    def x(self) -> Tensor:
        """All pixels, (N, C, H, W) uint8, perturbation included; use `batch` where N may be large."""
        whole = self._rows is None and self._delta is None
        return self._x if whole else self.batch(torch.arange(len(self)))[0]

    def on(self, device: torch.device | str) -> "Images":
        """The same pictures with batches on `device`; small sets move there whole."""
        device = torch.device(device)
        if len(self) * math.prod(self.shape) > RESIDENT_BYTES:
            return self._copy(device=device)
        x = self._x if self._rows is None else self._x[self._rows]
        delta = None if self._delta is None else self._delta.to(device)
        return self._copy(_x=x.to(device), _rows=None, _delta=delta, y=self.y.to(device), device=device)

    def plus(self, delta: Tensor) -> "Images":
        """A view in which `delta` is added to every batch, clipped to 0..255.

        Args:
            delta: (N, C, H, W) int8 or int16 grey levels. It is shared, not copied: a method that is still changing
                it trains its source network on this view.
        """
        if delta.shape != (len(self), *self.shape) or delta.dtype not in (torch.int8, torch.int16):
            wanted = (len(self), *self.shape)
            raise InputError(f"delta: shape {tuple(delta.shape)}, {delta.dtype}; it must be {wanted} int8 or int16")
        if self._delta is not None:
            raise InputError(f"delta: {self.name} is perturbed already; add to the clean pictures")
        return self._copy(_delta=delta)

    def subset(self, index: Tensor) -> "Images":
        """The pictures at `index` ((M,) int64), in that order, with their ids; no pixel is copied."""
        index = torch.as_tensor(index)
        at = index.to(self.y.device)
        rows = index.cpu() if self._rows is None else self._rows[index.cpu()]
        delta = None if self._delta is None else self._delta[index.to(self._delta.device)]
        return self._copy(_rows=rows, _delta=delta, y=self.y[at], ids=self.ids[index.cpu()])

    def with_pixels(self, x: Tensor) -> "Images":
        """The same pictures (labels, ids, classes) with other pixels: `x` is (N, C, H, W) uint8."""
        return Images(x, self.y, self.classes, ids=self.ids, name=self.name)

    def joined(self, other: "Images") -> "Images":
        """These pictures and then those of `other`, copied into memory, with new ids (the positions).

        Raises:
            InputError: shape or class names differ.
        """
        if (self.shape, self.classes) != (other.shape, other.classes):
            raise InputError(f"other: {other} has another shape or other classes than {self}; they must be the same")
        x = torch.cat([self.x, other.x.to(self.device)])
        return Images(x, torch.cat([self.y, other.y.to(self.device)]), self.classes, name=self.name)

    def _copy(self, **changes: object) -> "Images":
        other = object.__new__(Images)
        kept = {k: v for k, v in self.__dict__.items() if k not in ("fingerprints", "content_hash")}
        other.__dict__.update(kept | changes)
        return other

    @cached_property
    def fingerprints(self) -> Tensor:
        """(N,) int64: a 64-bit BLAKE2 digest of each picture's pixels and label."""
        digests = []
        for index in torch.arange(len(self)).split(CHUNK):
            x, y = (part.cpu().numpy() for part in self.batch(index))
            for pixels, label in zip(x, y, strict=True):
                digests.append(hashlib.blake2b(pixels.tobytes() + f"{label}".encode(), digest_size=8).digest())
        return torch.from_numpy(np.frombuffer(b"".join(digests), dtype="<i8").copy())

    @cached_property
    def content_hash(self) -> str:
        """Hex digest of shape, class names, pixels and labels, in order: equal for equal content on every machine."""
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
