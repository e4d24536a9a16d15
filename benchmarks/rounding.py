"""What half precision costs a perturbation, on a machine that has none: convolutions that round as tensor cores do.

    python benchmarks/rounding.py --where throughout --seeds 0 --seeds 1 --seeds 2

Each convolution and linear layer rounds its input, weights and output to bfloat16 (or float16), and in the backward
pass the gradients of all three; products are summed in float32. That is what autocast computes, but for the order of
sums and for what lies between these layers, which here stays float32.
"""

import contextlib
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from miue import poisons
from miue.data import loading
from miue.poisons import passes
from miue.poisons.methods import mi_ue
from miue.precision import LOSS_SCALE
from miue.victim import train_victim

LAYERS = (torch.conv2d, F.conv2d, F.linear)
DTYPES = {"bfloat16": (torch.bfloat16, 1.0), "float16": (torch.float16, LOSS_SCALE)}


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
        return value.to(dtype).float()

    @staticmethod
    def setup_context(context, inputs, output) -> None:
        _, context.dtype, context.scale = inputs

    @staticmethod
    def backward(context, gradient: Tensor):
        return (context.scale * gradient).to(context.dtype).float() / context.scale, None, None


class Rounding(TorchFunctionMode):
    """Inside, every convolution and linear layer rounds to `dtype`; their backward passes do, wherever they run.

    Args:
        dtype: torch.bfloat16 or torch.float16.
        scale: what the loss is multiplied by before the gradients are rounded.
    """

    def __init__(self, dtype: torch.dtype, scale: float = 1.0) -> None:
        super().__init__()
        self.dtype, self.scale = dtype, scale

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func not in LAYERS:
            return func(*args, **(kwargs or {}))
        args = [self._round(value) for value in args]
        kwargs = {name: self._round(value) for name, value in (kwargs or {}).items()}
        return self._round(func(*args, **kwargs))

    def _round(self, value):
        return _Round.apply(value, self.dtype, self.scale) if isinstance(value, Tensor) else value


@contextlib.contextmanager
def rounding(where: str, number: str):
    """Make MI-UE perturbations with rounding in "pgd" passes alone, "throughout" (surrogate too), or "nowhere"."""
    mode = Rounding(*DTYPES[number])

    def on_outputs(*given):
        loss = passes.on_outputs(*given)

        def rounded(images, labels):
            with mode:
                return loss(images, labels)

        return rounded

    if where == "throughout":
        with mode:
            yield
    elif where == "pgd":
        mi_ue.on_outputs, before = on_outputs, mi_ue.on_outputs
        try:
            yield
        finally:
            mi_ue.on_outputs = before
    else:
        yield


def main(
    where: Annotated[str, typer.Option(help="pgd, throughout or nowhere.")] = "throughout",
    number: Annotated[str, typer.Option(help="bfloat16 or float16.")] = "bfloat16",
    seeds: Annotated[list[int], typer.Option(help="Of the perturbations.")] = [0],  # noqa: B006
    victims: Annotated[int, typer.Option(help="Strangers that each perturbation meets.")] = 2,
    model: Annotated[str, typer.Option(help="Surrogate and victims.")] = "small_resnet",
    preset: Annotated[str, typer.Option(help="Of MI-UE.")] = "quick",
    n_train: Annotated[int, typer.Option(help="Images of Digits-M.")] = 3000,
) -> None:
    """Print the last loss of each perturbation, and the clean test accuracy of its victims."""
    images, test = loading.load("digits_m", n_train=n_train)
    for seed in seeds:
        with rounding(where, number):
            poison = poisons.perturb(images, "mi_ue", surrogate=model, preset=preset, seed=seed, cache=False)
        shown, last = poison.apply(images), poison.record["notes"]["epochs"][-1]
        strangers = [1000 * victim + seed for victim in range(1, victims + 1)]
        met = [train_victim(shown, test, model=model, recipe="quick", seed=one, cache=False) for one in strangers]
        reached = ", ".join(f"{victim.accuracy:.3f}" for victim in met)
        print(f"{number} {where}, seed {seed}: similarity {last['similarity']:.3f}, victims {reached}", flush=True)


if __name__ == "__main__":
    typer.run(main)
