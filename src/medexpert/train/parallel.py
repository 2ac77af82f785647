"""One process or many: who am I, how the weights are held, and sums over all processes.

Processes are started by torchrun. Gradients are summed, never averaged: the loss already carries
1 / (units of the whole step). Three ways to hold the weights, the same to the loop:

- `Masters` (optim.py): one process, or `sharding = "replicate"`: each holds everything.
- `Sharded`: all weights, gradients and moments in shards (FSDP2), fp32, gathered layer by layer in
  the compute dtype. Rajbhandari et al. 2020 (ZeRO), stage 3.
- `Adapted`: the frozen base in shards, the small adapter as `Masters` on every process.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train.objectives import unwrapped
from medexpert.train.optim import Masters, Weights, cast, parameter_groups, scale_to, total_norm

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class World:
    """The processes that train together; `rank` counts from 0, `local_rank` on this machine.

    `patient` is the group in which they wait for what one of them does alone, such as tokenising;
    elsewhere a process that does not answer for half an hour is taken for lost (`train.meeting`).
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    patient: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes."""
        return self.rank == 0

    def only_first(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """`say` on rank 0, silence on the others."""
        return say if self.first else _silent


def _silent(line: str) -> None:
    """Say nothing."""


def sum_over(world: World, *values: float, group: dist.ProcessGroup | None = None) -> list[float]:
    """Each value summed over all processes (float64), the same on every one. Collective."""
    if world.size == 1:
        return [float(value) for value in values]
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total, group=group)
    return [float(value) for value in total]


def agree(world: World, flag: bool) -> bool:
    """True on every process when `flag` is true on any. Collective."""
    return sum_over(world, float(flag))[0] > 0


def from_first(world: World, value: Any, group: dist.ProcessGroup | None = None) -> Any:
    """Rank 0's value on every process: what is decided by it is decided alike. Collective."""
    box = [value]
    if world.size > 1:
        dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def barrier(world: World) -> None:
    """Wait until every process is here, however long one of them works alone before."""
    sum_over(world, 0.0, group=world.patient)


def hold(learner: nn.Module, settings: Stage, world: World) -> Weights:
    """Cast, shard and hook `learner` (its `.model` is what trains) as the settings and world ask.

    Quantised weights are not sharded: each process holds them whole. Raises UserError when nothing
    is trainable.
    """
    model: Any = learner.model
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError("no parameter is trainable")
    quantised = not all(p.is_floating_point() for p in model.parameters())
    sharded = world.size > 1 and settings.sharding == "full" and not quantised
    twin = Twin(model) if sharded else None
    if settings.recompute:
        recompute(model, keep_context=settings.method == "cpoly")
    dtype = DTYPES[settings.dtype]
    if twin is None:
        if not quantised:
            cast(model, dtype, trained=False)  # before it moves: half the memory
            learner.to(world.device)
        return Masters(model, dtype, world.size)
    if settings.method == "full":
        return Sharded(learner, dtype, world, twin)
    return Adapted(learner, dtype, world, twin)


def layers(model: Any) -> list[nn.Module]:
    """The decoder layers, first to last: the list of modules with the most weights."""
    decoder: Any = unwrapped(model)
    if hasattr(decoder, "get_decoder"):
        decoder = decoder.get_decoder()
    stacks: list[Any] = [m for m in decoder.modules() if isinstance(m, nn.ModuleList)]
    if not stacks:
        raise UserError(f"{type(decoder).__name__} has no list of layers: it cannot be split")

    def weights(stack: Any) -> int:
        return sum(p.numel() for p in stack.parameters())

    return list(max(stacks, key=weights))


def recompute(model: Any, *, keep_context: bool) -> None:
    """Keep only the inputs of each decoder layer; make its activations again on the way back.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". `keep_context`: run it again
    with the context variables of the way there (C-Poly's task numbers).
    """
    for layer in layers(model):
        forward: Any = layer.forward
        again = _InContext(forward) if keep_context else forward
        wrapped: Any = functools.partial(_recomputed, again)
        layer.forward = wrapped


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if isinstance(forward, _InContext):
        forward = forward.bound()
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


