"""One linear layer with skills: y = W x + sum_i w_i (alpha / r) B_i A_i x over a task's skills.

The form is a sum of products, not a product of summed factors: each skill keeps its own subspace.
Polytropon (Ponti et al. 2023, equations 2 and 3) gives the routing, C-Poly (arXiv 2312.03248) the
split into A skills shared by all tasks and B skills of each task's own.

Legend: T tasks, A shared and B private skills, S = A + B, r rank, I inputs, O outputs, N rows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from medexpert.model.adapters.cpoly.config import CPolyConfig
from medexpert.records import digest

SPREAD = 1e-3
"""Logits start in U(-SPREAD, SPREAD): every skill about alike, none exactly."""
NAMES = ("common_a", "common_b", "private_a", "private_b", "logits_common", "logits_private")


@dataclass(frozen=True)
class Active:
    """Whose batch is being computed: one `task` of all rows, or a task a row in `rows` (N,)."""

    task: int | None
    rows: torch.Tensor | None = None
    key: tuple[int, ...] = ()


class Routing:
    """What the layers of one model share: the tasks of the batch, and whether noise was drawn.

    A plain attribute and no context variable: torch.compile cannot read those, and the recompute of
    checkpointed activations runs in other threads on a GPU. So one thread at a time may hold it.
    """

    def __init__(self) -> None:
        self.active: Active | None = None
        self.drawn = False
        self._thread = 0
        self.forget()

    def forget(self) -> None:
        """No forward waits for its backward any more."""
        self._waiting: Active | None = None  # the last forward with gradients
        self._mixed = False  # other tasks came before it, and no backward in between was seen
        self._seen = False

    @contextmanager
    def hold(self, active: Active) -> Iterator[None]:
        """Compute for `active` inside. Raises RuntimeError when another thread is inside."""
        me = threading.get_ident()
        if self.active is not None and self._thread != me:
            raise RuntimeError("another thread is computing for other tasks with this model")
        before, self.active, self._thread = self.active, active, me
        if torch.is_grad_enabled():
            last = None if self._seen else self._waiting
            self._mixed = last is not None and (self._mixed or last.key != active.key)
            self._waiting, self._seen = active, False
        try:
            yield
        finally:
            self.active = before

    def current(self) -> Active:
        """The tasks of this forward, or of the forward whose activations are made again."""
        return self.active if self.active is not None else self._again()

    def _again(self) -> Active:
        backward: Any = torch._C
        if backward._current_graph_task_id() == -1 or self._waiting is None:
            raise RuntimeError(
                "C-Poly does not know the tasks of this batch: call the model inside "
                "`with tasks(model, ids):`"
            )
        self._seen = True
        if self._mixed:
            raise RuntimeError(
                "activations cannot be made again: batches of other tasks were computed since; "
                "run backward after each forward, and evaluate without gradients"
            )
        return self._waiting


def skill_weights(
    config: CPolyConfig,
    common: torch.Tensor | None,
    private: torch.Tensor | None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weights (..., S) in float32 from the logits (..., A) and (..., B) of the same tasks.

    Shared: sigmoid((z + noise) / temperature) with `noise` = log u - log(1 - u), the relaxed
    Bernoulli sample (Polytropon, equation 3), and sigmoid(z) without. Private: sigmoid(z).
    sigmoid(z) / sum sigmoid(z) is the softmax of log sigmoid(z), which cannot divide by zero.
    """
    parts = []
    if common is not None:
        z = common.float()
        parts.append(z if noise is None else (z + noise) / config.temperature)
    if config.norm == "joint":
        if private is not None:
            parts.append(private.float())
        return torch.softmax(F.logsigmoid(torch.cat(parts, dim=-1)), dim=-1)
    parts = [torch.softmax(F.logsigmoid(part), dim=-1) for part in parts]
    if private is not None:
        parts.append(1 + private.float())
    return torch.cat(parts, dim=-1)


