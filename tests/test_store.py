import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from miue import store
from miue.errors import InputError
from miue.files import atomic, cache_dir


def test_a_file_is_complete_or_not_there(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    for failure in (ValueError, KeyboardInterrupt):
        with pytest.raises(failure), atomic(file) as part:
            part.write_text("half")
            raise failure
        assert list(file.parent.iterdir()) == []
    with atomic(file) as part:
        part.write_text("whole")
        assert not file.exists()
    assert file.read_text() == "whole" and len(list(file.parent.iterdir())) == 1


def test_a_failed_rewrite_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    store.write_json(file, {"value": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json(file, {"value": float("nan")})
    assert store.read_json(file) == {"value": 1}


def test_unreadable_records_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        store.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a":')
    with pytest.raises(InputError, match=r"half\.json is no JSON"):
        store.read_json(tmp_path / "half.json")


@dataclass
class Text:
    content: str

    def save(self, path):
        with atomic(path) as part:
            part.write_text(self.content)

    @classmethod
    def load(cls, path):
        return cls(Path(path).read_text())


def test_the_cache_makes_once_per_key():
    made = []

    def make():
        made.append(1)
        return Text(f"number {len(made)}")

    assert store.cached(Text, make, seed=0).content == "number 1"
    assert store.cached(Text, make, seed=0).content == "number 1"
    assert store.cached(Text, make, seed=1).content == "number 2"


def test_an_interrupted_step_leaves_a_usable_cache():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.cached(Text, interrupted, seed=0)
    assert not list((cache_dir()).rglob("*.safetensors"))
    assert store.cached(Text, lambda: Text("made"), seed=0).content == "made"


def a_package(folder, monkeypatch, **sources):
    """Make `code_hash` see modules with these sources instead of the package's."""
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(store, "PACKAGE", folder)
    store._source.cache_clear()
    store.code_hash.cache_clear()


@pytest.fixture(autouse=True)
def fresh_hashes():
    yield
    store._source.cache_clear()
    store.code_hash.cache_clear()


def test_code_hash_follows_imports_and_ignores_prose(tmp_path, monkeypatch):
    sources = {
        "losses": '"""Doc."""\nx = 1\n',
        "pgd": "from miue.losses import x\ny = x\n",
        "plots": "z = 3\n",
    }
    a_package(tmp_path, monkeypatch, **sources)
    first, whole = store.code_hash("miue.pgd"), store.code_hash("miue")
    a_package(tmp_path, monkeypatch, losses='"""Other doc."""\n# a remark\nx = 1\n')
    assert store.code_hash("miue.pgd") == first
    a_package(tmp_path, monkeypatch, plots="z = 4\n")
    assert store.code_hash("miue.pgd") == first and store.code_hash("miue") != whole
    a_package(tmp_path, monkeypatch, losses="x = 2\n")
    assert store.code_hash("miue.pgd") != first


def test_the_hash_of_a_method_covers_what_it_stands_on():
    covered = set()
    waiting = ["miue.poisons.mi_ue"]
    while waiting:
        name = waiting.pop()
        covered.add(name)
        waiting += store._source(name)[1] - covered
    assert {"miue.losses", "miue.pgd", "miue.train", "miue.models", "miue.images", "miue.augment"} <= covered
    assert not any(name.startswith(("miue.runs", "miue.plots", "miue.cli", "miue.poisons.em")) for name in covered)


def test_provenance_is_json_and_complete():
    found = json.loads(json.dumps(store.provenance()))
    assert {"miue", "commit", "code", "torch", "python", "device"} == found.keys()
    assert "threads" in found["device"] or found["device"].startswith("NVIDIA")


def test_the_core_needs_no_jupyter():
    """`miue` and its command line import with every Jupyter package hidden."""
    hidden = "jupyter_book jupytext papermill nbformat nbclient IPython ipykernel jupyter_client myst_nb sphinx bs4"
    hide = (
        f"hidden = set({hidden.split()})\n"
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in hidden:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import miue, miue.cli, miue.steps, miue.poisons, miue.mi, miue.theory, miue.plots\n"
        "sys.argv = ['miue', 'poison', '--help']\n"
        "miue.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--epsilon" in done.stdout
