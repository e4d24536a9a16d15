"""What the parameters that templates share become: each value is checked by the setting or trial that it goes into."""

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache, partial
from typing import Any

from miue.errors import InputError
from miue.experiments.trials import CLEAN, Setting, Trial


def _setting(field: str, value: Any) -> None:
    given: dict[str, Any] = {field: value}
    Setting(**given).check()


def _trial(field: str, value: Any) -> None:
    given = {"method": CLEAN, "victim": "linear"} | {field: value}
    Trial(**given).check(Setting(passes="own"))


def _option(text: str, value: Any) -> None:
    _trial("method", f"mi_ue:{text}={value}")


BECOMES: dict[str, Callable[[Any], None]] = {
    **{field.name: partial(_setting, field.name) for field in fields(Setting)},
    "sizes": partial(_setting, "size"),
    "estimators": partial(_setting, "estimator"),
    "neural_slices": partial(_setting, "n_slices"),
    "precisions": lambda value: _setting("recipe", f"quick:precision={value}"),
    "methods": partial(_trial, "method"),
    "victim": partial(_trial, "victim"),
    "victims": partial(_trial, "victim"),
    "models": partial(_trial, "victim"),
    "surrogate": partial(_trial, "surrogate"),
    "surrogates": partial(_trial, "surrogate"),
    "defenses": partial(_trial, "defense"),
    "epsilon": lambda value: _trial("epsilon", str(value)),
    "epsilons": lambda value: _trial("epsilon", str(value)),
    "ratios": partial(_trial, "ratio"),
    "seeds": partial(_trial, "seed"),
    "victim_seeds": partial(_trial, "victim_seed"),
    "zetas": partial(_option, "zeta"),
    "temperatures": partial(_option, "temperature"),
    "steps": partial(_option, "steps"),
    "surrogate_epochs": partial(_option, "epochs"),
}
"""The field, by name of the parameter, that a value (each value of a list) becomes; the same for all templates."""

MAY_BE_EMPTY = ("sizes", "ratios", "victim_seeds", "zetas", "temperatures", "steps", "surrogate_epochs")


@lru_cache(typed=True)
def _become(name: str, value: Any) -> None:
    """Kept, as the runs of a sweep have most values in common."""
    BECOMES[name](value)


def check(name: str, value: Any) -> None:
    """Refuse a value, of the declared type, that what it becomes would refuse; other names may have any value.

    Raises:
        InputError: it would; or a list has a value twice, or none where it needs one.
    """
    if name not in BECOMES:
        return
    several = value if isinstance(value, list) else [value]
    if len(set(several)) < len(several) or not (several or name in MAY_BE_EMPTY):
        raise InputError(f"{name}: {value}; give at least one, and none of them twice")
    try:
        for one in several:
            _become(name, one)
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None
