"""MI-UE as one would first write it down, and this package beside it: one pgd pass, a whole perturbation, the loss.

    python benchmarks/published_loop.py                        # about twenty minutes on two cores
    python benchmarks/published_loop.py --record loop.json
    miue poison --method benchmarks/published_loop.py:authors --data digits_m --out delta.safetensors

`generate` is the published loop taken literally: a loader for each epoch, the network in evaluation mode as it is, the
similarity of all pairs by broadcasting (B x B x d), the distances of each image to those of its class in a Python loop,
everything in float32. It gives the same loss as `miue.losses.mi_ue_loss`, which is checked before anything is timed.
Both sides take the same network, the same images, the same numbers of epochs and steps, one after the other in one
process. What differs beside the code: its batches are shuffled and not class-balanced.

`authors` makes perturbations with what the authors' code does beyond that, as far as it is described to us: half of the
images are mirrored and their deltas are not, steps grow from the first pass to the last, the printed command leaves the
distance term out, and what is published is cut off to whole grey levels, not rounded.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import miue
from miue.data.images import Images
from miue.errors import Count
from miue.losses import mi_ue_loss, similarity_term
from miue.models import build
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons import perturb
from miue.poisons.base import Made, Method, Options, Task
from miue.poisons.passes import PGDPass, on_outputs
from miue.progress import say
from miue.storage import files
from miue.storage.provenance import collect
from miue.training.loop import default_device

EPSILON, STEP = 8 / 255, 0.8 / 255


def literal_loss(z: Tensor, y: Tensor, temperature: float = 0.1, zeta: float = 0.1) -> Tensor:
    """The formula as it stands in the paper."""
    cosine = F.cosine_similarity(z[:, None, :], z[None, :, :], dim=2)
    weight = (cosine / temperature).exp()
    same = y[:, None] == y[None, :]
    similarity = -((weight * same).sum(1) / weight.sum(1)).log()
    distance = []
    for i in range(len(z)):
        total = z.new_zeros(())
        for j in same[i].nonzero()[:, 0].tolist():
            if j != i:
                total = total + (z[i] - z[j]).norm() / z.shape[1]
        distance.append((1 + total).log())
    return similarity.mean() + zeta * torch.stack(distance).mean()


def loader(images: Tensor, labels: Tensor, batch: int, draws: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
    """Batches of numbers, images and labels, shuffled."""
    return iter(
        DataLoader(TensorDataset(torch.arange(len(labels)), images, labels), batch, shuffle=True, generator=draws)
    )


def mirrored(x: Tensor, draws: torch.Generator) -> Tensor:
    """Images of which half, drawn anew, are mirrored."""
    return torch.where((torch.rand(len(x), generator=draws) < 0.5).to(x.device)[:, None, None, None], x.flip(3), x)


def sweep(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    delta: Tensor,
    *,
    steps: int,
    batch: int,
    draws: torch.Generator,
    loss: Callable[[Tensor, Tensor], Tensor] = literal_loss,
    step: float = STEP,
    flips: bool = False,
) -> None:
    """Take sign-gradient steps on every image once, and write them into `delta`."""
    network.eval()
    for index, x, y in loader(images, labels, batch, draws):
        x, moving = mirrored(x, draws) if flips else x, delta[index]
        for _ in range(steps):
            moving.requires_grad_(True)
            _, features = network(x + moving)
            (gradient,) = torch.autograd.grad(loss(features, y), moving)
            moving = (moving.detach() - step * gradient.sign()).clamp(-EPSILON, EPSILON)
            moving = (x + moving).clamp(0, 1) - x
        delta[index] = moving.detach()


def generate(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    steps: int,
    batch: int,
    seed: int = 0,
    lengths: tuple[float, float] = (STEP, STEP),
    **how: Any,
) -> Tensor:
    """The whole perturbation, (N, C, H, W) float, of images in [0, 1]; `lengths`: of the first and the last step."""
    delta, draws = torch.zeros_like(images), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        network.train()
        for index, x, y in loader(images, labels, 128, draws):
            shown = x + delta[index]
            loss = F.cross_entropy(network(mirrored(shown, draws) if how.get("flips") else shown)[0], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        step = lengths[0] + (lengths[1] - lengths[0]) * epoch / max(epochs - 1, 1)
        sweep(network, images, labels, delta, steps=steps, batch=batch, draws=draws, step=step, **how)
    return delta


@dataclass(frozen=True)
class Loop(Options):
    """Epochs of the surrogate, steps of the pass behind each, images that share a loss."""

    epochs: Count
    steps: Count
    batch: Count = 512

    @property
    def passes(self) -> float:
        """Every epoch trains once and passes once."""
        return self.epochs * (1 + self.steps)


def make(task: Task) -> Made:
    """Make a perturbation as the authors' printed command does; see above."""
    images, options = task.images, task.options
    x = images.x.float() / 255
    delta = generate(
        task.network(),
        x,
        images.y,
        epochs=options.epochs,
        steps=options.steps,
        batch=options.batch,
        seed=task.seed,
        lengths=(0.2 / 255, 4 / 255 / options.steps),
        loss=similarity_term,
        flips=True,
    )
    return Made(((x + delta).clamp(0, 1) * 255 + 1e-4).floor() - images.x.float(), {})


