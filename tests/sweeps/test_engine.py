"""The engine: configurations are checked, slots dealt out; what is killed is made again; what runs can be stopped."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from miue import runs, sweeps
from miue.errors import InputError
from miue.sweeps import engine
from miue.sweeps.order import Order

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


@pytest.mark.parametrize("name", ["gpu_box", "slurm"])
def test_each_shipped_configuration_can_lose_workers_and_asks_nobody_on_the_internet(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    config = engine.load(name).config
    (executor,) = config.executors
    assert config.retries >= 1 and not config.usage_tracking
    assert executor.address and executor.block_error_handler.__name__ == "windowed_error_handler"
    assert executor.cpu_affinity == "block"
    assert engine.load(name).config is not config  # one serves once


@pytest.mark.parametrize(("seen", "count", "used"), [("", 4, ["0", "1", "2", "3"]), ("2,3", 2, ["2", "3"])])
def test_a_gpu_box_has_one_worker_for_each_gpu_that_is_ours(monkeypatch, seen, count, used):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    (executor,) = engine.load("gpu_box").config.executors
    assert executor.available_accelerators == used and executor.workers_per_node == count


def test_a_gpu_box_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match=r"gpu_box\.py: no GPU can be used here; take the configuration `local`"):
        engine.load("gpu_box")


def test_slurm_asks_for_what_its_first_lines_say(tmp_path):
    text = (Path(engine.clusters.__path__[0]) / "slurm.py").read_text()
    copy = tmp_path / "ours.py"
    copy.write_text(
        text.replace("PARTITION = None", 'PARTITION = "gpu"').replace("GPUS_PER_NODE = 4", "GPUS_PER_NODE = 2")
    )
    (executor,) = engine.load(str(copy)).config.executors
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
        engine.load(str(own))
    assert "\n" not in str(refusal.value)


def test_a_folder_that_a_shell_would_split_is_refused(sweep, stand_in):
    spec = sweeps.read(sweep("template: small\n"))
    with pytest.raises(InputError, match="for workers of Parsl it must be made of letters"):
        sweeps.run(spec, config="slurm", out="my runs")
    assert not sweeps.run(spec, out="my runs").failed  # on this machine no shell is in between


@pytest.fixture
def orders(tmp_path, stand_in):
    """Write orders that do what the words say."""

    def write(*words):
        (tmp_path / "logs").mkdir(exist_ok=True)
        common = {"template": "small.md", "out": str(tmp_path), "timeout": 60.0, "limit": 60.0}
        return [
            Order(
                number=number,
                parameters={"do": word, "n": number, "seeds": [0]},
                log=str(tmp_path / "logs" / f"{number}.log"),
                environment={"MIUE_CACHE": "/cache"},
                **common,
            )
            for number, word in enumerate(words, 1)
        ]

    return write


def work(orders, slots, retries=0):
    """Carry out orders in slots of our own choice."""
    chosen = replace(engine.load("local", len(slots)), slots=slots)
    return engine.work(orders, chosen, Path(orders[0].out) / "parsl", retries)


def errors(news):
    return {report.number: report.error for report in news if report}


def test_each_run_has_the_environment_of_a_slot_and_no_more_run_than_there_are_slots(orders, tmp_path, monkeypatch):
    monkeypatch.setenv("MIUE_PROGRESS", "/elsewhere")
    slots = [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("GPU-a", "GPU-b")]
    started, alive = [], []

    def start(order, slot, real=engine.start):
        started.append(real(order, slot))
        if len(started) <= 2:  # the first waits for the second, however fast it is or busy the machine
            started[0].send_signal(signal.SIGSTOP if len(started) == 1 else signal.SIGCONT)
        alive.append(sum(process.poll() is None for process in started))
        return started[-1]

    monkeypatch.setattr(engine, "start", start)
    assert errors(work(orders(*["good"] * 5), slots)) == dict.fromkeys(range(1, 6))
    assert max(alive) == 2
    seen = [json.loads((tmp_path / f"run-good-{n}" / "metrics.json").read_text())["environment"] for n in range(1, 6)]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in seen} == {"GPU-a", "GPU-b"}
    assert {(one["OMP_NUM_THREADS"], one["MIUE_CACHE"], one["MIUE_PROGRESS"]) for one in seen} == {
        ("1", "/cache", None)
    }


def test_a_process_that_is_killed_is_started_again(orders, tmp_path):
    asked = orders("dies once", "fails", "good")
    assert errors(work(asked, [{}, {}], retries=1)) == {1: None, 2: "five is no good", 3: None}
    assert len((tmp_path / "tries-dies once-1").read_text().split()) == 2
    assert len((tmp_path / "tries-fails-2").read_text().split()) == 1  # it failed by itself, and would again


def test_a_process_that_is_killed_too_often_is_lost(orders, tmp_path):
    found = errors(work(orders("dies", "good"), [{}], retries=2))
    assert found == {1: "its process was killed by SIGKILL", 2: None}
    assert len((tmp_path / "tries-dies-1").read_text().split()) == 3


def test_runs_here_go_on_when_the_shell_that_started_the_sweep_is_gone(orders, monkeypatch):
    parents = iter(range(1000))
    monkeypatch.setattr(engine.os, "getppid", lambda: next(parents))
    assert errors(work(orders("good"), [{}])) == {1: None}


def test_what_runs_is_let_go_when_the_sweep_stops(orders, tmp_path):
    news = work(orders("waits", "waits", "good"), [{}, {}])
    end = time.monotonic() + 20
    while len(list(tmp_path.glob("tries-waits-*"))) < 2 and time.monotonic() < end:
        next(news)
    news.close()
    assert len(list(tmp_path.glob("let-go-*"))) == 2
    for file in tmp_path.glob("tries-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert not (tmp_path / "tries-good-3").exists()


def test_one_slot_for_each_gpu_else_for_four_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(engine, "gpus", lambda: [])
    monkeypatch.setattr(engine, "cores", lambda: 18)
    monkeypatch.setattr(engine, "threads", lambda n: {"OMP_NUM_THREADS": str(18 // n)})
    assert engine.slots() == [{"OMP_NUM_THREADS": "4"}] * 4
    monkeypatch.setattr(engine, "cores", lambda: 2)
    assert len(engine.slots()) == 1
    monkeypatch.setattr(engine, "gpus", lambda: ["3", "5"])
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in engine.slots()] == ["3", "5"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in engine.slots(3)] == ["3", "5", "3"]
    with pytest.raises(InputError, match="slots: 0; it must be 1 or above"):
        engine.slots(0)


def test_a_number_of_threads_that_the_user_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert engine.slots(2)[0]["OMP_NUM_THREADS"] == "7"


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
    outcome = sweeps.run(spec, config=str(tmp_path / "own.py"))
    assert [run["state"] for run in outcome.runs] == ["done"]
    assert (tmp_path / "runs" / "tried").read_text() == "xx"  # started twice, for it was killed once
    assert runs.load(tmp_path / "runs" / outcome.runs[0]["folder"]).metrics == {"n": 4}
    assert (outcome.folder / "parsl").is_dir() and not (tmp_path / "runinfo").exists()
