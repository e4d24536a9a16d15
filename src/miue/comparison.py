"""Entries measured one after the other, each kept as it comes, into one table."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from miue import data, steps, store
from miue.entries import CLEAN, NONE, WITHHELD, Entry, Setting
from miue.errors import InputError
from miue.images import Images
from miue.mi import with_controls
from miue.poisons import Poison
from miue.progress import say
from miue.records import Records, read
from miue.statistics import prediction_disagreement
from miue.train import features

__all__ = ["CLEAN", "NONE", "WITHHELD", "Entry", "Made", "Records", "Setting", "compare", "entries", "made", "read"]


class Made(NamedTuple):
    """What an entry is made of: its perturbation if it has one, the pictures trained on, and the victim."""

    poison: Poison | None
    pictures: Images
    victim: steps.Victim


def entries(
    methods: Sequence[str],
    victims: Sequence[str],
    defended: Sequence[str],
    seeds: Sequence[int],
    victim_seeds: Sequence[int] | None = None,
    **common: Any,
) -> list[Entry]:
    """List a comparison: every method with every victim, and with every defense of the first victim.

    Whole seeds come one after the other, so that a comparison that is stopped has as many seeds as there was time for.
    A perturbation meets one victim of its own seed, or one for each of `victim_seeds`. Fields of the entries that are
    the same for all (`source`, `epsilon`) are given as `common`.
    """
    listed = []
    for seed in seeds:
        for victim_seed in victim_seeds or [seed]:
            own = common | {"seed": seed, "victim_seed": victim_seed}
            listed += [Entry(method, victim, **own) for method in methods for victim in victims]
            listed += [Entry(method, victims[0], defense, **own) for method in methods for defense in defended]
    return listed


def made(entry: Entry, setting: Setting, train: Images, test: Images) -> Made:
    """Make the perturbation of an entry and train its victim, or take both from the cache."""
    poison = steps.perturbation(images=train, **entry.perturbation(setting)) if entry.perturbs else None
    pictures = entry.pictures(train, poison)
    return Made(poison, pictures, steps.victim(pictures, test, **entry.training(setting, len(train))))


def compare(wanted: Sequence[Entry], setting: Setting, records: Records) -> pd.DataFrame:
    """Measure the entries that `records` does not hold yet.

    Returns:
        One row for each entry: its fields; `test_accuracy`, `best_epoch`, `train_accuracy` and `disagreement` as
        fractions; `mi`, `null`, `within_class` and `ceiling` in nats, between the victim's features of the clean
        training pictures and of the same pictures as they were published, with `stderr` over slices and
        `stderr_samples` over pictures, and `null_stderr`, the larger of the two for the null; `levels`, `bounded`,
        `passes` made and allowed, and seconds of the perturbation; optimiser steps and seconds of the victim; name,
        content hash and sizes of the data, and how many pictures were `trained_on`; device, commit and versions.

    Raises:
        InputError: an entry asks for what does not exist, or the records are of other pictures, also where they hold
            every entry; no entry is wanted; nothing is computed then.
    """
    setting.check()
    if not wanted:
        raise InputError(f"records: {records.path} holds no entry that is asked for, and none is to be measured")
    for entry in wanted:
        entry.check(setting)
    train, test = data.load(setting.data, None, setting.n_train, setting.n_test, setting.size)
    records.refuse_other(train)
    missing = [entry for entry in dict.fromkeys(wanted) if records.find(entry) is None]
    start = time.monotonic()
    for done, entry in enumerate(missing):
        if records.find(entry) is not None:  # by another process, meanwhile
            continue
        say(f"entry {done + 1} of {len(missing)}: {entry} ({time.monotonic() - start:.0f} s so far)")
        records.add(asdict(entry) | measure(entry, setting, train, test))
    return pd.DataFrame([records.find(entry) for entry in wanted])


def measure(entry: Entry, setting: Setting, train: Images, test: Images) -> dict[str, Any]:
    """Make the perturbation of an entry, train its victim, and measure both; see `compare` for what comes back."""
    poison, pictures, victim = made(entry, setting, train, test)
    published = train if entry.method == WITHHELD else pictures  # what is withheld is not changed
    clean, perturbed = features(victim.model, train), features(victim.model, published)
    measured = with_controls(
        clean, perturbed, train.y, estimator=setting.estimator, n_slices=setting.n_slices, seed=entry.seed
    )
    head = victim.model.head
    return {
        "test_accuracy": victim.last,
        "best_epoch": victim.best,
        "train_accuracy": victim.history[-1].train_accuracy,
        "disagreement": prediction_disagreement(head(clean).argmax(1), head(perturbed).argmax(1)),
        **{control: estimate.value for control, estimate in vars(measured).items()},
        "stderr": measured.mi.stderr,
        "stderr_samples": measured.mi.stderr_samples,
        "null_stderr": max(measured.null.stderr or 0.0, measured.null.stderr_samples or 0.0),
        **_cost(poison),
        "victim_steps": victim.record["steps"],
        "victim_seconds": victim.record["seconds"],
        "victim_device": victim.record["device"],
        "data": train.name,
        "content_hash": train.content_hash,
        "n_train": len(train),
        "n_test": len(test),
        "n_classes": len(train.classes),
        "size": train.shape[-1],
        "trained_on": len(pictures),
        **store.provenance(),
    }


def _cost(poison: Poison | None) -> dict[str, Any]:
    if poison is None:
        return {"levels": 0, "bounded": True, "passes": 0, "passes_allowed": 0, "perturbation_seconds": 0.0}
    told = {key: poison.record[key] for key in ("levels", "bounded", "passes", "passes_allowed")}
    return told | {"perturbation_seconds": poison.record["seconds"]}
