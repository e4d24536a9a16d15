"""What a record says of its run in words, whatever its age."""

import nbformat
import pytest
from nbformat import v4

from miue.publishing import summary


def page(tmp_path, parameters):
    cell = v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# One"), cell]), tmp_path / "one.ipynb")
    return tmp_path / "one.ipynb"


def test_a_record_tells_data_scale_seeds_versions_hardware_commits_and_times():
    trials = [
        {"method": "em", "seed": 0, "perturbation_seconds": 60.0, "victim": v, "victim_seconds": 30.0, "commit": c}
        for v, c in (("linear", "old"), ("mlp2", "new"))
    ]
    record = {
        "parameters": {"preset": "paper", "recipe": "laptop:epochs=3", "seeds": [0, 1]},
        "provenance": {"miue": "0.1", "torch": "2.6", "python": "3.12", "device": "one chip", "commit": "new"},
        "metrics": {"data": {"data": "Digits-M", "n": 3000}, "trials": trials},
        "started": "2026-03-05T10:00:00+00:00",
        "wall_seconds": 75.0,
    }
    facts = summary.facts(record)
    assert list(facts) == ["Data", "Scale", "Seeds", "Versions", "Hardware", "Commit", "Time"]
    assert facts["Data"] == "Digits-M, 3,000 training images"
    assert facts["Scale"].startswith("laptop: ") and facts["Seeds"] == "0, 1"
    assert facts["Versions"] == "miue 0.1, PyTorch 2.6, Python 3.12"
    assert facts["Commit"] == "new; trials were measured with old"
    # The perturbation that two victims share counts once: 60 + 30 + 30 seconds.
    assert facts["Time"].startswith("1 min 15 s on 5 March 2026") and facts["Time"].endswith("took 2 min 0 s")


def test_victims_of_several_seeds_and_twins_are_counted_each():
    victims = [{"victim_seed": 0, "twin": "none"}, {"victim_seed": 1, "twin": "none"}]
    victims += [{"victim_seed": 0, "twin": "weights"}]
    rows = [{"method": "em", "seed": 0, "perturbation_seconds": 60.0, "victim_seconds": 30.0} | v for v in victims]
    assert summary.making({"metrics": {"trials": rows}}) == 150


def test_a_clean_victim_is_counted_once_for_all_perturbation_seeds():
    common = {"perturbation_seconds": 0.0, "victim_seconds": 30.0, "victim": "linear"}
    rows = [common | {"method": "clean", "seed": seed, "victim_seed": met} for seed in (0, 1) for met in (0, 1)]
    assert summary.making({"metrics": {"trials": rows}}) == 60
    of_before = [common | {"method": "clean", "seed": seed} for seed in (0, 1)]  # whose seed is the victim's
    assert summary.making({"metrics": {"trials": of_before}}) == 60


def test_a_record_that_tells_nothing_says_nothing():
    assert summary.facts({}) == {}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.9, "1 min 0 s"), (116, "1 min 56 s"), (11520, "3.2 h")]
)
def test_times_are_written_for_a_reader(seconds, text):
    assert summary.duration(seconds) == text


def test_the_command_names_what_differed_from_the_defaults_of_its_time(tmp_path):
    made = page(tmp_path, 'data: str = "a"  # x\nseeds: list[int] = [0]  # x\nsize: int | None = 8  # x\n')
    given = {"data": "a", "seeds": [0, 1], "size": None, "odd": "x y", "on": True}
    lines = summary.command({"template": "book/experiments/small.md", "parameters": given}, made).split(" \\\n    ")
    assert lines == ["miue run small", "-p seeds=0,1", "-p size=none", "-p 'odd=x y'", "-p on=true"]


def test_a_notebook_whose_defaults_cannot_be_read_names_all(tmp_path):
    made = page(tmp_path, "data = 3")
    assert summary.command({"parameters": {"data": 3}}, made) == "miue run one \\\n    -p data=3"
