"""The overview of the commands, and what it does not import."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from miue import cli
from miue.cli.commands import COMMANDS, first_line, load

HEAVY = ["torch", "torchvision", "pandas", "matplotlib", "sklearn", "scipy", "numpy", "PIL", "papermill"]


@pytest.mark.parametrize("words", [[], ["--help"], ["cache", "show"], ["unknown"]])
def test_what_computes_nothing_imports_nothing_heavy(words):
    see = (
        "import sys, miue.cli\n"
        f"sys.argv = ['miue', *{words}]\n"
        "try:\n    miue.cli.main()\n"
        f"finally:\n    print('loaded:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", see], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr
    assert ("Commands" in done.stdout) == (words in ([], ["--help"]))


def test_importing_the_package_imports_nothing_heavy():
    see = f"import sys, miue; print([name for name in [*{HEAVY}, 'typer', 'miue.data'] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", see], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_that_of_its_own_help(name):
    line = first_line(name)
    assert line.endswith(".") and load(name).help.startswith(line)
    overview = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).output
    assert any(name in row and line in row for row in overview.splitlines())


def test_commands_list_what_they_take(miue):
    for words, listed in ((["poison"], "mi_ue, em,"), (["mi", "check"], "histogram, infonce"), (["mi"], "check")):
        _, out, _ = miue(*words, "--help")
        assert listed in " ".join(out.replace("│", "").split())


def test_a_slip_in_a_commands_name_is_answered_with_the_name(miue):
    code, _, err = miue("trian")
    assert code == 2 and "Did you mean 'train'?" in err


@pytest.mark.parametrize(
    ("typed", "completed"), [("miue p", "poison publish protect"), ("miue publish --", "--name --book --help")]
)
def test_a_shell_completes_commands_and_options(miue, monkeypatch, typed, completed):
    for name, value in (("_MIUE_COMPLETE", "complete_bash"), ("COMP_WORDS", typed)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert miue()[1].split() == completed.split()


def test_completion_is_offered(miue):
    _, out, _ = miue("--help")
    assert "--install-completion" in out and "`miue --install-completion` lets your shell" in out
