"""Several processes that share a perturbation: who owns what, the same delta, one index, and a rank that is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest
import torch
from samples import some_images

from miue.errors import InputError
from miue.poisons import Poison, perturb, shards
from miue.ranks import ALONE, Ranks, joined
from miue.storage import checkpoint
from miue.storage.checkpoint import Checkpoint
from miue.storage.files import cache_dir

EM = {"preset": "quick", "surrogate": "lenet5", "epochs": 4, "steps": 5, "batch": 48, "batches_per_epoch": 1}
UNEVEN = {"preset": "quick", "surrogate": "small_resnet:width=0.25", "epochs": 2, "steps": 1, "batch": 12}
WORK = f"""
import sys
from pathlib import Path
import torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from samples import some_images
from miue import models
from miue.poisons import perturb, shards
from miue.ranks import joined
from miue.storage.files import cache_dir
from miue.training import loop, recipe

folder = Path(sys.argv[1])
with joined() as ranks:
    images = some_images()
    own = images.subset(ranks.own(images.ids, images.y))
    network = models.build("lenet5", 4, size=8, seed=ranks.number)  # of other weights, until they train together
    for _ in loop.epochs(network, own, recipe("quick", epochs=3, batch=24, flip=False, crop=0), ranks=ranks):
        pass
    torch.save(network.state_dict(), folder / f"weights-{{ranks.number}}.pt")
    made = perturb(images, "em", ranks=ranks, **{EM})
    shards.save(made, folder / "em.safetensors", images, ranks)

    uneven = some_images(n=39)
    first = perturb(uneven, "mi_ue", ranks=ranks, **{UNEVEN})
    assert perturb(uneven, "mi_ue", ranks=ranks, **{UNEVEN}).record == first.record  # the seconds, too
    ranks.gather(None)  # until both have put everything in its place
    if ranks.number == 1:
        for file in cache_dir().rglob("*.safetensors"):
            file.unlink()
    ranks.gather(None)
    again = perturb(uneven, "mi_ue", ranks=ranks, **{UNEVEN})
    assert again == first and again.record["seconds"] != first.record["seconds"]
