"""What the parameters that templates share may be: checked against the package's own tables before a run starts."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from miue import defenses, models, poisons, specs
from miue.data.loading import check_name
from miue.errors import InputError, choose
from miue.experiments.trials import CLEAN, NONE
from miue.mi import ESTIMATORS
from miue.pgd import Budget
from miue.precision import PRECISIONS
from miue.training import recipes


def _one_of(argument: str, known: Iterable[str]) -> Callable[[str], str]:
    names = list(known)
    return lambda value: choose(argument, value, names)


def _each(argument: str, one: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda values: _distinct(argument, [one(value) for value in values])


def _method(spec: str) -> str:
    if spec != CLEAN:
        choose("method", specs.parse(spec)[0], [CLEAN, *poisons.METHODS])
        poisons.options(spec, PRESETS[0])
    return spec


def _defense(spec: str) -> str:
    if spec != NONE:
        choose("defense", specs.parse(spec)[0], [NONE, *defenses.DEFENSES])
        defenses.build(spec)
    return spec


def _recipe(spec: str) -> str:
    recipes.recipe(spec)
    return spec


def _file(value: str | None) -> str | None:
    """A notebook works in a folder of its own, so a path is made absolute here."""
    return None if value is None else str(Path(value).resolve())


def _distinct(argument: str, values: list[Any]) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise InputError(f"{argument}: {values}; give at least one, and none of them twice")
    return values


def _seeds(values: list[int]) -> list[int]:
    if any(value < 0 for value in values):
        raise InputError(f"seeds: {values}; a seed must be 0 or above")
    return _distinct("seeds", values)


def _passes(value: int | str) -> int | str:
    if isinstance(value, str):
        return choose("passes", value, ["equal", "own"])
    _at_least(1, "passes", value)
    return value


def _epsilon(value: str | float) -> str | float:
    Budget(specs.parse_epsilon(value))
    return value


def _numbers(argument: str, low: float, high: float = math.inf) -> Callable[[list[Any]], list[Any]]:
    """Each number in [low, high], none of them twice; the list may be empty."""

    def check(values: list[Any]) -> list[Any]:
        for value in values:
            if not low <= value <= high:
                wanted = f"{low:g} or above" if high == math.inf else f"between {low:g} and {high:g}"
                raise InputError(f"{argument}: {value:g}; it must be {wanted}")
        return _distinct(argument, values) if values else values

    return check


def _at_least(smallest: int, argument: str, value: int | None) -> int | None:
    if value is not None and value < smallest:
        raise InputError(f"{argument}: {value}; it must be {smallest} or above")
    return value


PRESETS = sorted(set.intersection(*(set(method.presets) for method in poisons.METHODS.values())))

CHECKS: dict[str, Callable[[Any], Any]] = {
    "data": check_name,
    "n_train": partial(_at_least, 2, "n_train"),
    "n_test": partial(_at_least, 2, "n_test"),
    "size": partial(_at_least, 8, "size"),
    "methods": _each("methods", _method),
    "victims": _each("victims", models.check),
    "defenses": _each("defenses", _defense),
    "epsilon": _epsilon,
    "epsilons": _each("epsilons", _epsilon),
    "sizes": _numbers("sizes", 8),
    "ratios": _numbers("ratios", 0, 1),
    "zetas": _numbers("zetas", 0),
    "temperatures": _numbers("temperatures", 0.001),
    "steps": _numbers("steps", 1),
    "surrogate_epochs": _numbers("surrogate_epochs", 1),
    "surrogate": models.check,
    "surrogates": _each("surrogates", models.check),
    "models": _each("models", models.check),
    "precisions": _each("precisions", _one_of("precision", PRECISIONS[1:])),
    "victim": models.check,
    "preset": _one_of("preset", PRESETS),
    "recipe": _recipe,
    "passes": _passes,
    "seeds": _seeds,
    "victim_seeds": _numbers("victim_seeds", 0),
    "records": _file,
    "estimator": _one_of("estimator", ESTIMATORS),
    "estimators": _each("estimators", _one_of("estimator", ESTIMATORS)),
    "n_slices": partial(_at_least, 1, "n_slices"),
    "neural_slices": partial(_at_least, 2, "neural_slices"),
}
"""Checks of values by parameter name, the same for all templates. A check takes the value, already of the declared
type, and returns the value to use; it raises InputError where there is none."""
