"""Schedules and parameter groups as pure functions; fp32 masters of low-precision weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from medexpert.model.base import cast_weights
from medexpert.recipe_train import Stage


def learning_rate(step: int, steps: int, settings: Stage) -> float:
    """Learning rate of optimiser step `step` (from 0) out of `steps`.

    Linear warm-up over `warmup_share` of the steps, then cosine or linear decay to `final_share` of
    the peak at the last step, or constant.
    """
    warmup = math.ceil(settings.warmup_share * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, steps - 1 - warmup)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1 - done
    return settings.learning_rate * (settings.final_share + (1 - settings.final_share) * shape)


class Masters:
    """fp32 copies of the trainable weights, with fp32 gradients summed over micro-batches.

    The model computes in `dtype`; each gradient is added to its master's as soon as it is complete
    and then freed, so that accumulation does not round in bf16. Names are the model's own.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.master = {name: p.detach().float().clone() for name, p in self.live.items()}
        # Parameters only: rounding the rotary frequencies would move every position.
        cast_weights(model, dtype)
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for name, parameter in self.live.items():
            hook: Any = parameter.register_post_accumulate_grad_hook
            hook(self._collector(self.master[name]))

    @staticmethod
    def _collector(master: torch.Tensor) -> object:
        def collect(parameter: torch.Tensor) -> None:
            gradient = parameter.grad
            assert gradient is not None
            if master.grad is None:
                master.grad = gradient.float()
            else:
                master.grad.add_(gradient)
            parameter.grad = None

        return collect

    def groups(self, weight_decay: float) -> list[dict[str, object]]:
        """AdamW groups: matrices decay, vectors (norms, biases) and embeddings do not."""
        decay: list[torch.Tensor] = []
        keep: list[torch.Tensor] = []
        for name, tensor in self.master.items():
            plain = tensor.ndim < 2 or "embed" in name or "lm_head" in name
            (keep if plain else decay).append(tensor)
        return [
            {"params": decay, "weight_decay": weight_decay},
            {"params": keep, "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model, rounded to its dtype."""
        for name, parameter in self.live.items():
            parameter.copy_(self.master[name])

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the masters (and the model's weights) by saved ones of the same names."""
        for name, tensor in self.master.items():
            tensor.copy_(tensors[name])
        self.publish()

    def gradients(self) -> Iterable[torch.Tensor]:
        return (t.grad for t in self.master.values() if t.grad is not None)

    @torch.no_grad()
    def clip(self, limit: float) -> float:
        """Scale the gradients to a global L2 norm of at most `limit`; returns the norm before."""
        gradients = list(self.gradients())
        norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])))
        if norm > limit:
            for gradient in gradients:
                gradient.mul_(limit / norm)
        return norm


def adamw(masters: Masters, settings: Stage) -> torch.optim.AdamW:
    """Fused AdamW over the masters (eps 1e-8)."""
    return torch.optim.AdamW(
        [group for group in masters.groups(settings.weight_decay) if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=1e-8,
        fused=True,
    )
