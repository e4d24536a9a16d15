"""What the parameters that templates share become: fields of the setting and of trials, which check them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from miue.errors import InputError
from miue.experiments.trials import Setting, Trial

BECOMES: dict[str, tuple[type[Setting] | type[Trial], str, str]] = {
    **{field.name: (Setting, field.name, "") for field in fields(Setting)},
    "estimators": (Setting, "estimator", ""),
    "neural_slices": (Setting, "n_slices", ""),
    "methods": (Trial, "method", ""),
    "variants": (Trial, "method", ""),
    "victim": (Trial, "victim", ""),
    "victims": (Trial, "victim", ""),
    "surrogate": (Trial, "surrogate", ""),
    "surrogates": (Trial, "surrogate", ""),
    "other_surrogates": (Trial, "surrogate", ""),
    "defenses": (Trial, "defense", ""),
    "epsilon": (Trial, "epsilon", ""),
    "epsilons": (Trial, "epsilon", ""),
    "ratios": (Trial, "ratio", ""),
    "seeds": (Trial, "seed", ""),
    "victim_seeds": (Trial, "victim_seed", ""),
    "zetas": (Trial, "method", "mi_ue:zeta="),
    "temperatures": (Trial, "method", "mi_ue:temperature="),
    "steps": (Trial, "method", "mi_ue:steps="),
    "surrogate_epochs": (Trial, "method", "mi_ue:epochs="),
}
"""Of what a value (each value of a list) becomes which field, and what is written before it there."""

MAY_BE_EMPTY = (
    "ratios",
    "victim_seeds",
    "variants",
    "other_surrogates",
    "zetas",
    "temperatures",
    "steps",
    "surrogate_epochs",
)


def check(values: Mapping[str, Any]) -> None:
    """Refuse values, of the declared types, that the fields which they become would refuse; other names may be any.

    Raises:
        InputError: one would; or a list has a value twice, or none where it needs one.
    """
    setting = Setting(**{own.name: values[own.name] for own in fields(Setting) if own.name in values})
    known = [name for name in values if name in BECOMES]
    for name in sorted(known, key=lambda name: BECOMES[name][0] is Trial):  # trials stand in a setting that holds
        (kind, field, before), value = BECOMES[name], values[name]
        several = value if isinstance(value, list) else [value]
        if len(set(several)) < len(several) or not (several or name in MAY_BE_EMPTY):
            raise InputError(f"{name}: {value}; give at least one, and none of them twice")
        try:
            for one in several:
                becomes = f"{before}{one}" if before or field == "epsilon" else one
                if kind is Trial:
                    Trial.check_field(field, becomes, setting)
                else:
                    Setting.check_field(field, becomes)
        except InputError as error:
            raise InputError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None
