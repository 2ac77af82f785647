"""What happens when a step goes wrong: skip and count, halve the micro-batch, or stop.

| what | behaviour |
|---|---|
| loss or gradient not finite | the step's update is left out and counted |
| gradient norm `spike` times the recent median | the same |
| more than `skips` such steps in a row | stop with one line; the last checkpoint is kept |
| out of memory, one process | `micro_rows` is halved, the step is done again: same global batch |
| SIGINT, SIGTERM | the step is finished, a checkpoint written, exit code 130 |
"""

from __future__ import annotations

import math
import os
import signal
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from medexpert.recipe_train import Stage
from medexpert.records import UserError

RECENT = 64
"""Gradient norms remembered, of steps that were taken."""
ENOUGH = 16
"""Norms needed before a spike is called one."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised after a checkpoint was written. The door exits with code 130."""


class Guard:
    """Decides whether a step's update is taken. `recent` and `skipped` live in the checkpoint.

    Both see numbers of the whole step, the same on every process, so all decide alike.
    """

    def __init__(
        self, name: str, settings: Stage, recent: list[float], skipped: dict[str, int]
    ) -> None:
        self.name, self.settings = name, settings
        self.recent, self.skipped = recent, skipped

    def fault(self, loss: float, norm: float) -> str:
        """Why this step must not be taken; empty when it may."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not finite"
        if self.settings.spike and len(self.recent) >= ENOUGH:
            usual = statistics.median(self.recent)
            if norm > self.settings.spike * usual:
                return "spike"
        return ""

    def take(self, norm: float) -> None:
        self.skipped["in_a_row"] = 0
        self.recent.append(norm)
        del self.recent[:-RECENT]

    def skip(self, why: str, step: int, loss: float, norm: float) -> None:
        """Count a step left out. Raises UserError when it is one too many in a row."""
        self.skipped[why] = self.skipped.get(why, 0) + 1
        self.skipped["in_a_row"] = self.skipped.get("in_a_row", 0) + 1
        if self.skipped["in_a_row"] > self.settings.skips:
            raise UserError(
                f"step {step}: {why} (loss {loss:.4g}, gradient norm {norm:.4g}), the "
                f"{self.skipped['in_a_row']}. step in a row that cannot be used; the last good "
                f"checkpoint is kept: lower {self.name}.learning_rate, or look at the data there",
                where=self.name,
            )

    def counts(self) -> dict[str, int]:
        """Steps left out, by reason."""
        return {why: n for why, n in sorted(self.skipped.items()) if why != "in_a_row"}


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory, on a GPU or on the CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )


def set_up_repeatable() -> None:
    """Ask cuBLAS for products that repeat. torch looks once, at the first one on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Only kernels that give the same bits every time; one that has no such form raises."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory that it did not write; filling it first would cost time.
        memory.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        if "CUBLAS_WORKSPACE_CONFIG" in str(error):  # torch looked before set_up_repeatable
            raise UserError(
                "matrix products do not repeat to the bit in a process that has multiplied before",
                where="deterministic",
                allowed="CUBLAS_WORKSPACE_CONFIG=:4096:8 before it starts; deterministic = false",
            ) from None
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise UserError(
            f"{str(error).split(' does not')[0]} has no form that repeats to the bit here",
            where="deterministic", allowed="deterministic = false",
        ) from None  # fmt: skip
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled


@dataclass
class Stop:
    """Set by the first signal."""

    requested: bool = False


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """First SIGINT or SIGTERM: finish the step, checkpoint, stop. A second one stops at once."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
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
