"""The Parsl engine: configurations are checked, and what is killed in the middle is made again."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from miue import runs, sweeps
from miue.errors import InputError
from miue.sweeps import cluster

pytest.importorskip("parsl")

HERE = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers import LocalProvider

executor = HighThroughputExecutor(
    address="127.0.0.1", max_workers_per_node=2, cores_per_worker=0.5, heartbeat_period=1, heartbeat_threshold=10,
    block_error_handler=windowed_error_handler, provider=LocalProvider(),
)
config = Config(executors=[executor], strategy_period=1, retries=3)
"""


@pytest.mark.parametrize("name", cluster.SHIPPED)
def test_each_shipped_configuration_can_lose_workers_and_asks_nobody_on_the_internet(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    config = cluster.load(name)
    (executor,) = config.executors
    assert config.retries >= 1 and not config.usage_tracking
    assert executor.address and executor.block_error_handler.__name__ == "windowed_error_handler"
    assert executor.cpu_affinity == "block"
    assert cluster.load(name) is not config  # one serves once


@pytest.mark.parametrize(("seen", "count", "used"), [("", 4, ["0", "1", "2", "3"]), ("2,3", 2, ["2", "3"])])
def test_a_gpu_box_has_one_worker_for_each_gpu_that_is_ours(monkeypatch, seen, count, used):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    (executor,) = cluster.load("gpu_box").executors
    assert executor.available_accelerators == used and executor.workers_per_node == count


def test_a_gpu_box_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match=r"gpu_box\.py: no GPU can be used here; take the configuration `local`"):
        cluster.load("gpu_box")


def test_slurm_asks_for_what_its_first_lines_say(tmp_path):
    text = (Path(cluster.clusters.__path__[0]) / "slurm.py").read_text()
    copy = tmp_path / "ours.py"
    copy.write_text(
        text.replace("PARTITION = None", 'PARTITION = "gpu"').replace("GPUS_PER_NODE = 4", "GPUS_PER_NODE = 2")
    )
    (executor,) = cluster.load(str(copy)).executors
    assert executor.workers_per_node == 2 and executor.available_accelerators == ["0", "1"]
    options = executor.provider.scheduler_options
    assert "--partition=gpu" in options and "--gpus-per-node=2" in options and "--account" not in options
    assert executor.provider.walltime == "12:00:00" and "activate" in executor.provider.worker_init


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"config: '.*own\.py' is no file, nor one of local, gpu_box, slurm"),
        ("config = 3", "defines no `config` that is a parsl.config.Config"),
        ("settings = 3", "defines no `config` that is a parsl.config.Config"),
        ("import nothing_like_that", "fails with ModuleNotFoundError"),
        ("1 +", "fails with SyntaxError"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(tmp_path, text, message):
    own = tmp_path / "own.py"
    if text is not None:
        own.write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        cluster.load(str(own))
    assert "\n" not in str(refusal.value)


def test_a_folder_that_a_shell_would_split_is_refused(sweep, stand_in):
    with pytest.raises(InputError, match="with Parsl its path must be made of letters"):
        sweeps.run(sweeps.read(sweep("template: small\n")), engine="parsl", config="local", out="my runs")


WORK = """import json, os, time
first = not os.path.exists("../tried")
open("../tried", "a").write("x")
if first:
    open("../pid", "w").write(str(os.getppid()))
    time.sleep(600)
json.dump({"n": n}, open("metrics.json", "w"))
"""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_above(pid_file: Path, generations: int) -> None:
    """Wait, in the background, for a process to leave its number, and kill the one so many generations above it."""

    def watch() -> None:
        end = time.monotonic() + 600
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
        pid = int(pid_file.read_text())
        for _ in range(generations):
            pid = parent_of(pid)
        os.kill(pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks up the parents of a process")
@pytest.mark.parametrize("generations", [1, 2], ids=["worker", "manager"])
def test_what_is_killed_in_the_middle_of_a_run_loses_nothing(sweep, tmp_path, generations):
    """A real run in a real kernel; its process is started by a Parsl worker, and that by a manager of workers."""
    spec = sweeps.read(sweep("template: small\ngrid: {n: [4]}\n", WORK))
    (tmp_path / "own.py").write_text(HERE)
    kill_above(tmp_path / "runs" / "pid", generations)
    outcome = sweeps.run(spec, engine="parsl", config=str(tmp_path / "own.py"))
    assert [run["state"] for run in outcome.runs] == ["done"]
    assert (tmp_path / "runs" / "tried").read_text() == "xx"  # started twice, for it was killed once
    assert runs.load(tmp_path / "runs" / outcome.runs[0]["folder"]).metrics == {"n": 4}
    assert (outcome.folder / "parsl").is_dir() and not (tmp_path / "runinfo").exists()
