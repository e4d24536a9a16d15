import inspect
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from miue import cli
from miue.poisons import Poison, foreign


def test_perturb_train_and_measure(miue, image_folder, tmp_path):
    data = ["--data", f"folder:{image_folder}", "--size", 16]
    file = tmp_path / "out" / "delta.safetensors"
    code, out, _ = miue("poison", "--method", "random", *data, "--epsilon", "0.019", "--out", file)
    assert code == 0
    assert "budget: epsilon 0.019 (4 levels)" in out and "4 of 255 grey levels" in out
    assert Poison.load(file).delta.abs().max() <= 4

    short = ["--set", "epochs=2", "--set", "batch=4", "--recipe", "quick"]
    code, out, _ = miue("train", *data, "--poison", file, *short, "--out", tmp_path / "t.json")
    assert code == 0 and "clean test accuracy: last" in out and "perturbation: random, up to 4 of 255" in out
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["poison"]["method"] == "random" and record["poison"]["levels"] == 4
    assert 0 <= record["metrics"]["test_accuracy_last"] <= 1 and len(record["history"]) == 2

    code, out, _ = miue("mi", *data, "--poison", file, *short, "--n-slices", 8, "--out", tmp_path / "m.json")
    assert code == 0 and "ceiling" in out and "within_class" in out
    assert json.loads((tmp_path / "m.json").read_text())["mutual_information"]["mi"]["unit"] == "nats"
    code, out, _ = miue("mi", *data, "--poison", file, *short, "--n-slices", 1)
    assert code == 0 and " over samples)" in out and "slices" not in out


def test_a_defense_a_part_and_a_method_without_a_budget(miue, image_folder, tmp_path):
    data = ["--data", f"folder:{image_folder}", "--size", 16]
    file = tmp_path / "ops.safetensors"
    code, out, _ = miue("poison", "--method", "ops", *data, "--out", file)
    assert code == 0 and "ops keeps none" in out
    short = ["--set", "epochs=1", "--set", "batch=4", "--recipe", "quick", "--out", tmp_path / "t.json"]
    words = ["--poison", file, "--defense", "iss:kind=grayscale", "--ratio", 0.5, "--only", "cats"]
    code, out, _ = miue("train", *data, *words, *short)
    record = json.loads((tmp_path / "t.json").read_text())
    assert code == 0 and record["defense"]["kind"] == "grayscale"
    assert record["poison"]["part"] == {"ratio": 0.5, "classes": ["cats"], "seed": 0, "perturbed": 3}
    code, _, err = miue("train", *data, "--poison", file, "--only", "fish")
    assert code == 2 and "class: 'fish' does not exist; choose one of cats, dogs" in err


def test_a_perturbation_made_elsewhere_is_adopted(miue, image_folder, tmp_path):
    data = ["--data", f"folder:{image_folder}", "--size", 16]
    noise = np.random.default_rng(0).integers(-4, 5, (2, 16, 16, 3)).astype(np.int8)
    np.save(tmp_path / "noise.npy", noise)
    words = ["--out", tmp_path / "own.safetensors", "--epsilon", "0.02"]
    code, out, _ = miue("adopt", tmp_path / "noise.npy", *data, *words)
    assert code == 0 and "budget: epsilon 0.02 (5 levels)" in out
    delta = Poison.load(tmp_path / "own.safetensors").delta
    assert delta.shape == (12, 3, 16, 16) and (delta < 0).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["poison", "--out", "x", "--method", "magic"], "method: 'magic' does not exist; choose one of mi_ue, em"),
        (["poison", "--out", "x", "--data", "mnist"], "data: 'mnist' does not exist; choose one of digits_m"),
        (["poison", "--out", "x", "--surrogate", "vgg"], "model: 'vgg' does not exist; choose one of small_resnet"),
        (["poison", "--out", "x", "--preset", "slow"], "preset: 'slow' does not exist; choose one of quick"),
        (["poison", "--out", "x", "--set", "speed=1"], "mi_ue option: 'speed' does not exist; choose one of"),
        (["poison", "--out", "x", "--set", "speed"], "--set: 'speed'; write it as NAME=VALUE"),
        (["poison", "--out", "x", "--epsilon", "0"], "epsilon: 0.0; it must be a number between 1/255 (1 level) and"),
        (["poison", "--out", "x", "--epsilon", "200/255"], "epsilon: 0.7843137254901961; it must be"),
        (["train", "--poison", "none.safetensors"], "poison: none.safetensors does not exist"),
        (["poison", "--out", "x", "--method", "em:scope"], "em:scope: 'scope'; write it as NAME=VALUE"),
        (["adopt", "none.npy", "--data", "digits_m", "--n-train", "20", "--out", "x"], "none.npy"),
        (["train", "--defense", "prayer"], "defense: 'prayer' does not exist; choose one of"),
        (["train", "--model", "linear:width=2"], "linear"),
        (["train", "--recipe", "slow"], "recipe: 'slow' does not exist; choose one of quick"),
        (["mi", "--estimator", "guess"], "estimator: 'guess' does not exist; choose one of"),
        (["run", "cifar10", "-p", "speed=1"], "parameter 'speed' does not exist in cifar10"),
        (["train", "--only", "cats"], "--only: a part of what? Name the perturbation with --poison"),
        (["train", "--ratio", "0.5"], "--ratio: a part of what? Name the perturbation with --poison"),
        (["train", "--ratio", "nan"], "--ratio: nan; it must lie between 0 and 1"),
        (["train", "--poison", "."], "poison: . cannot be read (is a directory)"),
        (["train", "--seed", "-1"], "seed: -1; it must be a whole number, 0 or above"),
        (["run", "cifar10", "--cell-limit", "nan"], "--cell-limit: nan; it must be above 0"),
        (["sweep", "none.yaml", "--retries", "-1"], "--retries: -1; it must be 0 or above"),
    ],
)
def test_bad_input_is_one_line_and_code_2(miue, words, message, monkeypatch, tmp_path):
    if words[0] != "run":
        monkeypatch.chdir(tmp_path)
    code, _, err = miue(*words)
    assert code == 2
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.glob("x*"))


