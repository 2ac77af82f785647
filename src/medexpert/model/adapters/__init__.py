"""What a stage may train: all weights, some of them (`freeze`), or one of these adapters.

To add an adapter: a file here, and a line in the table below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from medexpert.model.adapters import lora, quantised
from medexpert.model.adapters.freeze import freeze
from medexpert.recipe_train import Stage

__all__ = ["ADAPTERS", "begin_step", "freeze", "routing_facts", "tasks"]


def _lora(model: Any, settings: Stage, seed: int, tasks: Sequence[str] = ()) -> Any:
    return lora.add_lora(model, settings.lora, seed)


def _dora(model: Any, settings: Stage, seed: int, tasks: Sequence[str] = ()) -> Any:
    return lora.add_lora(model, settings.lora, seed, dora=True)


def _qlora(model: Any, settings: Stage, seed: int, tasks: Sequence[str] = ()) -> Any:
    if not quantised.is_quantised(model):
        raise ValueError("qlora trains on a 4-bit base: open it with load(..., four_bit=True)")
    return lora.add_lora(model, settings.lora, seed)


def _cpoly(model: Any, settings: Stage, seed: int, tasks: Sequence[str] = ()) -> Any:
    from medexpert.model.adapters.cpoly import CPolyConfig, CPolyModel

    return CPolyModel(model, CPolyConfig.of(settings.cpoly, tasks), seed)


ADAPTERS: dict[str, Callable[..., Any]] = {
    "lora": _lora,
    "dora": _dora,
    "qlora": _qlora,
    "cpoly": _cpoly,
}
"""`ADAPTERS[method](model, stage settings, seed, tasks=names)` wraps the model in place; only what
it adds is trainable. `tasks` is for cpoly."""


@contextmanager
def tasks(model: Any, ids: Any) -> Iterator[None]:
    """Compute for these tasks inside: a number or name, one for each row, or a tensor (B,).

    Nothing for models without C-Poly. Raises UserError for a task there is not.
    """
    from medexpert.model.adapters import cpoly

    with cpoly.tasks(model, ids):
        yield


def begin_step(model: Any, seed: int) -> None:
    """Draw what an optimiser step samples: the same `seed` in every process, once a step."""
    from medexpert.model.adapters import cpoly

    cpoly.begin_step(model, seed)


def routing_facts(model: Any) -> dict[str, dict[str, float]]:
    """Entropy and similarity of the tasks' skill weights; empty without C-Poly."""
    from medexpert.model.adapters import cpoly

    return cpoly.routing_facts(model)
