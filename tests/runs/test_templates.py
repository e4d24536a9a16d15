"""Every shipped template: what it declares, what it plans, and (slow) that it runs to its end on a few images."""

import ast
import re
from pathlib import Path

import matplotlib
import pytest
from samples import some_images

import miue
from miue import poisons, runs
from miue.data import loading
from miue.experiments import comparison, figures, judging
from miue.experiments.comparison import Setting, Trial
from miue.runs import parameters, template, vocabulary
from miue.runs.vocabulary import BECOMES
from miue.storage import files

matplotlib.use("Agg")

FOLDER = Path(miue.__file__).parents[2] / "book" / "experiments"
READ = {path.stem: template.read(path) for path in sorted(FOLDER.glob("*.md")) if "[parameters]" in path.read_text()}
QUESTIONS = ["ablation", "budget", "cifar10", "cifar100", "comparison", "contrasts", "cost"]
QUESTIONS += ["defenses", "depth", "imagenet_subset", "information", "initialisation", "poison_ratio", "transfer"]

SHORT = {"n_train": 64, "n_test": 40, "victim": "linear", "recipe": "quick:epochs=1:batch=32"}
SHORT |= {"estimator": "histogram", "n_slices": 4}
OWN = {
    "ablation": {"zetas": [0.0], "temperatures": [], "steps": [], "surrogate_epochs": [2], "surrogate": "linear"},
    "budget": {"methods": ["random", "lsp"], "epsilons": ["1/255", "8/255"]},
    "cifar10": {"methods": ["clean", "random"], "seeds": [0, 1]},
    "cifar100": {"methods": ["clean", "lsp"]},
    "comparison": {"methods": ["clean", "random", "ops", "lsp", "ar:l2=2"], "victims": ["linear", "mlp2"]},
    "contrasts": {"pairs": ["random ~ lsp", "lsp ~ ops"], "victims": ["linear", "mlp2"], "seeds": [0, 1]},
    "cost": {"variants": ["mi_ue:steps=1"], "surrogate": "linear", "other_surrogates": ["mlp2"], "seeds": [0, 1]},
    "defenses": {"methods": ["lsp"], "defenses": ["cutout", "iss:kind=bit_depth"]},
    "depth": {"methods": ["lsp"], "victims": ["linear", "mlp2", "lenet5"]},
    "imagenet_subset": {"methods": ["clean", "random"]},
    "information": {"methods": ["clean", "random"], "estimators": ["histogram"]},
    "initialisation": {"methods": ["mi_ue"], "surrogate": "linear", "passes": 6, "seeds": [0, 1]},
    "poison_ratio": {"methods": ["lsp"], "ratios": [0.0, 0.25, 0.75, 1.0], "seeds": [0, 1]},
    "transfer": {"methods": ["pil"], "surrogates": ["linear", "mlp2"], "victims": ["linear", "mlp2"]},
}


@pytest.fixture(autouse=True)
def no_checks(monkeypatch):
    """Unlike the made-up templates of the other tests, these are checked against the vocabulary."""
    monkeypatch.setattr(vocabulary, "BECOMES", BECOMES)


@pytest.fixture
def few_images(monkeypatch):
    """Sixty-four images of eight pixels, whatever is asked for."""
    few = some_images(n=64, size=8), some_images(n=40, size=8, seed=1)
    for module in (loading, miue):
        monkeypatch.setattr(module, "load", lambda *_, **__: few)


def code(name):
    return [cell for cell in READ[name].notebook.cells if cell.cell_type == "code"]


def values(name, **given):
    return parameters.check(given, READ[name].parameters, name)


def planned(name, **given):
    """What the cell tagged `plan` sets, run with nothing but the parameters."""
    space = values(name, **given)
    (cell,) = [cell for cell in code(name) if "plan" in cell.metadata.get("tags", [])]
    exec(cell.source, space)
    return space["setting"], space["wanted"]


def test_all_questions_have_their_template():
    assert sorted(READ) == QUESTIONS == sorted(OWN)


@pytest.mark.parametrize("name", READ)
def test_its_parameters_are_explained_checked_and_used(name):
    declared = READ[name].parameters
    assert values(name) == {p.name: p.default for p in declared.values()}
    assert [p.name for p in declared.values() if not p.help] == []
    body = "\n".join(cell.source for cell in code(name)[1:])
    assert [p for p in declared if not re.search(rf"\b{p}\b", body)] == []


