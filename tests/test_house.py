"""The core imports nothing of the lab, and works where the lab is not there."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import miue

PACKAGE = Path(miue.__file__).parent
LAB = ("experiments", "runs", "sweeps", "publishing", "cli")


def modules(of_lab):
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if (parts[0] in LAB or parts[0] == "__main__") == of_lab:
            yield ".".join(["miue", *parts]).removesuffix(".__init__"), file


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_arrow_leads_from_the_core_to_the_lab():
    lab = tuple(f"miue.{room}." for room in LAB)
    found = [(name, one) for name, file in modules(of_lab=False) for one in imported(file) if f"{one}.".startswith(lab)]
    assert found == []


@pytest.mark.slow
def test_the_core_imports_where_the_lab_is_removed(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "miue", ignore=shutil.ignore_patterns("__pycache__", *LAB))
    work = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    names = [name for name, _ in modules(of_lab=False)]
    done = subprocess.run(
        [sys.executable, "-c", work, *names],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.split())