def test_a_perturbation_of_other_images_never_becomes_clean_training(miue, image_folder, tmp_path):
    file = tmp_path / "delta.safetensors"
    miue("poison", "--method", "random", "--data", f"folder:{image_folder}", "--size", 16, "--out", file)
    code, _, err = miue("train", "--data", f"folder:{image_folder}", "--size", 24, "--poison", file)
    assert code == 2 and "delta.safetensors was made for other images" in err


def test_failures_while_running_are_code_1(miue, image_folder, tmp_path):
    data = ["--data", f"folder:{image_folder}", "--size", 16]
    code, _, err = miue("train", *data, "--set", "lr=1e9", "--set", "epochs=8", "--set", "schedule=constant")
    assert code == 1 and "training diverged" in err


@pytest.mark.slow
def test_an_estimator_is_held_against_truth(miue, tmp_path):
    table = tmp_path / "table.csv"
    code, out, _ = miue("mi", "check", "ross", "--n", 500, "--repeats", 2, "--out", table)
    assert code == 0 and "class of 10 clusters" in out and "500 samples" in out
    assert table.read_text().startswith("task,truth,estimate,error,standard error")
    own = tmp_path / "mine.py"
    own.write_text("def nothing(x, y):\n    return 0.0\n")
    code, out, _ = miue("mi", "check", f"{own}:nothing", "--n", 50, "--repeats", 2)
    assert code == 0 and "-1.9585" in out  # the error at a correlation of 0.99
    code, _, err = miue("mi", "check", f"{own}:something")
    assert code == 2 and "something' cannot be taken" in err
    code, _, err = miue("mi", "check", "guess")
    assert code == 2 and "estimator: 'guess' does not exist; choose one of histogram" in err


