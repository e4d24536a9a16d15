"""Why unlearnable examples work: images, perturbations, victims, mutual information.

The names below are imported when they are first used, so that `import miue` itself takes no time.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miue import audit, defenses, models, protect
    from miue.data import Images, load
    from miue.mi import Estimate, bounds, sliced_mi, with_controls
    from miue.poisons import Poison, perturb
    from miue.training import accuracy, features
    from miue.victim import Victim, train_victim

try:
    __version__ = version("miue")
except PackageNotFoundError:
    __version__ = "0+uninstalled"

_HOMES = {
    "miue": ("audit", "defenses", "models", "protect"),
    "miue.data": ("Images", "load"),
    "miue.mi": ("Estimate", "bounds", "sliced_mi", "with_controls"),
    "miue.poisons": ("Poison", "perturb"),
    "miue.training": ("accuracy", "features"),
    "miue.victim": ("Victim", "train_victim"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Estimate",
    "Images",
    "Poison",
    "Victim",
    "accuracy",
    "audit",
    "bounds",
    "defenses",
    "features",
    "load",
    "models",
    "perturb",
    "protect",
    "sliced_mi",
    "train_victim",
    "with_controls",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'miue' has no attribute {name!r}")
    home = _HOME[name]
    return import_module(f"miue.{name}") if home == "miue" else getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
