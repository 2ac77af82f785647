"""A model with C-Poly layers: injection, the tasks of a batch, the sample of a step, merging."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from medexpert.model.adapters.cpoly.config import CPolyConfig
from medexpert.model.adapters.cpoly.layer import (
    Active,
    CPolyLinear,
    Routing,
    skill_weights,
)
from medexpert.model.adapters.targets import ALL_LINEAR, candidates, linear_layers, matching
from medexpert.records import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tasks = int | str | Sequence[int | str] | torch.Tensor
"""One task for all rows, or a task for each row; by name or by number."""


class CPolyModel(nn.Module):
    """A transformers model whose linear layers carry skills; everything else of it is frozen.

    What it has no name for is looked up in the model below, so `generate`, `config` and the rest
    work as before, inside `with model.task(...):`.
    """

    def __init__(self, model: PreTrainedModel, config: CPolyConfig, seed: int) -> None:
        """Inject into `model` in place. Raises UserError as :func:`targets.matching` does, and for
        a module that is no plain linear layer.
        """
        super().__init__()
        names = _targets(model, config)
        if config.target_modules == ALL_LINEAR:
            config = config.model_copy(update={"target_modules": tuple(candidates(model))})
        self.cpoly, self.routing = config, Routing()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for index, name in enumerate(names):
            parent, _, last = name.rpartition(".")
            old: Any = model.get_submodule(name)
            layer = CPolyLinear(old, config, self.routing, index, seed).train(old.training)
            setattr(model.get_submodule(parent), last, layer)
        self.inner: Any = model
        self.training = model.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner":  # while it is being built
                raise
            return getattr(self.inner, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward."""
        return self.inner(*args, **kwargs)

    def get_base_model(self) -> PreTrainedModel:
        """The transformers model, its layers adapted."""
        return self.inner  # type: ignore[no-any-return]

    def layers(self) -> dict[str, CPolyLinear]:
        """The adapted layers by their name in the transformers model."""
        found = self.inner.named_modules()
        return {name: layer for name, layer in found if isinstance(layer, CPolyLinear)}

    def task(self, tasks: Tasks) -> AbstractContextManager[None]:
        """Compute for these tasks inside the context.

        Rows of one task, however given, take the fast path. Raises UserError for an unknown name
        or number. A tensor on a GPU is read back once, here: keep the ids on the CPU.
        """
        given: Any = tasks.tolist() if isinstance(tasks, torch.Tensor) else tasks
        each = [given] if isinstance(given, (int, str)) else given
        numbers = tuple(self._number(t) for t in each)
        if not numbers:
            raise UserError("no task is given for this batch")
        if len(set(numbers)) == 1:
            return self.routing.hold(Active(numbers[0], key=numbers[:1]))
        device = next(self.inner.parameters()).device
        return self.routing.hold(Active(None, torch.tensor(numbers, device=device), numbers))

    def _number(self, task: int | str) -> int:
        if isinstance(task, str):
            return self.cpoly.index(task)
        count = len(self.cpoly.tasks)
        if not 0 <= task < count:
            raise UserError(
                f"there is no task {task}",
                allowed=f"0 to {count - 1} ({', '.join(self.cpoly.tasks)})",
            )
        return int(task)

    def begin_step(self, seed: int) -> None:
        """Draw the sample of one optimiser step: one a layer and task, from `seed` alone.

        It stays for all micro-batches of the step and for activations made again. Every process
        must give the same seed.
        """
        self.routing.drawn = True
        self.routing.forget()
        if self.cpoly.gumbel:
            for layer in self.layers().values():
                layer.draw(seed)

    def add_task(self, name: str, *, seed: int = 0) -> None:
        """Append a task that starts from what the others share (:meth:`CPolyLinear.grow`).

        The parameters are new objects: make the optimiser afterwards. Raises UserError for a name
        that is taken.
        """
        if not name or name in self.cpoly.tasks:
            raise UserError(f"there is a task {name!r} already" if name else "a task needs a name")
        self.cpoly = self.cpoly.model_copy(update={"tasks": (*self.cpoly.tasks, name)})
        for layer in self.layers().values():
            layer.grow(self.cpoly, seed)

    def unwrap(self, task: str) -> PreTrainedModel:
        """The plain model with the update of `task` in its weights, in float32, in place.

        `self` must not be used afterwards. Raises UserError when a merged weight is not finite.
        """
        number = self.cpoly.index(task)
        self.inner.to(torch.float32)
        for name, layer in self.layers().items():
            merged = layer.merged(number)
            if not torch.isfinite(merged.weight).all():
                raise UserError(f"the adapter cannot be merged: {name} has weights not finite")
            parent, _, last = name.rpartition(".")
            setattr(self.inner.get_submodule(parent), last, merged)
        return self.inner  # type: ignore[no-any-return]


