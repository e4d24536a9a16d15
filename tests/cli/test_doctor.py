"""What `miue doctor` finds, and what it says to do."""

import hashlib
import json
import os
import shutil
import socket
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision import datasets

from miue.cli import doctor, holdings, machine
from miue.cli.machine import NOTE, OK, PROBLEM, Finding
from miue.data import archives
from miue.data.loading import DATASETS
from miue.storage.files import cache_dir


def of(part):
    return {found.about: found for found in part()}


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "sets"
    folder.mkdir()
    monkeypatch.setenv("MIUE_DATA", str(folder))
    return folder


def test_everything_is_looked_at_and_nothing_is_fetched(miue, root, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *where, **how: pytest.fail(f"asked {where}"))
    code, out, _ = miue("doctor", "--json")
    told = json.loads(out)
    found = {one["about"]: one for one in told["findings"]}
    wanted = "miue python jupyter-book papermill parsl torch bfloat16 threads variables memory data cache disk commit"
    assert {*wanted.split(), *(name for name in DATASETS if ":" not in name)} <= found.keys()
    assert found["torch"]["facts"]["version"] == torch.__version__ and found["commit"]["facts"]["code"]
    assert code == (told["problems"] > 0) and told["problems"] == sum(f["mark"] == PROBLEM for f in told["findings"])
    assert all(one["advice"] for one in told["findings"] if one["mark"] != OK)
    assert list(root.iterdir()) == [] and not cache_dir().exists()


@pytest.mark.parametrize(
    ("mark", "advice", "code"), [(OK, "", 0), (NOTE, "make it anew", 0), (PROBLEM, "make it anew", 1)]
)
def test_only_a_problem_is_an_exit_code(miue, monkeypatch, mark, advice, code):
    monkeypatch.setattr(doctor, "PARTS", (lambda: iter([Finding("tea", "cold", advice, mark=mark)]),))
    found, out, _ = miue("doctor")
    assert found == code and f"{mark:8} tea  cold{advice and '; '}{advice}\n" in out


def test_what_does_not_load_is_a_problem_and_not_a_traceback(monkeypatch):
    def gpu():
        yield Finding("torch", "there")
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "PARTS", (gpu, lambda: iter([Finding("tea", "hot")])))
    assert [(one.about, one.mark) for one in doctor.look()] == [("torch", OK), ("gpu", PROBLEM), ("tea", OK)]


def test_a_folder_of_data_that_is_not_there(root):
    root.rmdir()
    found = of(holdings.data)
    assert found["data"].mark == PROBLEM and found["digits_m"].mark == OK and found["svhn"].mark == NOTE


def test_downloads_are_held_against_their_checksums(root, monkeypatch):
    listed = [[name, hashlib.md5(name.encode()).hexdigest()] for name in ("train", "test", "meta")]
    for name, value in (("train_list", listed[:1]), ("test_list", listed[1:2])):
        monkeypatch.setattr(datasets.CIFAR100, name, value)
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": "meta", "md5": listed[2][1]})
    (root / "cifar-100-python.tar.gz").touch()
    assert "not unpacked" in of(holdings.data)["cifar100"].found
    (root / "cifar-100-python").mkdir()
    for name in ("train", "test", "meta"):
        (root / "cifar-100-python" / name).write_text(name)
    found = of(holdings.data)
    assert found["cifar100"].mark == OK and not any(about.startswith("folder:") for about in found)
    (root / "cifar-100-python" / "test").write_text("damage")
    (root / "cifar-100-python" / "meta").unlink()
    found = of(holdings.data)["cifar100"]
    assert found.mark == PROBLEM
    assert found.found == "cifar-100-python/meta is missing, cifar-100-python/test is damaged"


def test_the_jpeg_copy_is_found_packed_unpacked_and_as_a_folder(root, tmp_path):
    place = tmp_path / "made" / "train" / "airplane"
    place.mkdir(parents=True)
    (place / "1.jpg").touch()
    with tarfile.open(root / "cifar10-jpeg.tar", "w") as tar:
        tar.add(tmp_path / "made", "cifar10")
    assert "not unpacked" in of(holdings.data)["cifar10"].found
    archives.unpacked(root / "cifar10-jpeg.tar")
    assert "unpacked in the cache" in of(holdings.data)["cifar10"].found
    shutil.copytree(tmp_path / "made", root / "cifar10")
    found = of(holdings.data)
    assert found["cifar10"].found == f"JPEG copy, the folder {root / 'cifar10'}"
    assert not any(about.startswith("folder:") for about in found)


def test_folders_and_archives_of_images_are_listed_with_the_room_they_need(root, image_folder, monkeypatch):
    shutil.copytree(image_folder, root / "pets")
    (root / "notes").mkdir()
    (root / "README.md").touch()
    with tarfile.open(root / "more.tar", "w") as tar:
        tar.add(image_folder, "pets")
    found = of(holdings.data)
    assert found["folder:pets"].facts["images"] == 18 and found["folder:pets"].facts["classes"] == 2
    assert "18 images; decoded at 224 px they take 2.7 MB" in found["folder:pets"].found
    assert "not unpacked" in found["folder:more.tar"].found and "no data set" in found["folder:notes"].found
    assert "folder:README.md" not in found
    monkeypatch.setattr(holdings, "_disk", lambda: SimpleNamespace(free=10**6, total=10**9))
    assert of(holdings.data)["folder:pets"].mark == NOTE


