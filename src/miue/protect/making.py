"""The making of a protected copy, in three steps that can each be stopped anywhere: read, perturb, write."""

import math
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from miue.data import photographs
from miue.data.photographs import Found, Photograph, Unreadable
from miue.errors import InputError, printable
from miue.poisons import Poison, perturb
from miue.progress import say, track
from miue.protect.carry import perturbed
from miue.protect.private import Private
from miue.protect.settings import Settings
from miue.storage.files import check_writable, file_digest

A = TypeVar("A")
B = TypeVar("B")
BEFORE = "reference/"
"""What the names of classes begin with whose images only stand by."""


@dataclass(frozen=True)
class Protected:
    """What was made.

    Attributes:
        publish: the folder of the protected images.
        private: the folder of what must not be published: settings, manifest, perturbations, report.
        settings: how it is made.
        rows: one for each protected image: `source`, `name` (both by their paths in the two folders), `class`,
            `digest` and `source_digest` (of the files), `width`, `height`, `psnr` (dB), `notes`.
        unreadable: files that could not be read, and why.
        left_out: what else the folder holds, and how much of it.
        gone: images that are protected and are no longer in the folder.
        twice: images whose very content lies in more than one class.
        new: how many of the images were protected now; the others were before.
    """

    publish: Path
    private: Path
    settings: Settings
    rows: list[dict[str, Any]]
    unreadable: dict[str, str]
    left_out: Counter[str]
    gone: list[str]
    twice: list[str]
    new: int = 0


def images(
    folder: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    workers: int | None = None,
    **settings: Any,
) -> Protected:
    """Make a protected copy of a folder of images, or go on with one, or add the images that are new.

    Originals are only read. The copy lies in `out`: what may be published in `publish`, what must not be in `private`.
    Memory holds as many images as there are workers. A stopped call goes on when it is called again.

    Args:
        folder: holds a folder for each class or person, or one person's images. What is no image is counted, what
            cannot be read is named.
        out: beside `folder`, not in it.
        reference: a folder of other images, which stay as they are: what a single class is told from.
        workers: images that are read or written at the same time; by default one for each core.
        **settings: see `Settings`; a copy that was begun keeps its own. The seed is drawn if none is given.

    Raises:
        InputError: folders in one another, no images, one class without a reference, another setting than before.
        OSError: the disk is full.
    """
    folder, out, reference = Path(folder), Path(out), None if reference is None else Path(reference)
    apart(folder, out, reference)
    found = photographs.find(folder)
    others = Found({}, Counter()) if reference is None else photographs.find(reference)
    if len(found.files) + len(others.files) < 2:
        name = printable(next(iter(found.files)))
        raise InputError(
            f"images: one class alone, {name}; to tell it from others there must be others: name a folder of other "
            "images as reference, which stays as it is"
        )
    check_writable(out / "private" / "settings.json")
    private = Private(out)
    with private.alone():
        private.open(settings, secrets.randbits(31))
        private.add_classes([*found.files, *(BEFORE + name for name in others.files)])
        work = _Work(private, workers or max(1, os.cpu_count() or 1))
        work.read(folder, found, "")
        if reference is not None:
            work.read(reference, others, BEFORE)
        work.perturb()
        new = work.write(folder)
        by_digest = Counter((row["digest"], row["class"]) for row in work.current.values())
        seen = Counter(digest for digest, _ in by_digest)
        return Protected(
            private.publish,
            private.folder,
            private.settings,
            list(private.written.values()),
            work.unreadable,
            found.left_out + others.left_out,
            sorted(set(private.written) - {file for files in found.files.values() for file in files}),
            sorted(file for file, row in work.current.items() if seen[row["digest"]] > 1),
            new,
        )


def apart(folder: Path, out: Path, reference: Path | None = None) -> None:
    """Refuse folders that lie in one another.

    Raises:
        InputError: they do.
    """
    named = [("images", folder), ("out", out), *([] if reference is None else [("reference", reference)])]
    whole = [(name, path.resolve()) for name, path in named]
    for name, path in whole:
        for other, inside in whole:
            if name != other and inside.is_relative_to(path):
                raise InputError(
                    printable(f"{other}: {inside} lies in {path}, the folder of {name}; give folders beside each other")
                )


