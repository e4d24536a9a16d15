"""What is kept of a protected copy beside it, so that it can be gone on with, checked and added to.

OUT/publish/          the protected images: these may be published
OUT/private/          not to be published: it tells how to undo the perturbation
    settings.json     how it is made
    working.jsonl     a line for each image that was read, and its pixels at working size in
    working.u8
    round-1.safetensors   the perturbation of the images that came first; of those that came later, round-2, ...
    manifest.jsonl    a line for each image that is written
    report.html
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miue.data.images import Images
from miue.errors import InputError, choose, printable
from miue.poisons import Poison
from miue.protect.settings import Settings
from miue.storage import lines, memory
from miue.storage.files import locked, read_json, write_json, writing

VERSION = 1
SETTINGS = [field.name for field in fields(Settings)]


class Private:
    """The folder `OUT/private` of one protected copy.

    Attributes:
        settings: how it is made.
        classes: names, in the order of their numbers; new ones come behind.
        read: a row for each image at working size: source, class, digest, stat.
        written: a row for each protected image, by its source.
    """

    def __init__(self, out: Path) -> None:
        self.publish, self.folder = out / "publish", out / "private"
        self.settings: Settings
        self.classes: list[str] = []
        self.read: list[dict[str, Any]] = []
        self.written: dict[str, dict[str, Any]] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder against other processes; what one that was killed left half done in it goes first.

        Raises:
            InputError: it cannot be written.
        """
        busy = f"protect: another process is at {self.folder.parent}; waiting for it"
        refused = f"out: {self.folder.parent} cannot be written; give a folder that can"
        with locked(self.folder / ".lock", busy, refused):
            for part in (*self.publish.rglob(".*.part"), *self.folder.glob(".*.part")):
                part.unlink(missing_ok=True)
            yield

    def open(self, wanted: dict[str, Any], seed: int) -> None:
        """Take up what is there, or begin.

        Args:
            wanted: settings, of which those that are None are as they were before, or the defaults.
            seed: for a new copy, if `wanted` has none.

        Raises:
            InputError: it was begun with other settings, or what lies there is of something else.
        """
        file = self.folder / "settings.json"
        given = {choose("setting", name, SETTINGS): value for name, value in wanted.items() if value is not None}
        if not file.exists():
            self._refuse_others()
            self.settings = Settings(**{"seed": seed} | given)
            self._save()
            return
        told = read_json(file)
        if told.get("version") != VERSION:
            raise InputError(f"out: {file} is of version {told.get('version')}; it must be {VERSION}")
        self.settings, self.classes = Settings(**told["settings"]), told["classes"]
        other = [f"{name}={getattr(self.settings, name)!r}" for name in given if given[name] != told["settings"][name]]
        if other:
            raise InputError(
                f"out: {self.folder.parent} was begun with {', '.join(other)}; say the same, or give another folder"
            )
        self._load()

    def _refuse_others(self) -> None:
        """Refuse to begin where files lie that would be written over."""
        there = [*self.publish.glob("*"), *(file for file in self.folder.glob("*") if file.name != ".lock")]
        if there:
            raise InputError(
                printable(
                    f"out: {there[0].parent} holds {there[0].name}, of something else; give an empty or new folder"
                )
            )

    def _save(self) -> None:
        told = {"version": VERSION, "settings": asdict(self.settings), "classes": self.classes}
        write_json(self.folder / "settings.json", told)

    def _load(self) -> None:
        self.read, size = lines.whole(self.folder / "working.jsonl")
        rows, written = lines.whole(self.folder / "manifest.jsonl")
        self.written = {row["source"]: row for row in rows}
        for file, bytes_ in (
            ("working.jsonl", size),
            ("manifest.jsonl", written),
            ("working.u8", len(self.read) * self._bytes),
        ):
            if (self.folder / file).exists():
                os.truncate(self.folder / file, bytes_)

    @property
    def _bytes(self) -> int:
        return 3 * self.settings.size**2

    def add_classes(self, names: Sequence[str]) -> None:
        """Number the classes that are new."""
        if new := sorted(set(names) - set(self.classes)):
            self.classes += new
            self._save()

    def keep_working(self, row: dict[str, Any], pixels: np.ndarray) -> None:
        """Keep an image at working size, (3, S, S) uint8."""
        file = self.folder / "working.u8"
        with writing(file), file.open("ab") as out:
            out.write(pixels.tobytes())
            out.flush()
            os.fsync(out.fileno())  # before the line that counts them
        lines.append(self.folder / "working.jsonl", row)
        self.read.append(row)

    def keep_written(self, row: dict[str, Any]) -> None:
        """Keep what there is to know of an image that was written."""
        lines.append(self.folder / "manifest.jsonl", row)
        self.written[row["source"]] = row

    def images(self, rows: Sequence[int]) -> Images:
        """Those images at working size, which lie in the file; their ids are the numbers of the rows."""
        size = self.settings.size
        pixels = memory.mapped(self.folder / "working.u8", (len(self.read), 3, size, size), torch.uint8)
        labels = [self.classes.index(row["class"]) for row in self.read]
        return Images(pixels, labels, self.classes, name="own images", layout="nchw").subset(torch.tensor(rows))

    def sources(self) -> dict[str, str]:
        """The original of each image that is written, both by their paths."""
        rows = lines.whole(self.folder / "manifest.jsonl")[0]
        return {row["name"]: row["source"] for row in rows}

    def rounds(self) -> list[Poison]:
        """The perturbations that were made, the first one first."""
        files = sorted(self.folder.glob("round-*.safetensors"), key=lambda file: int(file.stem.partition("-")[2]))
        return [Poison.load(file) for file in files]

    def keep_round(self, poison: Poison, number: int) -> None:
        """Keep a perturbation, for which nothing is needed any more that its making kept."""
        poison.save(self.folder / f"round-{number}.safetensors")
        shutil.rmtree(self.making, ignore_errors=True)

    @property
    def making(self) -> Path:
        """The folder of a perturbation that is being made."""
        return self.folder / "making"
