"""Methods against victims and defenses: a table of entries, measured one after the other, each kept as it comes."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from miue import data, defenses, models, poisons, recipes, steps, store
from miue.errors import InputError
from miue.images import Images
from miue.mi import with_controls
from miue.progress import say
from miue.statistics import prediction_disagreement
from miue.train import features

CLEAN, NONE = "clean", "none"
"""The method that changes nothing and the defense that does nothing."""


@dataclass(frozen=True)
class Setting:
    """What all entries of a comparison have in common.

    Args:
        data, n_train, n_test, size: as `miue.load` takes them.
        source: network whose gradients shape the perturbations.
        epsilon: budget, a fraction of the pixel range.
        preset: effort of the perturbations.
        recipe: training of the victims, with changes if wanted: "laptop:epochs=10".
        estimator, n_slices: of the sliced mutual information.
    """

    data: str = "digits_m"
    n_train: int | None = None
    n_test: int | None = None
    size: int | None = None
    source: str = "small_resnet"
    epsilon: str = "8/255"
    preset: str = "laptop"
    recipe: str = "laptop"
    estimator: str = "ksg"
    n_slices: int = 64


@dataclass(frozen=True)
class Entry:
    """One cell: a method, a victim and a defense, as `miue.specs` writes them, and a seed."""

    method: str
    victim: str
    defense: str = NONE
    seed: int = 0

    def check(self, setting: Setting) -> None:
        """Refuse what does not exist, before anything is computed.

        Raises:
            InputError: an unknown method, victim, defense or option.
        """
        if self.method != CLEAN:
            poisons.options(self.method, setting.preset)
        models.check(self.victim)
        if self.defense != NONE:
            defenses.build(self.defense)


def entries(
    methods: Sequence[str], victims: Sequence[str], defended: Sequence[str], seeds: Sequence[int]
) -> list[Entry]:
    """List a comparison: every method with every victim, and with every defense of the first victim.

    Whole seeds come one after the other, so that a comparison that is stopped has as many seeds as there was time for.
    """
    listed = []
    for seed in seeds:
        listed += [Entry(method, victim, NONE, seed) for method in methods for victim in victims]
        listed += [Entry(method, victims[0], defense, seed) for method in methods for defense in defended]
    return listed


class Records:
    """A file of measured entries, one JSON object in a line behind a line that holds the setting.

    Lines are appended and reach the disk one by one, so a stop at any moment loses at most the entry at work.

    Args:
        path: the file; it is made where there is none.
        setting: what the entries have in common.

    Raises:
        InputError: the file holds entries of another setting, or a line in it is no JSON.
    """

    def __init__(self, path: str | Path, setting: Setting) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"setting": asdict(setting)})
            return
        whole = self.path.read_text(encoding="utf-8")
        lines = whole[: whole.rfind("\n") + 1].splitlines()
        if len(whole) > whole.rfind("\n") + 1:  # the writer was stopped within a line
            self.path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        try:
            head, *self.rows = [json.loads(line) for line in lines]
            before = head["setting"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"records: {path} is damaged or no file of entries ({error})") from None
        if before != asdict(setting):
            other = [f"{k}={v!r}" for k, v in before.items() if asdict(setting).get(k) != v]
            raise InputError(f"records: {path} was made with {', '.join(other)}; give these values or another file")

    def find(self, entry: Entry) -> dict[str, Any] | None:
        """The row of `entry`, if it has been measured."""
        wanted = asdict(entry)
        return next((row for row in self.rows if wanted.items() <= row.items()), None)

    def refuse_other(self, train: Images) -> None:
        """Check that the rows were measured on these pictures.

        Raises:
            InputError: they were not.
        """
        if other := {row["content_hash"] for row in self.rows} - {train.content_hash}:
            raise InputError(
                f"records: {self.path} was made on other pictures (content hash {other.pop()}) than those of "
                f"{train.name} here ({train.content_hash}); give another file"
            )

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self._append(row)
        self.rows.append(row)

    def _append(self, value: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(value, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def compare(wanted: Sequence[Entry], setting: Setting, records: Records) -> pd.DataFrame:
    """Measure the entries that `records` does not hold yet.

    Returns:
        One row for each entry: its fields; `test_accuracy`, `best_epoch`, `train_accuracy` and `disagreement` as
        fractions; `mi`, `null`, `within_class` and `ceiling` in nats, with `stderr` over slices, between the victim's
        features of the clean training pictures and of the perturbed ones as they were published; `levels`, `bounded`,
        `passes` and seconds of the perturbation; seconds of the victim; name, content hash and sizes of the data;
        device, commit and versions.

    Raises:
        InputError: an entry asks for what does not exist, or the records are of other pictures; nothing is computed
            then.
    """
    for entry in wanted:
        entry.check(setting)
    models.check(setting.source)
    recipes.recipe(setting.recipe)
    missing = [entry for entry in wanted if records.find(entry) is None]
    if missing:
        train, test = data.load(setting.data, None, setting.n_train, setting.n_test, setting.size)
        records.refuse_other(train)
        start = time.monotonic()
        for done, entry in enumerate(missing):
            say(f"entry {done + 1} of {len(missing)}: {entry} ({time.monotonic() - start:.0f} s so far)")
            records.add(asdict(entry) | measure(entry, setting, train, test))
    return pd.DataFrame([records.find(entry) for entry in wanted])


def measure(entry: Entry, setting: Setting, train: Images, test: Images) -> dict[str, Any]:
    """Make the perturbation of an entry, train its victim, and measure both; see `compare` for what comes back."""
    shown, about = _perturbed(entry, setting, train)
    defense = None if entry.defense == NONE else defenses.build(entry.defense)
    victim = steps.victim(shown, test, model=entry.victim, recipe=setting.recipe, seed=entry.seed, defense=defense)
    clean, perturbed = features(victim.model, train), features(victim.model, shown)
    measured = with_controls(
        clean, perturbed, train.y, estimator=setting.estimator, n_slices=setting.n_slices, subsamples=0, seed=entry.seed
    )
    head = victim.model.head.cpu()
    return {
        "test_accuracy": victim.last,
        "best_epoch": victim.best,
        "train_accuracy": victim.history[-1].train_accuracy,
        "disagreement": prediction_disagreement(head(clean).argmax(1), head(perturbed).argmax(1)),
        **{control: estimate.value for control, estimate in vars(measured).items()},
        "stderr": measured.mi.stderr,
        **about,
        "victim_seconds": victim.record["seconds"],
        "data": train.name,
        "content_hash": train.content_hash,
        "n_train": len(train),
        "n_test": len(test),
        "n_classes": len(train.classes),
        **store.provenance(),
    }


def _perturbed(entry: Entry, setting: Setting, train: Images) -> tuple[Images, dict[str, Any]]:
    if entry.method == CLEAN:
        return train, {"levels": 0, "bounded": True, "passes": 0, "perturbation_seconds": 0.0}
    poison = steps.perturbation(
        entry.method,
        train,
        model=setting.source,
        epsilon=setting.epsilon,
        seed=entry.seed,
        preset=setting.preset,
    )
    told = {key: poison.record[key] for key in ("levels", "bounded", "passes")}
    return poison.apply(train), told | {"perturbation_seconds": poison.record["seconds"]}
