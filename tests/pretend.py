"""A GPU that is not there: tensors that hold CPU tensors, say that they lie on it, and keep the rules of a real one.

They refuse to meet tensors of the CPU (but for single numbers and, as on a real GPU, an index), random numbers for them
need a generator of their own device, and what crosses between the two, or makes the CPU wait, is counted: by kind, and
by the line of the package that asked for it. What it cannot tell: times, memory, cuDNN's own numbers and layouts.
"""

import sys
from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "pretend"


class Backend:
    """What PyTorch asks of the module of a device."""

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.bfloat16, torch.float16]

    @staticmethod
    def is_available():
        return False  # to PyTorch's own questions

    @staticmethod
    def device_count():
        return 0

    @staticmethod
    def _is_in_bad_fork():
        return False

    @staticmethod
    def manual_seed_all(seed):
        pass


_setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
DEVICE = torch.device(NAME, 0)


class OnDevice(torch.Tensor):
    """A tensor on the pretend GPU; `held` is the CPU tensor with its numbers."""

    @staticmethod
    def __new__(cls, held, requires_grad=False):
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        wrapper.held = held
        return wrapper

    def __repr__(self):
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on the pretend device, outside of `running`")


class Generator(torch.Generator):
    """A generator that says which device it was made for; its numbers are those of the CPU."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.made_for = torch.device(device)
        return made

    @property
    def device(self):
        return self.made_for


WAITS = {
    aten._local_scalar_dense.default: "number",
    aten.is_nonzero.default: "number",
    aten.equal.default: "number",
    aten.nonzero.default: "size",
    aten.masked_select.default: "size",
    aten._unique2.default: "size",
    aten.unique_dim.default: "size",
    aten.bincount.default: "size",
}
"""What a GPU has to finish first: the CPU wants a number, or the size of a result depends on one."""

INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}


def _caller():
    """The line of the package that asked."""
    frame = sys._getframe()
    while frame and "/src/miue/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/miue/')[2]}:{frame.f_lineno}" if frame else "elsewhere"


class Traffic(TorchDispatchMode):
    """Runs every operation on the numbers that tensors hold, and counts it.

    Attributes:
        counts: "to device", "to cpu", "wait for a number", "wait for a size", "kernels", "on the cpu".
        places: the same by (kind, line of the package), without the last two.
    """

    def __init__(self):
        super().__init__()
        self.counts, self.places = Counter(), Counter()

    def crossed(self, kind):
        self.counts[kind] += 1
        self.places[kind, _caller()] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func._schema.name
        given = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
        there = [tensor for tensor in given if isinstance(tensor, OnDevice)]
        here = [tensor for tensor in given if not isinstance(tensor, OnDevice) and tensor.dim() > 0]
        wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        if name == "aten::copy_":
            self._moves(isinstance(args[1], OnDevice), isinstance(args[0], OnDevice))
            _held(args[0]).copy_(_held(args[1]))
            return args[0]
        if there and here and name != "aten::_to_copy":
            self._meeting(name, args, here)
        if there and func in WAITS:
            self.crossed(f"wait for a {WAITS[func]}")
        if there and name in INDEXING and any(index.dtype == torch.bool for index in _tensors(args[1])):
            self.crossed("wait for a size")
        result = func(*_each(_held, args), **{key: _each(_held, value) for key, value in kwargs.items()})
        on_device = bool(there) if wanted is None else wanted == NAME
        if name == "aten::_to_copy":
            self._moves(bool(there), on_device)
        self.counts["kernels" if on_device else "on the cpu"] += 1
        same = {id(leaf.held): leaf for leaf in there}  # what works in place gives back what it was given

        def wrapped(value):
            if not on_device or not isinstance(value, torch.Tensor):
                return value
            return same.get(id(value)) if id(value) in same else OnDevice(value)

        return _each(wrapped, result)

    def _moves(self, begin, end):
        if begin != end:
            self.crossed("to device" if end else "to cpu")

    def _meeting(self, name, args, here):
        """Let only an index of the CPU meet a tensor of the device: it is copied there."""
        indices = {id(index) for index in _tensors(args[1])} if name in INDEXING else set()
        if not isinstance(args[0], OnDevice) or any(id(tensor) not in indices for tensor in here):
            shapes = [tuple(tensor.shape) for tensor in here]
            raise RuntimeError(f"{name}: expected all tensors on one device, but found {NAME} and cpu {shapes}")
        self.crossed("to device")


class Calls(TorchFunctionMode):
    """What PyTorch decides before an operation runs: tensors from numbers, and whose random numbers may be drawn."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        generator, device = kwargs.get("generator"), kwargs.get("device")
        if generator is not None:
            first = next((value for value in args if isinstance(value, torch.Tensor)), None)
            drawn = torch.device(device or ("cpu" if first is None else first.device)).type
            if drawn != generator.device.type:
                raise RuntimeError(f"{func.__name__}: expected a {drawn!r} generator, but found {generator.device}")
        if func in (torch.tensor, torch.as_tensor) and device is not None and not isinstance(args[0], torch.Tensor):
            return func(*args, **{**kwargs, "device": "cpu"}).to(device)
        return func(*args, **kwargs)


def _held(value):
    return value.held if isinstance(value, OnDevice) else value


def _each(change, value):
    """Apply `change` to what lies in nested lists and tuples."""
    return type(value)(_each(change, item) for item in value) if type(value) in (list, tuple) else change(value)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from _tensors(item)


@contextmanager
def running():
    """Run everything inside on a machine with the pretend GPU; gives the `Traffic`."""
    future, before = torch.__future__, torch.__future__.get_overwrite_module_params_on_conversion()
    future.set_overwrite_module_params_on_conversion(True)  # parameters that move are made anew, as wrappers must be
    try:
        with Traffic() as traffic, Calls():
            yield traffic
    finally:
        future.set_overwrite_module_params_on_conversion(before)
