"""A GPU without one: tensors that lie in main memory and are taken for ones on cuda:0.

What is moved or made there is marked, and so is what comes of it. An operation on marked and
unmarked tensors raises, as CUDA would: `index` takes indices from anywhere, copies are allowed, and
so are numbers without sides. Kernels, memory and speed are those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
_COPIES = ("aten::copy_", "aten::_to_copy", "aten::_foreach_copy_", "aten::set_data")
_INDICES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_marked: dict[int, torch.UntypedStorage] = {}
"""Memory that counts as the GPU's. Held, so that its address is not used again."""


def on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage()._cdata in _marked


def _mark(tensor: torch.Tensor, wanted: bool = True) -> torch.Tensor:
    storage = tensor.untyped_storage()
    if wanted:
        _marked[storage._cdata] = storage
    else:
        _marked.pop(storage._cdata, None)
    return tensor


def _tensors(given: Any) -> list[torch.Tensor]:
    found = [x for x in tree_leaves(given) if isinstance(x, torch.Tensor)]
    return [x for x in found if x.layout == torch.strided and _real(x)]


def _real(tensor: torch.Tensor) -> bool:
    return _device.__get__(tensor).type == "cpu"


class _Operations(TorchDispatchMode):
    """Every operation, those of the way back among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        given = _tensors((args[:1] if name in _INDICES else args, kwargs))
        gpu = [x for x in given if on_gpu(x)]
        if gpu and name not in _COPIES:
            other = [x for x in given if x.dim() and not on_gpu(x)]
            if other:
                raise RuntimeError(f"{name}: tensors on cuda:0 and cpu, {tuple(other[0].shape)}")
        out = func(*args, **kwargs)
        if name not in _COPIES[:1]:
            for made in _tensors(out) if gpu else ():
                _mark(made)
        return out


class _Calls(TorchFunctionMode):
    """Calls that name a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return _moved(name, func, args, kwargs)
        if func is torch.Tensor.numpy and on_gpu(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        kwargs.pop("pin_memory", None)
        named = kwargs.get("device")
        if named is None or torch.device(named).type == "meta":
            return func(*args, **kwargs)
        out = func(*args, **{**kwargs, "device": "cpu"})
        return _mark(out, torch.device(named).type == "cuda")


def _moved(name: str, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    tensor, *rest = args
    device, dtype = (torch.device(name) if name != "to" else None), None
    if name == "to":
        if rest and isinstance(rest[0], torch.Tensor):
            device, dtype = rest[0].device, rest[0].dtype
        else:
            device, dtype, _, _ = torch._C._nn._parse_to(*rest, **kwargs)
    if device is None or device.type == "meta" or not _real(tensor):
        return func(*args, **kwargs)  # type: ignore[no-any-return]
    wanted = device.type == "cuda"
    wide: torch.Tensor = tensor if dtype is None else torch.Tensor.to(tensor, dtype)
    if wanted != on_gpu(wide):
        wide = _mark(wide.clone(), wanted)
    return wide


_device: Any = torch._C.TensorBase.device


def _device_of(tensor: torch.Tensor) -> torch.device:
    found: torch.device = _device.__get__(tensor)
    return GPU if found.type == "cpu" and on_gpu(tensor) else found


@contextmanager
def simulated_gpu(patch: pytest.MonkeyPatch) -> Iterator[Callable[[torch.Tensor], bool]]:
    """Inside, `cuda` can be named, and it is the default device of models."""
    from medexpert.model import base
    from medexpert.train import meeting, speed

    made, counted = torch.Generator, torch.arange

    def arange(*args: Any, **how: Any) -> torch.Tensor:
        """What runs on the way back is not seen by :class:`_Calls`; there, this alone is made."""
        device = torch.device(how.pop("device", None) or "cpu")
        return _mark(counted(*args, **how), device.type == "cuda")

    patch.setattr(torch.Tensor, "device", property(_device_of), raising=False)
    patch.setattr(torch, "Generator", lambda device="cpu": made())
    patch.setattr(torch, "arange", arange)
    for name in ("synchronize", "empty_cache"):
        patch.setattr(torch.cuda, name, lambda *args: None)
    patch.setattr(speed, "measured_matmul_rate", lambda *args: 1e12)
    for module in (base, meeting):
        patch.setattr(module, "default_device", lambda: GPU)
    try:
        with _Calls(), _Operations():
            yield on_gpu
    finally:
        _marked.clear()
