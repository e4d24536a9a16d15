from pathlib import Path

import pytest
from samples import FRONT_MATTER

from miue.sweeps import order

TEMPLATE = (
    FRONT_MATTER
    + """# A small run

```{code-cell} ipython3
:tags: [parameters]

do: str = "good"  # what the run shall do
n: int = 3  # images
seeds: list[int] = [0]  # one victim each
records: str | None = None  # file of trials
```

```{code-cell} ipython3
CODE
```
"""
)

STAND_IN = """
import json, os, pathlib, signal, sys, time
order = json.loads(sys.stdin.readline())
parameters, out = order["parameters"], pathlib.Path(order["out"])
do, word = parameters["do"], f"{parameters['do']}-{parameters['n']}"
print(f"at work on {word}", file=sys.stderr, flush=True)
tries = out / f"tries-{word}"
tries.parent.mkdir(exist_ok=True)
with open(tries, "a") as file:
    file.write(f"{os.getpid()}\\n")
if do == "dies" or (do == "dies once" and len(tries.read_text().split()) == 1):
    os.kill(os.getpid(), signal.SIGKILL)
if do == "waits":
    sys.stdin.read()  # until it is let go
    (out / f"let-go-{word}").touch()
    sys.exit(130)
report = {"number": order["number"], "error": "five is no good", "last": ["a line", "another"]}
if do != "fails":
    folder = out / f"run-{word}"
    folder.mkdir(exist_ok=True)
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "MIUE_CACHE", "MIUE_PROGRESS")
    trials = [{"method": "em", "seed": seed, "n": 7} for seed in parameters["seeds"]]
    metrics = {"scores": {"clean": 0.5}, "many": [1, 2], "trials": trials}
    metrics["environment"] = {name: os.environ.get(name) for name in names}
    status = {"state": "done", "parameters": parameters, "notebook": "x.ipynb", "notebook_sha256": ""}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "status.json").write_text(json.dumps(status))
    report = {"number": order["number"], "folder": str(folder), "metrics": metrics}
pathlib.Path(order["log"]).with_suffix(".json").write_text(json.dumps(report))
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Write a sweep of the template `small` into a repository of its own, and stand in it."""

    def write(text: str, code: str = "pass", name: str = "sweep.yaml") -> Path:
        path = tmp_path / "book" / "experiments" / "small.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEMPLATE.replace("CODE", code), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def stand_in(monkeypatch):
    """Runs take no time: a process does what the parameter `do` says, without a notebook."""
    monkeypatch.setattr(order, "WORKER", ("-c", STAND_IN))
