import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from miue import poisons
from miue.defenses import Avatar
from miue.errors import InputError
from miue.storage import cache, code, files, provenance, tensors
from miue.storage.files import atomic, cache_dir


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
    files.write_json(file, {"value": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(file, {"value": float("nan")})
    assert files.read_json(file) == {"value": 1}


def test_unreadable_records_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a":')
    with pytest.raises(InputError, match=r"half\.json is no JSON"):
        files.read_json(tmp_path / "half.json")


@dataclass
class Text:
    content: str

    def save(self, path):
        tensors.save(path, {}, {"content": self.content})

    @classmethod
    def load(cls, path):
        return cls(tensors.load(path)[1]["content"])


def test_the_cache_makes_once_per_key():
    made = []

    def make(keep):
        made.append(1)
        return Text(f"number {len(made)}")

    assert cache.find(Text, seed=0) is None
    assert cache.cached(Text, make, "a text", seed=0).content == "number 1"
    assert cache.cached(Text, make, "a text", seed=0).content == "number 1"
    assert cache.find(Text, seed=0).content == "number 1"
    assert cache.cached(Text, make, "a text", seed=1).content == "number 2"


def test_an_interrupted_step_leaves_its_checkpoint_and_a_usable_cache():
    def begin(keep):
        keep.save(3)
        raise KeyboardInterrupt

    def go_on(keep):
        return Text(f"after {keep.restore()}")

    with pytest.raises(KeyboardInterrupt):
        cache.cached(Text, begin, "a text", seed=0)
    assert not list((cache_dir() / "text").glob("*.safetensors"))
    assert cache.cached(Text, go_on, "a text", seed=0).content == "after 3"
    assert not list(cache_dir().rglob("*.parts"))


@pytest.mark.parametrize("harm", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + b"}", lambda b: b""])
def test_a_damaged_file_is_named_set_aside_and_made_anew(harm, capsys):
    cache.cached(Text, lambda keep: Text("first"), "a text", seed=0)
    (file,) = (cache_dir() / "text").glob("*.safetensors")
    file.write_bytes(harm(file.read_bytes()))
    assert cache.cached(Text, lambda keep: Text("second"), "a text", seed=0).content == "second"
    assert f"set aside as {file.stem}.damaged" in capsys.readouterr().err
    assert file.with_suffix(".damaged").exists()


def test_looking_for_a_damaged_file_leaves_it_alone():
    cache.cached(Text, lambda keep: Text("first"), "a text", seed=0)
    (file,) = (cache_dir() / "text").glob("*.safetensors")
    file.write_bytes(b"half")
    assert cache.find(Text, seed=0) is None and file.read_bytes() == b"half"


def test_what_a_killed_process_left_goes_when_the_result_is_made():
    cache.cached(Text, lambda keep: Text("first"), "a text", seed=0)
    (file,) = (cache_dir() / "text").glob("*.safetensors")
    file.unlink()
    left = file.with_name(f".{file.name}.abc.part")
    left.write_bytes(b"half")
    cache.cached(Text, lambda keep: Text("second"), "a text", seed=0)
    assert file.exists() and not left.exists()


def test_a_result_that_cannot_be_kept_is_not_lost(monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "save", full)
    assert cache.cached(Text, lambda keep: Text("made"), "a text", seed=0).content == "made"
    assert "a text: made, but not kept in the cache ([Errno 28] No space left on device)" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_refused_before_anything_is_made(monkeypatch):
    def made(keep):
        pytest.fail("it was made")

    monkeypatch.setenv("MIUE_CACHE", "/proc/none")  # where not even root can write
    with pytest.raises(InputError, match=r"cache: /proc/none/text cannot be written; set MIUE_CACHE"):
        cache.cached(Text, made, "a text", seed=0)


TWO = """
import sys, time
sys.path.insert(0, {tests!r})

from miue.storage import cache
from test_store import Text

def make(keep):
    open({log!r}, "a").write("made\\n")
    time.sleep(1.5)
    return Text("one")

print(cache.cached(Text, make, "a text", seed=0).content)
"""


@pytest.mark.slow
def test_of_two_processes_one_makes_and_the_other_waits(tmp_path):
    code = TWO.format(tests=str(Path(__file__).parent), log=str(tmp_path / "log"))
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60) for process in both]
    assert [out for out, _ in told] == ["one\n", "one\n"], told
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.parametrize("threads", [None, 2])
def test_the_lock_of_a_result_is_held_whatever_other_threads_may_give(threads, monkeypatch):
    held, lock = [], cache.cache_locked
    monkeypatch.setattr(cache, "cache_locked", lambda path, what: (held.append(path.stem), lock(path, what))[1])
    for any_threads, extra in (("0", 0), ("1", int(threads is not None))):
        monkeypatch.setenv("MIUE_ANY_THREADS", any_threads)
        cache.cached(Text, lambda keep: Text("one"), "a text", threads=threads, seed=any_threads)
        own = cache._place(Text, threads, {"seed": any_threads}).stem
        assert held.pop() == own and len(held) == extra
        assert all(own.startswith(shared) for shared in held)


