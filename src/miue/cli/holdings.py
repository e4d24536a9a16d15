"""What `miue doctor` finds on the disks: data sets and where they lie, the cache, and the room that is left."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from miue.cli.machine import NOTE, PROBLEM, Finding
from miue.errors import InputError
from miue.storage import keeping
from miue.storage.files import cache_dir, check_writable

DECODED = 3 * 224 * 224
"""Bytes of an image at the size at which folders are read unless another is asked for."""
BIG = "at 224 px Imagenette takes 2.0 GB of it and each perturbation 1.4 GB, ImageNet 193 GB for each"
LITTLE, TOO_LITTLE = 10 * 10**9, 10**9
"""Bytes of disk below which a note, and below which a problem is made of it."""
COPIES = ("cifar10", "cifar10-jpeg")


def data() -> Iterator[Finding]:
    """Each data set that `load` knows by name, and what lies beside them; nothing is downloaded or unpacked."""
    from miue.data.loading import DATASETS

    root = Path(os.environ.get("MIUE_DATA") or "data")
    if root.is_dir():
        yield Finding("data", f"{root.resolve()}", facts={"root": str(root.resolve())})
    elif "MIUE_DATA" in os.environ:
        advice = "make it, or set MIUE_DATA anew"
        yield Finding("data", f"MIUE_DATA is {root}, which is no folder", advice, mark=PROBLEM)
    else:
        yield Finding("data", f"{root.resolve()} is not there", "set MIUE_DATA to the folder of your data sets")
    for name in DATASETS:
        if name == "digits_m":
            yield Finding(name, "made from what ships inside scikit-learn")
        elif name == "folder:PATH":
            yield from _folders(root)
        else:
            yield (_copy(root) if name == "cifar10" else None) or _downloaded(name, root)


def _copy(root: Path) -> Finding | None:
    """The JPEG copy of CIFAR-10, where `load` would find it."""
    from miue.data import archives
    from miue.data.loading import CIFAR10_CLASSES

    for place in filter(None, (archives.at(root / name) for name in COPIES)):
        if place.is_file() or (place / "train" / CIFAR10_CLASSES[0]).is_dir():
            told = _archive(place) if place.is_file() else f"the folder {place}"
            return Finding("cifar10", f"JPEG copy, {told}", facts={"path": str(place)})
    return None


def _downloaded(name: str, root: Path) -> Finding:
    """What torchvision downloads, held against its checksums."""
    from torchvision.datasets.utils import check_integrity

    packed, files = _torchvision(name)
    missing = [file for file in files if not (root / file).is_file()]
    wrong = [file for file in files if file not in missing and not check_integrity(root / file, files[file])]
    facts = {"root": str(root), "missing": missing, "damaged": wrong}
    if wrong or 0 < len(missing) < len(files):
        told = ", ".join([*(f"{file} is missing" for file in missing), *(f"{file} is damaged" for file in wrong)])
        return Finding(name, told, "delete what is damaged; the next use downloads what is missing", facts, PROBLEM)
    if not missing:
        return Finding(name, f"{', '.join(files)}: all as downloaded", facts=facts)
    if packed and (root / packed).is_file():
        return Finding(name, f"{packed}, not unpacked, which its first use does", facts=facts)
    advice = f"its first use downloads it; without a network, put {packed or ' and '.join(files)} into {root}"
    return Finding(name, "not there", advice, facts)


def _torchvision(name: str) -> tuple[str, dict[str, str]]:
    """The archive that torchvision downloads, where there is one, and the files that it reads, with their MD5."""
    from torchvision import datasets

    if name == "svhn":
        return "", {file: md5 for _, file, md5 in (datasets.SVHN.split_list[split] for split in ("train", "test"))}
    of = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    listed = [*of.train_list, *of.test_list, (of.meta["filename"], of.meta["md5"])]
    return of.filename, {f"{of.base_folder}/{file}": md5 for file, md5 in listed}


def _folders(root: Path) -> Iterator[Finding]:
    """Folders and archives under the root that hold no data set of another name."""
    from miue.data import archives
    from miue.data.folders import hidden

    taken = set(COPIES)
    for packed, files in map(_torchvision, ("cifar10", "cifar100", "svhn")):
        taken |= {packed, *(file.partition("/")[0] for file in files)}
    for place in sorted(root.iterdir()) if root.is_dir() else ():
        if hidden(place.name) or taken & {place.name, archives.stem(place.name)}:
            continue
        if place.is_dir():
            yield _folder(place)
        elif place.name.lower().endswith(archives.ENDINGS):
            yield Finding(f"folder:{place.name}", _archive(place), facts={"path": str(place)})


def _folder(place: Path) -> Finding:
    """A folder of images, counted by the first of its classes: there may be a million of them."""
    from miue.data.folders import hidden, parts

    about, facts = f"folder:{place.name}", {"path": str(place)}
    try:
        held = [
            [entry for entry in part.iterdir() if entry.is_dir() and not hidden(entry.name)]
            for part in parts(place)[:2]
            if part
        ]
        count = sum(len(classes) * len(list(classes[0].iterdir())) for classes in held if classes)
    except (InputError, OSError) as error:
        return Finding(about, f"not read as images ({error})", "see data/README.md for the layout", facts)
    classes = len(held[0])
    if classes < 2:
        return Finding(about, "no class folders, so no data set", facts=facts)
    size = count * DECODED
    told = f"{classes} classes, about {count:,} images; decoded at 224 px they take {decimal(size)} of the cache"
    advice = "more than the disk has free: give a smaller size" if size > _disk().free else ""
    return Finding(about, told, advice, facts | {"classes": classes, "images": count})


def _archive(place: Path) -> str:
    from miue.data import archives

    state = "unpacked in the cache" if archives.is_unpacked(place) else "not unpacked, which its first use does"
    return f"{place}, {decimal(place.stat().st_size)}, {state}"


def cache() -> Iterator[Finding]:
    """The cache by kind, and what of it may go."""
    folder = cache_dir()
    try:
        check_writable(folder / "results")
        yield Finding("cache", f"{folder}", facts={"folder": str(folder)})
    except InputError as error:
        advice = "set MIUE_CACHE to a folder that can be written"
        yield Finding("cache", str(error).removeprefix("out: "), advice, mark=PROBLEM)
    idle = [one for one in keeping.entries() if one.kind not in keeping.ENDINGS.values() or not keeping.busy(one)]
    for total in keeping.totals(idle):
        told = f"{decimal(total.size)}, {total.files:,} file{'s' * (total.files != 1)}: {keeping.KINDS[total.kind]}"
        facts = {"files": total.files, "bytes": total.size, "oldest": total.oldest, "newest": total.newest}
        may_go = total.kind in keeping.ENDINGS.values()
        advice = f"if not wanted: miue cache clear --kind {total.kind}" if may_go else ""
        yield Finding(total.kind, told, advice, facts)


def disk() -> Iterator[Finding]:
    """Room for the cache."""
    found = _disk()
    advice = "miue cache clear, or set MIUE_CACHE to a folder on another disk" if found.free < LITTLE else ""
    told = f"{decimal(found.free)} free of {decimal(found.total)} for the cache; {BIG}"
    mark = PROBLEM if found.free < TOO_LITTLE else NOTE
    yield Finding("disk", told, advice, {"free": found.free, "total": found.total}, mark)


def _disk() -> "shutil._ntuple_diskusage":
    folder = cache_dir().resolve()
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists()))
