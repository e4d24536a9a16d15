"""`load`: the data sets by name, and anybody's folder of pictures."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from miue import digits_m
from miue.errors import InputError, choose
from miue.files import atomic, cache_dir
from miue.images import Images
from miue.progress import track

Split = tuple[Images, Images]
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
DATASETS = ("digits_m", "cifar10", "cifar100", "svhn", "folder:PATH")


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
            `folder:PATH` (class folders of pictures, under PATH/train and PATH/val or PATH/test; without those, every
            fifth picture of a class is held out).
        root: where downloads lie; falls back to `$MIUE_DATA`, then to `data/`. Where it holds an unpacked
            `cifar10/{train,test}/<class>/*.jpg`, `cifar10` is read from that JPEG copy and named so.
        n_train, n_test: how many pictures, classes in proportion; by default all (`digits_m`: 3,000 and 1,000).
        size: height and width in pixels; for `folder:` only, where it defaults to 224.
        seed: which pictures a subset holds; for `digits_m` also how they are drawn.

    Raises:
        InputError: unknown name, missing or unreadable pictures, more pictures asked for than there are.
    """
    where = Path(root or os.environ.get("MIUE_DATA") or "data")
    kind, _, path = name.partition(":")
    check_name(name)
    if kind == "folder":
        # A relative folder is looked for under the root too, so that a record need not hold a machine's paths.
        train, test = folder(Path(path) if Path(path).is_dir() else where / path, 224 if size is None else size)
    else:
        if size not in (None, 32):
            raise InputError(f"size: {size}; the pictures of {name} are 32 px, so leave size out")
        if name == "digits_m":
            return digits_m.make(n_train or 3000, n_test or 1000, seed)
        train, test = (
            _cifar10_from_jpeg(where) if name == "cifar10" and _jpeg_copy(where) else _torchvision(name, where)
        )
    return _subset(train, "n_train", n_train, seed), _subset(test, "n_test", n_test, seed)


def check_name(name: str) -> str:
    """Return `name` if `load` knows it; whether the pictures are there, only loading tells.

    Raises:
        InputError: it does not; the message lists what exists.
    """
    kind, _, path = name.partition(":")
    return name if kind == "folder" and path else choose("data", name, DATASETS)


def _subset(images: Images, argument: str, wanted: int | None, seed: int) -> Images:
    if wanted is None or wanted == len(images):
        return images
    if not len(images.classes) <= wanted <= len(images):
        raise InputError(
            f"{argument}: {wanted}; {images.name} has {len(images)} pictures of {len(images.classes)} classes, "
            f"so it must be {len(images.classes)}..{len(images)}"
        )
    if wanted > len(images) - len(images.classes):  # scikit-learn wants one of each class left over
        chosen = np.random.default_rng(seed).permutation(len(images))[:wanted]
    else:
        from sklearn.model_selection import train_test_split  # a second to import, and only needed here

        chosen, _ = train_test_split(
            np.arange(len(images)), train_size=wanted, stratify=images.y.numpy(), random_state=seed
        )
    return images.subset(torch.from_numpy(np.sort(chosen)))


def _torchvision(name: str, root: Path) -> Split:
    from torchvision import datasets  # seconds to import, and only needed here

    makers: dict[str, tuple[Callable, str, list[dict]]] = {
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


def _jpeg_copy(root: Path) -> bool:
    return (root / "cifar10" / "train" / CIFAR10_CLASSES[0]).is_dir()


def _cifar10_from_jpeg(root: Path) -> Split:
    name = "CIFAR-10 (JPEG-75 copy)"
    train, test = (_read_folder(root / "cifar10" / part, 32, name) for part in ("train", "test"))
    return train, test


def folder(path: Path, size: int) -> Split:
    """Read class folders of pictures, resized (short side) and centre-cropped to `size`; decoded once, then mapped.

    Raises:
        InputError: no such folder, fewer than two classes, an empty class, or an unreadable picture.
    """
    name = f"folder {path.name}, {size} px"
    if not path.is_dir():
        raise InputError(f"data: {path} is no folder")
    held_out = [path / part for part in ("val", "test") if (path / part).is_dir()]
    if (path / "train").is_dir() and held_out:
        train, test = _read_folder(path / "train", size, name), _read_folder(held_out[0], size, name)
        if train.classes != test.classes:
            raise InputError(f"data: {path / 'train'} and {held_out[0]} hold different class folders")
        return train, test
    images = _read_folder(path, size, name)
    place = torch.zeros(len(images), dtype=torch.int64)
    for label in range(len(images.classes)):
        members = images.y == label
        place[members] = torch.arange(int(members.sum()))
    test_rows = place % 5 == 4
    return images.subset((~test_rows).nonzero()[:, 0]), images.subset(test_rows.nonzero()[:, 0])


def _read_folder(path: Path, size: int, name: str) -> Images:
    if size < 8:
        raise InputError(f"size: {size}; pictures must be at least 8 px")
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    if len(classes) < 2:
        raise InputError(f"data: {path} holds {len(classes)} class folder(s); at least two are needed")
    relative: list[str] = []
    labels: list[int] = []
    for label, one in enumerate(classes):
        found = [
            os.path.relpath(os.path.join(where, file), path)
            for where, _, files in os.walk(path / one)
            for file in files
            if file.lower().endswith(PICTURES)
        ]
        if not found:
            raise InputError(f"data: {path / one} holds no picture ({', '.join(PICTURES)})")
        relative += sorted(found)
        labels += [label] * len(found)
    cached = cache_dir() / "pictures" / f"{_content_key(path, relative, size)}.npy"
    if not cached.exists():
        _decode([path / r for r in relative], size, cached, name)
    # Copy-on-write: torch can take the map as its own, and the file stays as it is.
    x = torch.from_numpy(np.load(cached, mmap_mode="c"))
    ids = [int.from_bytes(_digest(Path(r).as_posix().encode())[:8], "little", signed=True) for r in relative]
    return Images(x, torch.tensor(labels), classes, ids=torch.tensor(ids), name=name)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _content_key(path: Path, relative: list[str], size: int) -> str:
    """Digest of all files' contents, remembered by their sizes and times so that unchanged files are not read again."""
    stats = [os.stat(path / r) for r in relative]
    listing = [(r, stat.st_size, stat.st_mtime_ns) for r, stat in zip(relative, stats, strict=True)]
    remembered = cache_dir() / "pictures" / f"{_digest(f'{path.resolve()} {size} {listing}'.encode()).hex()}.key"
    if remembered.exists():
        return remembered.read_text()
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(lambda r: _digest((path / r).read_bytes()), relative))
    key = _digest(f"{size} {list(zip(relative, digests, strict=True))}".encode()).hex()
    with atomic(remembered) as part:
        part.write_text(key)
    return key


def _decode(files: list[Path], size: int, target: Path, name: str) -> None:
    shape = (len(files), 3, size, size)
    with atomic(target) as part:
        pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)

        def one(row: int) -> None:
            pixels[row] = _picture(files[row], size).transpose(2, 0, 1)

        with ThreadPoolExecutor() as pool:
            try:
                for _ in track(pool.map(one, range(len(files))), f"decoding {name}", len(files)):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        pixels.flush()


def _picture(file: Path, size: int) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"data: {file} cannot be read as a picture ({error})") from None
    if upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(upright)