"""


@dataclass(frozen=True)
class Thread(Ranks):
    """A rank that is a thread of this process."""

    barrier: Barrier = field(default_factory=lambda: Barrier(1))
    table: dict = field(default_factory=dict)

    def gather(self, told):
        self.barrier.wait()
        self.table[self.number] = told
        self.barrier.wait()
        return [self.table[number] for number in range(self.count)]


def threads(work, count=2):
    """What each of `count` ranks makes of `work`; an error in one of them breaks the others off."""
    barrier, table = Barrier(count), {}

    def run(number):
        try:
            return work(Thread(number, count, barrier, table))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        ended = [pool.submit(run, number) for number in range(count)]
    ended.sort(key=lambda one: isinstance(one.exception(), BrokenBarrierError))  # the cause before what it broke
    return [one.result() for one in ended]


def parts(images, poison, path, save=shards.save):
    """Write what each of two ranks owns of a perturbation."""

    def write(ranks):
        own = ranks.own(images.ids, images.y)
        part = replace(poison, delta=poison.delta[own], ids=images.ids[own], fingerprints=images.fingerprints[own])
        save(part, path, images, ranks)

    threads(write)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_image_is_owned_once_and_classes_are_shared_evenly(count):
    images = some_images(n=101)
    owned = [Ranks(number, count).own(images.ids, images.y) for number in range(count)]
    assert torch.cat(owned).sort().values.tolist() == list(range(101))
    of_class = torch.stack([images.y[own].bincount(minlength=4) for own in owned])
    assert (of_class.amax(0) - of_class.amin(0)).max() <= 1
    assert max(map(len, owned)) - min(map(len, owned)) <= 1
    shuffled = images.subset(torch.randperm(101, generator=torch.Generator().manual_seed(1)))
    for number, own in enumerate(owned):
        again = Ranks(number, count).own(shuffled.ids, shuffled.y)
        assert torch.equal(shuffled.ids[again], images.ids[own])


def test_alone_nothing_is_shared_and_nobody_is_waited_for(monkeypatch):
    with joined() as ranks:
        assert ranks is ALONE and ranks.gather(3) == [3] and ranks.share(129) == 129 and ranks.mean(0.1, 7) == 0.1
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    with joined() as ranks:
        assert ranks is ALONE


@pytest.mark.parametrize("method", ["lsp", "tap", "pue", "em:scope=class", "random"])
def test_what_cannot_be_shared_is_refused(images, method):
    with pytest.raises(
        InputError, match=r"^method: \w+, which 2 processes cannot share; .* of mi_ue, em, rem, sem, with"
    ):
        perturb(images, method, preset="quick", ranks=Ranks(0, 2))


@pytest.mark.parametrize(("batch", "count"), [(128, 3), (4, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(batch, count):
    wanted = rf"batch: {batch} with {count} processes; it must be a multiple of {count}, {2 * count} or more"
    with pytest.raises(InputError, match=wanted):
        Ranks(0, count).share(batch)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    given = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(InputError, match="torchrun: 4 processes on a machine with 2 GPUs; give --nproc-per-node 2"),
        joined(),
    ):
        pass


def test_other_images_on_another_machine_are_refused(images):
    def work(ranks):
        return perturb(images if ranks.number else some_images(seed=1), "em", ranks=ranks, cache=False)

    with pytest.raises(InputError, match="images: noise is not the same for all processes"):
        threads(work)


def test_shards_with_an_index_are_one_perturbation(images, tmp_path):
    whole, file = perturb(images, "random", cache=False), tmp_path / "new" / "delta.safetensors"
    parts(images, whole, file)
    names = ["delta-0-of-2.safetensors", "delta-1-of-2.safetensors", "delta.safetensors"]
    assert sorted(path.name for path in file.parent.iterdir()) == names
    read = Poison.read(file)
    assert read == whole and read.record["data"] == whole.record["data"] and list(read.record["shards"]) == names[:2]
    assert torch.equal(read.apply(images).x, whole.apply(images).x)
    own = Ranks(1, 2).own(images.ids, images.y)
    alone = Poison.read(file.with_name(names[1])).apply(images.subset(own))
    assert torch.equal(alone.x, whole.apply(images).x[own])


def test_a_shard_that_is_missing_or_foreign_is_one_line(images, tmp_path):
    file, shard = tmp_path / "delta.safetensors", tmp_path / "delta-1-of-2.safetensors"
    parts(images, perturb(images, "random", cache=False), file)
    mine = shard.read_bytes()
    parts(images, perturb(images, "random", seed=1, cache=False), tmp_path / "other.safetensors")
    for harm, told in [
        (lambda: shard.unlink(), r"its shard delta-1-of-2\.safetensors is missing"),
        (lambda: (tmp_path / "other-1-of-2.safetensors").replace(shard), r"delta-1-of-2\.safetensors is not the shard"),
        (lambda: shard.write_bytes(mine[:-1] + b"?"), r"delta-1-of-2\.safetensors is not as it was written"),
    ]:
        harm()
        with pytest.raises(InputError, match=rf"delta\.safetensors is damaged or no perturbation .*{told}") as error:
            Poison.read(file)
        assert "\n" not in str(error.value)
    shard.write_bytes(mine)
    Poison.read(file)


def test_a_rank_that_fails_leaves_nothing_and_what_was_there_before(images, tmp_path):
    file, before = tmp_path / "delta.safetensors", perturb(images, "random", cache=False)
    parts(images, before, file)
    there = sorted(tmp_path.iterdir())

    def save(part, path, images, ranks):
        if ranks.number == 1:
            raise OSError("the disk is full")
        shards.save(part, path, images, ranks)

    with pytest.raises(OSError, match="the disk is full"):
        parts(images, perturb(images, "random", seed=1, cache=False), file, save)
    assert sorted(tmp_path.iterdir()) == there and Poison.read(file) == before


def test_they_go_on_after_the_last_step_that_all_have_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST", 1e9)

    def work(ranks):
        def start():
            keep, value = Checkpoint(tmp_path / f"{ranks.number}", ranks=ranks), torch.zeros(1)
            keep.hold(value=value)
            return keep, value

        def walk(steps):
            for step in range(keep.restore() + 1, steps + 1):
                value.fill_(step)
                if step == steps and ranks.number:  # killed before it could save
                    ranks.gather(True)
                    break
                keep.save(step)

        keep, value = start()
        walk(4)
        for last in (4, 5):  # one of them is killed again before it can save the same step
            keep, value = start()
            walk(last)
        keep, value = start()
        return keep.restore(), value.item()

    assert threads(work) == [(4, 4.0), (4, 4.0)]


def launch(folder):
    """Two processes as torchrun starts them, without the third that watches over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    started = []
    for rank in ("0", "1"):
        told = shared | {"MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        environment = os.environ | {name: str(value) for name, value in told.items()}
        command = [sys.executable, "-c", WORK, str(folder)]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=300)[1] for process in started]  # of both: one that fails takes the other down
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)