def task_factors(
    config: CPolyConfig, tensors: Mapping[str, torch.Tensor | None], task: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(S r, I) and (O, S r) in float32 whose product is the update of a task, scale included."""

    def row(name: str) -> torch.Tensor | None:
        tensor = tensors.get(name)
        return None if tensor is None else tensor[task]

    weights = skill_weights(config, row("logits_common"), row("logits_private"))  # (S,)
    low = [t.float() for t in (tensors.get("common_a"), row("private_a")) if t is not None]
    high = [t.float() for t in (tensors.get("common_b"), row("private_b")) if t is not None]
    weighted = torch.cat(high) * (weights * config.scale)[:, None, None]  # (S, O, r)
    return torch.cat(low).flatten(0, 1), weighted.permute(1, 0, 2).flatten(1)


class CPolyLinear(nn.Module):
    """A frozen linear layer and its skills; `forward` asks `routing` for whom it computes.

    Parameters: common_a (A, r, I), common_b (A, O, r), private_a (T, B, r, I), private_b
    (T, B, O, r), logits_common (T, A), logits_private (T, B); None where A or B is 0. They take the
    dtype and device of the layer below. `noise` (T, A) float32 is drawn by :meth:`draw`.
    """

    common_a: nn.Parameter | None
    common_b: nn.Parameter | None
    private_a: nn.Parameter | None
    private_b: nn.Parameter | None
    logits_common: nn.Parameter | None
    logits_private: nn.Parameter | None
    noise: torch.Tensor

    def __init__(
        self, base: nn.Linear, config: CPolyConfig, routing: Routing, index: int, seed: int
    ) -> None:
        super().__init__()
        self.base_layer = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.config, self.routing, self.index = config, routing, index
        generator = torch.Generator().manual_seed(_seed(seed, index))
        tensors = _start(config, base.in_features, base.out_features, generator)
        for name in NAMES:
            tensor = tensors.get(name)
            self.register_parameter(
                name, None if tensor is None else nn.Parameter(tensor.to(base.weight))
            )
        self.clear_noise()

    @property
    def weight(self) -> torch.Tensor:
        """Weight of the layer below, for code that looks at its dtype or device."""
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """Bias of the layer below."""
        return self.base_layer.bias

    def clear_noise(self) -> None:
        """No noise: shape for the tasks and skills there are now."""
        shape = (len(self.config.tasks), self.config.common)
        empty = torch.zeros(shape, device=self.base_layer.weight.device)
        self.register_buffer("noise", empty, persistent=False)

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Logistic noise of one step, log u - log(1 - u), a function of `seed` and layer alone."""
        generator = torch.Generator().manual_seed(_seed(seed, self.index))
        u = torch.rand(self.noise.shape, generator=generator).clamp_(1e-7, 1 - 1e-6)
        self.noise.copy_(torch.logit(u))

    def weights(self, tasks: int | slice | torch.Tensor) -> torch.Tensor:
        """Skill weights of tasks: (S,) for a number, (N, S) for a slice or a tensor (N,)."""
        common = None if self.logits_common is None else self.logits_common[tasks]
        private = None if self.logits_private is None else self.logits_private[tasks]
        noise = None
        if self.training and self.config.gumbel and common is not None:
            if not self.routing.drawn:
                raise RuntimeError("C-Poly trains on a sample: call begin_step(model, seed) first")
            noise = self.noise[tasks]
        return skill_weights(self.config, common, private, noise)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(N, ..., I) -> (N, ..., O); with a task a row, N must be the number of tasks set."""
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        active = self.routing.current()
        some = self.common_a if self.common_a is not None else self.private_a
        assert some is not None
        x = F.dropout(x.to(some.dtype), self.config.dropout, self.training)
        if active.task is not None:
            update = self._one_task(x, active.task)
        else:
            assert active.rows is not None
            update = self._task_a_row(x, active.rows)
        return result + update.to(result.dtype)

    def _one_task(self, x: torch.Tensor, task: int) -> torch.Tensor:
        """Two products: (..., I) x (I, S r) x (S r, O)."""
        low = [self.common_a, None if self.private_a is None else self.private_a[task]]
        high = [self.common_b, None if self.private_b is None else self.private_b[task]]
        a = torch.cat([t for t in low if t is not None]).flatten(0, 1)
        b = torch.cat([t for t in high if t is not None]).permute(1, 0, 2).flatten(1)
        weights = self.weights(task) * self.config.scale  # (S,)
        return F.linear(F.linear(x, a) * self._spread(weights).to(x.dtype), b)

    def _task_a_row(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Shared skills in two products; private ones gathered for each row."""
        if len(rows) != len(x):
            raise RuntimeError(
                f"C-Poly got {len(x)} rows for {len(rows)} tasks: a batch of several tasks needs "
                "a task for each row"
            )
        flat = x.reshape(len(x), -1, self.in_features)  # (N, M, I)
        weights = self._spread(self.weights(rows) * self.config.scale)[:, None].to(x.dtype)
        cut = self.config.common * self.config.rank
        update = flat.new_zeros((len(x), flat.shape[1], self.out_features))
        if self.common_a is not None and self.common_b is not None:
            hidden = F.linear(flat, self.common_a.flatten(0, 1)) * weights[..., :cut]
            update = update + F.linear(hidden, self.common_b.permute(1, 0, 2).flatten(1))
        if self.private_a is not None and self.private_b is not None:
            a = self.private_a[rows].flatten(1, 2)  # (N, B r, I)
            b = self.private_b[rows].transpose(2, 3).flatten(1, 2)  # (N, B r, O)
            update = torch.baddbmm(update, torch.bmm(flat, a.mT) * weights[..., cut:], b)
        return update.reshape(*x.shape[:-1], self.out_features)

    def _spread(self, weights: torch.Tensor) -> torch.Tensor:
        """A weight a skill (..., S) -> a weight a dimension (..., S r)."""
        r = self.config.rank
        return weights[..., None].expand(*weights.shape, r).flatten(-2)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The skills and logits by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    @torch.no_grad()
    def merged(self, task: int) -> nn.Linear:
        """The layer below with W + B A of the task in float32; the layer itself, changed."""
        low, high = task_factors(self.config, self.tensors(), task)
        self.base_layer.weight.data = self.base_layer.weight.float() + high @ low
        if self.base_layer.bias is not None:
            self.base_layer.bias.data = self.base_layer.bias.float()
        return self.base_layer

    @torch.no_grad()
    def grow(self, config: CPolyConfig, seed: int) -> None:
        """A row for the last task of `config`: the mean of the others' logits, its own skills new.

        Its private B starts at zero, so it starts as what the tasks share.
        """
        fresh = _start(
            config,
            self.in_features,
            self.out_features,
            torch.Generator().manual_seed(_seed(seed, self.index)),
        )
        for name in ("logits_common", "logits_private", "private_a", "private_b"):
            old = getattr(self, name)
            if old is None:
                continue
            row = old.mean(0) if name.startswith("logits") else fresh[name][-1].to(old)
            trainable = old.requires_grad
            setattr(self, name, nn.Parameter(torch.cat([old, row[None]]), trainable))
        self.config = config
        self.clear_noise()


def _seed(seed: int, index: int) -> int:
    """A generator's seed for one layer, unlike that of its neighbours."""
    return int(digest([seed, index]), 16) % 2**63


def _start(
    config: CPolyConfig, inputs: int, outputs: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Starting values: A uniform as in nn.Linear (Kaiming, a = sqrt 5), B zero, logits about 0."""
    bound = 1 / math.sqrt(inputs)
    t, r = len(config.tasks), config.rank

    def uniform(limit: float, *shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * limit

    found: dict[str, torch.Tensor] = {}
    if config.common:
        found["common_a"] = uniform(bound, config.common, r, inputs)
        found["common_b"] = torch.zeros(config.common, outputs, r)
        found["logits_common"] = uniform(SPREAD, t, config.common)
    if config.private:
        found["private_a"] = uniform(bound, t, config.private, r, inputs)
        found["private_b"] = torch.zeros(t, config.private, outputs, r)
        found["logits_private"] = uniform(SPREAD, t, config.private)
    return found
