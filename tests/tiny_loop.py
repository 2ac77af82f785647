"""The loop over twelve little arithmetic sequences, and a learner with faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medexpert.recipe_train import Stage
from medexpert.train.batches import Piece
from medexpert.train.loop import Job, Outcome, train
from medexpert.train.objectives import Learner
from medexpert.train.parallel import World
from medexpert.train.rows import Plan

SETTINGS = Stage(
    sequence_length=32, rows_per_step=2, learning_rate=5e-3, checkpoint_every=2, epochs=3,
    dtype="float32", compile="off",
)  # fmt: skip
ALONE = World(0, 1, 0, torch.device("cpu"))


def make_plan(settings: Stage = SETTINGS) -> Plan:
    """Twelve little arithmetic sequences; the last step of an epoch is not full."""
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(11):
        length = int(rng.integers(12, 18))
        steps = np.arange(length) * rng.integers(1, 4) + rng.integers(0, 9)
        ids = steps.astype(np.int32) % 90 + 5
        pieces.append(Piece(ids[:-1], ids[1:]))
    return Plan(
        pieces, capacity=32, epochs=settings.epochs, max_tokens=0,
        rows_per_step=settings.rows_per_step, seed=1, shuffle=True,
    )  # fmt: skip


def go(model: Any, folder: Path, settings: Stage = SETTINGS, **changes: Any) -> Outcome:
    lines: list[str] = changes.pop("lines", [])
    wrap = changes.pop("wrap", lambda learner: learner)
    job = {
        "name": "knowledge", "folder": folder, "key": "k", "seed": 1, "pad": 0,
        "settings": settings, "say": lines.append, "world": ALONE,
    }  # fmt: skip
    learner = wrap(Learner(model, 97, settings))
    return train(learner, make_plan(settings), Job(**{**job, **changes}))


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Broken(torch.nn.Module):
    """A learner with a fault at certain calls."""

    def __init__(self, learner: Learner, fault: Callable[[int, Any], float]) -> None:
        super().__init__()
        self.learner, self.fault, self.calls = learner, fault, 0

    @property
    def model(self) -> Any:
        return self.learner.model

    def take_facts(self, summed: Any) -> dict[str, float]:
        return self.learner.take_facts(summed)

    def forward(self, batch: Any, scale: float) -> torch.Tensor:
        self.calls += 1
        factor = self.fault(self.calls, batch)
        loss: torch.Tensor = self.learner(batch, scale)
        return loss * factor