@pytest.mark.slow
def test_a_function_of_the_users_own_never_ends_in_a_traceback(miue, tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("import sys\ndef word(x, y): return 'word'\ndef leave(x, y): sys.exit(3)\nvalue = 3\n")
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    for name, message in (
        ("os:getcwd", "getcwd failed (TypeError"),
        (f"{own}:word", "word returned '"),
        (f"{own}:leave", "leave failed (SystemExit: 3)"),
        (f"{own}:value", "int failed (TypeError: 'int' object is not callable)"),
        (f"{broken}:any", "cannot be taken (ZeroDivisionError"),
        (":any", "cannot be taken (ValueError"),
    ):
        code, _, err = miue("mi", "check", name, "--n", 50, "--repeats", 2)
        assert code == 2 and message in err and err.count("\n") == 1


def test_what_a_perturbation_file_can_be_told_about_is_told_by_options():
    """Messages of `foreign.read` name its arguments; each has an option of `adopt`."""
    told = " ".join(CliRunner().invoke(cli.app, ["adopt", "--help"], env={"COLUMNS": "200"}).output.split())
    arguments = inspect.signature(foreign.read).parameters.keys() - {"path", "images"}
    assert [name for name in arguments if f"--{name.replace('_', '-')}" not in told] == []


def test_float_levels_are_adopted_from_the_shell(miue, image_folder, tmp_path):
    data = ["--data", f"folder:{image_folder}", "--size", 16, "--out", tmp_path / "own.safetensors"]
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(-4, 5, (2, 16, 16, 3)).astype(np.float32))
    code, _, err = miue("adopt", tmp_path / "noise.npy", *data)
    assert code == 2 and "say which: scale fraction or levels" in err
    code, out, _ = miue(
        "adopt", tmp_path / "noise.npy", *data, "--scale", "levels", "--rows", "classes", "--layout", "nhwc"
    )
    assert code == 0 and "at most 4 of 255 grey levels" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["noise.npy", "--scale", "grey"], "scale: 'grey' does not exist"),
        (["noise.npy", "--layout", "chw"], "layout: 'chw' does not exist"),
        (["noise.npy", "--rows", "all"], "rows: 'all' does not exist"),
        (["noise.npy", "--epsilon", "0"], "epsilon: 0.0; it must be"),
        (["noise.npy", "--kind", "images"], "epsilon: missing"),
        (["noise.npy", "--labels", "none.npy"], "none.npy does not exist"),
        (["none.npy"], "none.npy does not exist"),
        (["noise.txt"], "noise.txt: .txt is not read"),
    ],
)
def test_what_cannot_be_adopted_is_refused_before_images_are_loaded(miue, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for file in ("noise.npy", "noise.txt"):
        (tmp_path / file).touch()
    code, out, err = miue("adopt", *words, "--data", "digits_m", "--out", "own.safetensors")
    assert code == 2 and message in err and "data:" not in out


def test_a_class_that_is_too_small_costs_its_part_and_not_the_measurement(miue, image_folder, tmp_path):
    for file in sorted((image_folder / "train" / "cats").iterdir())[3:]:
        file.unlink()
    data = ["--data", f"folder:{image_folder}", "--size", 16, "--set", "epochs=1", "--set", "batch=4"]
    code, out, _ = miue("mi", *data, "--model", "linear", "--n-slices", 4, "--out", tmp_path / "m.json")
    assert code == 0 and "ceiling" in out and "given_class   left out: within class number 0" in out
    record = json.loads((tmp_path / "m.json").read_text())
    assert set(record["mutual_information"]) == {"mi", "null", "within_class", "ceiling"}
    assert "too few" in record["left_out"]["given_class"]


def test_a_seed_of_any_size_is_one(miue, image_folder, tmp_path):
    data = ["--data", f"folder:{image_folder}", "--size", 16, "--out", tmp_path / "x.safetensors"]
    code, _, err = miue("poison", "--method", "random", *data, "--seed", 2**64)
    assert code == 0, err


def test_an_unwritable_file_is_refused_before_anything_is_made(miue, tmp_path, monkeypatch):
    monkeypatch.setattr("miue.data.loading.load", lambda *args: pytest.fail("it was begun"))
    monkeypatch.setattr("miue.mi.acceptance.check", lambda *args, **options: pytest.fail("it was begun"))
    monkeypatch.setattr("miue.experiments.bench.table", lambda *args, **options: pytest.fail("it was begun"))
    (tmp_path / "taken").write_text("a file")
    for words in (["poison"], ["adopt", "x.npy"], ["train"], ["mi"], ["mi", "check", "ksg"], ["bench"]):
        for out, message in ((tmp_path, "it is a folder"), (tmp_path / "taken" / "x", "taken is a file and no folder")):
            code, _, err = miue(*words, "--out", out)
            assert (code, err.count("\n")) == (2, 1) and message in err, words


def test_help_gives_units_and_defaults():
    runner = CliRunner()
    for command in ("poison", "adopt", "train", "mi", "run", "publish", "book"):
        result = runner.invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0
    text = " ".join(runner.invoke(cli.app, ["poison", "--help"]).output.split())
    assert "a fraction of the pixel range" in text and "8/255" in text


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_nothing_partial(tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "miue", "poison", "--preset", "quick", "--out", str(tmp_path / "delta")]
    env = os.environ | {"MIUE_CACHE": str(cache), "MIUE_PROGRESS": str(tmp_path / "log")}
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell, as in CI, hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline().startswith("budget")
    assert process.stdout.readline().startswith("data")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # Of a process that SIGINT ended a shell says 130 as well: Python ends so where Ctrl-C met code made from text.
    assert process.returncode in (130, -signal.SIGINT) and "interrupted" in err, (process.returncode, err)
    assert not (tmp_path / "delta").exists() and not list(tmp_path.glob(".delta*"))
    kept = [f for f in cache.rglob("*") if f.is_file() and f.suffix != ".lock"]
    assert all(f.parent.suffix == ".parts" for f in kept), kept  # checkpoints, and nothing that looks like a result
