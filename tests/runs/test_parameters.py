"""Silent failures 4 and 8: unknown or ill-typed parameters are refused, plain values come out."""

from pathlib import Path

import numpy as np
import pytest

from miue import runs
from miue.errors import InputError
from miue.runs import kernel, parameters, vocabulary

BECOMES = vocabulary.BECOMES

CELL = """
data: str = "digits_m"  # data set
n: int | None = None  # training images
epsilon: float = 8 / 255  # budget
seeds: list[int] = [0, 1]  # one victim each
methods: list[str] = [
    "em",
    "mi_ue",
]  # perturbations
fast: bool = False
"""


@pytest.fixture
def declared():
    return parameters.read(CELL, "cell")


def test_the_cell_is_the_interface(declared):
    assert [(p.name, p.type_name, p.help) for p in declared.values()] == [
        ("data", "str", "data set"),
        ("n", "int | None", "training images"),
        ("epsilon", "float", "budget"),
        ("seeds", "list[int]", "one victim each"),
        ("methods", "list[str]", "perturbations"),
        ("fast", "bool", ""),
    ]
    defaults = parameters.check({}, declared, "cell")
    assert defaults == {
        "data": "digits_m",
        "n": None,
        "epsilon": 8 / 255,
        "seeds": [0, 1],
        "methods": ["em", "mi_ue"],
        "fast": False,
    }


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("n", "4000", 4000),
        ("n", "none", None),
        ("n", np.int64(7), 7),
        ("epsilon", "8/255", 8 / 255),
        ("epsilon", "1e-2", 0.01),
        ("epsilon", 1, 1.0),
        ("epsilon", np.float64(0.5), 0.5),
        ("seeds", "3,4", [3, 4]),
        ("seeds", "[3, 4]", [3, 4]),
        ("seeds", "5", [5]),
        ("seeds", (3, np.int32(4)), [3, 4]),
        ("seeds", np.arange(3), [0, 1, 2]),
        ("seeds", "", []),
        ("methods", "em, mi_ue", ["em", "mi_ue"]),
        ("methods", '["a b"]', ["a b"]),
        ("data", Path("/images"), "/images"),
        ("data", "none", "none"),
        ("fast", "yes", True),
        ("fast", np.bool_(True), True),
    ],
)
def test_values_become_plain_ones_of_the_declared_type(declared, name, given, wanted):
    value = parameters.check({name: given}, declared, "cell")[name]
    assert value == wanted
    assert type(value) is type(wanted)
    if isinstance(value, list):
        assert [type(item) for item in value] == [type(item) for item in wanted]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("n", "zz"),
        ("n", 2.5),
        ("n", "2.5"),
        ("n", True),
        ("epsilon", "nan"),
        ("epsilon", float("inf")),
        ("epsilon", "1/0"),
        ("epsilon", None),
        ("seeds", "1,b"),
        ("seeds", 3),
        ("seeds", [1.5]),
        ("seeds", "[[1]]"),
        ("seeds", {0: "a"}),
        ("methods", {"em": 1, "tap": 2}),
        ("methods", [1]),
        ("data", 3),
        ("fast", "perhaps"),
        ("fast", 2),
    ],
)
def test_ill_typed_values_are_refused_with_name_value_and_type(declared, name, given):
    with pytest.raises(InputError) as refusal:
        parameters.check({name: given}, declared, "cell")
    line = str(refusal.value)
    assert name in line and repr(given) in line and "\n" not in line
    assert declared[name].type_name.replace("float", "finite float") in line


def test_unknown_names_are_refused_with_what_exists(declared):
    with pytest.raises(InputError, match=r"'epsilom' does not exist in cell; it has data, n, epsilon"):
        parameters.check({"epsilom": 1}, declared, "cell")


@pytest.fixture
def words(monkeypatch):
    """The package's own vocabulary."""
    monkeypatch.setattr(vocabulary, "BECOMES", BECOMES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_train", 1, "n_train: 1; it must be a whole number from 2"),
        ("epsilon", 0.9, "epsilon: 0.9; it must be a number between 1/255"),
        ("epsilons", ["4/255", "x"], "epsilons: epsilon: 'x' is no fraction of the pixel range"),
        ("methods", ["em", "magic"], "methods: method: 'magic' does not exist; choose one of clean, "),
        ("methods", ["em:speed=1"], "methods: em option: 'speed' does not exist"),
        ("defenses", ["none", "prayer"], "defenses: defense: 'prayer' does not exist; choose one of none, "),
        (
            "victims",
            ["linear", "linear"],
            r"victims: \['linear', 'linear'\]; give at least one, and none of them twice",
        ),
        ("seeds", [], r"seeds: \[\]; give at least one"),
        ("seeds", [0, -1], "seeds: seed: -1; it must be a whole number, 0 or above"),
        ("ratios", [1.5], "ratios: ratio: 1.5; it must be a number from 0 to 1"),
        ("zetas", [-0.5], "zetas: mi_ue option zeta: -0.5; it must be a number from 0"),
        ("surrogate_epochs", [0], "surrogate_epochs: mi_ue option epochs: 0; it must be a whole number from 1"),
        ("recipe", "quick:epochs=0", "recipe option epochs: 0"),
    ],
)
def test_a_value_is_refused_by_what_it_becomes_and_the_parameter_named(words, name, value, message):
    with pytest.raises(InputError, match=message) as refusal:
        vocabulary.check({name: value})
    assert "\n" not in str(refusal.value)


def test_what_nothing_refuses_passes_as_does_what_is_no_word_of_ours(words):
    given = {"methods": ["clean", "em:scope=class"], "zetas": [], "victim_seeds": [], "size": None, "passes": 60}
    vocabulary.check(given | {"epsilon": "8/255", "my_own": [0, 0]})


def test_defaults_are_checked_too(words):
    declared = parameters.read('data: str = "mnist"', "cell")
    with pytest.raises(InputError, match="data: 'mnist' does not exist; choose one of digits_m"):
        parameters.check({}, declared, "cell")


@pytest.mark.parametrize(
    "cell",
    [
        "n = 3",
        "n: dict = {}",
        "n: int = int('3')",
        "n: int = 'three'",
        "n: int",
        "import os",
        "n: int = __import__('os')._exit(1)",
    ],
)
def test_cells_that_declare_no_typed_literal_are_refused(cell):
    with pytest.raises(InputError):
        parameters.read(cell, "cell")


@pytest.mark.parametrize(
    ("name", "what"), [("smal", "'smal' does not exist; choose one of .*small"), ("nowhere.md", "no file")]
)
def test_nothing_starts_where_there_is_no_such_template(template, monkeypatch, name, what):
    root = template().parents[2]
    monkeypatch.setattr(kernel, "execute", lambda *args, **options: pytest.fail("a kernel was started"))
    with pytest.raises(InputError, match=what):
        runs.run(name)
    assert not (root / "runs").exists()


def test_a_template_needs_exactly_one_parameters_cell(template):
    path = template()
    path.write_text(path.read_text().replace("[parameters]", "[other]"))
    with pytest.raises(InputError, match="0 cells are tagged `parameters`"):
        runs.run("small")
