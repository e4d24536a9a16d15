"""What a GPU does again and again, recorded once: launching its kernels one by one takes longer than small ones run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Replay"]

WARM_UPS = 3
"""Calls before the recording, in which libraries choose their algorithms and allocate what they keep."""


class Replay:
    """A function of tensors that a GPU replays as a CUDA graph; elsewhere it is the function itself.

    The function must do the same whatever its inputs hold: draw no random numbers, ask for no number of a tensor, and
    read everything else from tensors that stay where they are. What it returns is overwritten by the next call.

    Args:
        function: of tensors on one device; returns a tensor or a tuple of them.
        changes: tells the tensors that a call changes in place, which the warm-up must leave as they were; what it
            tells only afterwards (an optimizer makes its momentum in its first step) comes last, and begins as zeros.
    """

    def __init__(self, function: Callable[..., Any], changes: Callable[[], Sequence[Tensor]] = lambda: ()) -> None:
        self.function, self.changes = function, changes
        self._graph: Any = None

    def __call__(self, *inputs: Any) -> Any:
        """Call the function; inputs of other shapes than the first ones are not replayed."""
        if inputs[0].device.type != "cuda":
            return self.function(*inputs)
        if self._graph is None:
            self._record(inputs)
        if any((own.shape, own.dtype) != (new.shape, new.dtype) for own, new in zip(self._inputs, inputs, strict=True)):
            return self.function(*inputs)
        for own, new in zip(self._inputs, inputs, strict=True):
            own.copy_(new, non_blocking=True)
        self._graph.replay()
        return self._outputs

    def _record(self, inputs: Sequence[Tensor]) -> None:
        cudnn: Any = torch.backends.cudnn
        chosen, cudnn.benchmark = cudnn.benchmark, True  # the fastest algorithm for these shapes, once for all calls
        try:
            self._capture(inputs)
        finally:
            cudnn.benchmark = chosen

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = [one.clone() for one in inputs]
        before = [tensor.clone() for tensor in self.changes()]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self.function(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        after = self.changes()
        with torch.no_grad():
            for tensor, value in zip(after, [*before, *map(torch.zeros_like, after[len(before) :])], strict=True):
                tensor.copy_(value)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = self.function(*self._inputs)
