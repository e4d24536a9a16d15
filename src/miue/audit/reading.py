"""Folders of photographs as images to train on, and which photograph of one folder is which of the other."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from miue.data import photographs
from miue.data.images import Images
from miue.data.photographs import Unreadable
from miue.defenses.detection import members_of
from miue.errors import InputError, printable
from miue.progress import track
from miue.protect.private import Private


def gather(folder: Path, size: int, argument: str = "folder") -> tuple[Images, dict[str, str]]:
    """Read the photographs of a folder, resized by the shorter side and cropped in the middle.

    Of what `miue.protect` made, the images to publish are read, under the names of their originals.

    Returns:
        Images, whose `names` are paths in the folder, and which files could not be read, and why.

    Raises:
        InputError: no folder, no photograph that can be read, or fewer than two classes.
    """
    copy = Private(folder.parent if folder.name == "publish" else folder)
    originals = copy.sources()
    folder = copy.publish if originals else folder
    found = photographs.find(folder)
    jobs = [(name, file) for name, files in found.files.items() for file in files]

    def one(file: str) -> np.ndarray | str:
        try:
            return photographs.read(folder / file).seen(size)
        except Unreadable as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(track(pool.map(one, [file for _, file in jobs]), f"reading {printable(folder.name)}", len(jobs)))
    unreadable = {file: result for (_, file), result in zip(jobs, read, strict=True) if isinstance(result, str)}
    good = [(name, file) for name, file in jobs if file not in unreadable]
    classes = sorted({name for name, _ in good})
    if len(classes) < 2:
        raise InputError(
            printable(f"{argument}: {folder} holds images of {len(classes)} class that can be read; two are needed")
        )
    images = Images(
        torch.from_numpy(np.stack([result for result in read if not isinstance(result, str)])),
        torch.tensor([classes.index(name) for name, _ in good]),
        classes,
        name=folder.resolve().name,
        names=[originals.get(file, file) for _, file in good],
        layout="nchw",
    )
    return images, unreadable


def paired(images: Images, originals: Images) -> tuple[Images, Images, list[str]]:
    """Cut two sets to the photographs that both hold, in the same order and with the same ids.

    A copy has the name of its original, whatever the ending of either, or that name with another ending behind it.

    Returns:
        Both sets, and the names of the copies that have no original.

    Raises:
        InputError: no copy has an original; other classes.
    """
    assert images.names is not None and originals.names is not None
    places = {str(name): place for place, name in enumerate(originals.names)}
    names = [str(name) for name in images.names]
    found = {name: places[one] for name in names for one in (_stem(name), name) if one in places}
    left = {name: place for name, place in places.items() if place not in found.values()}
    stems = Counter(map(_stem, left))
    by_stem = {_stem(name): place for name, place in left.items() if stems[_stem(name)] == 1}
    found = {name: by_stem[_stem(name)] for name in names if _stem(name) in by_stem} | found
    if not found:
        raise InputError(printable(f"against: holds no original of the {len(images)} images, as of {names[0]}"))
    if images.classes != originals.classes:
        raise InputError("against: has other classes; it must hold the folders of the same classes")
    images = images.subset(torch.tensor([place for place, name in enumerate(names) if name in found]))
    chosen = originals.subset(torch.tensor([found[name] for name in names if name in found]))
    chosen.ids, chosen.names = images.ids, images.names
    if not torch.equal(chosen.y, images.y):
        raise InputError("against: holds originals in folders of other classes; they must lie in the same ones")
    return images, chosen, [name for name in names if name not in found]


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def split(images: Images, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of the images to train on and of those held out: `share` of each class, one at least where it has two."""
    held = torch.zeros(len(images), dtype=torch.bool)
    for members in members_of(images, seed, "probe"):
        held[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]