def a_package(folder, monkeypatch, **sources):
    """Make `code_hash` see modules with these sources instead of the package's."""
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(code, "PACKAGE", folder)
    code._source.cache_clear()
    code.code_hash.cache_clear()


@pytest.fixture(autouse=True)
def fresh_hashes():
    yield
    code._source.cache_clear()
    code.code_hash.cache_clear()


def test_code_hash_follows_imports_and_ignores_prose(tmp_path, monkeypatch):
    sources = {
        "losses": '"""Doc."""\nx = 1\n',
        "pgd": "from miue.losses import x\ny = x\n",
        "plots": "z = 3\n",
    }
    a_package(tmp_path, monkeypatch, **sources)
    first, whole = code.code_hash("miue.pgd"), code.code_hash("miue")
    a_package(tmp_path, monkeypatch, losses='"""Other doc."""\n# a remark\nx = 1\n')
    assert code.code_hash("miue.pgd") == first
    a_package(tmp_path, monkeypatch, plots="z = 4\n")
    assert code.code_hash("miue.pgd") == first and code.code_hash("miue") != whole
    a_package(tmp_path, monkeypatch, losses="x = 2\n")
    assert code.code_hash("miue.pgd") != first


def covered(module):
    """The modules that the digest of this one covers."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        found.add(name.removeprefix("miue."))
        imports = {one for one in code._source(name)[1] if not code.PLUMBING.match(one)}
        waiting += imports - {f"miue.{one}" for one in found}
    return found


def test_the_hash_of_a_method_covers_what_it_stands_on():
    found = covered("miue.poisons.methods.mi_ue")
    assert {"losses", "pgd", "training.loop", "models", "data.images", "training.augment"} <= found
    assert not any(name.startswith(("runs", "experiments.figures", "cli", "poisons.methods.em")) for name in found)


def test_what_trains_a_victim_is_all_that_its_hash_covers():
    networks = {
        "models",
        *(f"models.{name}" for name in ("plain", "vision", "network", "handed", "dealt", "wrapping")),
        "specs",
    }
    training = {"training.loop", "training.step", "training.recipes", "training.augment", "ranks", "replay"}
    assert covered("miue.training.loop") - {"seeds"} == training | networks | {"data.images", "data.rows", "precision"}


def test_code_from_elsewhere_has_no_hash_and_is_named():
    for module in ("__main__", "lab.train", "train", "miue.none"):
        with pytest.raises(ValueError, match=f"{module} is no module of this package"):
            code.code_hash(module)
    own, theirs = poisons.METHODS["em"], Text("no option")
    assert code.foreign_code(own.make, own.presets["quick"], Text, Avatar()) == ["test_store.Text"]
    assert code.foreign_code(theirs) == ["test_store.Text"]
    assert code.foreign_code(Avatar(torch.nn.Identity())) == ["torch.nn.modules.linear.Identity"]
    assert code.foreign_code(Avatar(torch.relu))


def test_only_a_checkout_of_this_project_has_a_commit(tmp_path, monkeypatch):
    def commit(package, project):
        folder = tmp_path / project
        (folder / package).mkdir(parents=True)
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
            subprocess.run(["git", *words], cwd=folder, check=True)
        monkeypatch.setattr(provenance, "PACKAGE", folder / package)
        return provenance._commit.__wrapped__()

    assert commit("lib/python3.11/site-packages/miue", "thesis") is None
    assert commit("src/miue", "other") is None
    assert len(commit("src/miue", "miue")) == 12


def test_provenance_is_json_and_complete():
    found = json.loads(json.dumps(provenance.collect()))
    assert {"miue", "commit", "code", "torch", "python", "device"} == found.keys()
    assert "threads" in found["device"] or found["device"].startswith("NVIDIA")


@pytest.mark.slow
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
        "import miue, miue.cli, miue.victim, miue.poisons, miue.mi, miue.mi.bounds, miue.experiments.figures\n"
        "sys.argv = ['miue', 'poison', '--help']\n"
        "miue.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--epsilon" in done.stdout
