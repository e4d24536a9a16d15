"""Images and perturbations larger than memory: in files, read batch by batch, never whole."""

import os
import resource
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import some_images
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from miue import Images
from miue.data import images
from miue.poisons import METHODS, Poison, perturb
from miue.poisons.base import blank, whole
from miue.poisons.foreign import read
from miue.specs import parse
from miue.storage import memory, tensors
from miue.storage.files import cache_dir
from miue.training import Recipe, accuracy
from miue.victim import train_victim

MB = 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


def shrink_memory(monkeypatch, size):
    """Everything above `size` bytes counts as too large for memory, and is gone through in pieces of that."""
    for module, name in ((memory, "RESIDENT_BYTES"), (images, "CHUNK_BYTES"), (tensors, "CHUNK")):
        monkeypatch.setattr(module, name, size)


@pytest.fixture
def little_memory(monkeypatch):
    shrink_memory(monkeypatch, 50_000)


def in_the_cache_folder():
    """Lines on files of the cache folder that this process has mapped and that have no name."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in maps if str(cache_dir()) in line and line.endswith("(deleted)")]


@linux
def test_zeros_that_do_not_fit_lie_in_a_file_that_goes_with_them(little_memory):
    small = memory.zeros((5, 10_000), torch.int8, "cpu")
    assert not in_the_cache_folder()
    large = memory.zeros((6, 10_000), torch.int16, "cpu")
    assert in_the_cache_folder() and not list(cache_dir().iterdir())
    assert large.shape == (6, 10_000) and large.dtype == torch.int16 and not large.any() and not small.any()
    large[3] -= 7
    assert large.sum() == -70_000
    del large
    assert not in_the_cache_folder()


@linux
def test_a_disk_without_room_is_an_error_and_no_sudden_death(little_memory):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            memory.zeros((200_000,), torch.int8, "cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@linux
def test_a_delta_in_a_file_is_rounded_in_its_place(little_memory):
    images = some_images(n=700, size=8)
    delta = blank(images, torch.float16)
    delta += torch.randn(delta.shape, generator=torch.Generator().manual_seed(0))
    expected, place = delta.round().to(torch.int8), delta.data_ptr()
    rounded = whole(images, delta)
    assert torch.equal(rounded, expected) and rounded.dtype == torch.int8
    assert rounded.data_ptr() == place and len(in_the_cache_folder()) == 1


def installed():
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_set_may_take_a_quarter_of_a_device(monkeypatch):
    monkeypatch.setattr(memory, "RESIDENT_BYTES", 2**60)
    quarter = installed() // 4
    assert memory.fits(quarter, "cpu") and not memory.fits(quarter + 1, "cpu")


@linux
def test_a_file_larger_than_memory_is_mapped_and_stays_as_it_is(tmp_path):
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this system promises no memory that it does not have")
    file = tmp_path / "large"
    count = 3 * installed()
    with file.open("wb") as out:
        out.write(b"0123456789")
        out.truncate(count)  # a hole: it takes no room on the disk
    whole = memory.mapped(file, (count - 4,), torch.uint8, offset=4)
    assert bytes(whole[:6].tolist()) == b"456789" and whole[-1] == 0
    whole[0] = 7
    with file.open("rb") as again:
        assert again.read(10) == b"0123456789"
    with pytest.raises(ValueError):
        memory.mapped(file, (count,), torch.uint8, offset=4)


def storage_of(value):
    """Where a tensor keeps its numbers; None for what keeps none."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage()
    return value if isinstance(value, torch.UntypedStorage) else None


class Whole(TorchDispatchMode):
    """Notes every operation that makes a new tensor as large as all images."""

    def __init__(self, shape):
        super().__init__()
        self.shapes, self.found = (tuple(shape), (shape[0], shape.numel() // shape[0])), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {storage.data_ptr() for storage in map(storage_of, tree_leaves((args, kwargs))) if storage is not None}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            large = isinstance(tensor, torch.Tensor) and tuple(tensor.shape) in self.shapes
            if large and storage_of(tensor).data_ptr() not in given:
                self.found.append(f"{function} {tuple(tensor.shape)}")
        return result


TINY = {
    "mi_ue": {"epochs": 1, "steps": 1, "batch": 256},
    "em": {"epochs": 1, "steps": 1, "batches_per_epoch": 2},
    "rem": {"epochs": 1, "batch": 256, "pass_batch": 256},
    "sem": {"epochs": 1, "batch": 256, "pass_batch": 256, "steps": 1},
    "tap": {"epochs": 1, "steps": 1, "batch": 256, "restarts": 2},
    "aue": {"epochs": 1, "steps": 1, "batch": 256},
    "aap": {"epochs": 1, "steps": 1, "batch": 256, "step": 1 / 255},
    "entf": {"epochs": 1, "steps": 1, "batch": 256},
    "llock": {"epochs": 1, "steps": 1, "batch": 256, "batches_per_epoch": 2},
    "tue": {"rounds": 1, "batch": 256},
    "gue": {"epochs": 1, "width": 2, "inner_steps": 1, "batch": 256},
    "pue": {"epochs": 1, "draws": 1, "batches_per_epoch": 2},
    "uc": {"pretext": "untrained", "clusters": 3, "epochs_of_generator": 1, "width": 4, "batch_of_generator": 128},
    "pil": {"epochs": 1, "steps": 1, "batch": 256},
    "dune": {"epochs": 1, "steps": 1, "batch": 256, "members": 2, "particles": 2, "moves": 1},
}
"""What makes a method quick on 1,030 images: more than any of them looks at in one go."""


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*METHODS, "random:kind=sign", "em:scope=class"])
def test_no_method_holds_all_images_in_memory(spec, little_memory):
    method, _ = parse(spec)
    clean = some_images(n=1030)
    with Whole(clean.x.shape) as seen:
        poison = perturb(
            clean, spec, preset="quick", device="cpu", surrogate="lenet5", **TINY.get(method, {}), cache=False
        )
    assert not seen.found
    assert int(poison.delta.abs().max()) >= 1