@dataclass
class _Work:
    """One call's work on a protected copy.

    Args:
        private: what is there of it.
        workers: images that are at work at the same time.
    """

    private: Private
    workers: int
    unreadable: dict[str, str] = field(default_factory=dict)
    current: dict[str, dict[str, Any]] = field(default_factory=dict)  # by source: its latest row at working size
    numbers: dict[str, int] = field(default_factory=dict)  # and the number of that row

    def read(self, folder: Path, found: Found, before: str) -> None:
        """Take all images of a folder to working size, except those that are there and did not change."""
        settings = self.private.settings
        known = {row["source"]: number for number, row in enumerate(self.private.read)}

        def one(job: tuple[str, str]) -> tuple[dict[str, Any], np.ndarray | None] | Unreadable:
            name, file = job
            try:
                row = {"source": before + file, "class": before + name, "stat": _stat(folder / file)}
                old = self.private.read[known[row["source"]]] if row["source"] in known else None
                if old is not None and old["stat"] == row["stat"]:
                    return old, None
                row["digest"] = file_digest(folder / file)
                if old is not None and old["digest"] == row["digest"]:
                    return old, None
                return row, photographs.read(folder / file, settings.animated).seen(settings.size)
            except OSError as error:
                return Unreadable((error.strerror or str(error)).lower())
            except Unreadable as error:
                return error

        jobs = [(name, file) for name, files in found.files.items() for file in files]
        for (_, file), result in zip(jobs, track(self._spread(one, jobs), "reading images", len(jobs)), strict=True):
            if isinstance(result, Unreadable):
                self.unreadable[before + file] = str(result)
                continue
            row, pixels = result
            if pixels is not None:
                self.private.keep_working(row, pixels)
                known[row["source"]] = len(self.private.read) - 1
            self.current[row["source"]], self.numbers[row["source"]] = row, known[row["source"]]
        if not self.current:
            raise InputError(f"images: none of the {len(jobs)} files of {printable(str(folder))} could be read")

    def perturb(self) -> None:
        """Perturb the images that have no perturbation yet; the others stand by, so that classes are told apart."""
        rounds = self.private.rounds()
        have = {int(number) for made in rounds for number in made.ids}
        own = {number for source, number in self.numbers.items() if not source.startswith(BEFORE)}
        if not own - have:
            return
        settings = self.private.settings
        poison = perturb(
            self.private.images(sorted(self.numbers.values())),
            settings.method,
            surrogate=settings.surrogate,
            epsilon=settings.epsilon,
            seed=settings.seed,
            preset=settings.preset,
            cache=self.private.making,
        )
        rows = [row for row, number in enumerate(poison.ids.tolist()) if number in own - have]
        kept = Poison(poison.delta[rows], poison.ids[rows], poison.fingerprints[rows], poison.record)
        self.private.keep_round(kept, len(rounds) + 1)

    def write(self, folder: Path) -> int:
        """Write the images that are not written yet, or that have changed since; return how many they were."""
        private, settings = self.private, self.private.settings
        deltas = {int(number): (made, row) for made in private.rounds() for row, number in enumerate(made.ids)}
        taken = {row["name"].lower() for row in private.written.values()}
        jobs = []
        ending = photographs.ENDINGS[settings.format]
        for source, row in sorted(self.current.items(), key=lambda item: not item[0].lower().endswith(ending)):
            before = private.written.get(source)
            if source.startswith(BEFORE) or (before is not None and before["source_digest"] == row["digest"]):
                continue
            inside = _inside(source, row["class"])
            jobs.append((source, before["name"] if before else photographs.named(inside, settings.format, taken)))

        def one(job: tuple[str, str]) -> dict[str, Any] | Unreadable:
            source, name = job
            row = self.current[source]
            try:
                if file_digest(folder / source) != row["digest"]:
                    return Unreadable("changed while it was worked on; run again")
                photograph = photographs.read(folder / source, settings.animated)
            except OSError as error:
                return Unreadable((error.strerror or str(error)).lower())
            except Unreadable as error:
                return error
            made, place = deltas[self.numbers[source]]
            moved = perturbed(photograph, made.delta[place].numpy(), settings.levels)
            how: dict[str, Any] = {
                "quality": settings.quality,
                "orientation": settings.orientation,
                "metadata": settings.metadata,
            }
            photographs.write(private.publish / name, moved, kind=settings.format, **how)
            return {
                "source": source,
                "name": name,
                "class": row["class"],
                "source_digest": row["digest"],
                "digest": file_digest(private.publish / name),
                "width": photograph.picture.width,
                "height": photograph.picture.height,
                "psnr": _psnr(photograph, moved),
                "notes": list(photograph.notes),
            }

        done = 0
        for (source, _), result in zip(jobs, track(self._spread(one, jobs), "writing images", len(jobs)), strict=True):
            if isinstance(result, Unreadable):
                self.unreadable[source] = str(result)
            else:
                private.keep_written(result)
                done += 1
        return done

    def _spread(self, work: Callable[[A], B], jobs: Iterable[A]) -> Iterator[B]:
        """Do jobs side by side and yield the results in order; no more images are in memory than there are workers."""
        waiting: list[Future[B]] = []
        left = iter(jobs)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                waiting += [pool.submit(work, job) for job in islice(left, self.workers)]
                while waiting:
                    result = waiting.pop(0).result()
                    waiting += [pool.submit(work, job) for job in islice(left, 1)]
                    yield result
            finally:
                for future in waiting:
                    future.cancel()


