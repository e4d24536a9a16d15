"""The stages of `gpu_call.py`: what each measures, and what it is estimated to take."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from gpu_speeds import compiled, peaks, rates, signs
from torch import Tensor, nn

from miue import poisons
from miue.data.images import Images
from miue.experiments.comparison import Setting, Trial, made
from miue.poisons import Poison, base, perturb
from miue.storage import tensors
from miue.storage.files import cache_dir
from miue.storage.provenance import collect
from miue.training import loop, recipes

if TYPE_CHECKING:
    from gpu_call import Call

ROOT = Path(__file__).resolve().parents[1]
PART = 159 * 2**20 // 10  # bytes of a file that comes back, at most


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Args:
        data, n_train, n_test: as `miue.load` takes them.
        count, tested: images that these are, for estimates.
        network: surrogate and victim.
        recipe: of the victims.
        changes: to the presets of MI-UE and EM.
        n_slices: of the information.
        batch, steps, rated: of the pgd passes whose speed is measured, and the images that they go over.
        backend: that networks are compiled with.
        tests: further words to pytest.
        rates: image-steps of a pgd pass and images of training for each second, by precision, until they are measured.
        fixed: seconds of the stages that no rate tells.
    """

    data: str
    n_train: int | None
    n_test: int | None
    count: int
    tested: int
    network: str
    recipe: str
    changes: str
    n_slices: int
    batch: int
    steps: int
    rated: int
    backend: str
    tests: tuple[str, ...]
    rates: dict[str, tuple[float, float]]
    fixed: dict[str, float]


SCALES = {
    "full": Scale(
        data="cifar10",
        n_train=None,
        n_test=None,
        count=50_000,
        tested=10_000,
        network="resnet18",
        recipe="standard:epochs=30",
        changes="",
        n_slices=64,
        batch=500,
        steps=10,
        rated=2500,
        backend="inductor",
        tests=(),
        # float16, bfloat16, tf32: estimates for an H100 from the ceilings of its parts; float32 at 45 TFLOP/s of 67
        rates={
            "float16": (104e3, 41e3),
            "bfloat16": (104e3, 41e3),
            "tf32": (46e3, 21e3),
            "float32": (20e3, 13e3),
        },
        fixed={
            "environment": 10,
            "tests": 45,
            "images": 5,
            "peaks": 15,
            "signs": 10,
            "rates": 25,
            "information": 40,  # 256 estimates of 1.7 s each on one core, over twelve
            "compiled": 60,
            "table": 1,
        },
    ),
    "small": Scale(
        data="digits_m",
        n_train=300,
        n_test=100,
        count=300,
        tested=100,
        network="small_resnet:width=0.25",
        recipe="quick:epochs=1:batch=32:precision=float32",
        changes=":epochs=1:steps=1",
        n_slices=4,
        batch=60,
        steps=1,
        rated=120,
        backend="aot_eager",
        tests=("-k", "lsp or random or cutout or frozen or replay"),
        rates={"float32": (600, 300), "bfloat16": (60, 30), "float16": (60, 30)},
        fixed={
            "environment": 5,
            "tests": 40,
            "images": 10,
            "peaks": 10,
            "signs": 10,
            "rates": 20,
            "information": 20,
            "compiled": 20,
            "table": 1,
        },
    ),
}
"""Everything on a GPU, and the same stages on a CPU."""


def of_archive(scale: Scale) -> Scale:
    """The same with the images of an archive."""
    return replace(scale, data="cifar10")


