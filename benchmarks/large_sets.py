"""What large sets take: an epoch of a surrogate, a pgd pass of one step, the delta, for 5, 20 and 127 thousand images.

    python benchmarks/large_sets.py [COUNT ...]

Images are 3 x 224 x 224, a thousand of them, drawn from the photographs that scikit-learn ships and taken up again and
again, each time with a delta of its own; so nothing but the delta grows. The network is linear, for what is asked is
what the images cost, and not the network; what a ResNet-18 costs is measured beside it, on few. After an epoch over
many copies of these images it is sure of most of them, so that steps move few pixels; they take their time all the
same. Every count runs in a process of its own. Rows go to book/results/records/large-sets.jsonl. 127,000 images take
38 GB of disk, in the cache folder.
"""

import multiprocessing
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measured import Measured
from sklearn.datasets import load_sample_images

from miue import seeds
from miue.data.images import Images
from miue.models import build
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons.base import blank, whole
from miue.poisons.passes import PGDPass, on_outputs
from miue.storage import memory
from miue.storage.checkpoint import Checkpoint
from miue.training import loop
from miue.training.recipes import recipe

ROWS = Path("book/results/records/large-sets.jsonl")
COUNTS, POOL, SIZE, CLASSES = (5_000, 20_000, 127_000), 1000, 224, 100
NETWORK, LARGE, FEW = "linear", "resnet18", 256


def photographs() -> Images:
    """Squares of the two photographs, mirrored half of the time."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    x = np.empty((POOL, 3, SIZE, SIZE), np.uint8)
    for number in range(POOL):
        photo = photos[number % 2]
        top, left = (int(rng.integers(side - SIZE)) for side in photo.shape[:2])
        patch = photo[top : top + SIZE, left : left + SIZE, ::1]
        x[number] = (patch[:, ::-1] if rng.integers(2) else patch).transpose(2, 0, 1)
    return Images(torch.from_numpy(x), torch.arange(POOL) % CLASSES, name="photographs", layout="nchw")


def peak() -> int:
    """Most memory that this process had to itself, in MiB: without the pages of files, which the system may drop."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def anonymous() -> int:
    """Memory that this process has to itself now, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))


def measured(count: int, model: str) -> dict[str, Any]:
    """One epoch, one pgd pass of one step, the rounding; seconds of each, memory, and bytes on disk."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pool = photographs()
    images = pool.subset(torch.arange(count) % POOL)
    began = time.perf_counter()
    delta = blank(images, torch.float16)
    told: dict[str, Any] = {"delta_seconds": round(time.perf_counter() - began, 1), "delta_bytes": delta.nbytes}
    told["delta_in_memory"] = memory.fits(delta.nbytes, "cpu")
    network = build(model, CLASSES, size=SIZE, seed=seeds.surrogate(0).weights)
    once = recipe("quick", epochs=1, flip=False, crop=0, precision="float32")
    began = time.perf_counter()
    for _ in loop.epochs(network, images.plus(delta), once, seed=0, device="cpu"):
        pass
    told["epoch_seconds"] = round(time.perf_counter() - began, 1)
    frozen = Frozen(network)
    loss = on_outputs(frozen, lambda logits, features, labels: F.cross_entropy(logits, labels))
    step = PGDPass(images, loss, batch=256, budget=Budget(8 / 255), steps=1, order=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    step(delta, 1 / 255)
    told["pass_seconds"] = round(time.perf_counter() - began, 1)
    began = time.perf_counter()
    rounded = whole(images, delta)
    told["rounding_seconds"] = round(time.perf_counter() - began, 1)
    told |= {"result_bytes": rounded.nbytes, "moved": float(rounded[:100].float().abs().mean())}
    return told | {"peak_mib": peak(), "own_mib": anonymous(), "size": SIZE, "batch": once.batch}


def kept(count: int, folder: Path) -> dict[str, Any]:
    """What a checkpoint of such a delta takes."""
    pool = photographs()
    images = pool.subset(torch.arange(count) % POOL)
    delta, keep = blank(images, torch.float16), Checkpoint(folder)
    keep.hold(delta=delta)
    began = time.perf_counter()
    keep.save(1, last=True)
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in folder.iterdir())
    keep.forget()
    return {"checkpoint_bytes": size, "checkpoint_seconds": round(seconds, 1)}


def apart(work: Any, *given: Any) -> dict[str, Any]:
    """What a process of its own returns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return dict(pool.apply(work, given))


if __name__ == "__main__":
    rows = Measured(ROWS)
    for count in map(int, sys.argv[1:] or COUNTS):
        rows.measure(partial(apart, measured, count, NETWORK), part="steps", images=count, network=NETWORK)
    rows.measure(partial(apart, measured, FEW, LARGE), part="steps", images=FEW, network=LARGE)
    rows.measure(partial(apart, kept, 5_000, Path("large-sets-checkpoint")), part="checkpoint", images=5_000)