class _InContext:
    """A function that always runs in the context variables of the moment it was bound."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def bound(self) -> Callable[..., Any]:
        context = contextvars.copy_context()
        return lambda *args, **kwargs: context.copy().run(self.function, *args, **kwargs)


class Twin:
    """A copy of a model without its weights, to be filled when a plain model is wanted.

    Buffers are shared with the model (rotary frequencies); tied weights stay tied.
    """

    def __init__(self, model: nn.Module) -> None:
        memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
        for parameter in model.parameters():
            memo[id(parameter)] = nn.Parameter(
                torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
            )
        self.model: nn.Module = copy.deepcopy(model, memo).eval()
        self._empty = dict(self.model.named_parameters())
        self._places: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in self._empty}
        names = {id(parameter): name for name, parameter in self._empty.items()}
        for module in self.model.modules():
            for key, held in module._parameters.items():
                if held is not None:
                    self._places[names[id(held)]].append((module, key))

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """The model with `tensors`, one for each parameter name."""
        for name, empty in self._empty.items():
            filled = nn.Parameter(tensors[name], requires_grad=empty.requires_grad)
            for module, key in self._places[name]:
                module._parameters[key] = filled
        return self.model

    def clear(self) -> None:
        """Let go of the weights."""
        for name, empty in self._empty.items():
            for module, key in self._places[name]:
                module._parameters[key] = empty


def _shard(learner: nn.Module, dtype: torch.dtype, world: World, kept: set[nn.Parameter]) -> None:
    """FSDP2 over every decoder layer and the rest; `kept` parameters stay out of it."""
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Inputs keep their dtype: rotary tables and masks are what they are in one process.
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    inner: Any = learner.model
    for module in [*layers(inner), learner]:
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=kept)
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # A weight that one process did not use (no target in its rows) sums as zero.
            module.set_reduce_scatter_unused_params(True)


def _full(parameter: torch.Tensor) -> torch.Tensor:
    """The whole tensor of a sharded parameter. Collective."""
    if isinstance(parameter, DTensor):
        whole: torch.Tensor = parameter.full_tensor().detach()
        return whole
    return parameter.detach()


class _OverShards:
    """What `Sharded` and `Adapted` share: a plain twin made whole for a while."""

    learner: nn.Module
    twin: Twin
    dtype: torch.dtype

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        inner: Any = self.learner.model
        tensors = {name: _full(p).to(self.dtype) for name, p in inner.named_parameters()}
        try:
            yield self.twin.fill(tensors)
        finally:
            self.twin.clear()

    def release(self) -> nn.Module | None:
        inner: Any = self.learner.model
        own = self.master  # type: ignore[attr-defined]
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in inner.named_parameters():
            whole = _full(own.get(name, parameter))
            if dist.get_rank() == 0:
                tensors[name] = whole.float().cpu()
        if dist.get_rank() != 0:
            return None
        cast(self.twin.model, torch.float32)  # tells its config, too
        plain = self.twin.fill(tensors)
        for buffer_owner in plain.modules():
            for key, buffer in buffer_owner._buffers.items():
                if buffer is not None:
                    buffer_owner._buffers[key] = buffer.cpu()
        return plain

    def _forget(self) -> None:
        """A step that failed half-way leaves FSDP's own notes half-way, too."""
        root: Any = self.learner
        root.reset_iter_state()


class Sharded(_OverShards):
    """Every trained weight, its gradient and its moments in shards over the processes, fp32."""

    def __init__(self, learner: nn.Module, dtype: torch.dtype, world: World, twin: Twin) -> None:
        self.learner, self.dtype, self.twin = learner, dtype, twin
        inner: Any = learner.model
        for parameter in inner.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        cast(inner, dtype, trained=False)
        _shard(learner, dtype, world, set())
        self.master: dict[str, torch.Tensor] = {
            name: p for name, p in inner.named_parameters() if p.requires_grad
        }

    def groups(self, settings: Stage) -> list[dict[str, Any]]:
        return parameter_groups(self.master, settings)

    def publish(self) -> None:
        """Nothing to do: the layers are gathered from the masters when they are used."""

    @torch.no_grad()
    def clip(self, limit: float) -> float:
        # FSDP has summed them over the processes already; what is left is the norm of all shards.
        gradients = [_local(t.grad) for t in self.master.values() if t.grad is not None]
        square = total_norm(gradients).double().cpu() ** 2
        dist.all_reduce(square)
        return scale_to(gradients, limit, math.sqrt(square) if square >= 0 else math.nan)

    def drop(self) -> None:
        for tensor in self.master.values():
            tensor.grad = None
        self._forget()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        from torch.distributed.tensor import distribute_tensor

        for name, tensor in self.master.items():
            assert isinstance(tensor, DTensor)
            given = tensors[name].to(tensor.device, torch.float32)
            whole = distribute_tensor(given, tensor.device_mesh, tensor.placements)
            tensor.copy_(whole)

    def gather(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for name, tensor in self.master.items():
            whole = _full(tensor)
            if dist.get_rank() == 0:
                found[name] = whole.to("cpu", copy=True)
        return found


class Adapted(_OverShards, Masters):
    """A frozen base in shards (compute dtype) under an adapter that every process holds whole."""

    def __init__(self, learner: nn.Module, dtype: torch.dtype, world: World, twin: Twin) -> None:
        self.learner, self.dtype, self.twin = learner, dtype, twin
        inner: Any = learner.model
        for parameter in inner.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(world.device)
        Masters.__init__(self, inner, dtype, world.size)
        _shard(learner, dtype, world, {p for p in inner.parameters() if p.requires_grad})

    def drop(self) -> None:
        Masters.drop(self)
        self._forget()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, DTensor):
        shard: torch.Tensor = tensor.to_local()
        return shard
    return tensor
