"""The files around the code: workflows, templates, citation and guide name what is there."""

import re
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from samples import some_images

from miue import perturb, sliced_mi
from miue.poisons import Method
from miue.specs import load

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted({*(GITHUB / "ISSUE_TEMPLATE").glob("*.yml")} - {GITHUB / "ISSUE_TEMPLATE" / "config.yml"})
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^ *(`{3,})\w* *\n.*?^ *\1$", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"(?:\.?\w[\w.-]*/)+[\w.-]*|[\w-]+\.(?:md|yml|cff|txt|toml|py)")
"""What can only be a path: words with slashes between them, or a file of the root."""


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_is_something_to_look_at():
    assert len(WORKFLOWS) == 3 and len(FORMS) == 2 and read(GITHUB / "ISSUE_TEMPLATE" / "config.yml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_only_targets_that_there_are(path):
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    commands = "\n".join(step.get("run", "") for step in steps(read(path)))
    called = re.findall(r"^make (\S+)", commands, re.MULTILINE)
    assert set(called) <= set(targets) and (called or path.stem == "links")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_asks_for_no_more_than_it_needs(path):
    workflow = read(path)
    granted = [workflow["permissions"], *(job.get("permissions", {}) for job in workflow["jobs"].values())]
    writes = {name for permissions in granted for name, level in permissions.items() if level == "write"}
    assert writes == {"tests": set(), "pages": {"contents"}, "links": {"issues"}}[path.stem]
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    for step in steps(workflow):
        action, _, version = step.get("uses", "").partition("@")
        if action and not action.startswith("actions/"):
            assert re.fullmatch(r"[0-9a-f]{40}", version), f"{action}: what others maintain is pinned to a commit"
        if action == "actions/checkout":
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_command_expectation_and_doctor(path):
    form = read(path)
    asked = {field["id"]: field for field in form["body"] if field["type"] != "markdown"}
    assert form["name"] and form["description"]
    for name in ("command", "expected", "doctor"):
        assert asked[name]["validations"]["required"]
    assert "`miue doctor`" in asked["doctor"]["attributes"]["label"]


def test_the_citation_is_that_of_this_version():
    citation = read(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(citation["version"]) == project["version"] and citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert "2603.03725" in paper["url"] and len(paper["authors"]) == 4


def test_every_file_that_the_guide_names_exists():
    prose = FENCED.sub("", GUIDE)
    named = [*re.findall(r"\]\(([^)#:]+)\)", prose), *filter(PLACE.fullmatch, re.findall(r"`([^`\s]+)`", prose))]
    assert len(named) > 30
    for place in map(Path, set(named)):
        if place.stem == "NAME":  # a file that is to be written
            place = place.parent
        elif place.name in ("status.json", "metrics.json"):  # of a run
            continue
        assert (ROOT / place).exists(), place


@pytest.fixture
def shown(tmp_path):
    """The two programs of the guide, a method and an estimator, as files."""
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```$", GUIDE, re.DOTALL | re.MULTILINE)
    files = [tmp_path / "method.py", tmp_path / "estimator.py"]
    for file, (_, block) in zip(files, blocks, strict=True):
        file.write_text(textwrap.dedent(block), encoding="utf-8")
    return files


def test_the_method_that_the_guide_shows_works(shown):
    method = Method(load("method", f"{shown[0]}:waves"), load("method", f"{shown[0]}:PRESETS"))
    images = some_images()
    poison = perturb(images, method, preset="quick", epsilon="4/255", cache=False)
    assert 1 <= poison.delta.abs().max() <= 4 and (poison.delta[0] != poison.delta[1]).any()


def test_the_estimator_that_the_guide_shows_works(shown):
    found = load("estimator", f"{shown[1]}:mi_normal")
    x = np.random.default_rng(0).normal(size=(2, 2000))
    assert found(x, x[:, ::-1]).per_slice == pytest.approx([0, 0], abs=0.01)
    x[1] = 0.8 * x[0] + 0.6 * x[1]
    assert sliced_mi(x[:1].T, x[1:].T, found, n_slices=2).value == pytest.approx(-np.log(0.6), abs=0.05)
