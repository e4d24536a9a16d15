"""Every number of every class of options has a range, and nothing outside it is taken."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

import miue
from miue.defenses import DEFENSES, Defense
from miue.errors import ANY, InputError, Options, Range, check_fields, kinds, override
from miue.experiments.trials import Setting, Trial
from miue.mi.training import Neural
from miue.pgd import Budget
from miue.poisons import METHODS, base
from miue.protect import Settings
from miue.training.augment import flip_crop
from miue.training.recipes import RECIPES
from miue.training.views import Viewed

MADE: dict[str, Any] = (
    {f"{name} {preset}": made for name, method in METHODS.items() for preset, made in method.presets.items()}
    | {
        f"surrogate of {name}": method.presets["quick"].surrogate
        for name, method in METHODS.items()
        if hasattr(method.presets["quick"], "surrogate")
    }
    | RECIPES
    | {name: defense() for name, defense in DEFENSES.items()}
    | {"neural": Neural(), "views": Viewed(0.5), "budget": Budget(8 / 255)}
    | {
        "setting": Setting(),
        "trial": Trial("em", "linear"),
        "own method": base.Options(),
        "own images": Settings(seed=0),
    }
)
TRIED = [-1, 0, 0.5, float("nan"), float("inf"), -float("inf"), "x", True, None, [1], 10**30, 1e30, np.float64("nan")]


def numbers(options: type) -> Iterator[tuple[str, Any]]:
    """The fields that hold numbers, and the kind of number."""
    for name, allowed in kinds(options).items():
        yield from ((name, kind) for kind in allowed if kind.type in (int, float))


def classes() -> list[type]:
    """The classes of the package; those of clusters may only be imported where there is one."""
    names = [found.name for found in pkgutil.walk_packages(miue.__path__, "miue.")]
    modules = [
        importlib.import_module(name) for name in names if not name.startswith(("miue.sweeps.clusters.", "miue.__"))
    ]
    found = {thing for module in modules for thing in vars(module).values() if isinstance(thing, type)}
    return sorted((one for one in found if one.__module__.startswith("miue.")), key=str)


def changed(made: Any, field: str, value: Any) -> Any:
    """The same options with one other value; trials and settings are made unchecked, for files and lists of them."""
    other = replace(made, **{field: value})
    check_fields(other)
    return other


def test_all_classes_of_options_are_tried_here():
    tried = {type(made) for made in MADE.values()}
    known = {one for one in classes() if issubclass(one, Options)} | {Setting, Trial}
    assert known == tried | {Options, Defense, base.PgdOptions}


@pytest.mark.parametrize("name", MADE)
def test_a_number_outside_its_range_is_refused(name):
    made = MADE[name]
    for field, kind in numbers(type(made)):
        assert kind.range is not ANY, f"{field} has no range"
        others = tuple(one.type for one in kinds(type(made))[field] if one is not kind)
        for value in TRIED:
            fits = isinstance(value, others)
            if isinstance(value, int | float) and not isinstance(value, bool):
                fits = (kind.type is float or isinstance(value, int)) and value in kind.range
            try:
                changed(made, field, value)
            except InputError as error:
                told = str(error)
                assert "\n" not in told
                if not fits:
                    assert told.startswith(f"{field}: ") and "; it must be " in told
            else:
                assert fits, f"{field} took {value!r}"


def test_no_range_holds_what_is_no_number_or_a_slip():
    for name, made in MADE.items():
        for field, kind in numbers(type(made)):
            large = [] if "seed" in field else [10**30]
            for value in [-1, *large] if kind.type is int else [-1, 1e30, float("nan"), float("inf")]:
                assert value not in kind.range, f"{field} of {name} may be {value}"


@pytest.mark.parametrize("name", MADE)
def test_other_fields_take_their_own_type_only(name):
    made = MADE[name]
    for field, allowed in kinds(type(made)).items():
        if not any(kind.type in (int, float) for kind in allowed):
            with pytest.raises(InputError, match=rf"^{field}: \[1\]; it must be "):
                changed(made, field, [1])


@dataclass(frozen=True)
class Sample(Options):
    """What a field may be declared as."""

    count: Annotated[int, Range(1, 9)] = 1
    share: Annotated[float, Range(0, 1, below=True)] | None = None
    word: int | str = "equal"
    kind: Annotated[str, ("soft", "hard")] = "soft"
    free: float = 0.0


def test_numbers_of_numpy_become_plain_ones():
    made = Sample(np.int64(3), np.float32(0.5))
    assert (made.count, made.share) == (3, 0.5)
    assert type(made.count) is int and type(made.share) is float and type(Sample(share=0).share) is float


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 10}, "count: 10; it must be a whole number from 1 to 9"),
        ({"count": 1.0}, "count: 1.0; it must be a whole number from 1 to 9"),
        ({"share": 1}, "share: 1; it must be a number from 0 to below 1, or none"),
        ({"word": 1.5}, "word: 1.5; it must be a whole number, finite, or text"),
        ({"kind": 1}, "kind: 1; it must be text"),
        ({"kind": "loud"}, "kind: 'loud' does not exist; choose one of soft, hard"),
        ({"free": float("nan")}, "free: nan; it must be a number, finite"),
        ({"free": torch.zeros(2, 2)}, r"free: tensor\(\[\[0\.,.*\]\]\); it must be a number, finite"),
    ],
)
def test_a_refusal_names_field_value_and_what_would_be_right(wrong, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        Sample(**wrong)
    with pytest.raises(InputError, match=f"^sample option {message}$"):
        override(Sample(), wrong, "sample")


def test_changed_fields_must_exist():
    with pytest.raises(InputError, match="sample option: 'size' does not exist; choose one of count, share"):
        override(Sample(), {"size": 1}, "sample")


def test_a_class_that_was_changed_behind_its_back_can_be_checked_again():
    made = Sample()
    object.__setattr__(made, "count", 0)
    with pytest.raises(InputError, match="count: 0"):
        check_fields(made)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(InputError, match="nesterov: True with momentum 0"):
        replace(RECIPES["quick"], momentum=0.0)


@pytest.mark.parametrize("padding", [8, 9, 10**6])
def test_a_crop_must_leave_something_of_the_image(padding):
    with pytest.raises(InputError, match=f"crop: {padding}; for 8 x 9 pixels it must be below 8"):
        flip_crop(torch.zeros(2, 3, 8, 9), padding=padding, flip=True, generator=torch.Generator())


def values(hint: Any) -> Any:
    """Two values where a tensor or an array may lie: comparing those gives no yes or no."""
    either = (hint, *get_args(hint)) if get_origin(hint) in (Union, UnionType) else (hint,)
    return np.zeros(2) if np.ndarray in either else torch.zeros(2) if torch.Tensor in either else None


@pytest.mark.parametrize("kind", [one for one in classes() if is_dataclass(one)])
def test_comparing_two_of_a_kind_never_raises(kind):
    def filled() -> Any:
        made, hints = object.__new__(kind), get_type_hints(kind)
        for field in fields(kind):
            object.__setattr__(made, field.name, values(hints[field.name]))
        return made

    assert (filled() == filled()) in (True, False)