def _stat(file: Path) -> list[int]:
    about = file.stat()
    return [about.st_size, about.st_mtime_ns]


def _inside(source: str, name: str) -> str:
    """The path that an image has in the folder that is published: always in a folder of its class."""
    path = PurePosixPath(Path(source).as_posix())
    return path.as_posix() if path.parts[0] == name and len(path.parts) > 1 else (name / path).as_posix()


def _psnr(one: Photograph, other: Photograph) -> float | None:
    """Peak signal-to-noise ratio in dB; None where nothing differs."""
    total, count = 0.0, 0
    first, second = (np.asarray(photograph.picture) for photograph in (one, other))
    for top in range(0, len(first), 512):
        difference = first[top : top + 512].astype(np.int32) - second[top : top + 512]
        total, count = total + float((difference**2).sum()), count + difference.size
    return 10 * math.log10(255**2 * count / total) if total else None


def check(folder: str | Path, out: str | Path) -> list[str]:
    """Hold a protected copy against its manifest and its originals; return what is wrong, a line for each file."""
    folder, private = Path(folder), Private(Path(out))
    if not (private.folder / "settings.json").exists():
        raise InputError(printable(f"out: {out} holds no protected copy; make one first"))
    wrong = []
    with private.alone():
        private.open({}, 0)
        levels = private.settings.levels
        for row in track(list(private.written.values()), "checking images"):
            file, source = private.publish / row["name"], folder / row["source"]
            if not file.exists():
                wrong.append(f"{row['name']}: missing")
            elif file_digest(file) != row["digest"]:
                wrong.append(f"{row['name']}: not as it was written")
            elif not source.exists():
                wrong.append(f"{row['name']}: its original {row['source']} is gone, so that it cannot be compared")
            elif file_digest(source) != row["source_digest"]:
                wrong.append(f"{row['name']}: its original {row['source']} has changed since")
            elif private.settings.format == "png" and (most := _largest(source, file)) > levels:
                wrong.append(f"{row['name']}: moved by {most} of 255 grey levels, more than {levels}")
    for line in wrong:
        say(printable(line))
    return [printable(line) for line in wrong]


def _largest(source: Path, file: Path) -> int:
    pictures = [photographs.read(path).picture for path in (source, file)]
    one, other = (np.asarray(picture.convert("RGB")).astype(np.int16) for picture in pictures)
    return int(np.abs(one - other).max())