@pytest.mark.parametrize("name", READ)
def test_every_figure_has_a_name_a_caption_and_words_for_who_cannot_see_it(name):
    shown = [cell.metadata["mystnb"] for cell in code(name) if "mystnb" in cell.metadata]
    assert 1 <= len(shown) <= 5
    assert all(len(cell["image"]["alt"]) > 60 and len(cell["figure"]["caption"]) > 40 for cell in shown)
    assert len({cell["figure"]["name"] for cell in shown}) == len(shown)
    assert sum("figures." in cell.source or "plt." in cell.source for cell in code(name)) >= len(shown)


@pytest.mark.parametrize("name", sorted(READ))
def test_its_plan_follows_from_the_parameters_alone_and_stands_behind_them(name):
    assert ["plan" in cell.metadata.get("tags", []) for cell in code(name)[:3]] == [False, True, False]
    setting, wanted = planned(name, seeds=[0, 3], n_train=200, preset="laptop")
    assert isinstance(setting, Setting) and (setting.n_train, setting.preset) == (200, "laptop")
    assert wanted and all(type(trial) is Trial for trial in wanted) and len(set(wanted)) == len(wanted)
    assert {trial.seed for trial in wanted} == {0, 3}
    assert any(trial.method == "clean" for trial in wanted)
    setting.check()
    for trial in wanted:
        trial.check(setting)


def test_a_ratio_has_its_control_wherever_something_clean_is_left():
    _, wanted = planned("poison_ratio", methods=["em"], ratios=[0.0, 0.5, 1.0])
    assert [(e.method, e.ratio) for e in wanted] == [("withheld", 0.5), ("em", 0.5), ("em", 1.0), ("clean", 0.0)]


@pytest.mark.parametrize("name", sorted(READ.keys() - {"initialisation"}))
def test_each_perturbation_meets_the_victims_that_are_asked_for(name):
    seeds = [1, 2]
    alone = planned(name, seeds=seeds)[1]
    assert {(trial.seed, trial.victim_seed) for trial in alone} == {(1, 1), (2, 2)}
    several = planned(name, seeds=seeds, victim_seeds=[5, 6, 7])[1]
    assert {(e.seed, e.victim_seed) for e in several} == {(seed, victim) for seed in seeds for victim in (5, 6, 7)}
    assert len(set(several)) == len(several) == 3 * len(alone)


@pytest.mark.parametrize("name", sorted(READ))
def test_methods_may_take_equal_passes_unless_their_own_are_asked_for(name):
    space = values(name)
    exec(next(cell.source for cell in code(name) if "plan" in cell.metadata.get("tags", [])), space)
    assert space["setting"].passes == ("own" if name in ("ablation", "cost") else "equal")
    for wrong in (0, "as many"):
        with pytest.raises(miue.errors.InputError, match="passes"):
            values(name, passes=wrong)
    assert values(name, passes="60")["passes"] == 60


def test_each_perturbation_meets_a_twin_a_half_twin_and_a_stranger():
    _, wanted = planned("initialisation", methods=["mi_ue"], seeds=[3])
    assert [(e.method, e.twin, e.seed, e.victim_seed) for e in wanted] == [
        ("clean", "none", 3, 3),
        ("mi_ue", "weights+order", 3, 3),
        ("mi_ue", "weights", 3, 3),
        ("mi_ue", "none", 3, 3),
    ]


def test_an_ablation_counts_epochs_from_those_that_the_allowed_passes_leave():
    _, wanted = planned("ablation", passes=30, surrogate_epochs=[5, 10])
    epochs = {trial.method for trial in wanted if "epochs" in trial.method}
    assert poisons.options("mi_ue", "quick", passes=30).surrogate.epochs == 5 and epochs == {"mi_ue:epochs=10"}


def test_an_ablation_leaves_out_what_the_preset_has_anyway():
    _, wanted = planned("ablation", zetas=[0.1, 1.0], temperatures=[0.1], steps=[5], surrogate_epochs=[10])
    assert [e.method for e in wanted] == ["clean", "mi_ue", "mi_ue:similarity=false", "mi_ue:zeta=1.0"]