authors = Method(make, {"quick": Loop(10, 5), "laptop": Loop(15, 10), "paper": Loop(100, 10)}, outer="epochs")


def clocked(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    if default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def one_pass(train: Images, model: str, steps: int, batch: int) -> tuple[float, float]:
    """Seconds of a pgd pass, literally and ours."""
    network = build(model, len(train.classes)).to(train.device)
    x, delta = train.x.float() / 255, torch.zeros(train.x.shape, device=train.device)
    loss = on_outputs(Frozen(network), lambda logits, features, labels: mi_ue_loss(features, labels))
    order = torch.Generator().manual_seed(0)
    ours = PGDPass(train, loss, batch=batch, budget=Budget(EPSILON), steps=steps, order=order, fixed=True)
    levels = torch.zeros(train.x.shape, dtype=torch.float16, device=train.device)
    few = train.subset(torch.arange(min(64, len(train))))
    sweep(
        network, few.x.float() / 255, few.y, delta[: len(few)].clone(), steps=1, batch=len(few), draws=order
    )  # what the first pass sets up
    taken = clocked(lambda: sweep(network, x, train.y, delta, steps=steps, batch=batch, draws=order))
    return taken, clocked(lambda: ours(levels, STEP))


def whole(train: Images, model: str, epochs: int, steps: int, batch: int) -> tuple[float, float]:
    """Seconds of a whole perturbation, literally and ours."""
    network = build(model, len(train.classes)).to(train.device)
    x, how = train.x.float() / 255, {"epochs": epochs, "steps": steps}
    literally = clocked(lambda: generate(network, x, train.y, batch=batch, **how))
    ours = {"surrogate": model, "preset": "quick", "pass_batch": batch, "device": train.device, "cache": False}
    return literally, clocked(lambda: perturb(train, "mi_ue", **ours, **how))


def loss_alone(batch: int, width: int) -> tuple[float, float]:
    """Seconds of the loss and its gradient, literally and ours."""
    device = default_device()
    z = torch.rand(batch, width, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    y = torch.arange(batch, device=device) % 10
    torch.testing.assert_close(literal_loss(z, y).double(), mi_ue_loss(z, y), rtol=1e-4, atol=0)

    def both(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        torch.autograd.grad(loss(z, y), z)

    ours = min(clocked(lambda: both(mi_ue_loss)) for _ in range(5))
    return clocked(lambda: both(literal_loss)), ours


def main(
    images: Annotated[int, typer.Option(help="Images of the whole perturbation.")] = 1000,
    epochs: Annotated[int, typer.Option(help="Epochs of its surrogate.")] = 10,
    steps: Annotated[int, typer.Option(help="Steps of its pgd passes.")] = 5,
    deep: Annotated[int, typer.Option(help="Images of the pass through a ResNet-18.")] = 512,
    batch: Annotated[int, typer.Option(help="Images that share a loss.")] = 512,
    record: Annotated[Path | None, typer.Option(help="File for the table (.json).")] = None,
) -> None:
    """Time the published loop taken literally, and this package."""
    train, _ = miue.load("digits_m", n_train=max(images, deep), n_test=10)
    train = train.on(default_device())
    batch = min(batch, images, deep)
    rows = []

    def row(what: str, of: dict[str, Any], times: tuple[float, float]) -> None:
        rows.append({"what": what, **of, "literal": times[0], "miue": times[1], "times faster": times[0] / times[1]})
        say(f"{what}: {times[0]:.3g} s literally, {times[1]:.3g} s with miue")

    row("loss and gradient", {"images": batch, "width": 512}, loss_alone(batch, 512))
    of = {"images": deep, "model": "resnet18", "steps": 2, "batch": batch}
    row("pgd pass", of, one_pass(train.subset(torch.arange(deep)), "resnet18", 2, batch))
    of = {"images": images, "model": "small_resnet", "epochs": epochs, "steps": steps, "batch": batch}
    row("whole perturbation", of, whole(train.subset(torch.arange(images)), "small_resnet", epochs, steps, batch))
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    if record is not None:
        files.write_json(record, {"rows": rows, **collect()})


if __name__ == "__main__":
    typer.run(main)
