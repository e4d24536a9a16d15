"""Several processes that make one perturbation, as `torchrun` starts them: which images each owns, what all agree on.

A process owns its images for good: their delta lies with it and never travels. What travels is the gradient of the
surrogate, averaged by PyTorch's own distributed data parallelism, and now and then a number on which all must agree.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from miue.errors import InputError

__all__ = ["ALONE", "Ranks", "joined", "launched"]

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for the others; `torchrun` ends them all as soon as one of them fails."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together.

    Args:
        number: of this process, from 0.
        count: of all of them; one that works alone waits for nobody.
    """

    number: int = 0
    count: int = 1

    def own(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Which images this process owns: positions, (M,) int64, in the order of the ids.

        All processes together own every image once, and of each class as many as the others, or one more. Ids, labels
        and `count` decide, not the order in which the images come.

        Args:
            ids: (N,) int64 on the CPU, unique.
            labels: (N,) int64.

        Example:
            >>> import torch
            >>> from miue.ranks import Ranks
            >>> [Ranks(number, 2).own(torch.arange(6), torch.tensor([0, 1, 0, 1, 0, 1])).tolist() for number in (0, 1)]
            [[0, 3, 4], [1, 2, 5]]
        """
        by_id = torch.argsort(ids)
        by_class = by_id[torch.argsort(labels.cpu()[by_id], stable=True)]
        return by_id[torch.isin(by_id, by_class[self.number :: self.count])]

    def share(self, batch: int) -> int:
        """The images that each process takes in a batch of the surrogate, so that all together take `batch`.

        Raises:
            InputError: it cannot be divided by the processes, or leaves them less than two images, for batch norm.
        """
        if batch % self.count or batch < 2 * self.count:
            raise InputError(
                f"batch: {batch} with {self.count} processes; it must be a multiple of {self.count}, "
                f"{2 * self.count} or more"
            )
        return batch // self.count

    def gather(self, told: T) -> list[T]:
        """What every process tells, in the order of their numbers; each waits until all have told theirs."""
        if self.count == 1:
            return [told]
        found: list[T] = [told] * self.count
        dist.all_gather_object(found, told)
        return found

    def mean(self, value: float, images: int) -> float:
        """The mean over all images of what each process has found on so many of them."""
        if self.count == 1:
            return value
        found = self.gather((value, images))
        return sum(value * images for value, images in found) / sum(images for _, images in found)

    def averaging(self, model: nn.Module) -> nn.Module:
        """The same network, with gradients averaged over the processes in every backward pass.

        It takes the weights of the first process. Statistics of batch norm stay those of each process's own images:
        the kind that is synchronised does not work on a CPU.
        """
        if self.count == 1:
            return model
        known = signature(DistributedDataParallel).parameters
        older = "forward_sync_buffers" not in known
        own: dict[str, Any] = {"broadcast_buffers" if older else "forward_sync_buffers": False}
        return DistributedDataParallel(model, **own)


ALONE = Ranks()


def launched() -> Ranks:
    """This process among those that `torchrun` started; alone, where it started none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ALONE
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, each on a GPU of its own where there are any; only the first talks.

    Raises:
        InputError: more processes than GPUs.
    """
    ranks = launched()
    if ranks.count == 1:
        yield ALONE
        return
    gpus, here = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
    if gpus and here > gpus:
        raise InputError(f"torchrun: {here} processes on a machine with {gpus} GPUs; give --nproc-per-node {gpus}")
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # no half-written file stays
    try:
        if ranks.number == 0:
            yield ranks
        else:
            os.environ["MIUE_PROGRESS"] = os.devnull
            with redirect_stdout(io.StringIO()):
                yield ranks
    finally:
        signal.signal(signal.SIGTERM, before)
    dist.destroy_process_group()  # not after an error, when some of them may no longer be there
