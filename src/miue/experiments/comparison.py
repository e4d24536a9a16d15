"""Trials measured one after the other, each kept as it comes, into one table."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from miue.data import loading
from miue.data.images import Images
from miue.errors import InputError
from miue.experiments.records import Records, read, refuse_other
from miue.experiments.trials import CLEAN, NONE, WITHHELD, Setting, Trial
from miue.mi import with_controls
from miue.mi.statistics import prediction_disagreement
from miue.poisons import Poison, perturb
from miue.poisons.measures import class_share, patch_reader, visibility
from miue.progress import say
from miue.storage import provenance
from miue.training.loop import features
from miue.victim import Victim, train_victim

__all__ = ["CLEAN", "NONE", "WITHHELD", "Made", "Records", "Setting", "Trial", "compare", "made", "read", "trials"]


class Made(NamedTuple):
    """What a trial is made of: its perturbation if it has one, the images trained on, and the victim."""

    poison: Poison | None
    images: Images
    victim: Victim


def trials(
    methods: Sequence[str],
    victims: Sequence[str],
    defended: Sequence[str],
    seeds: Sequence[int],
    victim_seeds: Sequence[int] | None = None,
    **common: Any,
) -> list[Trial]:
    """List a comparison: every method with every victim, and with every defense of the first victim.

    Whole seeds come one after the other, so that a comparison that is stopped has as many seeds as there was time for.
    A perturbation meets one victim of its own seed, or one for each of `victim_seeds`. Fields of the trials that are
    the same for all (`surrogate`, `epsilon`) are given as `common`.
    """
    listed = []
    for seed in seeds:
        for victim_seed in victim_seeds or [seed]:
            own = common | {"seed": seed, "victim_seed": victim_seed}
            listed += [Trial(method, victim, **own) for method in methods for victim in victims]
            listed += [Trial(method, victims[0], defense, **own) for method in methods for defense in defended]
    return listed


def made(trial: Trial, setting: Setting, train: Images, test: Images) -> Made:
    """Make the perturbation of a trial and train its victim, or take both from the cache."""
    poison = perturb(images=train, **trial.perturbation(setting)) if trial.perturbs else None
    shown = trial.images(train, poison)
    return Made(poison, shown, train_victim(shown, test, **trial.training(setting, len(train))))


def compare(wanted: Sequence[Trial], setting: Setting, records: Records) -> pd.DataFrame:
    """Measure the trials that `records` does not hold yet.

    Returns:
        One row for each trial, also where it is wanted twice: its fields; `test_accuracy`, `best_epoch`,
        `train_accuracy` and `disagreement` as fractions; `mi`, `null`, `within_class` and `ceiling` in nats, between
        the victim's features of the clean training images and of the same images as they were published, with `stderr`
        over slices and `stderr_samples` over images, and `null_stderr`, the larger of the two for the null; `levels`,
        `bounded`, `passes` made and allowed, and seconds of the perturbation; where there is one, `psnr` (dB), `ssim`,
        `class_share` and `patch_reader` as `miue.poisons.measures` says; optimiser steps and seconds of the victim;
        name, content hash and sizes of the data, and how many images were `trained_on`; device, commit and versions.

    Raises:
        InputError: a trial asks for what does not exist, or the records are of other images, also where they hold
            every trial; no trial is wanted; nothing is computed then.
    """
    setting.check()
    if not wanted:
        raise InputError(f"records: {records.path} holds no trial that is asked for, and none is to be measured")
    for trial in wanted:
        trial.check(setting)
    train, test = loading.load(setting.data, None, setting.n_train, setting.n_test, setting.size)
    refuse_other(records.rows, records.path, train)
    wanted = list(dict.fromkeys(wanted))
    missing = [trial for trial in wanted if records.find(trial) is None]
    start = time.monotonic()
    for done, trial in enumerate(missing):
        if records.find(trial) is not None:  # by another process, meanwhile
            continue
        say(f"trial {done + 1} of {len(missing)}: {trial} ({time.monotonic() - start:.0f} s so far)")
        records.add(asdict(trial) | measure(trial, setting, train, test))
    return pd.DataFrame([records.find(trial) for trial in wanted])


def measure(trial: Trial, setting: Setting, train: Images, test: Images) -> dict[str, Any]:
    """Make the perturbation of a trial, train its victim, and measure both; see `compare` for what comes back."""
    poison, images, victim = made(trial, setting, train, test)
    published = train if trial.method == WITHHELD else images  # what is withheld is not changed
    clean, perturbed = features(victim.model, train), features(victim.model, published)
    measured = with_controls(
        clean, perturbed, train.y, estimator=setting.estimator, n_slices=setting.n_slices, seed=trial.seed
    )
    head = victim.model.head
    return {
        "test_accuracy": victim.accuracy,
        "best_epoch": victim.best,
        "train_accuracy": victim.history[-1].train_accuracy,
        "disagreement": prediction_disagreement(head(clean).argmax(1), head(perturbed).argmax(1)),
        **{control: estimate.value for control, estimate in vars(measured).items()},
        "stderr": measured.mi.stderr,
        "stderr_samples": measured.mi.stderr_samples,
        "null_stderr": max(measured.null.stderr or 0.0, measured.null.stderr_samples or 0.0),
        **_cost(poison),
        **_look(poison, train, images),
        "victim_steps": victim.record["steps"],
        "victim_seconds": victim.record["seconds"],
        "victim_device": victim.record["device"],
        "data": train.name,
        "content_hash": train.content_hash,
        "n_train": len(train),
        "n_test": len(test),
        "n_classes": len(train.classes),
        "size": train.shape[-1],
        "trained_on": len(images),
        **provenance.collect(),
    }


def _look(poison: Poison | None, train: Images, images: Images) -> dict[str, Any]:
    """How visible a perturbation is, and how plainly it tells the class; nothing where there is none."""
    if poison is None:
        return {}
    read = {"class_share": class_share(poison, train), "patch_reader": patch_reader(poison, train)}
    return read | (visibility(train, images) if len(images) == len(train) else {})


def _cost(poison: Poison | None) -> dict[str, Any]:
    if poison is None:
        return {"levels": 0, "bounded": True, "passes": 0, "passes_allowed": 0, "perturbation_seconds": 0.0}
    told = {key: poison.record[key] for key in ("levels", "bounded", "passes", "passes_allowed")}
    return told | {"perturbation_seconds": poison.record["seconds"]}
