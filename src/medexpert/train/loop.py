"""The one loop: accumulate, clip, schedule, log, checkpoint, resume. It knows no stage.

A step's loss is the mean over all target tokens of its rows, so accumulation equals the large
batch. Everything random is seeded from (seed, step, micro-batch): a killed run continues to the
same bits on the same CPU and number of threads.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from medexpert import manifest
from medexpert.model.base import cast_weights
from medexpert.recipe_train import Stage
from medexpert.records import UserError, digest
from medexpert.train import state
from medexpert.train.batches import Batch, Plan
from medexpert.train.objectives import choose_causal
from medexpert.train.optim import Masters, adamw, learning_rate

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SAY_EVERY = 5.0
"""Seconds between two progress lines."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised after a checkpoint was written. The door exits with code 130."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run reports; the model holds fp32 masters again."""

    progress: state.Progress
    steps: int
    first_loss: float
    last_loss: float
    head: str


def train(
    model: Any,
    plan: Plan,
    settings: Stage,
    *,
    name: str,
    folder: Path,
    key: str,
    seed: int,
    pad: int,
    vocabulary: int,
    say: Callable[[str], None],
) -> Outcome:
    """Train `model` in place over `plan`, resuming from `folder/state`; log to `folder/log.jsonl`.

    Raises UserError on a loss that is not finite and on a full disk; Interrupted after SIGINT or
    SIGTERM, with a checkpoint written.
    """
    head, objective = choose_causal(model, vocabulary)
    masters = Masters(model, DTYPES[settings.dtype])
    if not masters.master:
        raise UserError("no parameter is trainable", where=name)
    optimizer = adamw(masters, settings)
    at = state.restore(folder / "state", masters, optimizer, key, say)
    if at.step:
        say(f"{name}: continuing after step {at.step} of {plan.steps}")
    log = _Log(folder / "log.jsonl", at.step)
    meter = _Meter(name, plan.steps, at, say)
    model.train()
    with _stop_requests() as stop:
        while at.step < plan.steps:
            started = time.monotonic()
            rate = learning_rate(at.step, plan.steps, settings)
            batches = plan.batches(at.step, settings.micro_rows, pad)
            loss = _accumulate(model, objective, batches, (seed, name, at.step))
            norm = masters.clip(settings.clip)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise UserError(
                    f"the loss is not finite at step {at.step + 1} (loss {loss}, gradient norm "
                    f"{norm}); the last good checkpoint is kept: lower {name}.learning_rate",
                    where=name,
                )
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            masters.publish()
            at.step += 1
            _count(at, batches, time.monotonic() - started)
            event = meter.step(loss, rate, norm, batches, time.monotonic() - started)
            log.write(event)
            if stop.requested or at.step % (settings.checkpoint_every or 50) == 0:
                state.save(folder / "state", at, masters, optimizer, key)
            if stop.requested:
                raise Interrupted(f"{name} stopped after step {at.step} of {plan.steps}")
    cast_weights(model, torch.float32)
    masters.publish()
    model.eval()
    losses = log.losses()
    return Outcome(at, plan.steps, losses[0], losses[-1], head)


def _accumulate(
    model: nn.Module, objective: Any, batches: list[Batch], seed: tuple[int, str, int]
) -> float:
    """Gradients of the mean loss over all target tokens of `batches`; the mean loss in nats."""
    device = next(model.parameters()).device
    total = sum(batch.loss_tokens for batch in batches)
    summed = 0.0
    for number, batch in enumerate(batches):
        # Dropout depends on seed, stage, step and micro-batch alone, so there is no RNG to save.
        torch.manual_seed(int(digest([*seed, number]), 16) % 2**63)
        loss = objective(model, batch.to(device), 1.0 / total)
        loss.backward()
        summed += float(loss.detach())
    return summed


def _count(at: state.Progress, batches: list[Batch], seconds: float) -> None:
    at.padding += sum(batch.padding for batch in batches)
    at.tokens += sum(batch.inputs.numel() - batch.padding for batch in batches)
    at.loss_tokens += sum(batch.loss_tokens for batch in batches)
    at.seconds += seconds


class _Log:
    """JSONL, one event a line; lines after the step resumed from are taken back."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [e for e in self.events() if e["step"] <= step]
        manifest.write_text(path, "".join(json.dumps(event) + "\n" for event in kept))

    def events(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text("utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # the line that was being written when the run was killed
                break
        return found

    def write(self, event: dict[str, Any]) -> None:
        with manifest.disk_errors(self.path), self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")

    def losses(self) -> list[float]:
        return [event["loss"] for event in self.events()]


class _Meter:
    """Rates, ETA and the live line."""

    def __init__(
        self, name: str, steps: int, at: state.Progress, say: Callable[[str], None]
    ) -> None:
        self.name, self.steps, self.at, self.say = name, steps, at, say
        self.said = -math.inf
        self.first = at.step
        self.started = time.monotonic()

    def step(
        self, loss: float, rate: float, norm: float, batches: list[Batch], seconds: float
    ) -> dict[str, Any]:
        tokens = sum(batch.inputs.numel() - batch.padding for batch in batches)
        now = time.monotonic()
        if now - self.said >= SAY_EVERY or self.at.step == self.steps:
            self.said = now
            left = (now - self.started) / (self.at.step - self.first) * (self.steps - self.at.step)
            self.say(
                f"{self.name} {self.at.step}/{self.steps}  loss {loss:.3f}  lr {rate:.2e}  "
                f"grad {norm:.2f}  {tokens / seconds:.0f} tokens/s  ETA {clock(left)}"
            )
        return {
            "event": "step",
            "step": self.at.step,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": self.at.tokens,
            "loss_tokens": self.at.loss_tokens,
            "tokens_per_second": tokens / seconds,
            "seconds": self.at.seconds,
        }


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


@dataclass
class _Stop:
    requested: bool = False


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """First SIGINT or SIGTERM: finish the step, checkpoint, stop. A second one stops at once."""
    stop = _Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        os.write(2, b"\nstopping after this step, with a checkpoint (again to stop at once)\n")

    try:
        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are the caller's
        yield stop
        return
    try:
        yield stop
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
