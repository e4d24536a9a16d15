"""The recipes of the book run as they stand, each in a folder of its own."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_every_recipe_has_a_program():
    assert len(BLOCKS) == PAGE.count("\n## ") == 7


@pytest.mark.parametrize(("title", "program"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_it_runs_and_prints_what_it_says(title, program, tmp_path, monkeypatch, capsys):
    (tmp_path / "book").symlink_to(ROOT / "book")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, f"<{title}>", "exec"), {"__name__": "recipe"})
    printed = capsys.readouterr().out
    assert printed
    for said in re.findall(r"print\(.*\)  # (.+?)(?:, |$)", program, re.MULTILINE):
        assert said in printed
