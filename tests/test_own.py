"""Somebody's own method, defense and estimator go in: as objects, and from a file."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from samples import some_images

import miue
from miue import defenses, perturb, train_victim
from miue.errors import InputError
from miue.experiments import plan
from miue.experiments.records import Records
from miue.experiments.trials import Setting, Trial
from miue.mi import acceptance, sliced_mi, tasks
from miue.runs import template
from miue.runs.execution import folder_name
from miue.specs import find, load, parse
from miue.storage.files import cache_dir

FILE = """
from dataclasses import dataclass

import numpy as np
import torch

from miue.defenses import Defense


def stripes(images, levels, seed):
    delta = torch.zeros(len(images), *images.shape)
    delta[..., ::2] = levels
    return delta * (2 * (images.y[:, None, None, None] % 2) - 1)


@dataclass(frozen=True)
class Half(Defense):
    factor: float = 0.5

    def batch(self, x, y, context):
        return self.factor * x.float() / 255, y


def correlation(x, y):
    return -0.5 * np.log1p(-min(np.corrcoef(x, y)[0, 1] ** 2, 1 - 1e-12))
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(FILE)
    return f"{tmp_path}/own.py"


def test_a_method_is_a_function_of_images_levels_and_seed(own, images):
    poison = perturb(images, f"{own}:stripes", preset="quick")
    assert set((poison.apply(images).x.int() - images.x.int()).unique().tolist()) <= set(range(-8, 9))
    assert poison.record["method"] == f"{own}:stripes" and poison.record["bounded"]
    assert perturb(images, load("method", f"{own}:stripes")) == poison
    assert not list(cache_dir().rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda i, levels, seed: torch.zeros(3), r"returned \(3,\), torch.float32; it must be \(48, 3, 8, 8\)"),
        (lambda i, levels, seed: torch.full(i.x.shape, 9), "moved a pixel by 9 levels; the budget is 8"),
        (lambda i, levels, seed: torch.full(i.x.shape, torch.nan), "returned values that are not finite"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(images, made, message):
    with pytest.raises(InputError, match=message):
        perturb(images, made)


def test_a_defense_comes_with_its_options(own, images):
    half = defenses.build(f"{own}:Half", factor=0.25)
    assert half.factor == 0.25 and defenses.build(f"{own}:Half:factor=0.25") == half
    victim = train_victim(images, defense=f"{own}:Half", model="linear", recipe="quick:epochs=1")
    assert victim.record["defense"] == {"defense": "Half", "factor": 0.5}


def test_an_estimator_is_a_function_of_two_arrays(own):
    x = np.random.default_rng(0).normal(size=(500, 4))
    found = sliced_mi(x, x, f"{own}:correlation", n_slices=8)
    assert found.estimator == f"{own}:correlation" and found.value > 0 and found.per_slice.shape == (8,)
    assert sliced_mi(x, x, load("estimator", f"{own}:correlation"), n_slices=8).value == found.value
    assert found.per_sample is None and found.stderr_samples is None


def test_an_estimator_that_tells_what_each_sample_contributes_has_an_error_over_samples():
    x, y = np.random.default_rng(0).normal(size=(2, 500, 1))

    def normal(a, b):
        r = np.corrcoef(a, b)[0, 1]
        a, b = ((v - v.mean()) / v.std() for v in (a, b))
        return -0.5 * np.log1p(-(r**2)) - (r**2 * (a**2 + b**2) - 2 * r * a * b) / (2 * (1 - r**2))

    found = sliced_mi(x, x + y, normal, n_slices=4)
    np.testing.assert_allclose(found.per_sample, normal(x[:, 0], (x + y)[:, 0]))
    assert found.value == pytest.approx(found.per_sample.mean()) == pytest.approx(0.35, abs=0.1)
    assert found.stderr_samples == pytest.approx(found.per_sample.std(ddof=1) / math.sqrt(500))
    assert acceptance.check(normal, [tasks.bivariate_normal(0.9)], n=500, repeats=3)["error"].abs().max() < 0.1


@pytest.mark.parametrize(
    "wrong", [lambda x, y: x[1:], lambda x, y: x * np.nan, lambda x, y: "much", lambda x, y: np.nan, lambda x: 1.0]
)
def test_an_estimator_that_returns_no_number_is_named(wrong):
    x = np.random.default_rng(0).normal(size=(200, 2))
    for use in (lambda: sliced_mi(x, x, wrong, n_slices=2), lambda: acceptance.check(wrong, n=50, repeats=2)):
        with pytest.raises(InputError, match="^estimator: <lambda> (returned|failed)"):
            use()


def test_a_trial_takes_what_stands_in_a_file(own):
    setting = Setting(preset="quick", recipe="quick", estimator=f"{own}:correlation")
    setting.check()
    Trial(f"{own}:stripes", "linear", f"{own}:Half:factor=0.1").check(setting)


def test_a_plan_finds_what_was_measured_of_it(own, image_folder, tmp_path):
    setting, trial = Setting(f"folder:{image_folder}", size=16, recipe="quick"), Trial(f"{own}:stripes", "linear")
    train, _ = miue.load(setting.data, size=16)
    row = asdict(trial) | {"test_accuracy": 0.5, "content_hash": train.content_hash}
    Records(tmp_path / "rows.jsonl", setting).add(row)
    assert plan.make([trial], setting, tmp_path / "rows.jsonl").recorded == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.py:stripes", "method: 'own.py:stripes' cannot be taken .*No such file"),
        ("{own}:dots", "dots is not defined there"),
        ("{broken}:stripes", "ZeroDivisionError: division by zero"),
        ("stripes", "method: 'stripes' does not exist; choose one of em"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(own, tmp_path, name, message):
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(InputError, match=message) as refused:
        find("method", name.format(own=own, broken=tmp_path / "broken.py"), {"em": 1})
    assert "\n" not in str(refused.value)


def test_a_file_that_changes_is_executed_again(own, tmp_path):
    first = load("method", f"{own}:stripes")
    assert load("method", f"{own}:stripes") is first
    (tmp_path / "own.py").write_text(FILE + "\n\nmore = 1\n")
    assert load("method", f"{own}:more") == 1 and load("method", f"{own}:stripes") is not first


def test_the_name_of_what_stands_in_a_file_has_two_parts():
    assert parse("dir/own.py:Half:factor=0.5") == ("dir/own.py:Half", {"factor": 0.5})
    assert parse("em:scope=class") == ("em", {"scope": "class"})


def test_a_method_that_draws_nothing_moves_nothing():
    with pytest.raises(InputError, match="delta is 0 everywhere"):
        perturb(some_images(), lambda images, levels, seed: torch.zeros(images.x.shape))


def test_a_network_stands_in_a_file_too(tmp_path, images):
    (tmp_path / "net.py").write_text(
        "from miue.models import build\n\n\ndef thin(n_classes, channels, size):\n"
        "    return build('mlp2:width=0.05', n_classes, channels=channels, size=size)\n"
    )
    spec = f"{tmp_path}/net.py:thin"
    victim = train_victim(images, model=spec, recipe="quick:epochs=1")
    assert victim.record["model"] == spec and victim.model.head.out_features == 4
    Trial("clean", spec).check(Setting())


def test_a_run_knows_when_a_file_of_ones_own_changes(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = template.read("comparison")

    def folder():
        return folder_name(chosen, chosen.check({"methods": "own.py:stripes", "data": "digits_m"}))

    assert chosen.check({"methods": "own.py:stripes"})["methods"] == [f"{tmp_path}/own.py:stripes"]
    first = folder()
    assert folder() == first
    (tmp_path / "own.py").write_text(FILE + "\n\nmore = 1\n")
    assert folder() != first
