"""`Poison`: a perturbation that knows its images, as methods make it and as files keep it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miue import seeds
from miue.data.images import Images, pieces
from miue.errors import InputError, choose, printable
from miue.poisons.shards import joined
from miue.storage import memory, tensors


def drawn(ids: Tensor, eligible: Tensor, ratio: float, seed: int = 0) -> Tensor:
    """Draw a share of the images: (N,) bool, true for `ratio` of the eligible ones, rounded to the nearest number.

    Args:
        ids: (N,) int64, `Images.ids`; the draw does not depend on their order.
        eligible: (N,) bool, which images may be drawn.
        ratio: in [0, 1].
        seed: which are drawn. A larger ratio draws all of a smaller one's.

    Raises:
        InputError: `ratio` is out of range.
    """
    if not 0 <= ratio <= 1:
        raise InputError(f"ratio: {ratio}; it must lie between 0 and 1")
    order = torch.argsort(ids)
    order = order[torch.randperm(len(order), generator=seeds.stream(seed, "part"))]
    order = order[eligible[order]]
    chosen = torch.zeros(len(ids), dtype=torch.bool)
    chosen[order[: round(ratio * len(order))]] = True
    return chosen


@dataclass(frozen=True, eq=False)
class Poison:
    """A perturbation of labelled images; equal to another that moves the same images alike, whatever made it.

    Args:
        delta: (N, C, H, W) pixel levels: int8, or int16 from the methods that keep no budget.
        ids: (N,) int64, the `Images.ids` that the rows belong to.
        fingerprints: (N,) int64, the `Images.fingerprints` of the clean images.
        record: method, options, seed, budget, data and provenance; JSON.

    Example:
        >>> import miue
        >>> train, _ = miue.load("digits_m", n_train=40, n_test=20)
        >>> poison = miue.perturb(train, "random", epsilon="8/255", cache=False)
        >>> int((poison.apply(train).x.int() - train.x.int()).abs().max())  # grey levels
        8
        >>> poison.part(train, ratio=0.5).record["part"]["perturbed"]
        20
    """

    delta: Tensor
    ids: Tensor
    fingerprints: Tensor
    record: dict[str, Any] = field(default_factory=dict)
    source: str = "this perturbation"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Poison):
            return NotImplemented
        names = ("ids", "fingerprints", "delta")
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)

    def apply(self, images: Images) -> Images:
        """Add the perturbation: exact uint8, clipped to 0..255; rows are matched by id, so order does not matter.

        Raises:
            InputError: an image of `images` has no row here, or its pixels or label are not those it was made for.
        """
        rows = self.rows(images)
        in_order = len(rows) == len(self.ids) and bool((rows == torch.arange(len(rows))).all())
        return images.plus(self.delta, None if in_order else rows)

    def rows(self, images: Images) -> Tensor:
        """Which row of delta belongs to each image, (N,) int64; see `apply` for the errors."""
        order = torch.argsort(self.ids)
        place = torch.searchsorted(self.ids[order], images.ids.cpu()).clamp(max=len(order) - 1)
        rows = order[place]
        missing = self.ids[rows] != images.ids.cpu()
        if missing.any():
            raise InputError(
                f"{self.source} was made for other images: {int(missing.sum())} of the {len(images)} images of "
                f"{images.name} have no row in it"
            )
        other = self.fingerprints[rows] != images.fingerprints
        if self.delta.shape[1:] != images.shape or other.any():
            made_for = self.record.get("data")
            told = made_for if isinstance(made_for, dict) else {}
            known = [printable(str(told.get(name, "unknown"))) for name in ("content_hash", "data")]
            raise InputError(
                f"{self.source} was made for other images (content hash {', '.join(known)}): {int(other.sum())} of "
                f"the {len(images)} images of {images.name} (content hash {images.content_hash}) differ in pixels or "
                "label"
            )
        return rows

    def part(
        self, images: Images, *, ratio: float = 1.0, classes: Sequence[str] | None = None, seed: int = 0
    ) -> "Poison":
        """Perturb only some of the images: zeros for the others.

        Args:
            images: the clean images, for their labels.
            ratio: share of the eligible images that stay perturbed, in [0, 1]; the number is rounded to the nearest.
            classes: names of the classes that are eligible; by default all.
            seed: which images are drawn. A larger ratio keeps all of a smaller one's.

        Raises:
            InputError: `ratio` is out of range, or a class is unknown.
        """
        labels = torch.full((len(self.ids),), -1)
        labels[self.rows(images)] = images.y.cpu()
        eligible = images.classes if classes is None else classes
        wanted = [images.classes.index(choose("class", str(name), images.classes)) for name in eligible]
        kept = drawn(self.ids, torch.isin(labels, torch.tensor(wanted)), ratio, seed)
        delta = memory.zeros(self.delta.shape, self.delta.dtype, "cpu")
        for rows in pieces(kept.nonzero()[:, 0], images.shape):
            delta[rows] = self.delta[rows]
        told = {"ratio": ratio, "classes": None if classes is None else list(classes), "seed": seed}
        return replace(self, delta=delta, record=self.record | {"part": told | {"perturbed": int(kept.sum())}})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically; the record goes into its header.

        Raises:
            OSError: it cannot be written.
        """
        stored = {"ids": self.ids, "fingerprints": self.fingerprints, "delta": self.delta}
        tensors.save(path, stored, self.record)

    @classmethod
    def load(cls, path: str | Path) -> "Poison":
        """Read what `save` wrote; delta is mapped from the file, and nothing in it is executed.

        An index of `miue.poisons.shards` is read with all its shards, and delta is copied from them.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: it is damaged, or no perturbation of this package; a shard is missing, or not that of the index.
        """
        stored, record = tensors.load(path)
        if isinstance(record, dict) and "shards" in record:
            stored = joined(path, stored, record["shards"])
        if not {"delta", "ids", "fingerprints"} <= stored.keys() or not isinstance(record, dict):
            raise tensors.Damaged(f"{path} holds no perturbation")
        delta, ids, fingerprints = (stored[name] for name in ("delta", "ids", "fingerprints"))
        if (
            delta.ndim != 4
            or len(delta) == 0
            or delta.dtype not in (torch.int8, torch.int16)
            or ids.shape != delta.shape[:1]
            or fingerprints.shape != ids.shape
            or not ids.dtype == fingerprints.dtype == torch.int64
        ):
            raise tensors.Damaged(
                f"{path} holds delta {tuple(delta.shape)} {delta.dtype} for {len(ids)} ids; "
                "it must be (N, C, H, W) int8 or int16 with N int64 ids and fingerprints, N >= 1"
            )
        return cls(delta, ids, fingerprints, record, str(path))

    @classmethod
    def read(cls, path: str | Path) -> "Poison":
        """`load` a file that somebody names.

        Raises:
            InputError: no such file, damaged, or no perturbation of this package.
        """
        try:
            return cls.load(path)
        except FileNotFoundError:
            raise InputError(f"poison: {path} does not exist") from None
        except OSError as error:
            raise InputError(f"poison: {path} cannot be read ({(error.strerror or str(error)).lower()})") from None
        except tensors.Damaged as error:
            raise InputError(f"poison: {path} is damaged or no perturbation file of miue ({error})") from None
