"""`Poison`: a perturbation that knows its pictures, as methods make it and as files keep it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from miue.errors import InputError, choose
from miue.files import atomic
from miue.images import Images


@dataclass(frozen=True)
class Poison:
    """A perturbation of labelled pictures.

    Args:
        delta: (N, C, H, W) pixel levels: int8, or int16 from the methods that keep no budget.
        ids: (N,) int64, the `Images.ids` that the rows belong to.
        fingerprints: (N,) int64, the `Images.fingerprints` of the clean pictures.
        record: method, options, seed, budget, data and provenance; JSON.
    """

    delta: Tensor
    ids: Tensor
    fingerprints: Tensor
    record: dict[str, Any] = field(default_factory=dict)
    source: str = "this perturbation"

    def apply(self, images: Images) -> Images:
        """Add the perturbation: exact uint8, clipped to 0..255; rows are matched by id, so order does not matter.

        Raises:
            InputError: a picture of `images` has no row here, or its pixels or label are not those it was made for.
        """
        return images.plus(self.delta[self._rows(images)].to(images.device))

    def _rows(self, images: Images) -> Tensor:
        """Find the row of each picture."""
        order = torch.argsort(self.ids)
        place = torch.searchsorted(self.ids[order], images.ids.cpu()).clamp(max=len(order) - 1)
        rows = order[place]
        missing = self.ids[rows] != images.ids.cpu()
        if missing.any():
            raise InputError(
                f"{self.source} was made for other images: {int(missing.sum())} of the {len(images)} pictures of "
                f"{images.name} have no row in it"
            )
        other = self.fingerprints[rows] != images.fingerprints
        if self.delta.shape[1:] != images.shape or other.any():
            made_for = self.record.get("data", {})
            raise InputError(
                f"{self.source} was made for other images (content hash {made_for.get('content_hash', 'unknown')}, "
                f"{made_for.get('data', 'unknown')}): {int(other.sum())} of the {len(images)} pictures of "
                f"{images.name} (content hash {images.content_hash}) differ in pixels or label"
            )
        return rows

    def part(
        self, images: Images, *, ratio: float = 1.0, classes: Sequence[str] | None = None, seed: int = 0
    ) -> "Poison":
        """Perturb only some of the pictures: zeros for the others.

        Args:
            images: the clean pictures, for their labels.
            ratio: share of the eligible pictures that stay perturbed, in [0, 1]; the number is rounded to the nearest.
            classes: names of the classes that are eligible; by default all.
            seed: which pictures are drawn. A larger ratio keeps all of a smaller one's.

        Raises:
            InputError: `ratio` is out of range, or a class is unknown.
        """
        if not 0 <= ratio <= 1:
            raise InputError(f"ratio: {ratio}; it must lie between 0 and 1")
        labels = torch.full((len(self.ids),), -1)
        labels[self._rows(images)] = images.y.cpu()
        wanted = [
            images.classes.index(choose("class", str(name), images.classes)) for name in classes or images.classes
        ]
        order = torch.argsort(self.ids)  # so that the draw does not depend on the order of the rows
        order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]
        eligible = order[torch.isin(labels[order], torch.tensor(wanted))]
        kept = torch.zeros(len(self.ids), dtype=torch.bool)
        kept[eligible[: round(ratio * len(eligible))]] = True
        delta = self.delta * kept[:, None, None, None]
        told = {"ratio": ratio, "classes": None if classes is None else list(classes), "seed": seed}
        return replace(self, delta=delta, record=self.record | {"part": told | {"perturbed": int(kept.sum())}})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically; the record goes into its header."""
        tensors = {"delta": self.delta, "ids": self.ids, "fingerprints": self.fingerprints}
        with atomic(path) as part:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"miue": json.dumps(self.record)})

    @classmethod
    def load(cls, path: str | Path) -> "Poison":
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            InputError: no such file, truncated, or no perturbation of this package.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"poison: {path} does not exist")
        try:
            with safe_open(path, "pt") as file:
                delta, ids, fingerprints = (file.get_tensor(k) for k in ("delta", "ids", "fingerprints"))
                record = json.loads(file.metadata()["miue"])
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise InputError(f"poison: {path} is damaged or no perturbation file of miue ({error})") from None
        if (
            delta.ndim != 4
            or delta.dtype not in (torch.int8, torch.int16)
            or ids.shape != delta.shape[:1]
            or fingerprints.shape != ids.shape
        ):
            raise InputError(
                f"poison: {path} holds delta {tuple(delta.shape)} {delta.dtype} for {len(ids)} ids; "
                "it must be (N, C, H, W) int8 or int16 with N ids and fingerprints"
            )
        return cls(delta, ids, fingerprints, record, str(path))
