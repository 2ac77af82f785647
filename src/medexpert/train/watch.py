"""What is measured while a stage trains: forgetting on held-out text, the task on its dev fold.

The measuring itself is passed in (training imports no evaluation). `heldout(model, tokenizer)`
gives {source: {role, bits_per_byte, ...}}, `dev(model, tokenizer)` {accuracy, macro_f1, log_loss}.
Both see the model in its compute dtype: their numbers compare with each other, not with a report's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from medexpert.recipe_train import Meter
from medexpert.records import UserError

Heldout = Callable[[Any, Any], Mapping[str, Mapping[str, Any]]]
Dev = Callable[[Any, Any], Mapping[str, float]]
BETTER = {"accuracy": 1.0, "macro_f1": 1.0, "log_loss": -1.0}
"""Metrics a checkpoint may be selected by, with their direction."""


@dataclass(frozen=True)
class Instruments:
    """How to measure, where a stage wants it; None = not possible in this run."""

    heldout: Heldout | None = None
    dev: Dev | None = None
    tokenizer: Any = None


def check_instruments(name: str, settings: Meter, heldout: Heldout | None, dev: Dev | None) -> None:
    """Raise UserError when the meter of stage `name` asks for what cannot be measured."""
    if settings.at and heldout is None:
        raise UserError(f"{name}.meter.at is set, but no held-out text is there", where=name)
    if settings.select != "last" and dev is None:
        raise UserError(f"{name}.meter.select is set, but the task has no dev fold", where=name)
    check_meter(name, settings)


def check_meter(name: str, settings: Meter) -> None:
    """Raise UserError when the stop rule of stage `name` has nothing to compare with."""
    if settings.stop_general and 0.0 not in settings.at:
        raise UserError(
            f"{name}.meter.stop_general needs the start to compare with: put 0 into meter.at",
            where=name,
        )


class Watch:
    """When to measure, what was found, what follows. `found` lives in the checkpoint."""

    def __init__(
        self,
        name: str,
        settings: Meter,
        instruments: Instruments,
        steps: int,
        found: list[dict[str, Any]],
    ) -> None:
        check_instruments(name, settings, instruments.heldout, instruments.dev)
        self.name, self.settings, self.instruments = name, settings, instruments
        self.found = found
        self.at_heldout = {round(share * steps) for share in settings.at}
        self.at_dev: set[int] = set()
        if settings.select != "last":
            gap = max(1, round(settings.select_every * steps))
            self.at_dev = {*range(gap, steps + 1, gap), steps}

    def due(self, step: int) -> list[str]:
        """Which of "heldout" and "dev" are to be measured after `step` steps and were not yet."""
        done = {(event["kind"], event["step"]) for event in self.found}
        wanted = [("heldout", self.at_heldout), ("dev", self.at_dev)]
        return [kind for kind, at in wanted if step in at and (kind, step) not in done]

    def measure(
        self,
        step: int,
        model: Any,
        whole: Callable[[], AbstractContextManager[Any]],
        shared: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list,
    ) -> list[dict[str, Any]]:
        """Events of what is due now. The model is in eval mode inside, and left in train mode.

        `shared` gives every process the events of one: a last bit that differs must not let them
        decide differently.
        """
        import torch

        kinds = self.due(step)
        if not kinds:
            return []
        events = []
        model.eval()
        # Lengths vary here: a compiled model would be compiled anew for each.
        stance: Any = torch.compiler.set_stance
        with whole() as plain, torch.no_grad(), stance("force_eager"):
            for kind in kinds:
                values = self._heldout(plain) if kind == "heldout" else self._dev(plain)
                events.append({"event": "measure", "kind": kind, "step": step, **values})
        model.train()
        events = shared(events)
        self.found += events
        return events

    def _heldout(self, model: Any) -> dict[str, Any]:
        assert self.instruments.heldout is not None
        found = self.instruments.heldout(model, self.instruments.tokenizer)
        by_role: dict[str, list[float]] = {}
        for values in found.values():
            by_role.setdefault(values["role"], []).append(values["bits_per_byte"])
        return {
            "bits_per_byte": {name: values["bits_per_byte"] for name, values in found.items()},
            **{role: sum(bits) / len(bits) for role, bits in sorted(by_role.items())},
        }

    def _dev(self, model: Any) -> dict[str, Any]:
        assert self.instruments.dev is not None
        return dict(self.instruments.dev(model, self.instruments.tokenizer))

    def is_best(self, event: Mapping[str, Any], best: Sequence[float] | None) -> bool:
        """Whether a dev measurement beats the best so far, [value, step]; the first one does."""
        metric = self.settings.select
        if event["kind"] != "dev" or metric == "last" or not math.isfinite(event[metric]):
            return False
        return not best or BETTER[metric] * (float(event[metric]) - best[0]) > 0

    def stop(self) -> str:
        """Why training should end now by the forgetting rule; empty when it should go on."""
        bits = [e["general"] for e in self.found if e["kind"] == "heldout" and "general" in e]
        limit = self.settings.stop_general
        if not limit or len(bits) < 2 or bits[-1] <= bits[0] * (1 + limit):
            return ""
        return (
            f"general text costs {100 * (bits[-1] / bits[0] - 1):.1f} % more bits/byte than at the "
            f"start (limit {100 * limit:.1f} %)"
        )
