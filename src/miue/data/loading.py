"""`load`: the data sets by name, and anybody's folder of images."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from miue.data import archives, digits_m
from miue.data.arrays import whole
from miue.data.choosing import long_tailed, subset
from miue.data.decoding import MIN_SIZE, read_folder
from miue.data.digests import contents
from miue.data.folders import listing, parts
from miue.data.images import Images
from miue.errors import InputError, choose, printable
from miue.progress import say

Split = tuple[Images, Images]
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
DATASETS = ("digits_m", "cifar10", "cifar100", "svhn", "folder:PATH")
OPTION = re.compile(r"(?P<name>.+):(?P<option>classes|tail|labels)=(?P<value>[^:=/\\]+)")
TITLES = {"tiny-imagenet32": "Tiny-ImageNet, {size} px (JPEG copy)"}
"""How a folder is named that is a known copy of a data set, by the beginning of its name."""


def load(
    name: str,
    root: str | Path | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Split:
    """Load a data set as (train, test).

    Args:
        name: `digits_m` (embedded), `cifar10`, `cifar100`, `svhn` (torchvision's download and check), or
            `folder:PATH` (see `folder`). A relative PATH is looked for under the root, then in the working folder. It
            may be an archive, or lack the ending of one (`.tar`, `.tar.gz`, `.zip`, ...), which is unpacked into the
            cache. Behind it may stand `:classes=N`, the first N of its classes alone, in the order of their numbers (of
            folders: of their names); `:tail=R`, fewer training images from class to class, R times fewer in the last
            than in the first (`miue.data.choosing.long_tailed`), of the `n_train` that there would be; and, for
            `digits_m`, `:labels=pairs` or `:labels=captions` (`miue.data.digits_m`).
        root: where downloads lie; falls back to `$MIUE_DATA`, then to `data/`. Where it holds
            `cifar10/{train,test}/<class>/*.jpg`, or an archive `cifar10` or `cifar10-jpeg` of that, `cifar10` is read
            from that JPEG copy and named so.
        n_train, n_test: how many images, classes in proportion and at least one of each; by default all (`digits_m`:
            3,000 and 1,000).
        size: height and width in pixels, 8 to 4,096; for `folder:` only, where it defaults to 224.
        seed: which images a subset holds; for `digits_m` also how they are drawn.

    Raises:
        InputError: unknown name, missing or unreadable images, more images asked for than there are.

    Example:
        >>> import miue
        >>> train, test = miue.load("digits_m", n_train=40, n_test=20)
        >>> train
        Images('Digits-M', 40 of 3x32x32, 10 classes)
    """
    check_name(name)
    seed = whole("seed", seed, 0)
    for argument, value, least in (("n_train", n_train, 1), ("n_test", n_test, 1), ("size", size, MIN_SIZE)):
        if value is not None:
            whole(argument, value, least)
    name, asked = _named(name)
    labels = asked.get("labels", "digits")
    if name == "digits_m" and "classes" not in asked and size in (None, 32):
        counts = 3000 if n_train is None else n_train, 1000 if n_test is None else n_test
        train, test = digits_m.make(*counts, seed, labels)
        return long_tailed(train, asked.get("tail", 1.0), seed), test
    where = Path(root or os.environ.get("MIUE_DATA") or "data")
    for anew in (False, True):
        train, test = _read(name, where, size, anew, seed, labels)
        if "classes" in asked:
            train, test = (part.of_classes(asked["classes"]) for part in (train, test))
        chosen = subset(train, "n_train", n_train, seed), subset(test, "n_test", n_test, seed)
        chosen = long_tailed(chosen[0], asked.get("tail", 1.0), seed), chosen[1]
        # A bit may have flipped on the disk. The images have to be hashed anyway, for the keys of the cache.
        wrong = sum(part.damaged() for part in chosen)
        if not wrong:
            return chosen
        say(f"{train.name}: {wrong} of the decoded images are no longer what they were")
    raise OSError(f"data: {train.name} does not stay as it is decoded; disk or memory may be failing")


def _named(name: str) -> tuple[str, dict[str, Any]]:
    """A name without the options that stand behind it, and these.

    Raises:
        InputError: an option stands there twice, or its value does not fit.
    """
    asked: dict[str, Any] = {}
    base = name
    while found := OPTION.fullmatch(base):
        base, option, written = found.groups()
        if option in asked:
            raise InputError(f"data: {name}; {option} stands in it twice")
        asked[option] = _option(name, option, written)
    if "labels" in asked and base != "digits_m":
        raise InputError(f"data: {name}; labels can be chosen for digits_m only")
    return base, asked


def _option(name: str, option: str, written: str) -> Any:
    if option == "labels":
        return choose("labels", written, digits_m.LABELS)
    try:
        value = int(written) if option == "classes" else float(written)
    except ValueError:
        value = 0
    least = 2 if option == "classes" else 1
    if not least <= value < math.inf:
        raise InputError(f"data: {name}; {option} must be {least} or more")
    return value


def _read(name: str, where: Path, size: int | None, anew: bool, seed: int, labels: str) -> Split:
    kind, _, path = name.partition(":")
    if name == "digits_m" and size in (None, 32):
        return digits_m.make(seed=seed, labels=labels)
    if kind == "folder":
        found = archives.find(_place(path, where))
        assert found is not None
        return folder(found, 224 if size is None else size, archives.stem(path), anew)
    if size not in (None, 32):
        raise InputError(f"size: {size}; the images of {name} are 32 px, so leave size out")
    copy = _jpeg_copy(where) if name == "cifar10" else None
    if copy is None:
        return _torchvision(name, where)
    title = "CIFAR-10 (JPEG-75 copy)"
    return read_folder(copy / "train", 32, title, anew), read_folder(copy / "test", 32, title, anew)


def check_name(name: str) -> None:
    """Refuse a name that `load` does not know; whether the images are there, only loading tells.

    Raises:
        InputError: the message lists what exists.
    """
    if not isinstance(name, str):
        choose("data", name, DATASETS)
    base, _ = _named(name)
    kind, _, path = base.partition(":")
    if not (kind == "folder" and path):
        choose("data", base, DATASETS)


def settled(name: str, root: Path) -> str:
    """Return the name of a data set so that it means the same from every working folder.

    A folder under `root` stays relative to it, so that a record need not hold a machine's paths; one in the working
    folder becomes absolute.

    Raises:
        InputError: there is no such folder.
    """
    base, _ = _named(name)
    kind, _, path = base.partition(":")
    if kind != "folder" or archives.at(root / path) is not None:
        return name
    return f"folder:{_place(path, root).resolve()}{name.removeprefix(base)}"


def identity(name: str, root: Path) -> str | None:
    """What tells a folder of images from another at the same place: a digest of names and contents.

    None for all other data sets, whose names say which images they are.

    Raises:
        InputError: there is no such folder, it is laid out otherwise than `folder` reads, or something in it is no
            ordinary file.
    """
    kind, _, path = _named(name)[0].partition(":")
    found = archives.find(_place(path, root)) if kind == "folder" else None
    if found is None:
        return None
    train, test, _ = parts(found)
    read = [os.path.relpath(at / file, found) for at in (train, test) if at for file in listing(at).files]
    return contents(found, sorted(read))


def _place(path: str, root: Path) -> Path:
    """Where a folder or its archive is: under the root, else in the working folder."""
    for place in (root / path, Path(path)):
        if archives.at(place):
            return place
    raise InputError(printable(f"data: {path} is no folder, and no archive of one, in {root} or the working folder"))


def _torchvision(name: str, root: Path) -> Split:
    from torchvision import datasets  # seconds to import, and only needed here

    makers: dict[str, tuple[Callable[..., Any], str, list[dict[str, Any]]]] = {
        "cifar10": (datasets.CIFAR10, "CIFAR-10", [{"train": True}, {"train": False}]),
        "cifar100": (datasets.CIFAR100, "CIFAR-100", [{"train": True}, {"train": False}]),
        "svhn": (datasets.SVHN, "SVHN", [{"split": "train"}, {"split": "test"}]),
    }
    make, title, splits = makers[name]
    try:
        parts = [make(root=str(root), download=True, **split) for split in splits]
    except (OSError, RuntimeError) as error:
        raise InputError(f"data: {title} is neither in {root} nor could it be downloaded ({error})") from None
    images = []
    for part in parts:
        pixels = torch.from_numpy(part.data)
        x = pixels if name == "svhn" else pixels.permute(0, 3, 1, 2).contiguous()
        y = torch.as_tensor(part.labels if name == "svhn" else part.targets)
        images.append(Images(x, y, getattr(part, "classes", [str(c) for c in range(10)]), name=title))
    return images[0], images[1]


def _jpeg_copy(root: Path) -> Path | None:
    for name in ("cifar10", "cifar10-jpeg"):
        found = archives.find(root / name)
        if found is not None and (found / "train" / CIFAR10_CLASSES[0]).is_dir():
            return found
    return None


def folder(path: Path, size: int, name: str | None = None, anew: bool = False) -> Split:
    """Read a folder of images: class folders, or a folder to train on and one to test on, which hold class folders.

    The first is called `train` or `training`, the second one of `miue.data.folders.HELD_OUT`, in any letter case; of
    several such, `val` comes before `test`. Without a second one, every fifth image of a class is held out, and of a
    class of two to four images the last. What is left out is said.

    Args:
        path: a folder.
        size: height and width in pixels; images are resized by the short side and cropped in the middle.
        name: of the data set, by default that of the folder.
        anew: decode the images although the cache holds them.

    Raises:
        InputError: another layout, fewer than two classes, an empty class, an unreadable image, or so few of each
            class that none can be held out.
    """
    called = name or path.name
    known = next((title for start, title in TITLES.items() if called.startswith(start)), "folder {called}, {size} px")
    title = known.format(called=called, size=size)
    at, held_out, left_out = parts(path)
    if left_out and held_out:
        used = f"training on {at.name}, testing on {held_out.name}"
        say(printable(f"{title}: {used}; left out: {', '.join(left_out)}"))
    train = read_folder(at, size, title, anew)
    if held_out:
        test = read_folder(held_out, size, title, anew)
        if train.classes != test.classes:
            raise InputError(printable(f"data: {at} and {held_out} hold different class folders"))
        return train, test
    if at != path:
        say(f"{title}: no folder of test images beside {printable(at.name)}; every fifth image of a class is held out")
    held = []
    for label in range(len(train.classes)):
        members = (train.y == label).nonzero()[:, 0]
        held.append(members[4::5] if len(members) > 4 else members[1:][-1:])
    rows = torch.cat(held).sort().values
    if len(rows) == 0:
        raise InputError(
            printable(f"data: every class of {at} has one image, so that none can be held out for testing")
        )
    kept = torch.ones(len(train), dtype=torch.bool)
    kept[rows] = False
    return train.subset(kept.nonzero()[:, 0]), train.subset(rows)
