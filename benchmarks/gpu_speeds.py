"""The stages of `gpu_call.py` that measure speeds: of the card, and of networks by precision."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from miue.losses import mi_ue_loss
from miue.models import build
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons.passes import Objective, PGDPass, balanced_batches, on_outputs
from miue.precision import arithmetic
from miue.training import loop, recipes, step
from miue.training.recipes import Recipe

if TYPE_CHECKING:
    from gpu_call import Call

AGREEMENT = 0.995
"""Share of a gradient's signs that a cheaper precision has to share with float32 to be taken for perturbations."""


def seconds(call: Callable[[], object], at_least: float) -> float:
    """Median seconds of a call over at least that many seconds of repeats; on a GPU it is waited for."""
    return Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=at_least).median


def _precisions(call: "Call") -> list[str]:
    return ["float32", "bfloat16", "float16"] if call.cpu else ["float32", "tf32", "bfloat16", "float16"]


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def peaks(call: "Call") -> dict[str, Any]:
    """What the card reaches in copies (bytes read and written), matrix products and convolutions (FLOP/s)."""
    device, small = loop.default_device(), call.cpu
    at_least = 0.02 if small else 0.2
    given, copied = torch.rand(2, 2**20 if small else 2**28, device=device)
    rows = [{"what": "copy", "bytes/s": 8 * given.numel() / seconds(lambda: copied.copy_(given), at_least)}]
    size, batch = (256, 4) if small else (8192, call.scale.batch)
    for number in _precisions(call):
        kind = {"device": device, "dtype": DTYPES.get(number, torch.float32)}
        with arithmetic(number):
            a, b = torch.randn(2, size, size, **kind)
            taken = seconds(lambda a=a, b=b: a @ b, at_least)
            rows.append({"what": "matrices", "precision": number, "FLOP/s": 2 * size**3 / taken})
            for channels, wide, pixels in ((3, 64, 32), (64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4)):
                layer = nn.Conv2d(channels, wide, 3, padding=1, bias=False).to(**kind).requires_grad_(False)
                layer.to(memory_format=torch.channels_last)
                x = torch.rand(batch, channels, pixels, pixels, **kind).to(memory_format=torch.channels_last)
                x.requires_grad_(True)

                ones = torch.ones_like(layer(x))

                def both(layer: nn.Module = layer, x: Tensor = x, ones: Tensor = ones) -> None:
                    torch.autograd.grad(layer(x), x, ones)

                work = 4 * batch * 9 * channels * wide * pixels**2
                shape = f"convolution {channels} to {wide}, {pixels} px, forward and backward to the images"
                rows.append({"what": shape, "precision": number, "FLOP/s": work / seconds(both, at_least)})
    return {"batch": batch, "rows": rows}


def objectives() -> dict[str, Objective]:
    """What gradients are taken of: MI-UE's loss and EM's."""
    return {
        "mi_ue": lambda logits, features, labels: mi_ue_loss(features, labels),
        "em": lambda logits, features, labels: F.cross_entropy(logits, labels),
    }


def signs(call: "Call") -> dict[str, Any]:
    """How many signs of a gradient by images cheaper precisions share with float32, after a little training.

    Chosen for perturbations is the fastest whose share is at least `AGREEMENT` for both losses, all of it finite.
    """
    train, device = call.images()[0], loop.default_device()
    network = build(call.scale.network, len(train.classes)).to(device)
    short = Recipe(epochs=1, lr=0.05, schedule="constant", batches_per_epoch=100, precision="float32")
    if call.cpu:
        short = replace(short, batches_per_epoch=3)
    for _ in loop.epochs(network, train, short, device=device):
        pass
    order = torch.Generator().manual_seed(0)
    x, y = train.on(device).batch(balanced_batches(train.y, call.scale.batch, order)[0])
    shares: dict[str, dict[str, Any]] = {}
    for name, objective in objectives().items():
        found = {}
        for number in ["float32", *_precisions(call)]:  # twice float32: what its own order of adding decides
            pixels = (x.float() / 255).requires_grad_()
            with arithmetic(number):
                (gradient,) = torch.autograd.grad(on_outputs(Frozen(network, number), objective)(pixels, y), pixels)
            exact = found.setdefault("exact", gradient)
            same, zero = (gradient.sign() == exact.sign()).float().mean(), (gradient == 0).float().mean()
            finite = bool(gradient.isfinite().all())
            shares.setdefault(number, {})[name] = {"same": float(same), "zero": float(zero), "finite": finite}
    trusted = [
        number
        for number in ("float16", "bfloat16", "tf32")
        if number in shares and all(one["finite"] and one["same"] >= AGREEMENT for one in shares[number].values())
    ]
    best = "float32" if call.cpu else [*trusted, "float32"][0]
    return {"batch": len(y), "shares": shares, "agreement": AGREEMENT, "chosen": best}


