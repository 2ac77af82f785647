"""Schedules and parameter groups as pure functions; fp32 masters of low-precision weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from medexpert.recipe_train import Stage

EMBEDDINGS = ("embed", "lm_head", "wte", "wpe")
"""In the names of embeddings and output layers, which do not decay."""
ROUTER = ".logits_"
"""In the names of C-Poly's routing logits: a learning rate of their own, no decay."""


def learning_rate(step: int, steps: int, settings: Stage) -> float:
    """Learning rate of optimiser step `step` (from 0) out of `steps`.

    Linear warm-up over `warmup_share` of the steps, then cosine or linear decay to `final_share` of
    the peak at the last step, or constant. `wsd` stays at the peak and decays linearly over the
    last `decay_share` of the steps (warm-up comes first where the two overlap).
    """
    peak, final = settings.learning_rate, settings.final_share
    warmup = math.ceil(settings.warmup_share * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "wsd":
        start = max(warmup, steps - math.ceil(settings.decay_share * steps))
        done = max(0, step - start + 1) / max(1, steps - start)
    else:
        done = (step - warmup) / max(1, steps - 1 - warmup)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1 - done
    return peak * (final + (1 - final) * shape)


class Weights(Protocol):
    """What the loop trains: fp32 weights, however the processes hold them.

    `master` has the model's own names; its tensors are DTensors where they are sharded. `clip`,
    `gather`, `whole` and `release` are collective: every process calls them.
    """

    master: dict[str, torch.Tensor]

    def groups(self, settings: Stage) -> list[dict[str, Any]]:
        """AdamW groups, see :func:`parameter_groups`."""

    def publish(self) -> None:
        """Show the model the masters, rounded to the dtype it computes in."""

    def clip(self, limit: float) -> float:
        """Sum the gradients over processes, scale to an L2 norm <= limit; the norm before.

        Once a step, after the last micro-batch. A norm that is not finite scales nothing.
        """

    def drop(self) -> None:
        """Forget the gradients so far: of a step that is skipped, or that failed half-way."""

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the masters (and the model's weights) by whole tensors of the same names."""

    def gather(self) -> dict[str, torch.Tensor]:
        """Whole fp32 masters on the CPU of rank 0; {} on the others."""

    def whole(self) -> AbstractContextManager[nn.Module]:
        """The model with whole weights in eval mode, on every process: call what this yields."""

    def release(self) -> nn.Module | None:
        """The run is over: the plain model in fp32 and eval mode on rank 0; None on the others.

        On the CPU, unless it is quantised. Frozen weights come back rounded to the dtype they were
        held in.
        """


def parameter_groups(master: Mapping[str, torch.Tensor], settings: Stage) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases), embeddings and the output layer do not.

    C-Poly's router learns at `cpoly.router_learning_rate` and does not decay. The loop sets each
    group's rate to the scheduled rate x `lr_scale`. Empty groups are left out.
    """
    decay: list[torch.Tensor] = []
    keep: list[torch.Tensor] = []
    router: list[torch.Tensor] = []
    for name, tensor in master.items():
        if ROUTER in name:
            router.append(tensor)
        elif tensor.ndim < 2 or any(part in name for part in EMBEDDINGS):
            keep.append(tensor)
        else:
            decay.append(tensor)
    faster = settings.cpoly.router_learning_rate / settings.learning_rate
    groups = [
        {"params": decay, "weight_decay": settings.weight_decay, "lr_scale": 1.0},
        {"params": keep, "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": router, "weight_decay": 0.0, "lr_scale": faster},
    ]
    for group in groups:
        group["lr"] = settings.learning_rate * float(group["lr_scale"])  # type: ignore[arg-type]
    return [group for group in groups if group["params"]]


def adamw(weights: Weights, settings: Stage) -> torch.optim.AdamW:
    """Fused AdamW over the masters (eps 1e-8); `fused` exists for CPU and CUDA."""
    groups = weights.groups(settings)
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=1e-8, fused=True
    )


def cast(model: nn.Module, dtype: torch.dtype, *, trained: bool = True) -> None:
    """Cast floating parameters in place; buffers stay: rounded rotary frequencies move positions.

    Quantised weights (whole numbers) stay as they are. `trained=False` casts the frozen ones only.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and (trained or not parameter.requires_grad):
            parameter.data = parameter.data.to(dtype)
    config = getattr(model, "config", None)
    if config is not None:
        config.dtype = dtype


class Masters:
    """fp32 copies of the trainable weights, with fp32 gradients summed over micro-batches.

    The model computes in `dtype`; each gradient is added to its master's as soon as it is complete
    and then freed, so that accumulation does not round in bf16. Names are the model's own. With
    several `processes` each holds all masters, and `clip` adds up their gradients.
    """

    def __init__(self, model: Any, dtype: torch.dtype, processes: int = 1) -> None:
        self.model, self.processes = model, processes
        live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.master = {name: p.detach().float().clone() for name, p in live.items()}
        cast(model, dtype)
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # Kept from step to step: fresh memory would be mapped and cleared page by page each time.
        self._gradient: dict[str, torch.Tensor] = {}
        self._hooks: list[Any] = []
        for name, parameter in self.live.items():
            register: Any = parameter.register_post_accumulate_grad_hook
            self._hooks.append(register(self._collector(name)))

    def agree(self) -> None:
        """The first process's masters on all. Collective, so it is not done while one is made."""
        if self.processes > 1:
            for tensor in self.master.values():
                dist.broadcast(tensor, src=0)

    def _collector(self, name: str) -> Callable[[torch.Tensor], None]:
        master = self.master[name]

        def collect(parameter: torch.Tensor) -> None:
            gradient = parameter.grad
            assert gradient is not None
            if master.grad is None:
                if name not in self._gradient:
                    self._gradient[name] = torch.empty_like(master)
                master.grad = self._gradient[name].copy_(gradient)
            else:
                master.grad.add_(gradient)
            parameter.grad = None

        return collect

    def groups(self, settings: Stage) -> list[dict[str, Any]]:
        return parameter_groups(self.master, settings)

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model, rounded to its dtype."""
        torch._foreach_copy_(list(self.live.values()), list(self.master.values()))

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the masters (and the model's weights) by saved ones of the same names."""
        for name, tensor in self.master.items():
            tensor.copy_(tensors[name])
        self.publish()

    def drop(self) -> None:
        for name, tensor in self.master.items():
            tensor.grad = None
            self.live[name].grad = None

    @torch.no_grad()
    def clip(self, limit: float) -> float:
        """Sum over processes, then scale to a global L2 norm of at most `limit`; the norm before.

        A norm that is not finite scales nothing.
        """
        if self.processes > 1:
            self._sum_over_processes()
        gradients = [t.grad for t in self.master.values() if t.grad is not None]
        return scale_to(gradients, limit, float(total_norm(gradients)))

    def _sum_over_processes(self) -> None:
        """One sum for all gradients. A weight that no process used keeps no gradient, as alone."""
        tensors = list(self.master.values())
        used = torch.tensor([t.grad is not None for t in tensors], dtype=torch.int32)
        used = used.to(tensors[0].device)
        dist.all_reduce(used, op=dist.ReduceOp.MAX)
        mine: list[torch.Tensor] = []
        for (name, tensor), wanted in zip(self.master.items(), used.tolist(), strict=True):
            if wanted and tensor.grad is None:
                if name not in self._gradient:
                    self._gradient[name] = torch.empty_like(tensor)
                tensor.grad = self._gradient[name].zero_()
            if tensor.grad is not None:
                mine.append(tensor.grad)
        for bucket in buckets(mine):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            start = 0
            for gradient in bucket:
                gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
                start += gradient.numel()

    def gather(self) -> dict[str, torch.Tensor]:
        if self.processes > 1 and dist.get_rank() != 0:
            return {}
        return {name: t.detach().to("cpu", copy=True) for name, t in self.master.items()}

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        was_training = self.model.training
        try:
            yield self.model.eval()
        finally:
            self.model.train(was_training)

    def release(self) -> nn.Module | None:
        for hook in self._hooks:
            hook.remove()
        self.drop()
        self._gradient.clear()
        if self.processes > 1 and dist.get_rank() != 0:
            return None
        for name, parameter in self.live.items():
            parameter.data = self.master[name]  # no second fp32 copy beside the masters
        if all(parameter.is_floating_point() for parameter in self.model.parameters()):
            self.model.to("cpu")  # a GPU may hold a frozen base rounded and have no room for fp32
        cast(self.model, torch.float32)
        released: nn.Module = self.model.eval()
        return released


BUCKET = 2**26
"""Elements summed over processes at once: 256 MiB of fp32."""


def buckets(tensors: Sequence[torch.Tensor], size: int = BUCKET) -> Iterator[list[torch.Tensor]]:
    """Runs of tensors of about `size` elements together, in the given order."""
    run: list[torch.Tensor] = []
    held = 0
    for tensor in tensors:
        if run and held + tensor.numel() > size:
            yield run
            run, held = [], 0
        run.append(tensor)
        held += tensor.numel()
    if run:
        yield run


def total_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """L2 norm over all tensors together; 0 without any."""
    if not gradients:
        return torch.zeros(())
    norms: list[torch.Tensor] = list(torch._foreach_norm(list(gradients)))
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def scale_to(gradients: Sequence[torch.Tensor], limit: float, norm: float) -> float:
    """Scale in place where `norm` is finite and over `limit`; returns `norm`."""
    if math.isfinite(norm) and norm > limit:
        torch._foreach_mul_(list(gradients), limit / norm)
    return norm
