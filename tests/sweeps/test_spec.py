"""The file of a sweep is checked whole before anything starts."""

from pathlib import Path

import pytest

import miue
from miue import sweeps
from miue.errors import InputError

SHIPPED = sorted((Path(miue.__file__).parents[2] / "book" / "experiments" / "sweeps").glob("*.yaml"))


def test_every_item_of_the_list_goes_through_the_whole_grid(sweep):
    read = sweeps.read(
        sweep("template: small\ngrid:\n  n: [4, '5']\n  seeds: [[0], [1, 2]]\nlist: [{do: a}, {do: b}]\n")
    )
    assert [run.number for run in read.runs] == list(range(1, 9))
    assert [run.label for run in read.runs[:4]] == [
        "do=a n=4 seeds=0",
        "do=a n=4 seeds=1,2",
        "do=a n=5 seeds=0",
        "do=a n=5 seeds=1,2",
    ]
    # Checked values, of the declared types, with the defaults of what is not named.
    assert read.runs[-1].values == {"do": "b", "n": 5, "seeds": [1, 2], "records": None}
    assert read.runs[-1].varied == {"do": "b", "n": 5, "seeds": [1, 2]}


def test_a_sweep_without_grid_and_list_is_one_run(sweep):
    (run,) = sweeps.read(sweep("template: small\nparameters: {n: 4}\n")).runs
    assert (run.values["n"], run.varied) == (4, {})


def test_a_template_is_found_by_its_path_from_the_file(sweep, tmp_path, monkeypatch):
    path = sweep("template: book/experiments/small.md\ngrid: {n: [4]}\n")
    monkeypatch.chdir("/")
    assert sweeps.read(path).template.path == tmp_path / "book" / "experiments" / "small.md"


def test_the_folder_is_named_by_what_is_run(sweep):
    first = sweeps.read(sweep("template: small\ngrid: {n: [4, 5]}\n")).name
    assert first.startswith("sweep-")
    assert sweeps.read(sweep("template: small\n# the same\ngrid:\n  n: [4, 5]\nparameters: {do: good}\n")).name == first
    assert sweeps.read(sweep("template: small\ngrid: {n: [4, 6]}\n")).name != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has none of the sections template, parameters, grid, list"),
        ("template: [", "no plain YAML"),
        ("template: small\nseeds: [1]", "section: 'seeds' does not exist; choose one of template, parameters"),
        ("grid: {n: [1]}", "template: None; it must be the name of a template"),
        ("template: nothing", "template: 'nothing' does not exist; choose one of"),
        ("template: small\ngrid: {speed: [1]}", r"run 1 \(speed: 1\): parameter 'speed' does not exist in small"),
        ("template: small\ngrid: {n: [1, x]}", r"run 2 \(n: x\): parameter n: 'x' .* is not of type int"),
        (
            "template: small\ngrid: {seeds: [0]}",
            r"run 1 \(seeds: 0\): .* is not of type list\[int\]",
        ),
        ("template: small\nparameters: {n: x}", "run 1: parameter n: 'x'"),
        ("template: small\ngrid: {n: 4}", "grid: n: 4; it must be a list of values"),
        ("template: small\ngrid: {n: []}", r"grid: n: \[\]; it must be a list of values"),
        ("template: small\ngrid: [n]", r"grid: \['n'\]; it must be names of parameters"),
        ("template: small\nlist: {n: 4}", "list: {'n': 4}; it must be a list of parameters"),
        ("template: small\nlist: [4]", "list, item 1: 4; it must be names of parameters"),
        ("template: small\nparameters: {n: 1}\ngrid: {n: [2]}", "n stands in parameters and in grid"),
        ("template: small\nparameters: {n: 1}\nlist: [{n: 2}]", "n stands in parameters and in item 1 of list"),
        ("template: small\ngrid: {n: [2]}\nlist: [{do: a}, {n: 2}]", "n stands in grid and in item 2 of list"),
        ("template: small\ngrid: {n: [2], n: [3]}", "'n' stands twice"),
        ("template: small\ngrid: {n: [2, 3, '2']}", r"run 1 and run 3 \(n=2\) have the same parameters"),
        ("template: small\nlist: [{n: 3}, {do: good}]", r"run 1 and run 2 \(do=good\) have the same parameters"),
        ("template: small\nparameters: {records: a.jsonl}\ngrid: {n: [1, 2]}", "write to the same file of `records`"),
        (
            "template: small\ngrid: {n: [1, 2], seeds: !!python/object/apply:os.getcwd []}",
            "could not determine",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(sweep, text, message):
    with pytest.raises(InputError, match=message) as refusal:
        sweeps.read(sweep(text))
    assert "\n" not in str(refusal.value)


def test_a_slip_of_the_pen_is_not_ten_million_runs(sweep):
    numbers = list(range(200))
    with pytest.raises(InputError, match="it describes 8,000,000 runs; the most is 10,000"):
        sweeps.read(sweep(f"template: small\ngrid: {{n: {numbers}, do: {numbers}, seeds: {numbers}}}\n"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        sweeps.read(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_fit_their_templates(path, tmp_path, monkeypatch):
    for folder in ("imagenette224", "tiny-imagenet32-jpeg"):  # of which only the names are asked
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("MIUE_DATA", str(tmp_path))
    expected = {"all_images": 1, "ladder": 2, "methods": 5, "paper": 8, "paper_sets": 2}
    expected |= {"reasons": 9, "recipes": 6, "scales": 6, "seeds": 6, "field": 2, "weave": 2}
    assert len(sweeps.read(path).runs) == expected.get(path.stem, 1)
