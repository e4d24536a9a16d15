"""The local engine: slots, retries, and processes that stop with the sweep."""

import json
import os
import time

import pytest

from miue.errors import InputError
from miue.sweeps import local
from miue.sweeps.order import Order


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


def errors(news):
    return {report.number: report.error for report in news if report}


def test_each_run_has_the_environment_of_a_slot_and_no_more_run_than_there_are_slots(orders, tmp_path, monkeypatch):
    monkeypatch.setenv("MIUE_PROGRESS", "/elsewhere")
    slots = [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("GPU-a", "GPU-b")]
    asked, busiest = orders(*["good"] * 5), 0
    for _ in (news := local.work(asked, slots)):
        busiest = max(busiest, len(news.gi_frame.f_locals["busy"]))
    assert busiest == 2
    seen = [json.loads((tmp_path / f"run-good-{n}" / "metrics.json").read_text())["environment"] for n in range(1, 6)]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in seen} == {"GPU-a", "GPU-b"}
    assert {(one["OMP_NUM_THREADS"], one["MIUE_CACHE"], one["MIUE_PROGRESS"]) for one in seen} == {
        ("1", "/cache", None)
    }


def test_a_process_that_is_killed_is_started_again(orders, tmp_path):
    asked = orders("dies once", "fails", "good")
    assert errors(local.work(asked, [{}, {}], retries=1)) == {1: None, 2: "five is no good", 3: None}
    assert len((tmp_path / "tries-dies once-1").read_text().split()) == 2
    assert len((tmp_path / "tries-fails-2").read_text().split()) == 1  # it failed by itself, and would again


def test_a_process_that_is_killed_too_often_is_lost(orders, tmp_path):
    found = errors(local.work(orders("dies", "good"), [{}], retries=2))
    assert found == {1: "its process was killed by SIGKILL", 2: None}
    assert len((tmp_path / "tries-dies-1").read_text().split()) == 3


def test_what_runs_is_let_go_when_the_sweep_stops(orders, tmp_path):
    news = local.work(orders("waits", "waits", "good"), [{}, {}])
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
    monkeypatch.setattr(local, "gpus", lambda: [])
    monkeypatch.setattr(local, "cores", lambda: 18)
    monkeypatch.setattr(local, "threads", lambda n: {"OMP_NUM_THREADS": str(18 // n)})
    assert local.slots() == [{"OMP_NUM_THREADS": "4"}] * 4
    monkeypatch.setattr(local, "cores", lambda: 2)
    assert len(local.slots()) == 1
    monkeypatch.setattr(local, "gpus", lambda: ["3", "5"])
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local.slots()] == ["3", "5"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local.slots(3)] == ["3", "5", "3"]
    with pytest.raises(InputError, match="slots: 0; it must be 1 or above"):
        local.slots(0)


def test_a_number_of_threads_that_the_user_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert local.slots(2)[0]["OMP_NUM_THREADS"] == "7"
