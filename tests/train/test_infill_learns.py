"""A tiny random model learns to fill blanks that only what stands behind them can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from medexpert.model.special_tokens import InfillIds
from medexpert.recipe_train import Infill
from medexpert.train.batches import Batch, Piece, collate
from medexpert.train.infill import Blanks, Infilling, infill_piece
from medexpert.train.objectives import Learner

IDS = InfillIds(mask=91, smask=92, gmask=93, sop=94, eop=95)
PERIOD = 6


def loop(rng: np.random.Generator, size: int) -> Any:
    """A text that repeats: six random tokens over and over."""
    return np.resize(rng.integers(3, 40, PERIOD), size).astype(np.int32)


def train(model: Any, batches: Iterable[Batch], rate: float = 3e-3) -> list[float]:
    """Mean loss of each step (nats a target), the model trained by AdamW."""
    learner = Learner(model, 97).train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=rate)
    losses = []
    for batch in batches:
        loss = learner(batch, 1.0 / batch.loss_tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("task", ["words", "sentences", "suffix"])
def test_the_loss_falls(tiny_model: Callable[..., Any], task: str) -> None:
    infill = Infilling(
        Infill(**{task: 1.0}), IDS, 0,
        lambda text: np.arange(1, 48) % PERIOD == 0, np.arange(3, 40, dtype=np.int32),
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def batches(steps: int) -> Iterable[Batch]:
        for step in range(steps):
            rows: list[list[Piece]] = [
                infill.pieces(
                    "", [*loop(rng, 47), 2], number=step * 8 + n, length=80, annealing=False
                )
                for n in range(8)
            ]
            yield collate(rows, pad=0)

    losses = train(tiny_model(num_hidden_layers=2, hidden_size=64), batches(60))
    assert set(infill.counts) == {task}
    assert losses[0] == pytest.approx(np.log(97), abs=0.3)
    assert np.mean(losses[-10:]) < 0.75 * losses[0]


def test_a_blank_is_filled_from_what_stands_behind_it(tiny_model: Callable[..., Any]) -> None:
    """The blanked token is the first of its text and stands again only at its end."""
    rng = np.random.default_rng(1)

    def piece() -> Piece:
        text = rng.integers(3, 19, 3).astype(np.int32)
        text[2] = text[0]
        blanks = Blanks(np.array([0]), np.array([1]))
        return infill_piece(text, blanks, blank=IDS.mask, ids=IDS, rng=rng)

    model = tiny_model(hidden_size=64)
    losses = train(model, (collate([[piece() for _ in range(6)] for _ in range(8)], 0)
                           for _ in range(120)))  # fmt: skip
    assert losses[0] > 4
    assert np.mean(losses[-10:]) < 0.3


def test_the_mask_reaches_the_model(tiny_model: Callable[..., Any]) -> None:
    """The same batch with and without its prefix gives different losses, and its own each time."""
    from dataclasses import replace

    rng = np.random.default_rng(2)
    blanks = Blanks(np.array([2, 9]), np.array([3, 2]))
    rows = [[infill_piece(loop(rng, 20), blanks, blank=IDS.mask, ids=IDS, rng=rng)
             for _ in range(2)] for _ in range(2)]  # fmt: skip
    model = tiny_model()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    learner = Learner(model, 97).eval()
    batch = collate(rows, 0)
    causal = replace(batch, prefix=torch.zeros_like(batch.prefix))
    both, one = (float(learner(b, 1.0).detach()) for b in (batch, causal))
    assert abs(both - one) > 1e-2
    alone = sum(float(learner(collate([[p]], 0), 1.0).detach()) for row in rows for p in row)
    assert alone == pytest.approx(both, rel=1e-4)