def test_what_may_go_from_the_cache_is_said_with_its_command():
    for place in (
        f"victim/{7:032x}.damaged",
        f"poison/{8:032x}.safetensors",
        f"victim/{9:032x}.parts/main.safetensors",
    ):
        (cache_dir() / place).parent.mkdir(parents=True, exist_ok=True)
        (cache_dir() / place).touch()
    found = of(holdings.cache)
    assert found["perturbations"].mark == OK and found["perturbations"].advice == ""
    for kind in ("damaged", "checkpoints"):
        assert found[kind].mark == NOTE and f"miue cache clear --kind {kind}" in found[kind].advice


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("MIUE_CACHE", str(tmp_path / "taken"))
    found = of(holdings.cache)["cache"]
    assert found.mark == PROBLEM and "taken" in found.found and "MIUE_CACHE" in found.advice


@pytest.mark.parametrize(("free", "mark"), [(5e8, PROBLEM), (5e9, NOTE), (5e10, OK)])
def test_a_disk_that_is_nearly_full(monkeypatch, free, mark):
    monkeypatch.setattr(holdings, "_disk", lambda: SimpleNamespace(free=int(free), total=10**12))
    assert of(holdings.disk)["disk"].mark == mark


@pytest.mark.parametrize(("taken", "usable", "mark"), [(8, 8, OK), (8, 4, NOTE), (2, 4, NOTE), (1, 8, OK)])
def test_threads_are_held_against_cores(monkeypatch, taken, usable, mark):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(usable)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: taken)
    found = of(machine.threads)["threads"]
    assert found.mark == mark and found.facts == {"cores": 8, "usable": usable, "torch": taken}
    assert (f"OMP_NUM_THREADS={usable}" in found.advice) == (taken > usable)


def test_a_variable_that_is_no_switch_is_a_problem(monkeypatch):
    monkeypatch.setenv("MIUE_ANY_THREADS", "yes")
    found = of(machine.threads)["variables"]
    assert found.mark == PROBLEM and "MIUE_ANY_THREADS: 'yes' does not exist" in found.advice


@pytest.mark.parametrize(
    ("driver", "hidden", "mark", "advice"),
    [(None, None, NOTE, "quick or laptop"), ("580.1", "", NOTE, "unset it"), ("580.1", None, PROBLEM, "driver 580.1")],
)
def test_why_there_is_no_gpu(monkeypatch, driver, hidden, mark, advice):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(machine, "_driver", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    found = of(machine.device)["GPU"]
    assert found.mark == mark and advice in found.advice


def test_a_gpu_is_told_with_its_memory_and_driver(monkeypatch):
    about = SimpleNamespace(name="NVIDIA H100", total_memory=85 * 10**9)
    for name, value in (("is_available", True), ("device_count", 1), ("is_bf16_supported", True)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: about)
    monkeypatch.setattr(machine, "_driver", lambda: "580.1")
    found = of(machine.device)
    assert found["GPU 0"].found == "NVIDIA H100, 85.0 GB, driver 580.1" and "GPU" not in found
    assert found["bfloat16"].facts == {"native": True}


def test_the_driver_is_read_where_linux_tells_it(monkeypatch):
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version: 12.3"
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/proc/driver/nvidia/version")
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert machine._driver() == "535.129.03"
    monkeypatch.setattr(
        Path, "read_text", lambda path: text.replace("x86_64 Kernel", "Open Kernel").replace("  5", " for x86_64  5")
    )
    assert machine._driver() == "535.129.03"


@pytest.mark.parametrize(
    ("there", "about", "mark"),
    [
        ({"jupyter-book": "2.0"}, "jupyter-book", PROBLEM),
        ({"parsl": None}, "parsl", NOTE),
        ({"kornia": None}, "miue", PROBLEM),
    ],
)
def test_packages_that_are_missing_or_of_another_kind(monkeypatch, there, about, mark):
    monkeypatch.setattr(machine, "_needs", lambda: ["torch", "kornia"])
    monkeypatch.setattr(machine, "_version", lambda name: there.get(name, "1.0"))
    found = of(machine.versions)
    assert {one.about: one.mark for one in found.values() if one.mark != OK} == {about: mark}


def test_what_the_package_needs_is_read_in_its_metadata(monkeypatch):
    listed = ["torch>=2.6", "scikit-learn>=1.4", 'parsl>=2025.1; extra == "cluster"']
    monkeypatch.setattr(machine, "requires", lambda name: listed)
    assert machine._needs() == ["torch", "scikit-learn"]


@pytest.mark.parametrize(("commit", "mark"), [("abc", OK), ("abc+", NOTE), (None, OK)])
def test_a_changed_checkout_is_noted(monkeypatch, commit, mark):
    monkeypatch.setattr("miue.storage.provenance.collect", lambda: {"commit": commit, "code": "d"})
    assert of(machine.checkout)["commit"].mark == mark