def default_work() -> Path:
    return cache_dir() / "gpu_call"


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: as results have it.
        run: does it, and returns what goes into its line, JSON.
        estimate: seconds that it takes.
        done: whether it needs no more doing.
        after: stages whose results it needs.
    """

    name: str
    run: Callable[["Call"], dict[str, Any]]
    estimate: Callable[["Call"], float]
    done: Callable[["Call"], bool]
    after: tuple[str, ...] = ()


# What the machine is, and the tests


def environment(call: "Call") -> dict[str, Any]:
    """Versions and card; the images are decoded in the background from now on."""
    if call.archive is not None:
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu_images.py"), str(call.archive)]
        call.decoding = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    card = {} if call.cpu else _card()
    packages = ("torchvision", "kornia", "pytest", "xdist", "triton")
    return (
        collect()
        | card
        | {
            "cores": os.cpu_count(),
            "there": [name for name in packages if importlib.util.find_spec(name)],
        }
    )


def _card() -> dict[str, Any]:
    about = torch.cuda.get_device_properties(0)
    torch.ones(1, device="cuda").item()
    return {
        "memory": about.total_memory,
        "multiprocessors": about.multi_processor_count,
        "capability": list(torch.cuda.get_device_capability()),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def tests(call: "Call") -> dict[str, Any]:
    """The tests of `tests/gpu`, in a process of their own, at most twice as long as estimated."""
    if importlib.util.find_spec("pytest") is None:
        raise RuntimeError(
            "pytest is not installed; bring the wheels of pytest, pluggy, iniconfig, packaging, pygments"
        )
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-p", "no:cacheprovider", "-ra", *call.scale.tests]
    if importlib.util.find_spec("xdist") and not call.cpu:
        command += ["-n", "8"]
    own = {"MIUE_TEST_DEVICE": "cpu"} if call.cpu else {}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = call.out / "tests.log"
    with log.open("w") as file:
        code = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | own | {"PYTHONPATH": path},
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, min(call.left, 2 * call.scale.fixed["tests"])),
            check=False,
        ).returncode
    lines = log.read_text().splitlines()
    if code not in (0, 1):  # passed, or some failed
        raise RuntimeError(f"pytest ended with exit code {code}: {lines[-1:]}")
    return {"summary": lines[-1:], "not passed": [x for x in lines if re.match("FAILED|ERROR", x)][:40]}


def images(call: "Call") -> dict[str, Any]:
    """Wait for the images, and load them as everybody does."""
    told = None
    if call.decoding is not None:
        told, _ = call.decoding.communicate(timeout=max(1.0, call.left))
        if call.decoding.returncode:
            raise RuntimeError(f"the archive was not decoded: {told[-1000:]}")
    began = time.perf_counter()
    train, test = call.images()
    loaded = time.perf_counter() - began
    return {"decoding": told, "loading": loaded, "data": train.name, "hashes": [train.content_hash, test.content_hash]}


# Perturbations, their victims, and the information between features


def setting(call: "Call", preset: str) -> Setting:
    scale = call.scale
    settled = {"preset": preset, "recipe": scale.recipe, "n_slices": scale.n_slices}
    return Setting(scale.data, scale.n_train, scale.n_test, **settled)


def trial(call: "Call", method: str) -> Trial:
    """The trial of a method, with the changes of the scale and the precision that was chosen."""
    number = "" if call.precision == "float32" else f":precision={call.precision}"  # which the presets have
    spec = f"{method}{call.scale.changes}{number}" if method in ("mi_ue", "em") else method
    return Trial(spec, call.scale.network, surrogate=call.scale.network)


@contextmanager
def surrogates_watched() -> Iterator[list[nn.Module]]:
    """The surrogates that are made meanwhile, which methods train in place and do not hand out."""
    made, before = [], base.surrogate_network

    def watched(*given: Any) -> nn.Module:
        made.append(before(*given))
        return made[-1]

    base.surrogate_network = watched
    try:
        yield made
    finally:
        base.surrogate_network = before


def measured(call: "Call", method: str, preset: str, kept: bool = False) -> dict[str, Any]:
    """Make a perturbation and its victim, and have the rest measured in the background.

    Args:
        call: of the stages.
        method: "clean", or the name of a method without options.
        preset: its effort.
        kept: whether part of the perturbation, and the surrogate's weights, come back.
    """
    one, common = trial(call, method), setting(call, preset)
    train, test = call.images()
    result: dict[str, Any] = {"trial": str(one)}
    if one.perturbs:
        with surrogates_watched() as surrogates:
            poison = perturb(images=train, **one.perturbation(common))
        levels = poison.delta.numpy().tobytes()
        result["digest of delta"] = hashlib.blake2b(levels, digest_size=16).hexdigest()
        result |= {"perturbation": poison.record["seconds"], "notes": poison.record["notes"]}
        if kept:
            result["delta"] = keep_some(poison, train, call.out / "delta.safetensors")
            result["weights"] = keep_weights(surrogates[-1], call.out, str(one)) if surrogates else []
    victim = made(one, common, train, test).victim
    call.measurer.ask(common, one)
    return result | {"accuracy": victim.accuracy, "victim": victim.record["seconds"]}


def keep_some(poison: Poison, train: Images, path: Path) -> int:
    """Save the rows of 500 images of each class, or as many as a file may hold, as a perturbation of these images."""
    labels = train.subset(torch.argsort(train.ids)).y
    each = min(500, PART // (poison.delta[0].numel() * poison.delta.element_size() * len(train.classes)))
    rows = torch.cat([(labels == label).nonzero()[:each, 0] for label in range(len(train.classes))]).sort().values
    Poison(poison.delta[rows], poison.ids[rows], poison.fingerprints[rows], poison.record).save(path)
    return len(rows)


def keep_weights(network: nn.Module, out: Path, of: str) -> list[str]:
    """Save a network in as many files as it takes: each holds some of its tensors, together they are its state."""
    parts: list[dict[str, Tensor]] = []
    for name, value in sorted(network.state_dict().items(), key=lambda item: -item[1].nbytes):
        part = next((one for one in parts if sum(v.nbytes for v in one.values()) + value.nbytes < PART), None)
        if part is None:
            parts.append(part := {})
        part[name] = value.cpu()
    names = [f"surrogate-{number + 1}-of-{len(parts)}.safetensors" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        tensors.save(out / name, part, {"surrogate of": of, "spec": network.spec})
    return names


def lasts(call: "Call", method: str, preset: str) -> float:
    """Estimate the seconds of `measured` from the options and the rates, measured ones where there are any."""
    one, common, count = trial(call, method), setting(call, preset), call.scale.count
    recipe = recipes.recipe(call.scale.recipe)
    usual = "float32" if call.cpu else "bfloat16"
    victim = recipe.epochs * (count + call.scale.tested / 3) / rate(call, usual, "training")  # a test is a third
    if method == "clean" and preset != "quick":
        return 3.0  # the victim lies in the cache
    if method in ("clean", "random"):
        return 3.0 + victim
    options = poisons.options(one.method, preset, passes=common.allowed)
    surrogate, number = options.surrogate, call.precision
    trained = loop.batches(count, surrogate) * min(surrogate.batch, count)
    each = trained / rate(call, number, "training") + options.steps * count / rate(call, number, "pgd")
    fits = count / rate(call, "float32", "pgd") / 2 if method == "em" else 0.0  # a forward pass to see how far it is
    return 5.0 + surrogate.epochs * (each + fits) + victim


def rate(call: "Call", number: str, what: str) -> float:
    """Image-steps ("pgd") or images ("training") for each second, measured where they are, else stated."""
    rows = call.found("rates").get("rows", [])
    found = [row[what] for row in rows if (row["precision"], row["how"]) == (number, "replayed")]
    return found[-1] if found else call.scale.rates[number][what == "training"]


def information(call: "Call") -> dict[str, Any]:
    """Wait for what is measured in the background."""
    waiting = len(call.measurer.waiting)
    call.collect(wait=True)
    if failed := call.measurer.failed:
        raise RuntimeError("; ".join(failed))
    return {"waited for": waiting}


def table(call: "Call") -> dict[str, Any]:
    """What was found, in one table."""
    columns = ["method", "test_accuracy", "mi", "null", "ceiling", "passes", "perturbation_seconds", "victim_seconds"]
    rows = [{"preset": p} | row for p in ("quick", "laptop") for row in call.records(setting(call, p)).rows]
    if rows:
        print(pd.DataFrame(rows)[["preset", *columns]].round(3).to_string(index=False))
    if speeds := call.found("rates").get("rows"):
        print(pd.DataFrame(speeds).round(0).to_string(index=False))
    return {"rows": [{name: row[name] for name in ("preset", *columns)} for row in rows]}


def _once(
    name: str, run: Callable[["Call"], dict[str, Any]], again: bool = False, after: tuple[str, ...] = ()
) -> Stage:
    """A stage that is done when its line says so, or that is due `again` in each call."""
    return Stage(
        name,
        run,
        lambda call: call.scale.fixed[name],
        lambda call: not again and any((line["stage"], line["state"]) == (name, "done") for line in call.results),
        after,
    )


def _trial(name: str, method: str, preset: str, kept: bool = False) -> Stage:
    """A stage that is done when its row is there."""

    def done(call: "Call") -> bool:
        wanted, common = trial(call, method), setting(call, preset)
        return (common, wanted) in call.measurer.waiting or call.records(common).find(wanted) is not None

    return Stage(
        name,
        lambda call: measured(call, method, preset, kept),
        lambda call: lasts(call, method, preset),
        done,
        ("images",),
    )


STAGES = [
    _once("environment", environment, again=True),
    _once("tests", tests),
    _once("images", images, again=True),
    _once("peaks", peaks),
    _once("signs", signs, after=("images",)),
    _once("rates", rates, after=("images",)),
    _trial("mi_ue", "mi_ue", "quick", kept=True),
    _trial("clean", "clean", "quick"),
    _trial("random", "random", "quick"),
    _trial("em", "em", "quick"),
    _trial("clean, beside it", "clean", "laptop"),
    _trial("mi_ue, more passes", "mi_ue", "laptop"),
    _once("information", information, again=True),
    _once("table", table, again=True),
    _once("compiled", compiled, after=("images",)),
]
"""What is run, in this order: what tells most for its time comes first. "quick" and "laptop" are 10 and 15 epochs of
MI-UE's surrogate with 5 and 10 steps after each; EM takes as many passes as MI-UE, five rounds at most."""
