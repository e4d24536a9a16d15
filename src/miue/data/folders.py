"""Folders of images: which of their files are images, of which class and for what, and what is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from miue.errors import InputError, printable

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test", "testing")
"""What folders of training and of test images are called, in any letter case; of several to test on, the first."""


@dataclass(frozen=True)
class Listing:
    """The images of one folder of class folders.

    Args:
        classes: names of the class folders, sorted.
        files: the images by their paths in the folder, class by class, sorted.
        labels: the place in `classes` of each image's class.
        left_out: what else the folder holds, and how much of it.
    """

    classes: list[str]
    files: list[str]
    labels: list[int]
    left_out: Counter[str]

    def told(self) -> str:
        """What is left out in one line, the most frequent first; empty where nothing is."""
        frequent = self.left_out.most_common(8)
        others = self.left_out.total() - sum(count for _, count in frequent)
        return printable(", ".join(f"{what}: {n}" for what, n in [*frequent, ("others", others)] if n))


def hidden(name: str) -> bool:
    """Whether a file or folder is one that systems and programs leave behind: `.DS_Store`, `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def listing(path: Path) -> Listing:
    """List the images under class folders.

    Class folders and images may be links; links to folders inside of class folders are left out.

    Args:
        path: holds one folder for each class.

    Raises:
        InputError: fewer than two classes, an empty class, or a folder that cannot be read.
    """
    left_out: Counter[str] = Counter()
    classes = []
    for entry in entries(path):
        if hidden(entry.name):
            left_out["hidden files or folders"] += 1
        elif entry.is_dir():
            classes.append(entry.name)
        else:
            left_out["files beside the class folders"] += 1
    if len(classes) < 2:
        raise InputError(printable(f"data: {path} holds {len(classes)} class folder(s); at least two are needed"))
    files: list[str] = []
    labels: list[int] = []
    for label, one in enumerate(classes):
        found = sorted(images_under(path, one, left_out))
        if not found:
            raise InputError(printable(f"data: {path / one} holds no image ({', '.join(ENDINGS)})"))
        files += found
        labels += [label] * len(found)
    return Listing(classes, files, labels, +left_out)


def entries(path: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name; an InputError where it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> InputError:
    return InputError(printable(f"data: {error.filename} cannot be read ({error.strerror})"))


def images_under(
    path: Path, one: str, left_out: Counter[str], endings: tuple[str, ...] = ENDINGS, links: bool = True
) -> Iterator[str]:
    """The images in a folder and in what it holds, by their paths in `path`; what is left out is counted.

    Args:
        path: the folder from which paths are taken.
        one: a folder in it, by its name.
        left_out: where what is left out is counted, by its kind.
        endings: of the files that are images, in small letters.
        links: whether links to files are images, too; links to folders are not followed.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(error)

    for where, folders, files in os.walk(path / one, onerror=refuse):
        linked = [folder for folder in folders if os.path.islink(os.path.join(where, folder))]
        left_out["hidden files or folders"] += sum(map(hidden, folders + files))
        left_out["links to folders"] += sum(not hidden(folder) for folder in linked)
        folders[:] = [folder for folder in folders if not hidden(folder) and folder not in linked]
        seen = [file for file in files if not hidden(file)]
        if not links:
            files = [file for file in seen if not os.path.islink(os.path.join(where, file))]
            left_out["links to files"] += len(seen) - len(files)
            seen = files
        images = [file for file in seen if file.lower().endswith(endings)]
        for file in set(seen) - set(images):
            left_out[f"files of the kind {os.path.splitext(file)[1].lower() or 'without ending'}"] += 1
        if not images and not folders:
            left_out["folders without images"] += 1
        yield from (os.path.relpath(os.path.join(where, file), path) for file in images)


def parts(path: Path) -> tuple[Path, Path | None, list[str]]:
    """Find the training and the test images of a folder.

    Args:
        path: holds class folders, or a folder called as one of `TRAIN` that does, and perhaps one of `HELD_OUT`.

    Returns:
        The folder that holds the class folders for training; that for testing, None where there is none; the names of
        the folders that are left out.

    Raises:
        InputError: the names leave open which folder is for what.
    """
    names = [entry.name for entry in entries(path) if entry.is_dir() and not hidden(entry.name)]
    train = [name for name in names if name.lower() in TRAIN]
    tests = sorted((n for n in names if n.lower() in HELD_OUT), key=lambda name: HELD_OUT.index(name.lower()))
    others = [name for name in names if name not in train + tests]
    if not train + tests or (len(train + tests) == 1 and others and not _holds_folders(path / (train + tests)[0])):
        return path, None, []  # a class may be called "train" or "valid", too
    if len(train) != 1 or (others and not tests):
        told = f"data: {path} holds the folders {', '.join(names)}"
        wanted = f"one called {' or '.join(TRAIN)}, and one called {', '.join(HELD_OUT[:-1])} or {HELD_OUT[-1]}"
        raise InputError(printable(f"{told}; it must hold class folders alone, or {wanted}"))
    return path / train[0], path / tests[0] if tests else None, tests[1:] + others


def _holds_folders(path: Path) -> bool:
    return any(entry.is_dir() and not hidden(entry.name) for entry in entries(path))