def find(model: Any) -> CPolyModel | None:
    """The C-Poly model that `model` is or holds, else None."""
    if not isinstance(model, nn.Module):
        return None
    return next((m for m in model.modules() if isinstance(m, CPolyModel)), None)


@contextmanager
def tasks(model: Any, ids: Tasks) -> Iterator[None]:
    """:meth:`CPolyModel.task` of the C-Poly model in `model`; nothing for other models."""
    found = find(model)
    if found is None:
        yield
        return
    with found.task(ids):
        yield


def begin_step(model: Any, seed: int) -> None:
    """:meth:`CPolyModel.begin_step` of the C-Poly model in `model`; nothing for other models."""
    found = find(model)
    if found is not None:
        found.begin_step(seed)


@torch.no_grad()
def routing_facts(model: Any) -> dict[str, dict[str, float]]:
    """How the tasks share skills, as means over the layers; empty for other models.

    `entropy` by task: of its row of weights, as a share of the most there can be, log(A + B); 0 is
    one skill, 1 all alike. `similarity` by pair "a|b": cosine of two rows over all A + T B skills,
    so private weights count in the norm and never in the product.
    """
    found = find(model)
    if found is None:
        return {}
    names, config = found.cpoly.tasks, found.cpoly
    entropy = torch.zeros(len(names), dtype=torch.float64)
    cosine = torch.zeros(len(names), len(names), dtype=torch.float64)
    layers = found.layers().values()
    for layer in layers:
        rows = skill_weights(config, layer.logits_common, layer.logits_private).double().cpu()
        share = rows.abs() / rows.abs().sum(-1, keepdim=True)
        entropy += torch.special.entr(share).sum(-1) / max(math.log(config.skills), 1e-12)
        shared = rows[:, : config.common]
        norm = rows.norm(dim=-1)
        cosine += (shared @ shared.T) / (norm[:, None] * norm)
    pairs = itertools.combinations(range(len(names)), 2)
    return {
        "entropy": {n: float(e) / len(layers) for n, e in zip(names, entropy, strict=True)},
        "similarity": {f"{names[i]}|{names[j]}": float(cosine[i, j]) / len(layers)
                       for i, j in pairs},
    }  # fmt: skip


def _targets(model: PreTrainedModel, config: CPolyConfig) -> list[str]:
    """Names of the layers to inject into; raises UserError for one that cannot carry skills."""
    if find(model) is not None or any(isinstance(m, CPolyLinear) for m in model.modules()):
        raise ValueError("the model carries C-Poly skills already")
    names = (
        linear_layers(model)
        if config.target_modules == ALL_LINEAR
        else matching(config.target_modules, model)
    )
    for name in names:
        module = model.get_submodule(name)
        plain = isinstance(module, nn.Linear) and module.weight.is_floating_point()
        if not plain:
            raise UserError(
                f"target_modules: {name} is a {type(module).__name__}, and C-Poly sits on "
                "unquantised nn.Linear layers only",
                allowed=", ".join(candidates(model)),
            )
    return names