def test_clean_training_is_measured_once_although_it_is_asked_for():
    for name in ("depth", "defenses", "transfer", "budget", "poison_ratio"):
        _, wanted = planned(name, methods=["clean", "lsp"])
        assert len(set(wanted)) == len(wanted) and {e.method for e in wanted} <= {"clean", "lsp", "withheld"}


def test_a_template_that_extends_another_has_its_cells_behind_its_own_parameters():
    base, own = READ["cifar10"], READ["cifar100"]
    assert own.parameters["data"].default == "cifar100"
    assert [cell.source for cell in own.notebook.cells[2:]] == [cell.source for cell in base.notebook.cells[2:]]
    assert own.notebook.cells[0].source != base.notebook.cells[0].source and own.digest != base.digest


def test_a_change_of_what_is_extended_is_a_change_of_who_extends_it(tmp_path):
    for name in ("cifar10", "cifar100"):
        (tmp_path / f"{name}.md").write_text((FOLDER / f"{name}.md").read_text())
    before = template.read(tmp_path / "cifar100.md").digest
    assert before == READ["cifar100"].digest
    base = tmp_path / "cifar10.md"
    base.write_text(base.read_text().replace("amplified ten times", "amplified tenfold"))
    assert template.read(tmp_path / "cifar100.md").digest != before
    base.unlink()
    with pytest.raises(
        miue.errors.InputError, match=r"cifar100\.md: it extends cifar10, and cifar10\.md is not beside it"
    ):
        template.read(tmp_path / "cifar100.md")


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_it_runs_to_its_end_without_a_warning(name, few_images, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judging, "ROOM", -1)  # victims that saw 64 images once count as having learned
    given = execute(name)
    metrics = files.read_json("metrics.json")
    assert metrics["data"]["n"] == 64 and metrics["torch"]
    if "setting" in metrics:
        assert {row["method"] for row in metrics["trials"]} == {e.method for e in planned(name, **given)[1]}
        assert metrics["chance"] == 0.25
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["comparison", "defenses", "depth", "information", "initialisation", "poison_ratio"])
def test_it_runs_to_its_end_also_where_nothing_can_be_judged(name, few_images, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judging, "ROOM", 1)
    execute(name)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.slow
def test_twins_and_strangers_are_shown_from_their_records_with_nothing_made(few_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judging, "ROOM", -1)
    execute("initialisation", records="kept.jsonl")
    before = files.read_json("metrics.json")
    assert [(pair["seed"], pair["twin"]) for pair in before["differences"]] == [
        (seed, twin) for seed in (0, 1) for twin in ("weights+order", "weights")
    ]
    assert [row["pairs"] for row in before["mean_differences"]] == [2, 2]
    monkeypatch.setattr(comparison, "measure", lambda *_: pytest.fail("measured"))
    execute("initialisation", records="kept.jsonl", measure=False)
    assert files.read_json("metrics.json")["differences"] == before["differences"]


def execute(name, **more):
    """Run a template on few images, cell by cell; return the parameters that were given."""
    given = {p: v for p, v in {**SHORT, **OWN[name], **more}.items() if p in READ[name].parameters}
    space = values(name, **given)
    for cell in code(name):
        if "parameters" not in cell.metadata.get("tags", []):
            run(cell.source, space)
            drawn = figures.plt.get_fignums()
            assert len(drawn) == ("mystnb" in cell.metadata)
            figures.plt.close("all")
    return given


def run(source, space):
    """Execute a cell as a kernel does: what its last line shows is rendered."""
    body = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%"))).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
        getattr(value, "_repr_html_", str)()


@pytest.mark.slow
def test_one_that_extends_another_runs_in_a_kernel(tmp_path):
    given = {"data": "digits_m", "methods": "clean,lsp", "victim": "linear", "recipe": "quick:epochs=1"}
    done = runs.run("cifar100", given | {"n_train": 100, "n_test": 40, "n_slices": 4}, out=tmp_path / "runs")
    assert done.metrics["setting"]["n_train"] == 100 and len(done.metrics["trials"]) == 2
    assert done.status["template"] == "book/experiments/cifar100.md"
