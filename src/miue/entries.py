"""Entries, the unit of all experiments; the setting that many have in common; the file of what was measured."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from miue import defenses, models, poisons, recipes, seeds, specs
from miue.data import check_name
from miue.errors import InputError, choose
from miue.files import locked, writing
from miue.images import Images
from miue.mi import ESTIMATORS
from miue.pgd import Budget
from miue.poisons import Poison
from miue.poisons.poison import drawn
from miue.specs import parse_epsilon
from miue.train import batches

CLEAN, WITHHELD, NONE = "clean", "withheld", "none"
"""The method that changes nothing, the one that leaves pictures out, and the defense that does nothing."""

VERSION = 3
"""Of the files of entries: since 2 source, budget and ratio stand in each row, not in the line of the setting; since 3
perturbation and victim have streams of their own, so `victim_seed` and `twin` stand there too."""
READ = (2, VERSION)
"""Versions that are read; only files of the last one are added to."""


@dataclass(frozen=True)
class Setting:
    """What all entries of a table have in common.

    Args:
        data, n_train, n_test, size: as `miue.load` takes them.
        preset: effort of the perturbations: "quick", "laptop" or "paper".
        recipe: training of the victims, with changes if wanted: "laptop:epochs=10".
        estimator, n_slices: of the sliced mutual information.
        passes: over the data that each perturbation may take: "equal", as many as MI-UE takes in the preset; "own",
            what each method's preset takes; or a number.
    """

    data: str = "digits_m"
    n_train: int | None = None
    n_test: int | None = None
    size: int | None = None
    preset: str = "laptop"
    recipe: str = "laptop"
    estimator: str = "ksg"
    n_slices: int = 64
    passes: int | str = "equal"

    @property
    def allowed(self) -> float | None:
        """The passes that a perturbation may take; None for those of each preset."""
        if self.passes == "own":
            return None
        return poisons.options("mi_ue", self.preset).passes if isinstance(self.passes, str) else self.passes

    def check(self) -> None:
        """Refuse what does not exist, before anything is computed.

        Raises:
            InputError: an unknown data set, preset, recipe or estimator, no slices, or no passes.
        """
        check_name(self.data)
        for method in poisons.METHODS.values():
            choose("preset", self.preset, method.presets)
        recipes.recipe(self.recipe)
        choose("estimator", self.estimator, ESTIMATORS)
        if self.n_slices < 1:
            raise InputError(f"n_slices: {self.n_slices}; it must be 1 or above")
        if isinstance(self.passes, str):
            choose("passes", self.passes, ("equal", "own"))
        elif not self.passes > 0:
            raise InputError(f"passes: {self.passes}; it must be a number above 0, 'equal' or 'own'")


@dataclass(frozen=True)
class Entry:
    """One measurement: how the pictures are perturbed, who learns from them, behind which defense, with which seed.

    Args:
        method: one of `miue.poisons.METHODS`, as `miue.specs` writes it; "clean" for the pictures as they are; or
            "withheld" for a set without those pictures that a method at the same ratio and seed would perturb: what
            the clean rest is worth alone.
        victim: one of `miue.models.MODELS`.
        defense: one of `miue.defenses.DEFENSES`, or "none".
        seed: of the perturbation, of the draw of the perturbed pictures and of the slices.
        victim_seed: of the victim, so that one perturbation can meet several; None: the same number as `seed`, though
            never the same stream (`miue.seeds`).
        twin: what the victim shares with the surrogate, one of `miue.seeds.TWINS`; "none": it is a stranger.
        source: network whose gradients shape the perturbation.
        epsilon: budget, a fraction of the pixel range, as text: "8/255".
        ratio: share of the pictures that are perturbed (withheld), in [0, 1].
    """

    method: str
    victim: str
    defense: str = NONE
    seed: int = 0
    source: str = "small_resnet"
    epsilon: str = "8/255"
    ratio: float = 1.0
    victim_seed: int | None = None
    twin: str = "none"

    def __post_init__(self) -> None:
        if self.victim_seed is None:
            object.__setattr__(self, "victim_seed", self.seed)

    def __str__(self) -> str:
        usual = {"victim_seed": self.seed}
        special = [f.name for f in fields(self) if usual.get(f.name, f.default) not in (MISSING, getattr(self, f.name))]
        return ", ".join([f"{self.method} -> {self.victim}", *(f"{name} {getattr(self, name)}" for name in special)])

    @property
    def perturbs(self) -> bool:
        """Whether a perturbation has to be made for it."""
        return self.method not in (CLEAN, WITHHELD) and self.ratio > 0

    def check(self, setting: Setting) -> None:
        """Refuse what does not exist, before anything is computed.

        Raises:
            InputError: an unknown method, victim, defense, source or option; a seed, budget or ratio out of range;
                all pictures withheld; a twin of a surrogate that is not there or is another network.
        """
        if self.method not in (CLEAN, WITHHELD):
            poisons.options(self.method, setting.preset, passes=setting.allowed)
        models.check(self.victim)
        models.check(self.source)
        if self.defense != NONE:
            defenses.build(self.defense)
        Budget(parse_epsilon(self.epsilon))
        seeds.checked(self.seed)
        seeds.checked(self.victim_seed, "victim_seed")
        if choose("twin", self.twin, seeds.TWINS) != "none" and not self._has_surrogate(setting):
            raise InputError(
                f"twin: {self.twin!r} for {self.victim} and {self.method} of {self.source}; a twin needs a method with "
                "a surrogate, and its network"
            )
        if not 0 <= self.ratio <= 1:
            raise InputError(f"ratio: {self.ratio}; it must lie between 0 and 1")
        if self.method == WITHHELD and self.ratio == 1:
            raise InputError("ratio: 1 with all pictures withheld; nothing is left to train on, so it must be below 1")

    def _has_surrogate(self, setting: Setting) -> bool:
        """Whether a surrogate of the victim's architecture takes part."""
        if not self.perturbs or self.victim != self.source:
            return False
        outer = poisons.METHODS[specs.parse(self.method)[0]].outer
        return outer is not None and poisons.options(self.method, setting.preset).passes > 0

    def perturbation(self, setting: Setting) -> dict[str, Any]:
        """The arguments of `steps.perturbation` and `steps.find_perturbation`, beside the pictures."""
        return {
            "method": self.method,
            "model": self.source,
            "epsilon": self.epsilon,
            "seed": self.seed,
            "preset": setting.preset,
            "passes": setting.allowed,
        }

    def pictures(self, train: Images, poison: Poison | None) -> Images:
        """What the victim is trained on.

        Args:
            train: the clean training pictures.
            poison: their perturbation where the entry `perturbs`, else None.
        """
        if self.method == WITHHELD:
            left_out = drawn(train.ids, torch.ones(len(train), dtype=torch.bool), self.ratio, self.seed)
            return train.subset((~left_out).nonzero()[:, 0])
        if poison is None:
            return train
        return (poison if self.ratio == 1 else poison.part(train, ratio=self.ratio, seed=self.seed)).apply(train)

    def training(self, setting: Setting, count: int) -> dict[str, Any]:
        """The arguments of `steps.victim` and `steps.find_victim`, beside the pictures.

        A victim from whom pictures are withheld takes as many optimiser steps as one that has all `count` of them.
        """
        given = {
            "model": self.victim,
            "recipe": setting.recipe,
            "seed": self.victim_seed,
            "twin": self.twin,
            "surrogate_seed": None if self.twin == "none" else self.seed,
            "defense": None if self.defense == NONE else defenses.build(self.defense),
        }
        if self.method == WITHHELD:
            given["batches_per_epoch"] = batches(count, recipes.recipe(setting.recipe))
        return given