@contextmanager
def training_eagerly() -> Iterator[None]:
    """Training that nothing is replayed of, to see what replaying brings."""
    before = step.Replay
    step.Replay = lambda function, changes=None: function
    try:
        yield
    finally:
        step.Replay = before


@contextmanager
def algorithms_compared() -> Iterator[None]:
    """cuDNN tries its algorithms for each shape."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _pgd_rate(call: "Call", number: str, replayed: bool, compiled: bool = False) -> float:
    """Image-steps for each second of the second pgd pass; the first one chooses, records and compiles."""
    scale, device = call.scale, loop.default_device()
    train = call.images()[0]
    train = train.subset(torch.arange(min(scale.rated, len(train)))).on(device)
    frozen = Frozen(build(scale.network, len(train.classes)).to(device), number)
    if compiled:
        frozen.folded = torch.compile(frozen.folded, dynamic=False, backend=scale.backend)
    one = PGDPass(
        train,
        on_outputs(frozen, objectives()["mi_ue"]),
        batch=scale.batch,
        budget=Budget(8 / 255),
        steps=scale.steps,
        order=torch.Generator().manual_seed(0),
        fixed=replayed,
    )
    delta = torch.zeros(train.x.shape, dtype=torch.float16, device=device)
    with arithmetic(number):
        one(delta, 0.8 / 255)
        began = time.perf_counter()
        one(delta, 0.8 / 255)
        return len(train) * scale.steps / (time.perf_counter() - began)


def _training_rate(call: "Call", number: str, compiled: bool = False) -> float:
    """Images for each second of the second epoch of training."""
    train, device = call.images()[0], loop.default_device()
    usual = recipes.recipe(call.scale.recipe)
    recipe = replace(usual, epochs=2, precision=number, batches_per_epoch=3 if call.cpu else 40)
    network = build(call.scale.network, len(train.classes))
    if compiled:
        network.compile(dynamic=False, backend=call.scale.backend)
    epochs = loop.epochs(network, train, recipe, device=device)
    next(epochs)
    began = time.perf_counter()
    next(epochs)
    return recipe.batches_per_epoch * recipe.batch / (time.perf_counter() - began)


def rates(call: "Call") -> dict[str, Any]:
    """Image-steps of a pgd pass and images of training for each second: eager first, then replayed."""
    rows = []

    def row(number: str, how: str, **own: Any) -> None:
        with training_eagerly() if how == "eager" else algorithms_compared() if how == "compared" else nullcontext():
            pgd = _pgd_rate(call, number, replayed=how != "eager")
            rows.append({"precision": number, "how": how, "pgd": pgd, "training": _training_rate(call, number)})

    for number in _precisions(call):
        row(number, "eager")
    for number in _precisions(call):
        row(number, "replayed")
    for number in (call.precision, "float32" if call.cpu else "bfloat16"):
        row(number, "compared")
    return {"batch": call.scale.batch, "steps": call.scale.steps, "rows": rows}


def compiled(call: "Call") -> dict[str, Any]:
    """The same rates where the network was compiled before it was recorded, and the seconds that this took."""
    number, began = call.precision, time.perf_counter()
    pgd = _pgd_rate(call, number, replayed=True, compiled=True)
    middle = time.perf_counter()
    training = _training_rate(call, "float32" if call.cpu else "bfloat16", compiled=True)
    whole = {"pgd stage": middle - began, "training stage": time.perf_counter() - middle}
    return {"precision": number, "pgd": pgd, "training": training, "backend": call.scale.backend, "seconds": whole}
