"""kill -9, a folder that cannot be written, a disk that fills: what was done is not lost, and the end is the same."""

import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from miue.storage.files import cache_dir

WORK = """
import hashlib
import torch, miue
from miue.poisons import perturb
from miue.victim import train_victim

train, test = miue.load("digits_m", n_train=120, n_test=40)
print("begun", flush=True)
poison = perturb(train, "mi_ue", preset="quick", epochs=4, steps=2)
print(hashlib.sha256(poison.delta.numpy().tobytes()).hexdigest(), flush=True)
trained = train_victim(poison.apply(train), test, recipe="quick", epochs=4, seed=1)
weights = b"".join(w.numpy().tobytes() for w in trained.model.state_dict().values())
print(hashlib.sha256(weights).hexdigest(), trained.history, poison.record["notes"], flush=True)
"""


def start():
    command = [sys.executable, "-c", f"import torch; torch.set_num_threads(1)\n{WORK}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n", process.stderr.read()
    return process


def finish(process):
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return out, told


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """What an uninterrupted process prints, and how long it works."""
    with monkeypatch.context() as patch:
        patch.setenv("MIUE_CACHE", str(tmp_path / "undisturbed"))
        process, began = start(), time.monotonic()
        out, _ = finish(process)
    return out, time.monotonic() - began


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(whole):
    process = start()
    while not list(cache_dir().glob("*/*.parts/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out, told = finish(start())
    assert "going on after step" in told and out == whole[0]


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_the_same(whole):
    out, seconds = whole
    moments = random.Random(0)
    for _ in range(10):
        process = start()
        time.sleep(moments.uniform(0, seconds / 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    found, _ = finish(start())
    assert found == out
    left = [path.name for path in cache_dir().rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len([name for name in left if name.endswith(".safetensors")]) == 2, left


def full_disk():
    """No file of this process may grow beyond a few kB: as on a full disk, writing fails in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_and_leaves_nothing_partial(tmp_path):
    out = tmp_path / "delta.safetensors"
    command = ["poison", "--data", "digits_m", "--n-train", "100", "--method", "lsp", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "miue", *command], capture_output=True, text=True, preexec_fn=full_disk, check=False
    )
    assert done.returncode == 1
    assert re.search(r"perturbation lsp: made, but not kept in the cache \(.* written: file too large in ", done.stderr)
    assert re.search(r"miue: .* cannot be written: file too large in ", done.stderr) and "Traceback" not in done.stderr
    assert not out.exists() and not list(tmp_path.rglob("*.part"))
