"""C-Poly models whose skills do something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

TASKS = ("direct", "verify", "choice")


@pytest.fixture
def skilled(tiny: Any) -> Callable[..., Any]:
    """A function that makes a C-Poly model; `noise` is the spread of its B halves and logits."""

    def make(noise: float = 0.1, *, seed: int = 3, model: Any = None, **changes: Any) -> Any:
        import torch

        from medexpert.model.adapters.cpoly import CPolyConfig, CPolyModel

        given: dict[str, Any] = {
            "tasks": TASKS, "rank": 2, "alpha": 4, "common": 3, "private": 1,
            "target_modules": "all-linear",
        }  # fmt: skip
        config = CPolyConfig(**{**given, **changes})
        wrapped = CPolyModel(model or tiny.make_model(), config, seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(11)
            for layer in wrapped.layers().values():
                for name, tensor in layer.tensors().items():
                    if noise and name.startswith("logits"):
                        tensor.add_(torch.randn_like(tensor))
                    elif noise and name.endswith("_b"):
                        tensor.normal_(std=noise)
        return wrapped.eval()

    return make
