"""Trials, the unit of all experiments, and the setting that many have in common."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

import torch

from miue import defenses, models, poisons, seeds
from miue.data.decoding import MIN_SIZE
from miue.data.images import Images
from miue.data.loading import check_name
from miue.errors import Count, InputError, Range, Seed, Unit, choose, fitting
from miue.mi.sliced import check_estimator
from miue.pgd import Budget, in_levels
from miue.poisons import Poison
from miue.poisons.poison import drawn
from miue.specs import find, parse, parse_epsilon
from miue.training import recipes
from miue.training.loop import batches

CLEAN, WITHHELD, NONE = "clean", "withheld", "none"
"""The method that changes nothing, the one that leaves images out, and the defense that does nothing."""

Several = Annotated[int, Range(2)]


@dataclass(frozen=True)
class Setting:
    """What all trials of a table have in common.

    Args:
        data, n_train, n_test, size: as `miue.load` takes them.
        preset: effort of the perturbations: "quick", "laptop" or "paper".
        recipe: training of the victims, with changes if wanted: "laptop:epochs=10".
        estimator, n_slices: of the sliced mutual information.
        passes: over the data that each perturbation may take: "equal", at most as many as MI-UE takes in the preset;
            "own", what each method's preset takes; or a number.
    """

    data: str = "digits_m"
    n_train: Several | None = None
    n_test: Several | None = None
    size: Annotated[int, Range(MIN_SIZE)] | None = None
    preset: str = "laptop"
    recipe: str = "laptop"
    estimator: str = "ksg"
    n_slices: Count = 64
    passes: Count | str = "equal"

    @property
    def allowed(self) -> float | None:
        """The passes that a perturbation may take; None for those of each preset."""
        if self.passes == "own":
            return None
        return poisons.options("mi_ue", self.preset).passes if isinstance(self.passes, str) else self.passes

    def check(self) -> None:
        """Refuse what does not exist, before anything is computed.

        Raises:
            InputError: an unknown data set, preset, recipe or estimator, or a number out of range.
        """
        for field in fields(self):
            self.check_field(field.name, getattr(self, field.name))

    @classmethod
    def check_field(cls, name: str, value: Any) -> None:
        """Refuse a value that the field `name` cannot have; see `check` for the errors."""
        fitting(cls, name, value)
        match name:
            case "data":
                check_name(value)
            case "preset":
                for method in poisons.METHODS.values():
                    choose(name, value, method.presets)
            case "recipe":
                recipes.recipe(value)
            case "estimator":
                check_estimator(value)
            case "passes" if isinstance(value, str):
                choose(name, value, ("equal", "own"))


@dataclass(frozen=True)
class Trial:
    """One measurement: how the images are perturbed, who learns from them, behind which defense, with which seed.

    Args:
        method: one of `miue.poisons.METHODS`, as `miue.specs` writes it; "clean" for the images as they are; or
            "withheld" for a set without those images that a method at the same ratio and seed would perturb: what
            the clean rest is worth alone.
        victim: one of `miue.models.MODELS`.
        defense: one of `miue.defenses.DEFENSES`, or "none".
        seed: of the perturbation, of the draw of the perturbed images and of the slices.
        victim_seed: of the victim, so that one perturbation can meet several; None: the same number as `seed`, though
            never the same stream (`miue.seeds`).
        twin: what the victim shares with the surrogate, one of `miue.seeds.TWINS`; "none": it is a stranger.
        surrogate: network whose gradients shape the perturbation.
        epsilon: budget, a fraction of the pixel range, as text: "8/255".
        ratio: share of the images that are perturbed (withheld), in [0, 1].

    Example:
        >>> from miue.experiments.comparison import Trial
        >>> print(Trial("mi_ue", "resnet18", defense="cutout", epsilon="0.031"))
        mi_ue -> resnet18, defense cutout, epsilon 0.031 (7 levels)
    """

    method: str
    victim: str
    defense: str = NONE
    seed: Seed = 0
    surrogate: str = "small_resnet"
    epsilon: str = "8/255"
    ratio: Unit = 1.0
    victim_seed: Seed | None = None
    twin: str = "none"

    def __post_init__(self) -> None:
        if self.victim_seed is None:
            object.__setattr__(self, "victim_seed", self.seed)

    def __str__(self) -> str:
        usual = {"victim_seed": self.seed}
        special = [f.name for f in fields(self) if usual.get(f.name, f.default) not in (MISSING, getattr(self, f.name))]
        told = vars(self) | {"epsilon": in_levels(self.epsilon)}
        return ", ".join([f"{self.method} -> {self.victim}", *(f"{name} {told[name]}" for name in special)])

    @property
    def perturbs(self) -> bool:
        """Whether a perturbation has to be made for it."""
        return self.method not in (CLEAN, WITHHELD) and self.ratio > 0

    def check(self, setting: Setting) -> None:
        """Refuse what does not exist, before anything is computed.

        Raises:
            InputError: an unknown method, victim, defense, surrogate or option; a seed, budget or ratio out of range;
                all images withheld; a twin of a surrogate that is not there or is another network, or of the order of
                one that is not trained in epochs.
        """
        for field in fields(self):
            self.check_field(field.name, getattr(self, field.name), setting)
        if self.twin != "none":
            if not self._has_surrogate(setting):
                raise InputError(f"method: {self.method} has no surrogate, so there is no twin of it")
            if self.victim != self.surrogate:
                raise InputError(f"victim: {self.victim}; a twin must be of the surrogate's network, {self.surrogate}")
        if self.twin == "weights+order" and not self._surrogate_in_epochs(setting):
            raise InputError(
                f"method: the surrogate of {self.method} is not trained in epochs as a victim is, so no twin of it has "
                "its order; twin must be 'weights' or 'none'"
            )
        if self.method == WITHHELD and self.ratio == 1:
            raise InputError("ratio: 1 with all images withheld; nothing is left to train on, so it must be below 1")

    @classmethod
    def check_field(cls, name: str, value: Any, setting: Setting) -> None:
        """Refuse a value that the field `name` cannot have whatever the others are; see `check` for the errors."""
        fitting(cls, name, value)
        match name:
            case "method" if value not in (CLEAN, WITHHELD):
                find(name, parse(value)[0], dict.fromkeys([CLEAN, WITHHELD, *poisons.METHODS]))
                poisons.options(value, setting.preset, passes=setting.allowed)
            case "victim" | "surrogate":
                models.check(value)
            case "defense" if value != NONE:
                find(name, parse(value)[0], dict.fromkeys([NONE, *defenses.DEFENSES]))
                defenses.build(value)
            case "epsilon":
                Budget(parse_epsilon(value))
            case "twin":
                choose(name, value, seeds.TWINS)

    def _has_surrogate(self, setting: Setting) -> bool:
        """Whether a surrogate takes part."""
        if not self.perturbs:
            return False
        outer = poisons.find(self.method)[1].outer
        return outer is not None and poisons.options(self.method, setting.preset).passes > 0

    def _surrogate_in_epochs(self, setting: Setting) -> bool:
        """Whether `training.loop.epochs` trains the surrogate: by a recipe, unless it keeps its random weights."""
        chosen = poisons.options(self.method, setting.preset)
        return hasattr(chosen, "surrogate") and getattr(chosen, "pretext", None) != "untrained"

    def perturbation(self, setting: Setting) -> dict[str, Any]:
        """The arguments of `perturb` and `find_perturbation`, beside the images."""
        return {
            "method": self.method,
            "surrogate": self.surrogate,
            "epsilon": self.epsilon,
            "seed": self.seed,
            "preset": setting.preset,
            "passes": setting.allowed,
        }

    def images(self, train: Images, poison: Poison | None) -> Images:
        """What the victim is trained on.

        Args:
            train: the clean training images.
            poison: their perturbation where the trial `perturbs`, else None.
        """
        if self.method == WITHHELD:
            left_out = drawn(train.ids, torch.ones(len(train), dtype=torch.bool), self.ratio, self.seed)
            return train.subset((~left_out).nonzero()[:, 0])
        if poison is None:
            return train
        return (poison if self.ratio == 1 else poison.part(train, ratio=self.ratio, seed=self.seed)).apply(train)

    def training(self, setting: Setting, count: int) -> dict[str, Any]:
        """The arguments of `train_victim` and `find_victim`, beside the images.

        A victim from whom images are withheld takes as many optimiser steps as one that has all `count` of them.
        """
        given = {
            "model": self.victim,
            "recipe": setting.recipe,
            "seed": self.victim_seed,
            "twin": self.twin,
            "surrogate_seed": None if self.twin == "none" else self.seed,
            "defense": None if self.defense == NONE else defenses.build(self.defense),
        }
        recipe = recipes.recipe(setting.recipe)
        if self.method == WITHHELD and self.ratio > 0 and recipe.batches_per_epoch is None:
            given["batches_per_epoch"] = batches(count, recipe)
        return given


def trained(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the victim of a measured row from those of other rows of its setting.

    A victim of clean images is the same network whatever the seed, surrogate and budget of perturbations beside it.
    """
    clean = row["method"] == CLEAN or row.get("ratio") == 0
    on = [CLEAN] if clean else [row.get(name) for name in ("method", "surrogate", "epsilon", "seed", "ratio", "twin")]
    return *on, row.get("victim"), row.get("defense"), row.get("victim_seed", row.get("seed"))