@pytest.mark.slow
def test_two_ranks_make_the_delta_of_one(images, tmp_path):
    """On the same weights and batches: no batch norm, and all images in each batch, half of them on each rank.

    Gradients are then the same but for the order in which sums are rounded, which flips the sign of few that are next
    to zero: whole levels are equal for more than 99.9 % of the pixels.
    """
    launch(tmp_path)
    one, other = (torch.load(tmp_path / f"weights-{number}.pt") for number in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)

    alone, shared = perturb(images, "em", cache=False, **EM), Poison.load(tmp_path / "em.safetensors")
    assert (shared.ids.equal(alone.ids), shared.fingerprints.equal(alone.fingerprints)) == (True, True)
    assert (shared.delta == alone.delta).float().mean() > 0.999
    assert alone.delta.unique().numel() > 8  # it has moved
    accuracies = [
        [row["accuracy_on_perturbed"] for row in Poison.load(file).record["notes"]["rounds"]]
        for file in (tmp_path / "em-0-of-2.safetensors", tmp_path / "em-1-of-2.safetensors")
    ]
    wanted = [row["accuracy_on_perturbed"] for row in alone.record["notes"]["rounds"]]
    assert accuracies[0] == accuracies[1] and accuracies[0] == pytest.approx(wanted, abs=1 / 48)
    assert shared.record["options"] == alone.record["options"] and shared.record["processes"] == 2


def torchrun(*words, **how):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "miue"]
    return subprocess.Popen([*command, *map(str, words)], stdout=-1, stderr=-1, text=True, **how)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_which_goes_on_from_the_last_epoch(miue, image_folder, tmp_path, monkeypatch):
    file = tmp_path / "out" / "delta.safetensors"
    data = ["--data", f"folder:{image_folder}", "--size", 16]
    thin = ["--surrogate", "small_resnet:width=0.25"]
    words = ["poison", *data, *thin, "--preset", "quick", "--set", "epochs=20", "--out", file]
    process = torchrun(*words)
    while len(list(cache_dir().glob("poison/*.parts/main.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(children(process)[1], signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1 and not file.exists() and "Signal 9 (SIGKILL)" in told

    process = torchrun(*words)
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert told.count("main: going on after step") == 1 and out.count("12 images, made in") == 1
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "delta-0-of-2.safetensors",
        "delta-1-of-2.safetensors",
        "delta.safetensors",
    ]
    assert not list(cache_dir().rglob("*.part*"))

    monkeypatch.setenv("MIUE_CACHE", str(tmp_path / "undisturbed"))
    process = torchrun(*words[:-1], tmp_path / "whole.safetensors")
    assert process.wait(300) == 0
    assert Poison.load(tmp_path / "whole.safetensors") == Poison.load(file)

    code, out, _ = miue("train", *data, "--poison", file, "--set", "epochs=1")
    assert code == 0 and "perturbation: mi_ue, up to 8 of 255 grey levels" in out


@pytest.mark.slow
def test_a_refusal_under_torchrun_is_one_line_of_each(tmp_path):
    process = torchrun("poison", "--data", "digits_m", "--n-train", 100, "--method", "lsp", "--out", tmp_path / "d")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1 and "miue: method: lsp, which 2 processes cannot share; run it without" in told
    assert told.count("miue: method: lsp") <= 2 and list(tmp_path.glob("d*")) == []
