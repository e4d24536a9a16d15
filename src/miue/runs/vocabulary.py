"""What the parameters that templates share may be: checked against the package's own tables before a run starts."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from miue.data import check_name
from miue.errors import InputError, choose
from miue.mi import ESTIMATORS
from miue.models import MODELS
from miue.pgd import Budget, parse_epsilon
from miue.poisons import METHODS
from miue.train import RECIPES


def _one_of(argument: str, known: Iterable[str]) -> Callable[[str], str]:
    names = list(known)
    return lambda value: choose(argument, value, names)


def _each_of(argument: str, known: Iterable[str]) -> Callable[[list[str]], list[str]]:
    one = _one_of(argument, known)
    return lambda values: _distinct(argument, [one(value) for value in values])


def _distinct(argument: str, values: list[Any]) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise InputError(f"{argument}: {values}; give at least one, and none of them twice")
    return values


def _seeds(values: list[int]) -> list[int]:
    if any(value < 0 for value in values):
        raise InputError(f"seeds: {values}; a seed must be 0 or above")
    return _distinct("seeds", values)


def _epsilon(value: str | float) -> str | float:
    Budget(parse_epsilon(value))
    return value


def _at_least(smallest: int, argument: str, value: int | None) -> int | None:
    if value is not None and value < smallest:
        raise InputError(f"{argument}: {value}; it must be {smallest} or above")
    return value


PRESETS = sorted(set.intersection(*(set(method.presets) for method in METHODS.values())))

CHECKS: dict[str, Callable[[Any], Any]] = {
    "data": check_name,
    "n_train": partial(_at_least, 2, "n_train"),
    "n_test": partial(_at_least, 2, "n_test"),
    "size": partial(_at_least, 8, "size"),
    "methods": _each_of("methods", ["clean", *METHODS]),
    "epsilon": _epsilon,
    "source": _one_of("source", MODELS),
    "victim": _one_of("victim", MODELS),
    "preset": _one_of("preset", PRESETS),
    "recipe": _one_of("recipe", RECIPES),
    "seeds": _seeds,
    "estimator": _one_of("estimator", ESTIMATORS),
    "estimators": _each_of("estimators", ESTIMATORS),
    "n_slices": partial(_at_least, 1, "n_slices"),
    "neural_slices": partial(_at_least, 2, "neural_slices"),
}
"""Checks of values by parameter name, the same for all templates. A check takes the value, already of the declared
type, and returns the value to use; it raises InputError where there is none."""