def test_what_is_too_large_is_bit_for_bit_what_is_small(monkeypatch, tmp_path):
    clean = some_images(n=300)
    settings = {"preset": "quick", "device": "cpu", "surrogate": "lenet5"}
    specs = {
        "random": {},
        "random:kind=sign": {},
        "lsp": {},
        "gratings": {},
        "weave": {},
        "cuda": {},
        "tap": {"epochs": 1, "steps": 1, "restarts": 2},
    }
    whole = {spec: perturb(clean, spec, **settings, **options, cache=False) for spec, options in specs.items()}
    shrink_memory(monkeypatch, 5_000)
    for spec, options in specs.items():
        assert torch.equal(perturb(clean, spec, **settings, **options, cache=False).delta, whole[spec].delta), spec
    assert images.Images(clean.x, clean.y, clean.classes).content_hash == clean.content_hash


def test_files_parts_and_orders_are_read_piece_by_piece(little_memory, tmp_path):
    clean = some_images(n=1030)
    order = torch.randperm(1030, generator=torch.Generator().manual_seed(1))
    made = perturb(clean, "random", kind="sign", cache=False)
    shown = made.apply(clean).x
    torch.save(shown, tmp_path / "shown.pt")
    np.save(tmp_path / "noise.npy", made.delta.permute(0, 2, 3, 1).float().numpy() / 255)
    with Whole(clean.x.shape) as seen:
        made.save(tmp_path / "own")
        poison = Poison.load(tmp_path / "own")
        half = poison.part(clean, ratio=0.5)
        views = [poison.apply(clean.subset(order)), half.apply(clean.subset(order))]
        first = [view.batch(torch.arange(100))[0] for view in views]
        hashed = [view.content_hash for view in views]
        of_levels = read(tmp_path / "noise.npy", clean, labels=clean.y, epsilon="8/255")
        of_images = read(tmp_path / "shown.pt", clean, kind="images", epsilon="8/255")
    assert not seen.found
    assert torch.equal(first[0], shown[order[:100]]) and len(set(hashed)) == 2
    moved = (first[1] != clean.x[order[:100]]).flatten(1).any(1)
    assert torch.equal(first[1][moved], shown[order[:100]][moved]) and 20 < int(moved.sum()) < 80
    assert torch.equal(of_levels.apply(clean).x, shown) and torch.equal(of_images.apply(clean).x, shown)


@contextmanager
def anonymous_memory():
    """Yield a list that afterwards holds by how many bytes the memory of this process that no file backs had grown."""

    def now():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    before, peak, over = now(), [0], threading.Event()

    def watch():
        while not over.wait(0.002):
            peak[0] = max(peak[0], now() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


@linux
def test_memory_stays_small_however_many_images_there_are(monkeypatch, tmp_path):
    """From pixels in a file to a victim: 32 MB of pixels and as much of delta, in less than a quarter of that."""
    shrink_memory(monkeypatch, MB)

    def work(count):
        x = memory.zeros((count, 3, 64, 64), torch.uint8, "cpu")
        for number, rows in enumerate(torch.arange(count).split(64)):
            x[rows] = torch.randint(256, (len(rows), 1, 64, 64), dtype=torch.uint8) // 2 + number % 100
        clean = Images(x, torch.arange(count) % 4)
        perturb(clean, "random", cache=False).save(tmp_path / "own")
        shown = Poison.load(tmp_path / "own").apply(clean.subset(torch.randperm(count)))
        assert len(shown.content_hash) == 32
        some = shown.subset(torch.arange(32))
        recipe = Recipe(epochs=1, lr=0.01, schedule="constant", batch=16)
        network = train_victim(some, model="lenet5", recipe=recipe, cache=False).model
        assert 0 <= accuracy(network, some) <= 1

    work(300)  # so that modules and buffers are there
    with anonymous_memory() as grown:
        work(2600)
    assert grown[0] < 16 * MB
