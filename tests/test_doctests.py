"""The examples in the docstrings of the package, run as they stand."""

import doctest
from importlib import import_module
from inspect import isroutine

import pytest

import miue
from miue.mi import bounds

MODULES = [
    "data.images",
    "data.loading",
    "models",
    "models.heads",
    "models.stages",
    "training.contrastive",
    "training.loop",
    "training.recipes",
    "training.sharpness",
    "victim",
    "poisons",
    "poisons.poison",
    "defenses",
    "losses",
    "pgd",
    "seeds",
    "mi.bounds",
    "mi.controls",
    "mi.discrete",
    "mi.estimate",
    "mi.histogram",
    "mi.kde",
    "mi.ksg",
    "mi.max_sliced",
    "mi.neural",
    "mi.projections",
    "mi.ross",
    "mi.shared_critic",
    "mi.sliced",
    "mi.statistics",
    "mi.tasks",
    "experiments.trials",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_show_what_comes_out(name):
    done = doctest.testmod(import_module(f"miue.{name}"))
    assert done.attempted and not done.failed


def test_each_function_and_class_at_the_top_has_an_example():
    public = [getattr(room, name) for room in (miue, bounds) for name in room.__all__]
    called = [thing for thing in public if isroutine(thing) or isinstance(thing, type)]
    assert len(called) > 15
    assert [thing.__name__ for thing in called if ">>>" not in thing.__doc__] == []
