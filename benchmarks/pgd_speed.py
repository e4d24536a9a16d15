"""PGD image-steps per second and utilisation, and the MI-UE loss against its formula written out literally.

Utilisation is achieved over peak FLOP/s; the peak is a matrix product measured in the same run, and the work of a step
is counted by torch's own FLOP counter as if convolutions were done directly, so a library that saves multiplications
can exceed 1. Run by hand: `python benchmarks/pgd_speed.py --help`.
"""

import argparse

import pandas as pd
import torch
from torch.fx.experimental.optimization import fuse
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from miue.losses import mi_ue_loss
from miue.models import build, forward
from miue.pgd import Budget, pgd
from miue.storage.provenance import device_name
from miue.training.loop import default_device


def seconds(call, at_least):
    """Median seconds of a call over at least that many seconds of repeats."""
    return (
        Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        .blocked_autorange(min_run_time=at_least)
        .median
    )


def peak(device, at_least):
    """FLOP/s of a square float32 matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device)
    return 2 * size**3 / seconds(lambda: a @ b, at_least)


def pgd_row(name, batch, size, steps, device, top, at_least):
    network = fuse(build(name, 10, size=size).to(device).eval())
    x = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    y = torch.arange(batch, device=device) % 10
    delta = torch.zeros(x.shape, dtype=torch.int8, device=device)

    def objective(images, labels):
        return mi_ue_loss(forward(network, images)[1], labels)

    def run(count):
        pgd(objective, x, y, delta, budget=Budget(8 / 255), step=0.8 / 255, steps=count)

    with FlopCounterMode(display=False) as counter:
        run(1)
    rate = batch * steps / seconds(lambda: run(steps), at_least)
    achieved = rate * counter.get_total_flops() / batch
    return {
        "network": name,
        "px": size,
        "batch": batch,
        "image-steps/s": rate,
        "GFLOP/s": achieved / 1e9,
        "peak GFLOP/s": top / 1e9,
        "utilisation": achieved / top,
    }


def literal_loss(z, y, temperature=0.1, zeta=0.1):
    """The formula as it is often written: B x B x d broadcasts for cosines, a Python loop for distances."""
    cosine = torch.cosine_similarity(z[:, None, :], z[None, :, :], dim=2)
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


def loss_rows(batch, width, device, at_least):
    z = torch.randn(batch, width, device=device, requires_grad=True)
    y = torch.arange(batch, device=device) % 10
    rows = []
    for name, loss in (("literal formula", literal_loss), ("miue.losses.mi_ue_loss", mi_ue_loss)):
        taken = seconds(lambda loss=loss: torch.autograd.grad(loss(z, y), z), at_least)
        rows.append({"loss and gradient": name, "batch": batch, "width": width, "ms": 1000 * taken})
    assert torch.allclose(literal_loss(z, y), mi_ue_loss(z, y), rtol=1e-4)
    rows[1]["times faster"] = rows[0]["ms"] / rows[1]["ms"]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=str(default_device()))
    parser.add_argument("--steps", type=int, default=2, help="steps in a timed call")
    parser.add_argument("--seconds", type=float, default=2.0, help="least time to repeat each call for")
    parser.add_argument(
        "--batch", type=int, default=256, help="images in a batch of small_resnet (resnet18: a quarter)"
    )
    given = parser.parse_args()
    device = torch.device(given.device)
    print(f"{device_name(device)}, torch {torch.__version__}, float32")
    top = peak(device, given.seconds)
    shapes = [("small_resnet", given.batch, 32), ("resnet18", max(given.batch // 4, 2), 32)]
    table = [pgd_row(*shape, given.steps, device, top, given.seconds) for shape in shapes]
    print(pd.DataFrame(table).round(3).to_string(index=False))
    print(pd.DataFrame(loss_rows(512, 512, device, given.seconds)).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
