"""Perturbations made elsewhere: other people's files, read without running what is in them, and checked.

What users of published perturbations report again and again is refused here with the numbers that are wrong: rows of
another data set or in another order, noise of 256 px for images of 224 px, noise by class taken for noise by
image, negative levels lost. NTGA (Yuan & Wu, "Neural Tangent Generalization Attacks", ICML 2021) comes this way: its
authors publish perturbed images, `read(file, images, kind="images", labels=label_file, epsilon=8 / 255)`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miue.data.images import Images
from miue.errors import InputError, choose
from miue.pgd import MAX_LEVELS, Budget, fit_to_images
from miue.poisons.arrays import LABELS, LAYOUTS, SCALES, Levels, channels_first, check_file, load, pick, whole_levels
from miue.poisons.poison import Poison
from miue.specs import parse_epsilon
from miue.storage import memory
from miue.storage.files import file_digest
from miue.storage.provenance import collect as provenance

KINDS = ("perturbation", "images")
ROWS = ("auto", "classes", "images")


def read(
    path: str | Path,
    images: Images,
    *,
    kind: str = "perturbation",
    labels: Tensor | np.ndarray | str | Path | None = None,
    key: str | None = None,
    scale: str = "auto",
    layout: str = "auto",
    rows: str = "auto",
    epsilon: float | str | None = None,
    trust_order: bool = False,
) -> Poison:
    """Read a perturbation of `images` from a file that another program wrote.

    The file must cover `images` whole, row i for image i (or for class i). To perturb a part of a published set,
    read the file for the whole set and apply the result to the part: rows are then matched by id.

    Args:
        path: .npy, .pt, .pth or .safetensors; an array, or several under names.
        images: the clean images, in the order of the file.
        kind: "perturbation": what is added to the images; "images": the perturbed images themselves.
        labels: (N,) integers or (N, classes) one-hot, or a file of them, in the order of the file; compared with those
            of `images`. By default they are looked for in the file, under the names `LABELS`.
        key: name of the array where the file holds several.
        scale: "fraction": values in [-1, 1] of the pixel range; "levels": whole grey levels; "auto": floats are
            fractions and integers are levels, and what could be either is refused.
        layout: "nchw", "nhwc", or "auto": the one that fits the images.
        rows: "classes": one for each class; "images": one for each image; "auto": what their number says.
        epsilon: L-infinity budget that the file is said to keep, a fraction of the pixel range; needed for images.
        trust_order: the caller vouches for the order where nothing in the files can prove it: a perturbation of each
            image, without labels.

    Raises:
        InputError: the file is unreadable or would run code, does not fit the images, is ambiguous, disagrees with
            the labels, leaves the budget, or its order cannot be checked.

    Warns:
        DataWarning: no value is negative, as if half of the noise had been clipped away.
    """
    path = Path(path)
    budget = check(path, kind=kind, labels=labels, scale=scale, layout=layout, rows=rows, epsilon=epsilon)
    array, inside = pick(load(path), key, path)
    values = channels_first(array, images, layout, path)
    by_class = _is_by_class(len(values), images, rows, kind, path)
    levels = whole_levels(values, scale, kind, path)
    found = inside if labels is None else _labels(labels)
    if found is not None:
        _compare_labels(found, images, path)
    elif kind == "perturbation" and not by_class and not trust_order:
        raise InputError(
            f"{path}: nothing proves that row i belongs to image i; give the labels of the file, or say "
            "that you trust the order if you know it"
        )
    delta, largest = _delta(levels, images, by_class, kind, budget, path)
    order = "pixels" if kind == "images" else "classes" if by_class else "labels" if found is not None else "trust"
    record = {
        "method": "foreign",
        "options": {"kind": kind, "key": key, "scale": scale, "layout": layout, "rows": rows},
        "passes": 0,
        "surrogate": None,
        "bounded": budget is not None,
        "epsilon": None if budget is None else budget.epsilon,
        "levels": largest if budget is None else budget.levels,
        "seed": None,
        "data": images.record(),
        "seconds": 0.0,
        "notes": {"file": path.name, "file_hash": file_digest(path), "by_class": by_class, "order_known_from": order},
        **provenance("cpu"),
    }
    return Poison(delta, images.ids, images.fingerprints, record, str(path))


def check(
    path: Path,
    *,
    kind: str,
    labels: Tensor | np.ndarray | str | Path | None,
    scale: str,
    layout: str,
    rows: str,
    epsilon: float | str | None,
) -> Budget | None:
    """Refuse what `read` would refuse whatever the images and the contents of the files; return the budget.

    Raises:
        InputError: no such file, an ending that is not read, an unknown word, or no budget where one is needed.
    """
    check_file(path)
    if isinstance(labels, str | Path):
        check_file(Path(labels))
    for name, value, known in (
        ("kind", kind, KINDS),
        ("scale", scale, SCALES),
        ("layout", layout, LAYOUTS),
        ("rows", rows, ROWS),
    ):
        choose(name, value, known)
    budget = None if epsilon is None else Budget(parse_epsilon(epsilon))
    if kind == "images" and budget is None:
        raise InputError("epsilon: missing; perturbed images can only be told from other images by their budget")
    return budget


def _is_by_class(count: int, images: Images, rows: str, kind: str, path: Path) -> bool:
    fitting = {"images": len(images)} | ({"classes": len(images.classes)} if kind == "perturbation" else {})
    found = [name for name, wanted in fitting.items() if rows in ("auto", name) and count == wanted]
    if not found:
        raise InputError(
            f"{path}: {count} rows; {images.name} has {len(images)} images of {len(images.classes)} classes, and "
            f"{kind} must have one row for each of the {' or '.join(fitting)}"
        )
    if len(found) > 1:
        raise InputError(
            f"{path}: {count} rows may be classes or images, there are as many; say which: rows classes or images"
        )
    return found == ["classes"]


def _labels(labels: Tensor | np.ndarray | str | Path) -> Tensor:
    if not isinstance(labels, str | Path):
        return torch.as_tensor(labels)
    arrays = load(Path(labels))
    named = [array for name, array in arrays.items() if name in LABELS or len(arrays) == 1]
    if len(named) != 1:
        raise InputError(f"labels: {labels} holds {', '.join(arrays) or 'no array'}; one array of labels is needed")
    return named[0]


def _compare_labels(found: Tensor, images: Images, path: Path) -> None:
    shape, count = tuple(found.shape), len(images)
    if shape == (count, len(images.classes)) and len(images.classes) > 1:
        found = found.argmax(1)  # one-hot
    if found.numel() != count:
        raise InputError(f"labels: shape {shape} with {path}; the {count} images of {images.name} need as many")
    wrong = int((found.flatten().cpu() != images.y.cpu()).sum())
    if wrong:
        raise InputError(
            f"labels: {wrong} of {count} with {path} are not those of {images.name}; its order or data set is another"
        )


def _delta(
    levels: Levels, images: Images, by_class: bool, kind: str, budget: Budget | None, path: Path
) -> tuple[Tensor, int]:
    """What to add to each image, (N, C, H, W) int8, or int16 where int8 is too narrow; and how far it goes."""
    # Perturbed images that differ by more than int8 holds leave any budget and are refused.
    narrow = kind == "images" or levels.largest <= MAX_LEVELS
    shape = (len(images), *images.shape)
    delta = memory.zeros(shape, torch.int8 if narrow else torch.int16, "cpu")
    largest = torch.zeros(len(images), dtype=torch.int16)
    for index in images.chunks():
        x, y = (part.cpu() for part in images.batch(index))
        rows = levels.read(y if by_class else index)
        change = rows - x if kind == "images" else fit_to_images(rows, x)
        largest[index] = change.flatten(1).abs().amax(1)
        delta[index] = change.to(delta.dtype)
    if not largest.any():
        raise InputError(f"{path} would change no image of {images.name}")
    _check_budget(largest, images, budget, kind, path)
    most = int(largest.max())
    return (delta if narrow or most > MAX_LEVELS else memory.zeros(shape, torch.int8, "cpu").copy_(delta)), most


def _check_budget(largest: Tensor, images: Images, budget: Budget | None, kind: str, path: Path) -> None:
    """Compare the largest change of each image, (N,), with the budget that the file is said to keep."""
    if budget is None:
        return
    over = int((largest > budget.levels).sum())
    if over and kind == "images":
        raise InputError(
            f"{path}: {over} of {len(images)} images differ by more than {budget.levels} levels from those of "
            f"{images.name}; the order, the data set or epsilon is another"
        )
    if over:
        raise InputError(
            f"epsilon: {budget.epsilon:g} ({budget.levels} levels); {path} goes further, up to "
            f"{int(largest.max())} levels, in {over} of {len(images)} images"
        )