class Records:
    """A file of measured entries, one JSON object in a line behind a line that holds the setting.

    Lines are appended and reach the disk one by one, so a stop at any moment loses at most the entry at work.
    Several processes may measure into one file; a hidden lock beside it keeps their lines apart.

    Args:
        path: the file; it is made where there is none.
        setting: what the entries have in common.

    Raises:
        InputError: the file holds entries of another setting, is none of entries (see `read`), or cannot be written.
    """

    def __init__(self, path: str | Path, setting: Setting) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        self._version = VERSION
        self._read = 0  # bytes of the file that `rows` covers
        head = {"version": VERSION, "setting": asdict(setting)}
        with self._alone():
            whole = self.path.read_bytes() if self.path.exists() else b""
            if b"\n" not in whole and _line(head).startswith(whole):  # a new file, or its writer was stopped at once
                self.path.unlink(missing_ok=True)
                self._append(head)
                return
            before, self.rows = _parsed(self.path)
            if before != setting:
                pairs = asdict(before).items()
                other = [f"{name}={value!r}" for name, value in pairs if getattr(setting, name) != value]
                raise InputError(
                    f"records: {self.path} was made with {', '.join(other)}; give these values or another file"
                )
            self._version = json.loads(whole[: whole.find(b"\n")]).get("version", 1)
            self._read = whole.rfind(b"\n") + 1
            self._cut()

    def find(self, entry: Entry) -> dict[str, Any] | None:
        """The row of `entry`, if it has been measured, be it by another process meanwhile."""
        self._refresh()
        wanted = asdict(entry)
        return next((row for row in self.rows if wanted.items() <= row.items()), None)

    def refuse_other(self, train: Images) -> None:
        """Check that the rows were measured on these pictures; see `refuse_other`."""
        refuse_other(self.rows, self.path, train)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, unless another process has kept one of the same entry meanwhile: that stays the only one.

        Raises:
            InputError: the file is of an earlier version.
        """
        if self._version != VERSION:
            raise InputError(f"records: {self.path} is of version {self._version}; measure into another file")
        with self._alone():
            self._refresh()
            names = [f.name for f in fields(Entry)]
            if any(all(name in row and row[name] == other.get(name) for name in names) for other in self.rows):
                return
            self._cut()
            self._append(row)
            self.rows.append(row)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file against other processes that write to it."""
        busy = f"records: another process writes to {self.path}; waiting for it"
        refused = f"records: {self.path} cannot be written; give a file in a folder that can"
        if self.path.is_dir():
            raise InputError(f"records: {self.path} is a folder; give a file")
        with locked(self.path.with_name(f".{self.path.name}.lock"), busy, refused):
            yield

    def _refresh(self) -> None:
        """Read the whole lines that have come since the last look."""
        if not self.path.exists() or self.path.stat().st_size <= self._read:
            return
        with open(self.path, "rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self.rows += [settled(json.loads(line)) for line in new.splitlines()]
        self._read += len(new)

    def _cut(self) -> None:
        """Take away a last line within which its writer was stopped; who holds the lock knows that nobody writes it."""
        if self.path.stat().st_size > self._read:
            os.truncate(self.path, self._read)

    def _append(self, value: dict[str, Any]) -> None:
        line = _line(value)
        with writing(self.path), open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._read += len(line)


def read(path: str | Path) -> tuple[Setting, pd.DataFrame]:
    """Read a file of entries: what they have in common, and one row for each, as `comparison.compare` returns them.

    Raises:
        InputError: there is no such file, it is of another version, or a line in it is no JSON.
    """
    if not Path(path).is_file():
        raise InputError(f"records: {path} does not exist")
    setting, rows = _parsed(Path(path))
    return setting, pd.DataFrame(rows)


def refuse_other(rows: Sequence[dict[str, Any]], path: Path, train: Images) -> None:
    """Check that the rows of the file at `path` were measured on these pictures.

    Raises:
        InputError: they were not.
    """
    if other := {row["content_hash"] for row in rows} - {train.content_hash}:
        raise InputError(
            f"records: {path} was made on other pictures (content hash {other.pop()}) than those of "
            f"{train.name} here ({train.content_hash}); give another file"
        )


def settled(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with all fields of an `Entry`, also where it was measured before version 3.

    One seed then went to surrogate and victim alike, so that the victim had its own seed and, where it was of the
    surrogate's architecture, the surrogate's weights and order. Perturbations took what their presets take.
    """
    if "twin" in row:
        return dict(row)
    method = poisons.METHODS.get(specs.parse(str(row.get("method")))[0])
    twin = method is not None and method.outer is not None and row.get("victim") == row.get("source")
    added = {"victim_seed": row.get("seed"), "twin": "weights+order" if twin else "none"}
    return {**row, **added, "passes_allowed": row.get("passes")}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _parsed(path: Path) -> tuple[Setting, list[dict[str, Any]]]:
    """Setting and rows of a file; a last line without an end is left out, for its writer was stopped within it.

    Files of version 2 are read as `settled` says; they were made with the presets' own passes.
    """
    try:
        whole = path.read_text(encoding="utf-8")
        head, *rows = [json.loads(line) for line in whole[: whole.rfind("\n") + 1].splitlines()]
        version, setting = head.get("version", 1), head["setting"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"records: {path} is damaged or no file of entries ({error})") from None
    if version not in READ:
        raise InputError(f"records: {path} is of version {version}; it must be {VERSION}, so measure into another file")
    try:
        return Setting(**({} if version == VERSION else {"passes": "own"}) | setting), [settled(row) for row in rows]
    except TypeError as error:
        raise InputError(f"records: {path} is damaged or no file of entries ({error})") from None
