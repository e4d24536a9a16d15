from pathlib import Path

import pytest
from samples import FRONT_MATTER

from miue.runs import vocabulary

HEADER = (
    FRONT_MATTER
    + """# A small run

```{code-cell} ipython3
:tags: [parameters]

data: str = "digits_m"  # data set
n: int = 3  # training images
epsilon: float = 8 / 255  # budget, a fraction of the pixel range
seeds: list[int] = [0, 1]  # one victim each
limit: float | None = None  # seconds
```
"""
)

WORK = """import json, os
print(os.getcwd())
json.dump(
    {"data": data, "n": n, "epsilon": epsilon, "seeds": seeds, "root": os.environ["MIUE_DATA"]},
    open("metrics.json", "w"),
)"""


@pytest.fixture(autouse=True)
def no_checks(monkeypatch):
    """Values of the templates here are made up; the package's own vocabulary does not apply."""
    monkeypatch.setattr(vocabulary, "BECOMES", {})


@pytest.fixture
def template(tmp_path, monkeypatch):
    """Write `book/experiments/NAME.md` with one code cell into a repository of its own, and stand in it."""

    def write(code: str = WORK, name: str = "small", header: str = HEADER) -> Path:
        path = tmp_path / "book" / "experiments" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{header}\n## Work\n\n```{{code-cell}} ipython3\n{code}\n```\n", encoding="utf-8")
        (tmp_path / "_config.yml").touch()
        monkeypatch.chdir(tmp_path)
        return path

    return write
